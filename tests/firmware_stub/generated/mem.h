// SPDX-License-Identifier: BSD-2-Clause
// Stands for LiteX's generated/mem.h.
#ifndef STUB_MEM_H
#define STUB_MEM_H

#include <stdint.h>

extern uint32_t stub_ram_bytes;

#define MAIN_RAM_SIZE stub_ram_bytes

#endif
