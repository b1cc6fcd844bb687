// SPDX-License-Identifier: BSD-2-Clause
// What the tests drive: UART queues, DRAM, time, and a core that calls back (tests/firmware_host.py).
#ifndef STUB_H
#define STUB_H

#include <stdint.h>

#define STUB_SCAN 0xffffffffu

// Run a pass: `topk` candidates are wanted. Returns the core's error code (0: none), or -1 to never finish.
// For a scan the token is STUB_SCAN.
typedef int32_t (*stub_pass)(uint32_t token, uint32_t position, uint32_t topk);

// Set up: `ram` of `ram_bytes` is main_ram; the core has limits[10] and calls `pass`. tx_stall_cycles: time of a sent byte.
void stub_setup(uint8_t *ram, uint32_t ram_bytes, const uint32_t *limits, stub_pass pass, uint32_t tx_stall_cycles);

// Bytes to the firmware, which interrupt it when it sleeps next.
void stub_send(const uint8_t *data, uint32_t n);

// Up to n bytes from the firmware; returns how many.
uint32_t stub_receive(uint8_t *data, uint32_t n);

// Candidate i of the pass that is being called back.
void stub_candidate(uint32_t i, uint32_t id, uint32_t logit);

// Last value written to a register, in the order of generated/csr.h.
uint32_t stub_register_value(uint32_t reg);

// From now on a pass takes `sleeps` calls of arch_sleep, each of `cycles`.
void stub_pace(uint32_t sleeps, uint32_t cycles);

// Non-zero: arch_sleep sleeps until an interrupt comes, as wfi does on some CPUs; zero: it returns at once, as where wfi is a nop.
void stub_sleeps(uint32_t deep);

// The core's top-k comes out short by `missing` candidates from now on.
void stub_short(uint32_t missing);

// Let `cycles` pass.
void stub_advance(uint64_t cycles);

// Serve interrupts, as the CPU would at any time.
void stub_interrupts(void);

#endif
