// SPDX-License-Identifier: BSD-2-Clause
#include <stddef.h>
#include <string.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <generated/soc.h>
#include <irq.h>

#include "arch.h"
#include "llama_generated.h"
#include "stub.h"

#define QUEUE     (1 << 20)
#define FIFO      16
#define EV_TX     1
#define EV_RX     2
#define READ_STEP 10       // Cycles of a look at the clock or of a sleep.
#define DEBUG     256      // Words of the debug window, whose word i reads 0xd0000000 + i.

uint32_t           stub_ram_bytes;
struct stub_limits stub_limits;

static uint8_t  *ram;
static stub_pass pass;
static uint64_t  now, tx_free;
static uint32_t  tx_stall, irq_mask, uart_pending, uart_enable;
static uint8_t   rx[QUEUE], tx[QUEUE];
static uint32_t  rx_head, rx_tail, tx_head, tx_tail, fifo;
static uint32_t  registers[STUB_N_REGISTERS], ids[TOPK_MAX], logits[TOPK_MAX], running, pending;
static uint32_t  sleeps_per_pass, sleep_cycles, slept, deep_sleep, topk_missing;
volatile uint32_t arch_ticks;
static uint32_t  debug[DEBUG];
static uint8_t   signature[4*SIGNATURE_WORDS];
static void    (*isrs[2])(void);

void stub_setup(uint8_t *memory, uint32_t bytes, const uint32_t *limits, stub_pass call, uint32_t stall)
{
	ram            = memory;
	stub_ram_bytes = bytes;
	pass           = call;
	tx_stall       = stall;
	memcpy(&stub_limits, limits, sizeof(stub_limits));
	memset(registers, 0, sizeof(registers));
	registers[STUB_version] = 1;
	now = tx_free = deep_sleep = topk_missing = 0;
	stub_pace(1, READ_STEP*10000);
	rx_head = rx_tail = tx_head = tx_tail = fifo = running = pending = uart_pending = irq_mask = 0;
	for (uint32_t i = 0; i < DEBUG; i++)
		debug[i] = 0xd0000000 + i;
}

// UART -----------------------------------------------------------------------------------------------

void stub_send(const uint8_t *data, uint32_t n)
{
	if (n && rx_head == rx_tail)
		uart_pending |= EV_RX;   // An edge.
	while (n--)
		rx[rx_head++ % QUEUE] = *data++;
}

uint32_t stub_receive(uint8_t *data, uint32_t n)
{
	uint32_t count = 0;

	while (count < n && tx_tail != tx_head)
		data[count++] = tx[tx_tail++ % QUEUE];
	return count;
}

// Let the send FIFO drain as time passes.
static void drain(void)
{
	while (fifo && now >= tx_free) {
		if (fifo == FIFO)
			uart_pending |= EV_TX;
		fifo--;
		tx_free += tx_stall;
	}
}

uint32_t uart_rxtx_read(void)
{
	return rx[rx_tail % QUEUE];
}

void uart_rxtx_write(uint32_t value)
{
	if (fifo == FIFO)
		return;   // Lost, as in hardware.
	if (fifo == 0)
		tx_free = now + tx_stall;
	fifo++;
	tx[tx_head++ % QUEUE] = value;
	if (tx_stall == 0)
		drain();
}

uint32_t uart_txfull_read(void)
{
	now++;
	drain();
	return fifo == FIFO;
}

uint32_t uart_rxempty_read(void)
{
	return rx_tail == rx_head;
}

uint32_t uart_ev_pending_read(void)
{
	return uart_pending;
}

void uart_ev_pending_write(uint32_t value)
{
	uart_pending &= ~value;
	if (value & EV_RX && rx_tail != rx_head)
		rx_tail++;
}

void uart_ev_enable_write(uint32_t value)
{
	uart_enable = value;
}

// Core -----------------------------------------------------------------------------------------------

void stub_candidate(uint32_t i, uint32_t id, uint32_t logit)
{
	ids[i]    = id;
	logits[i] = logit;
}

uint32_t stub_register_value(uint32_t reg)
{
	return registers[reg];
}

uint32_t stub_read(enum stub_register reg)
{
	switch (reg) {
	case STUB_topk_id:
		return ids[registers[STUB_topk_select] % TOPK_MAX];
	case STUB_topk_logit:
		return logits[registers[STUB_topk_select] % TOPK_MAX];
	case STUB_counter_value:
		if (registers[STUB_counter_select] >= N_COUNTERS) {
			uint32_t word;

			memcpy(&word, signature + 4*(registers[STUB_counter_select] - N_COUNTERS), 4);
			return word;
		}
		return 1000*registers[STUB_counter_select] + registers[STUB_position];
	default:
		return registers[reg];
	}
}

void stub_write(enum stub_register reg, uint32_t value)
{
	if (reg == STUB_ev_pending) {
		pending &= ~value;
		return;
	}
	registers[reg] = value;
	if (reg != STUB_control)
		return;
	if (value & 2)
		running = registers[STUB_status] = 0;
	if (value & 5) {
		running                = value & 5;
		registers[STUB_status] = 1;
		slept                  = 0;
	}
}

// What the core does in a scan, by the signature's definition.
static void scan(void)
{
	uint32_t lanes = stub_limits.lanes/2;

	memset(signature, 0, sizeof(signature));
	for (uint32_t i = 0; i < registers[STUB_stream_bytes]; i++) {
		uint8_t *lane = &signature[i % lanes];

		*lane = (*lane << 1 ^ (*lane >> 7)*0x1d) ^ ram[registers[STUB_stream_base] + i];
	}
}

// Let the pass that runs, if any, go on for a sleep.
static void run_core(void)
{
	uint32_t topk = registers[STUB_flags] & 1 ? registers[STUB_topk] : 0;
	int32_t  error;

	if (!running)
		return;
	registers[STUB_layer] = slept*registers[STUB_layers]/sleeps_per_pass;
	if (++slept < sleeps_per_pass)
		return;
	error = pass(running & 4 ? STUB_SCAN : registers[STUB_token], registers[STUB_position], topk);
	if (error < 0)
		return;
	if (running & 4)
		scan();
	running                    = 0;
	registers[STUB_topk_count] = topk - (topk ? topk_missing : 0);
	registers[STUB_status]     = 2 | (uint32_t)error << 8;
	pending                    = 1;
}

// Interrupts and arch.h ------------------------------------------------------------------------------

unsigned int irq_getmask(void)
{
	return irq_mask;
}

void irq_setmask(unsigned int mask)
{
	irq_mask = mask;
}

int irq_attach(unsigned int irq, void (*isr)(void))
{
	isrs[irq] = isr;
	return irq;
}

void stub_interrupts(void)
{
	arch_ticks = now/TICK_CYCLES;
	drain();
	if (irq_mask >> UART_INTERRUPT & 1 && uart_pending & uart_enable)
		isrs[UART_INTERRUPT]();
	if (irq_mask >> LLAMA_INTERRUPT & 1 && pending && registers[STUB_ev_enable])
		isrs[LLAMA_INTERRUPT]();
}

void stub_pace(uint32_t sleeps, uint32_t cycles)
{
	sleeps_per_pass = sleeps;
	sleep_cycles    = cycles;
}

void stub_sleeps(uint32_t deep)
{
	deep_sleep = deep;
}

void stub_short(uint32_t missing)
{
	topk_missing = missing;
}

void stub_advance(uint64_t cycles)
{
	now += cycles;
}

void arch_init(void)
{
}

uint64_t arch_cycles(void)
{
	return now += READ_STEP;
}

void arch_sleep(const volatile uint32_t *flag)
{
	uint32_t tick = arch_ticks;

	do {
		now += sleep_cycles;
		run_core();
	} while (deep_sleep && !*flag && !pending && !(uart_pending & uart_enable) && now/TICK_CYCLES == tick);
	stub_interrupts();
}

uint8_t *arch_ram(uint32_t offset)
{
	return ram + offset;
}

const volatile uint32_t *arch_debug(uint32_t offset)
{
	return debug + offset/4;
}

uint32_t arch_debug_bytes(void)
{
	return sizeof(debug);
}

void arch_flush(void)
{
}
