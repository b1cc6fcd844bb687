// SPDX-License-Identifier: BSD-2-Clause
#include <generated/csr.h>
#include <generated/soc.h>
#include <irq.h>

#include "llama_generated.h"
#include "serial.h"

#define EV_TX 1
#define EV_RX 2
#define MASK  (RING_BYTES - 1)

volatile uint32_t serial_ready;
volatile uint32_t serial_overruns;

static uint8_t rx_ring[RING_BYTES], tx_ring[RING_BYTES];
static volatile uint32_t rx_head, rx_tail, tx_head, tx_tail;   // Written at head, read at tail; they count on, mod 2^32.

// Fill the UART's FIFO from the send ring. With the UART's interrupt masked, or from it. The event of room in the FIFO is enabled only
// while something waits for it: newer LiteX's is a level, which would interrupt for as long as there is room.
static void feed(void)
{
	while (tx_tail != tx_head && !uart_txfull_read()) {
		uart_rxtx_write(tx_ring[tx_tail & MASK]);
		tx_tail++;
	}
	uart_ev_enable_write(tx_tail == tx_head ? EV_RX : EV_RX | EV_TX);
}

// Interrupt of the UART. Acknowledging the receive event takes a byte from the FIFO, unless reading it did (an option of newer LiteX). Up
// to LiteX 2025.04 both events are edges, so each is acknowledged before the FIFO's state is read for the last time.
static void serial_isr(void)
{
	if (uart_ev_pending_read() & EV_TX) {
		uart_ev_pending_write(EV_TX);
		feed();
	}
	while (!uart_rxempty_read()) {
		uint8_t byte = uart_rxtx_read();

#ifndef CONFIG_UART_RX_FIFO_RX_WE
		uart_ev_pending_write(EV_RX);
#endif
		if (rx_head - rx_tail < RING_BYTES)
			rx_ring[rx_head++ & MASK] = byte;
		else
			serial_overruns++;
		serial_ready = 1;
	}
}

void serial_init(void)
{
	rx_head = rx_tail = tx_head = tx_tail = 0;
	serial_ready = serial_overruns = 0;
	uart_ev_enable_write(EV_RX);
	irq_attach(UART_INTERRUPT, serial_isr);
	serial_isr();   // What came before now has had its edge: take it, or there would never be another.
	irq_setmask(irq_getmask() | (1 << UART_INTERRUPT));
}

uint32_t serial_read(uint8_t *data, uint32_t n)
{
	uint32_t count = 0;

	serial_ready = 0;   // Before the ring is looked at: a byte that comes now sets it again.
	while (count < n && rx_tail != rx_head)
		data[count++] = rx_ring[rx_tail++ & MASK];
	if (rx_tail != rx_head)
		serial_ready = 1;
	return count;
}

// Take the interrupt's place for a moment, so that only one of both feeds the FIFO.
static void feed_masked(void)
{
	unsigned int mask = irq_getmask();

	irq_setmask(mask & ~(1u << UART_INTERRUPT));
	feed();
	irq_setmask(mask);
}

void serial_write(const uint8_t *data, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		while (tx_head - tx_tail >= RING_BYTES)
			feed_masked();
		tx_ring[tx_head & MASK] = data[i];
		tx_head++;
	}
	feed_masked();
}

uint32_t serial_idle(void)
{
	return tx_head == tx_tail;
}
