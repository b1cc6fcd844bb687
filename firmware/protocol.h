// SPDX-License-Identifier: BSD-2-Clause
// Frames over the UART: sync, sync, type, sequence number, length and its complement, payload, CRC-32 (README.md).
#ifndef LLAMA_PROTOCOL_H
#define LLAMA_PROTOCOL_H

#include <stdint.h>

// A received frame. The payload (aligned to a word) is valid until the next protocol_receive.
struct frame {
	uint8_t         type;
	uint8_t         sequence;
	uint32_t        length;    // Bytes.
	const uint32_t *payload;
};

// Start with nothing received.
void protocol_init(void);

// Next whole and undamaged frame; returns 1, or 0 if there is none yet. Never waits. A damaged or abandoned frame is
// answered with ERROR_FRAME_CRC or ERROR_FRAME_TIMEOUT and skipped byte by byte up to the next sync. Frames of a type that only
// this end sends are skipped without a word.
uint32_t protocol_receive(struct frame *frame);

// Non-zero while a frame has begun and is not whole: call protocol_receive again soon, for its time-out.
uint32_t protocol_pending(void);

// Send a frame of `length` bytes of payload.
void protocol_send(uint8_t type, uint8_t sequence, const void *payload, uint32_t length);

// Send last_error as the answer to request `sequence`.
void protocol_refuse(uint8_t sequence);

// Damaged or abandoned frames, and bytes skipped between frames, since protocol_init.
extern uint32_t protocol_bad_frames, protocol_dropped_bytes;

#endif
