// SPDX-License-Identifier: BSD-2-Clause
// CRC-32 of IEEE 802.3 (as zlib's), incremental.
#ifndef LLAMA_CRC32_H
#define LLAMA_CRC32_H

#include <stddef.h>
#include <stdint.h>

// Make the table. Called once.
void crc32_init(void);

// CRC of what `crc` covers (0: nothing yet) followed by `n` bytes at `data`. About 10 cycles a byte.
uint32_t crc32(uint32_t crc, const void *data, size_t n);

#endif
