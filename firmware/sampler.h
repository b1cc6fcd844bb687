// SPDX-License-Identifier: BSD-2-Clause
// The integer sampler, bit-exact twin of host/sampler.py: repetition penalty, temperature, top-k, top-p, min-p, seed.
#ifndef LLAMA_SAMPLER_H
#define LLAMA_SAMPLER_H

#include <stdint.h>

#include "llama_generated.h"

struct sampler {
	uint32_t inv_temperature;   // log2(e)/temperature in Q16, or GREEDY: take the first candidate.
	uint32_t top_k;             // Candidates, 1 to TOPK_MAX (0: TOPK_MAX).
	uint32_t top_p_q16;         // Smallest set of candidates with this share of probability, 0 to 65,536.
	uint32_t min_p_q16;         // Least probability of a candidate as a share of the first one's, 0 to 65,536.
	uint32_t penalty_q16;       // Repetition penalty, 65,536 (none) to REPEAT_PENALTY_MAX.
	uint32_t last_n;            // Tokens it looks back at, 0 (none) to REPEAT_LAST_MAX.
	uint32_t inverse_q32;       // What follows is set by sampler_start: 2^48/penalty_q16, 0 where nothing is penalised.
	uint32_t n_recent;          // Tokens accepted so far,
	uint32_t recent[REPEAT_LAST_MAX];   // the last last_n of which are here, the i-th at i % last_n.
	uint64_t state;             // Of xorshift64*, never 0.
};

// Begin a request, its options being set: seed the random number generator by one step of splitmix64, forget all tokens.
void sampler_start(struct sampler *s, uint64_t seed);

// Note that `token` is now the last of the context, for the repetition penalty.
void sampler_accept(struct sampler *s, uint32_t token);

// Candidates to ask of the core for a vocabulary of `vocab`.
uint32_t sampler_candidates(const struct sampler *s, uint32_t vocab);

// Index of the chosen one of `n` candidates (1 to TOPK_MAX) whose tokens and logits (fp32 bits, largest first) id(i) and logit(i)
// give. One random number is drawn, none when greedy. Without penalty id() is not called, and logit() only where it matters.
uint32_t sampler_choose(struct sampler *s, uint32_t n, uint32_t (*id)(uint32_t i), uint32_t (*logit)(uint32_t i));

// fp32 bits in Q16, truncated toward zero, saturated to +-(2^31 - 1).
int32_t sampler_fixed(uint32_t bits);

// 2^-(u/65536) in units of 1/65,536: accel.numerics.exp2_neg.
uint32_t exp2_neg(uint32_t u);

#endif
