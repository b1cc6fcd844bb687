// SPDX-License-Identifier: BSD-2-Clause
#include <generated/mem.h>
#include <generated/soc.h>

#include "arch.h"
#include "baseline.h"
#include "error.h"
#include "llama.h"
#include "measure.h"
#include "serial.h"
#include "server.h"
#include "session.h"

uint32_t measure_stats(void)
{
	uint64_t          now = arch_cycles();
	struct wire_stats s   = {session_position(), llama_passes, protocol_bad_frames, protocol_dropped_bytes, serial_overruns,
		now, now >> 32, {0}};

	for (uint32_t i = 0; i < N_COUNTERS; i++)
		s.counters[i] = llama_counter(i);
	server_answer(&s, sizeof(s));
	return 0;
}

// Words: region, byte offset, number of words.
uint32_t measure_peek(const struct frame *f)
{
	uint32_t words[PEEK_WORDS], region, offset, n, bytes;

	if (f->length != 12)
		return fail(ERROR_LENGTH, f->length, 12);
	region = f->payload[0];
	offset = f->payload[1];
	n      = f->payload[2];
	if (region > REGION_DEBUG || (region == REGION_DEBUG && !arch_debug_bytes()))
		return fail(ERROR_REGION, region, REGION_DEBUG);
	if (n < 1 || n > PEEK_WORDS)
		return fail(ERROR_PEEK, n, PEEK_WORDS);
	if (region == REGION_MAIN_RAM)
		arch_flush();   // Keys and values change behind the CPU's caches.
	bytes = region == REGION_DEBUG ? arch_debug_bytes() : MAIN_RAM_SIZE;
	if (offset % 4 || offset >= bytes || 4*n > bytes - offset)
		return fail(ERROR_ADDRESS, offset, bytes);
	for (uint32_t i = 0; i < n; i++)
		words[i] = region == REGION_DEBUG ? *arch_debug(offset + 4*i) : ((const uint32_t *)arch_ram(offset))[i];
	server_answer(words, 4*n);
	return 0;
}

// While the core works for a request: the host is answered.
static void look(uint32_t layer)
{
	(void)layer;
	server_aborted();
}

// Words: token, position, layers, candidates.
uint32_t measure_probe(const struct frame *f)
{
	struct wire_probe p;
	const uint32_t   *w = f->payload;
	uint32_t          error;

	if (f->length != 16)
		return fail(ERROR_LENGTH, f->length, 16);
	if ((error = session_probe(w[0], w[1], w[2], w[3], look, &p)))
		return error;
	server_answer(&p, sizeof(p));
	return 0;
}

// Words: place that the offset counts from, byte offset, bytes.
uint32_t measure_scan(const struct frame *f)
{
	struct {
		struct wire_scan s;
		uint32_t         signature[SIGNATURE_WORDS];
	} a;
	const uint32_t *w = f->payload;
	uint32_t        base, offset, bytes, error;

	if (f->length != 12)
		return fail(ERROR_LENGTH, f->length, 12);
	if (w[0] > SCAN_IMAGE)
		return fail(ERROR_SCAN_FROM, w[0], SCAN_IMAGE);
	base   = w[0] == SCAN_IMAGE ? LLAMA_IMAGE_OFFSET : 0;
	offset = base + w[1];
	bytes  = w[2];
	if (w[1] >= MAIN_RAM_SIZE - base)
		return fail(ERROR_SCAN_OFFSET, offset, MAIN_RAM_SIZE);
	if (bytes < UNIT_BYTES || bytes > MAIN_RAM_SIZE - offset)
		return fail(ERROR_SCAN_BYTES, bytes, MAIN_RAM_SIZE - offset);
	if (offset % UNIT_BYTES || bytes % UNIT_BYTES)
		return fail(ERROR_SCAN_ALIGN, offset % UNIT_BYTES ? offset : offset + bytes, UNIT_BYTES);
	if ((error = llama_scan(offset, bytes, look, &a.s, a.signature)))
		return error;
	server_answer(&a, sizeof(a.s) + 4*(LLAMA_LANES/8));
	return 0;
}

// Words: token, position.
uint32_t measure_baseline(const struct frame *f)
{
	struct wire_baseline b;
	uint32_t             error;

	if (f->length != 8)
		return fail(ERROR_LENGTH, f->length, 8);
	if ((error = baseline_token(f->payload[0], f->payload[1], server_progress, &b)))
		return error;
	server_answer(&b, sizeof(b));
	return 0;
}
