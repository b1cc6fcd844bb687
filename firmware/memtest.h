// SPDX-License-Identifier: BSD-2-Clause
// The CPU's half of the memory test: patterns into DRAM behind the image, and back.
#ifndef LLAMA_MEMTEST_H
#define LLAMA_MEMTEST_H

#include <stdint.h>

#include "protocol.h"

// FILL: answered with 0, or the number of the error that it is refused with. Writing forgets the session.
uint32_t memtest_fill(const struct frame *f);

#endif
