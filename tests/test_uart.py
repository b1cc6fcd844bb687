# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's serial line on the UARTs that LiteX has had: events that are edges (up to 2025.04) or levels (since 2025.08), and the
option that reading takes the byte (uart_rx_fifo_rx_we). serial.c is compiled for the host against a model of the UART's registers."""

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FIRMWARE = Path(__file__).resolve().parent.parent/"firmware"

HEADERS = {
    "irq.h": """
        #include <stdint.h>
        void irq_attach(unsigned int irq, void (*isr)(void));
        void irq_setmask(unsigned int mask);
        unsigned int irq_getmask(void);""",
    "generated/soc.h": "#define UART_INTERRUPT 3",
    "generated/csr.h": """
        #include <stdint.h>
        uint32_t uart_rxtx_read(void);
        void     uart_rxtx_write(uint32_t value);
        uint32_t uart_txfull_read(void);
        uint32_t uart_rxempty_read(void);
        uint32_t uart_ev_pending_read(void);
        void     uart_ev_pending_write(uint32_t value);
        void     uart_ev_enable_write(uint32_t value);""",
}

# litex/soc/cores/uart.py and csr_eventmanager.py: FIFOs of 16 bytes; bit 0 is the event "the send FIFO has room", bit 1 "a byte is there".
UART = """
#include <stdint.h>
#include <generated/csr.h>
#include <generated/soc.h>
#include <irq.h>

static uint8_t  rx[16], sent[1 << 16];
static uint32_t rx_n, tx_n, sent_n, pending, enable, mask, trigger, level;
static void   (*isr)(void);

static void look(void)   // At the triggers, as each clock does.
{
	uint32_t now = (tx_n < 16) | (rx_n > 0) << 1;

	pending = level ? now : pending | (now & ~trigger);
	trigger = now;
}

static void pop(void)
{
	for (uint32_t i = 1; i < rx_n; i++)
		rx[i - 1] = rx[i];
	rx_n -= rx_n > 0;
	look();
}

uint32_t uart_rxtx_read(void)
{
	uint32_t byte = rx[0];
#ifdef CONFIG_UART_RX_FIFO_RX_WE
	pop();
#endif
	return byte;
}

void uart_rxtx_write(uint32_t value)
{
	if (tx_n < 16) {
		sent[sent_n + tx_n] = value;
		tx_n++;
	}
	look();
}

void tx_step(void)       // A byte leaves the send FIFO.
{
	sent_n += tx_n > 0;
	tx_n   -= tx_n > 0;
	look();
}

uint32_t rx_byte(uint8_t byte)   // A byte arrives; 0: it was lost.
{
	if (rx_n == 16)
		return 0;
	rx[rx_n++] = byte;
	look();
	return 1;
}

void uart_ev_pending_write(uint32_t value)
{
	if (!level)
		pending &= ~value;
#ifndef CONFIG_UART_RX_FIFO_RX_WE
	if (value & 2)
		pop();
#endif
	look();
}

uint32_t uart_txfull_read(void)           { static uint32_t n; if (n++ % 8 == 7) tx_step(); return tx_n == 16; }
uint32_t uart_rxempty_read(void)          { return rx_n == 0; }
uint32_t uart_ev_pending_read(void)       { return pending; }
void uart_ev_enable_write(uint32_t value) { enable = value; }
void irq_attach(unsigned int n, void (*f)(void)) { isr = f; }
void irq_setmask(unsigned int value)      { mask = value; }
unsigned int irq_getmask(void)            { return mask; }

uint32_t interrupts(void)   // Take those that there are; how many it took, at most 100.
{
	uint32_t n = 0;

	while (n < 100 && mask & 1 << UART_INTERRUPT && pending & enable) {
		isr();
		n++;
	}
	return n;
}

uint32_t sent_bytes(void)            { return sent_n; }
const uint8_t *sent_data(void)       { return sent; }
void setup(uint32_t levels)          { level = levels; look(); }
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Function: a fresh serial line; levels: the events are; reading_takes: CONFIG_UART_RX_FIFO_RX_WE."""
    folder = tmp_path_factory.mktemp("uart")
    (folder/"generated").mkdir()
    for name, text in HEADERS.items():
        (folder/name).write_text(text)
    (folder/"uart.c").write_text(UART)
    subprocess.run([sys.executable, "-m", "litellama.firmware.generate", folder/"llama_generated.h"], check=True)
    count = iter(range(100))

    def build(levels, reading_takes):
        path = folder/f"uart{next(count)}.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", f"-I{folder}", f"-I{FIRMWARE}",
            *(["-DCONFIG_UART_RX_FIFO_RX_WE"] if reading_takes else []), folder/"uart.c", FIRMWARE/"serial.c", "-o", path], check=True)
        lib = ctypes.CDLL(path)
        lib.sent_data.restype = ctypes.POINTER(ctypes.c_uint8)
        lib.setup(levels)
        return lib
    return build


@pytest.mark.parametrize("levels, reading_takes", ((0, 0), (1, 0), (1, 1)), ids=("edges", "levels", "levels, reading takes"))
def test_bytes_pass_both_ways_and_no_interrupt_stays(levels, reading_takes, libraries):
    """Messages of any length leave, all that comes is read, a byte before the start too, and an interrupt that was taken does not
    come again at once: with nothing to do the CPU is left alone."""
    lib = libraries(levels, reading_takes)
    rng = np.random.default_rng(5)
    lib.rx_byte(200)
    lib.serial_init()
    sent, came, got = b"", [200], []
    buffer = ctypes.create_string_buffer(64)
    for _ in range(400):
        message = rng.integers(0, 256, int(rng.choice([0, 1, 3, 16, 17, 60]))).astype(np.uint8).tobytes()
        lib.serial_write(message, len(message))
        sent += message
        for _ in range(int(rng.integers(0, 40))):
            lib.tx_step()
            if rng.random() < 0.5:
                came.append(int(rng.integers(0, 256)))
                assert lib.rx_byte(came[-1])
            assert lib.interrupts() <= 2
        n = lib.serial_read(buffer, 64)
        got += buffer.raw[:n]
    for _ in range(2000):
        lib.tx_step()
        assert lib.interrupts() <= 2
    assert lib.serial_idle() and lib.sent_bytes() == len(sent) and bytes(lib.sent_data()[:len(sent)]) == sent
    assert got + list(buffer.raw[:lib.serial_read(buffer, 64)]) == came
    assert ctypes.c_uint32.in_dll(lib, "serial_overruns").value == 0
