# SPDX-License-Identifier: BSD-2-Clause
"""firmware/arch.c, compiled by the host's gcc for a model of LiteX's timer0: the cycle counter at every point of a round, and the sleep.

The timer counts at every access of a register. Its interrupt comes at some later access, as a CPU takes it between two instructions.
"""

import ctypes
import subprocess
import sys

import pytest

from firmware_host import FIRMWARE
from litellama.firmware.constants import TICK_CYCLES

SYSTEM = """#pragma once
#include <stdint.h>
void timer0_en_write(uint32_t v), timer0_load_write(uint32_t v), timer0_reload_write(uint32_t v), timer0_update_value_write(uint32_t v);
void timer0_ev_pending_write(uint32_t v), timer0_ev_enable_write(uint32_t v);
uint32_t timer0_value_read(void), timer0_ev_pending_read(void);
void irq_setie(unsigned v), irq_setmask(unsigned v), flush_l2_cache(void), wait_for_interrupt(void);
unsigned irq_getmask(void);
int irq_attach(unsigned n, void (*isr)(void));
#define TIMER0_INTERRUPT 1
#define MAIN_RAM_BASE    ((uintptr_t)0x40000000)
"""

MODEL = """
#include "system.h"
static uint64_t cycles;
static uint32_t value, load, reload, en, latched, pending, was_zero, enable, mask, ie, late, waits;
static void (*isr)(void);
uint64_t slept;

static void step(uint32_t n)
{
	while (n--) {
		cycles++;
		value = !en ? load : value ? value - 1 : reload;
		if (value == 0 && !was_zero)
			pending = 1;
		was_zero = value == 0;
	}
	if (!(pending && enable && ie && mask >> TIMER0_INTERRUPT & 1))
		waits = 0;
	else if (++waits > late) {
		waits = 0;
		ie    = 0;
		isr();
		ie    = 1;
	}
}

void model(uint32_t accesses) { late = accesses; cycles = value = load = reload = en = pending = was_zero = enable = mask = ie = waits = 0; }
void advance(uint32_t n) { uint32_t l = late; step(n); late = 0; for (int i = 0; i < 9 && pending && ie; i++) step(0); late = l; }
void turn(uint32_t n) { step(n); }
uint64_t real(void) { return cycles; }
uint32_t period(void) { return reload + 1; }
void timer0_en_write(uint32_t v) { step(1); en = v; if (!v) value = load; }
void timer0_load_write(uint32_t v) { step(1); load = value = v; }
void timer0_reload_write(uint32_t v) { step(1); reload = v; }
void timer0_update_value_write(uint32_t v) { (void)v; step(1); latched = value; step(2); }
uint32_t timer0_value_read(void) { step(3); return latched; }
uint32_t timer0_ev_pending_read(void) { uint32_t p; step(2); p = pending; step(1); return p; }
void timer0_ev_pending_write(uint32_t v) { if (v & 1) pending = 0; step(1); }
void timer0_ev_enable_write(uint32_t v) { step(1); enable = v; }
void irq_setie(unsigned v) { ie = v; step(0); }
void irq_setmask(unsigned v) { mask = v; }
unsigned irq_getmask(void) { return mask; }
int irq_attach(unsigned n, void (*f)(void)) { (void)n; isr = f; return 0; }
void flush_l2_cache(void) { }
void wait_for_interrupt(void) { for (uint32_t n = 3*period(); n-- && !pending; slept++) step(1); }   // At last.
"""


@pytest.fixture(scope="module")
def arch(tmp_path_factory):
    """arch.c on the model, with wfi as a function of it."""
    folder = tmp_path_factory.mktemp("arch")
    (folder/"generated").mkdir()
    for name in ("irq.h", "generated/csr.h", "generated/mem.h", "generated/soc.h"):
        (folder/name).write_text("")
    (folder/"system.h").write_text(SYSTEM)
    (folder/"model.c").write_text(MODEL)
    source = (FIRMWARE/"arch.c").read_text()
    assert source.count('asm volatile ("wfi");') == 1
    (folder/"arch.c").write_text(source.replace('asm volatile ("wfi");', "wait_for_interrupt();"))
    subprocess.run([sys.executable, "-m", "litellama.firmware.generate", folder/"llama_generated.h"], check=True)
    subprocess.run(["gcc", "-std=gnu99", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{folder}", f"-I{FIRMWARE}", "-include",
        "system.h", folder/"arch.c", folder/"model.c", "-o", folder/"arch.so"], check=True)
    lib = ctypes.CDLL(folder/"arch.so")
    lib.arch_cycles.restype = lib.real.restype = ctypes.c_uint64
    return lib


@pytest.mark.parametrize("late", range(5))
@pytest.mark.parametrize("around", [0, 1, 3])
def test_cycles_are_right_at_every_point_of_a_round(arch, late, around):
    """Wherever in the reading a round ends, and however late its interrupt is taken: no jump, and never backwards."""
    for phase in range(-16, 17):
        arch.model(late)
        arch.arch_init()
        before = arch.arch_cycles()
        offset = arch.real() - before
        for _ in range(around):
            arch.advance(TICK_CYCLES)
        arch.advance((TICK_CYCLES + phase - arch.real()) % TICK_CYCLES)
        for _ in range(6):
            low  = arch.real()
            now  = arch.arch_cycles()
            high = arch.real()
            assert low - offset - 16 <= now <= high - offset + 16 and now >= before, (phase, now, low - offset)
            before = now
        assert ctypes.c_uint32.in_dll(arch, "arch_ticks").value >= around


def test_cycles_are_right_while_interrupts_are_masked(arch):
    """For less than a round, as in a request's interrupt-free moments."""
    arch.model(0)
    arch.arch_init()
    offset = arch.real() - arch.arch_cycles()
    arch.irq_setie(0)
    for step in (TICK_CYCLES - 40, *[5]*20, 1000):
        arch.turn(step)
        low = arch.real()
        assert low - offset - 16 <= arch.arch_cycles() <= arch.real() - offset + 16


def test_a_sleep_ends_with_the_tick_at_the_latest(arch):
    flag = ctypes.c_uint32(0)
    arch.model(0)
    arch.arch_init()
    ticks = ctypes.c_uint32.in_dll(arch, "arch_ticks")
    slept = ctypes.c_uint64.in_dll(arch, "slept")
    assert arch.period() == TICK_CYCLES
    for i in range(3):
        arch.arch_sleep(ctypes.byref(flag))
        assert ticks.value == i + 1
    assert 2*TICK_CYCLES < slept.value <= 3*TICK_CYCLES
    flag.value, before = 1, slept.value
    arch.arch_sleep(ctypes.byref(flag))   # What it waits for was there already.
    assert slept.value == before
