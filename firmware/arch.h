// SPDX-License-Identifier: BSD-2-Clause
// What differs between the SoC's CPU and the host that runs the tests: time, sleep, DRAM. arch.c is the SoC's; the tests have
// their own (tests/firmware_stub).
#ifndef LLAMA_ARCH_H
#define LLAMA_ARCH_H

#include <stdint.h>

// Start the cycle counter and enable interrupts. Called once.
void arch_init(void);

// System clock cycles since arch_init.
uint64_t arch_cycles(void);

// Counts on every TICK_CYCLES, by an interrupt: it ends the sleep of whoever has to look at the time now and then.
extern volatile uint32_t arch_ticks;

// Sleep until an interrupt was served, unless *flag is already non-zero. May return early: call it in a loop.
void arch_sleep(const volatile uint32_t *flag);

// Address of the byte `offset` of main_ram.
uint8_t *arch_ram(uint32_t offset);

// Address of the byte `offset` of the core's debug window; NULL where the SoC has none.
const volatile uint32_t *arch_debug(uint32_t offset);

// Bytes of the debug window, 0 where the SoC has none.
uint32_t arch_debug_bytes(void);

// Make what the CPU has written visible to the core's DRAM ports.
void arch_flush(void);

#endif
