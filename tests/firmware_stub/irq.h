// SPDX-License-Identifier: BSD-2-Clause
// Stands for LiteX's irq.h.
#ifndef STUB_IRQ_H
#define STUB_IRQ_H

unsigned int irq_getmask(void);
void         irq_setmask(unsigned int mask);
int          irq_attach(unsigned int irq, void (*isr)(void));

#endif
