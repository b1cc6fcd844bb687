// SPDX-License-Identifier: BSD-2-Clause
// The yardstick: the same model, from the same image, decoded by the CPU alone in plain C with int8 weights and activations.
#ifndef LLAMA_BASELINE_H
#define LLAMA_BASELINE_H

#include <stdint.h>

#include "llama_generated.h"

// Forget what was prepared of an image.
void baseline_reset(void);

// Decode `token` at `position` (0 to image_context - 1; what earlier calls left in its cache is attended to) and say in *result
// which token has the largest logit and how many cycles that took. The first call after baseline_reset prepares the model, which
// is timed apart and calls progress(done, total), which ends it with an error number. Returns 0 or an error number: no image, token,
// position, memory, that of progress().
uint32_t baseline_token(uint32_t token, uint32_t position, uint32_t (*progress)(uint32_t done, uint32_t total),
	struct wire_baseline *result);

#endif
