// SPDX-License-Identifier: BSD-2-Clause
// The SoC's CPU (arch.h): timer0 as a free-running cycle counter, wfi, caches.
#include <stddef.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>
#include <irq.h>
#include <system.h>

#include "arch.h"

static volatile uint32_t wraps;

// Interrupt of timer0: it has counted 2^32 cycles.
static void timer_isr(void)
{
	timer0_ev_pending_write(1);
	wraps++;
}

void arch_init(void)
{
	wraps = 0;
	irq_setmask(0);
	irq_setie(1);
	timer0_en_write(0);
	timer0_load_write(0xffffffff);
	timer0_reload_write(0xffffffff);
	timer0_en_write(1);
	timer0_ev_pending_write(1);
	timer0_ev_enable_write(1);
	irq_attach(TIMER0_INTERRUPT, timer_isr);
	irq_setmask(irq_getmask() | (1 << TIMER0_INTERRUPT));
}

uint64_t arch_cycles(void)
{
	uint32_t high, low;

	do {	// Again if the counter wrapped in between.
		high = wraps;
		timer0_update_value_write(1);
		low = ~timer0_value_read();
	} while (high != wraps);
	return (uint64_t)high << 32 | low;
}

// With interrupts masked, so that none is lost between the test and wfi, which wakes on pending ones all the same. A VexRiscv
// built without wfi executes it as a nop: then the caller's loop spins in its instruction cache.
void arch_sleep(const volatile uint32_t *flag)
{
	irq_setie(0);
	if (!*flag)
		asm volatile ("wfi");
	irq_setie(1);
}

uint8_t *arch_ram(uint32_t offset)
{
	return (uint8_t *)(MAIN_RAM_BASE + offset);
}

const volatile uint32_t *arch_debug(uint32_t offset)
{
#ifdef LLAMA_DEBUG_BASE
	return (const volatile uint32_t *)(LLAMA_DEBUG_BASE + offset);
#else
	return NULL;
#endif
}

uint32_t arch_debug_bytes(void)
{
#ifdef LLAMA_DEBUG_BASE
	return LLAMA_DEBUG_SIZE;
#else
	return 0;
#endif
}

void arch_flush(void)
{
	flush_l2_cache();
}
