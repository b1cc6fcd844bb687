// SPDX-License-Identifier: BSD-2-Clause
// The UART with interrupt-driven rings of RING_BYTES each: libbase's hold 128 bytes, less than a frame.
#ifndef LLAMA_SERIAL_H
#define LLAMA_SERIAL_H

#include <stdint.h>

// Empty both rings and enable the UART's interrupt.
void serial_init(void);

// Move up to `n` received bytes to `data`; returns how many. Never waits.
uint32_t serial_read(uint8_t *data, uint32_t n);

// Send `n` bytes. Waits while the ring is full, which ends because the UART has no flow control.
void serial_write(const uint8_t *data, uint32_t n);

// Non-zero if nothing is left to send in the ring.
uint32_t serial_idle(void);

// Non-zero if bytes were received and not read: for arch_sleep.
extern volatile uint32_t serial_ready;

// Bytes lost because the receive ring was full, since serial_init.
extern volatile uint32_t serial_overruns;

#endif
