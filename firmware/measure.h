// SPDX-License-Identifier: BSD-2-Clause
// The requests that look and measure, and change no session but as README.md says: each takes its frame, and answers it (0) or
// returns the number of the error that it is refused with.
#ifndef LLAMA_MEASURE_H
#define LLAMA_MEASURE_H

#include <stdint.h>

#include "protocol.h"

// Counts of what happened so far.
uint32_t measure_stats(void);

// Words of main_ram or of the debug window.
uint32_t measure_peek(const struct frame *f);

// One pass at any position.
uint32_t measure_probe(const struct frame *f);

// Sequential reads of main_ram by the core.
uint32_t measure_scan(const struct frame *f);

// One token by plain C.
uint32_t measure_baseline(const struct frame *f);

#endif
