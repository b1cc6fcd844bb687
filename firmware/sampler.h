// SPDX-License-Identifier: BSD-2-Clause
// The integer sampler, bit-exact twin of host/sampler.py: temperature, top-k, top-p, seed.
#ifndef LLAMA_SAMPLER_H
#define LLAMA_SAMPLER_H

#include <stdint.h>

struct sampler {
	uint32_t inv_temperature;   // log2(e)/temperature in Q16, or GREEDY: take the first candidate.
	uint32_t top_k;             // Candidates, 1 to TOPK_MAX (0: TOPK_MAX).
	uint32_t top_p_q16;         // Smallest set of candidates with this share of probability, 0 to 65,536.
	uint64_t state;             // Of xorshift64*, never 0.
};

// Seed the random number generator: one step of splitmix64.
void sampler_seed(struct sampler *s, uint64_t seed);

// Candidates to ask of the core for a vocabulary of `vocab`.
uint32_t sampler_candidates(const struct sampler *s, uint32_t vocab);

// Index of the chosen one of `n` candidates (1 to TOPK_MAX) whose logits (fp32 bits, largest first) logit(i) gives. One random
// number is drawn, none when greedy; logit() is called in order and not for candidates whose weight is certainly 0.
uint32_t sampler_choose(struct sampler *s, uint32_t n, uint32_t (*logit)(uint32_t i));

// fp32 bits in Q16, truncated toward zero, saturated to +-(2^31 - 1).
int32_t sampler_fixed(uint32_t bits);

// 2^-(u/65536) in units of 1/65,536: accel.numerics.exp2_neg.
uint32_t exp2_neg(uint32_t u);

#endif
