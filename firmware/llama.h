// SPDX-License-Identifier: BSD-2-Clause
// Driver of the decoder core: one pass is one token through all layers, with or without classifier and top-k.
#ifndef LLAMA_DRIVER_H
#define LLAMA_DRIVER_H

#include <stdint.h>

// Reset the core and enable its interrupt. Called once.
void llama_init(void);

// Give the core the valid image's dimensions and addresses. Call after each successful image_check.
void llama_setup(void);

// Start a pass: `token` at `position`; with `topk` > 0 the classifier runs and keeps that many candidates.
void llama_start(uint32_t token, uint32_t position, uint32_t topk);

// Sleep until the pass is done, calling waiting(layer) every TICK_CYCLES; layer: the one that it is at. Returns 0
// or ERROR_CORE_*, after which the core is reset and the position not valid.
uint32_t llama_wait(void (*waiting)(uint32_t layer));

// One pass of the first `layers` layers alone, with `topk` as above (then all of them): 0 or ERROR_CORE_*. Sets cycles, from start
// to the interrupt's end, and counters. What the pass left in the core can be read in the debug window. waiting: see llama_wait.
uint32_t llama_probe(uint32_t token, uint32_t position, uint32_t layers, uint32_t topk, void (*waiting)(uint32_t layer),
	struct wire_probe *probe);

// Read `bytes` from byte `offset` of main_ram (multiples of UNIT_BYTES, not 0) as fast as the core's ports can, without decoding: 0
// or ERROR_SCAN_TIMEOUT. Sets cycles and counters as llama_probe does; `signature` gets its LLAMA_LANES/8 words.
uint32_t llama_scan(uint32_t offset, uint32_t bytes, void (*waiting)(uint32_t layer), struct wire_scan *scan, uint32_t *signature);

// Candidate `i` of the last pass with topk, best first.
uint32_t llama_topk_id(uint32_t i);

// Its logit, fp32 bits.
uint32_t llama_topk_logit(uint32_t i);

// Counter `i` (0 to N_COUNTERS - 1) of the last pass: accel/README.md.
uint32_t llama_counter(uint32_t i);

// Version of the core.
uint32_t llama_version(void);

// Passes since llama_init; cycles that the core took for those, and for scans, that ended well.
extern uint32_t llama_passes;
extern uint64_t llama_pass_cycles;

#endif
