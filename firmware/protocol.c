// SPDX-License-Identifier: BSD-2-Clause
#include <string.h>

#include <generated/soc.h>

#include "arch.h"
#include "crc32.h"
#include "error.h"
#include "protocol.h"
#include "serial.h"

struct wire_error last_error;
uint32_t          protocol_bad_frames, protocol_dropped_bytes;

static uint32_t buffer[(HEADER_BYTES + PAYLOAD_MAX + CRC_BYTES)/4];   // The frame being received, its header first.
static uint32_t have;                                                 // Bytes in it.
static uint32_t done;                                                 // Bytes of the frame delivered last, still in it.
static uint64_t last_byte;                                            // Cycle at which it last grew.

static uint32_t half(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

// Non-zero if the `n` bytes at `p` can be the beginning of a frame.
static uint32_t plausible(const uint8_t *p, uint32_t n)
{
	return (n < 1 || p[0] == SYNC0) && (n < 2 || p[1] == SYNC1) &&
		(n < HEADER_BYTES || (half(p + 4) <= PAYLOAD_MAX && (half(p + 4) ^ half(p + 6)) == 0xffff));
}

// Remove the first `n` bytes of the buffer.
static void drop(uint32_t n)
{
	have -= n;
	memmove(buffer, (uint8_t *)buffer + n, have);
}

// Skip at least `n` bytes and then up to the next possible beginning of a frame.
static void resynchronise(uint32_t n)
{
	while (n < have && !plausible((uint8_t *)buffer + n, have - n))
		n++;
	protocol_dropped_bytes += n;
	drop(n);
}

void protocol_init(void)
{
	have = done = 0;
	protocol_bad_frames = protocol_dropped_bytes = 0;
	last_byte = arch_cycles();
}

// Bytes that the frame in the buffer has in all, as far as its header is there.
static uint32_t wanted(void)
{
	if (have < HEADER_BYTES)
		return HEADER_BYTES;
	return HEADER_BYTES + half((uint8_t *)buffer + 4) + CRC_BYTES;
}

// Non-zero for the types that only this end sends. A line that echoes gives them back: an answer to them would come back, too,
// and so on for ever.
static uint32_t is_ours(uint32_t type)
{
	return type & ANSWER || type == FRAME_TOKEN || type == FRAME_PROGRESS;
}

// Note a frame that cannot be used, refuse it and look for the next beginning.
static void reject(uint32_t number, uint32_t value, uint32_t limit)
{
	protocol_bad_frames++;
	if (have >= HEADER_BYTES && !is_ours(((uint8_t *)buffer)[2])) {   // Less has no sequence number to answer.
		fail(number, value, limit);
		protocol_refuse(((uint8_t *)buffer)[3]);
	}
	resynchronise(1);
}

// Read as much as belongs to the frame in the buffer; returns 1 when it is whole.
static uint32_t fill(void)
{
	uint8_t *bytes = (uint8_t *)buffer;

	for (;;) {
		uint32_t n = have < wanted() ? serial_read(bytes + have, wanted() - have) : 0;

		if (n) {
			have     += n;
			last_byte = arch_cycles();
		}
		if (!plausible(bytes, have)) {
			resynchronise(1);
			continue;
		}
		if (have >= HEADER_BYTES && have >= wanted())
			return 1;
		if (n == 0)
			break;
	}
	if (have && arch_cycles() - last_byte > CONFIG_CLOCK_FREQUENCY/FRAME_TIMEOUTS)
		reject(ERROR_FRAME_TIMEOUT, have, wanted());
	return 0;
}

uint32_t protocol_pending(void)
{
	return have > done;
}

uint32_t protocol_receive(struct frame *frame)
{
	const uint8_t *bytes = (const uint8_t *)buffer;

	drop(done);
	done = 0;
	while (fill()) {
		uint32_t total = wanted(), expected;
		uint32_t crc   = crc32(0, bytes + 2, total - CRC_BYTES - 2);

		memcpy(&expected, bytes + total - CRC_BYTES, CRC_BYTES);
		if (crc == expected && is_ours(bytes[2])) {
			protocol_dropped_bytes += total;
			drop(total);
			continue;
		}
		if (crc == expected) {
			frame->type     = bytes[2];
			frame->sequence = bytes[3];
			frame->length   = half(bytes + 4);
			frame->payload  = buffer + HEADER_BYTES/4;
			done            = total;
			return 1;
		}
		reject(ERROR_FRAME_CRC, crc, expected);
	}
	return 0;
}

void protocol_send(uint8_t type, uint8_t sequence, const void *payload, uint32_t length)
{
	uint8_t  head[HEADER_BYTES] = {SYNC0, SYNC1, type, sequence, length, length >> 8, ~length, ~length >> 8};
	uint32_t crc = crc32(crc32(0, head + 2, HEADER_BYTES - 2), payload, length);
	uint8_t  tail[CRC_BYTES] = {crc, crc >> 8, crc >> 16, crc >> 24};

	serial_write(head, HEADER_BYTES);
	serial_write(payload, length);
	serial_write(tail, CRC_BYTES);
}

void protocol_refuse(uint8_t sequence)
{
	protocol_send(FRAME_ERROR, sequence, &last_error, sizeof(last_error));
}
