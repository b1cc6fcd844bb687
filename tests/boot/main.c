// SPDX-License-Identifier: BSD-2-Clause
// Boots, tests DRAM through both caches, reports the start of the image, then sends each character back as upper case.

#include <stdint.h>
#include <stdio.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <irq.h>
#include <libbase/uart.h>
#include <system.h>

#define IMAGE   ((volatile uint8_t *)(MAIN_RAM_BASE + 0x400000))
#define SCRATCH (MAIN_RAM_BASE + 0x200000)
#define BYTES   65536  // More than the caches hold, so that words come back from the DRAM.

// Words, halves and bytes (write masks), over more rows and banks than one. Returns the number of wrong words.
static unsigned memory_errors(void)
{
	volatile uint32_t *words = (volatile uint32_t *)SCRATCH;
	unsigned errors = 0;
	uint32_t x = 1;
	for (unsigned i = 0; i < BYTES/4; i++)
		words[i] = x = x*1664525 + 1013904223;
	flush_cpu_dcache();
	flush_l2_cache();
	for (unsigned i = 0; i < BYTES/4; i += 4) {
		((volatile uint8_t *)&words[i])[1]  = 0xa5;
		((volatile uint16_t *)&words[i])[3] = 0x1234;
	}
	flush_cpu_dcache();
	flush_l2_cache();
	x = 1;
	for (unsigned i = 0; i < BYTES/4; i++) {
		x = x*1664525 + 1013904223;
		uint32_t expected = i % 4 == 0 ? (x & 0xffff00ff) | 0xa500 : i % 4 == 1 ? (x & 0xffff) | 0x12340000 : x;
		errors += words[i] != expected;
	}
	return errors;
}

int main(void)
{
	uint32_t sum = 0;
	irq_setmask(0);
	irq_setie(1);
	uart_init();
	for (unsigned i = 0; i < 4096; i++)
		sum = sum*31 + IMAGE[i];
	printf("errors %u image %lu\n", memory_errors(), (unsigned long)sum);
	for (;;) {
		char c = uart_read();
		uart_write(c >= 'a' && c <= 'z' ? c - 32 : c);
	}
}
