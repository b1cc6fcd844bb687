// SPDX-License-Identifier: BSD-2-Clause
// The SoC's CPU (arch.h): timer0 as a cycle counter that interrupts at each of its rounds, wfi, caches.
#include <stddef.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>
#include <irq.h>
#include <system.h>

#include "arch.h"
#include "llama_generated.h"

volatile uint32_t arch_ticks;   // Rounds of timer0, TICK_CYCLES each.

static void timer_isr(void)
{
	timer0_ev_pending_write(1);
	arch_ticks++;
}

void arch_init(void)
{
	arch_ticks = 0;
	irq_setmask(0);
	irq_setie(1);
	timer0_en_write(0);
	timer0_load_write(TICK_CYCLES - 1);
	timer0_reload_write(TICK_CYCLES - 1);
	timer0_en_write(1);
	timer0_ev_pending_write(1);
	timer0_ev_enable_write(1);
	irq_attach(TIMER0_INTERRUPT, timer_isr);
	irq_setmask(irq_getmask() | (1 << TIMER0_INTERRUPT));
}

uint64_t arch_cycles(void)
{
	uint32_t ticks, low, pending;

	do {	// Again if the interrupt came in between.
		ticks = arch_ticks;
		timer0_update_value_write(1);
		low     = TICK_CYCLES - 1 - timer0_value_read();
		pending = timer0_ev_pending_read();
	} while (ticks != arch_ticks);
	// A round that has begun and that no interrupt has counted yet. (It is pending from the last cycle of the one before.)
	return (uint64_t)(ticks + (pending && low < TICK_CYCLES/2))*TICK_CYCLES + low;
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
