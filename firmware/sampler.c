// SPDX-License-Identifier: BSD-2-Clause
// Per candidate a CSR write and read, two multiplies and a table look-up: about 100 cycles on VexRiscv. Sources: xorshift64*,
// Vigna, arXiv 1402.6246; splitmix64, Steele, Lea and Flood, OOPSLA 2014.
#define LLAMA_WANT_EXP2
#include "llama_generated.h"
#include "sampler.h"

#define SEED_STEP 0x9e3779b97f4a7c15ull

void sampler_seed(struct sampler *s, uint64_t seed)
{
	uint64_t z = seed + SEED_STEP;

	z = (z ^ z >> 30)*0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27)*0x94d049bb133111ebull;
	z ^= z >> 31;
	s->state = z ? z : SEED_STEP;
}

// The next 32 random bits.
static uint32_t next_random(struct sampler *s)
{
	uint64_t x = s->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	s->state = x;
	return x*0x2545f4914f6cdd1dull >> 32;
}

uint32_t sampler_candidates(const struct sampler *s, uint32_t vocab)
{
	uint32_t n = s->top_k ? s->top_k : TOPK_MAX;

	if (s->inv_temperature == GREEDY)
		return 1;
	return n < vocab ? n : vocab;
}

int32_t sampler_fixed(uint32_t bits)
{
	int32_t  shift    = (int32_t)(bits >> 23 & 255) - (127 + 23 - 16);   // value*65536 = mantissa * 2^shift.
	uint32_t mantissa = (bits & 0x7fffff) | 0x800000;                    // A subnormal shifts out anyway.

	if (shift >= 8)
		mantissa = 0x7fffffff;
	else if (shift >= 0)
		mantissa <<= shift;
	else
		mantissa = shift < -23 ? 0 : mantissa >> -shift;
	return bits >> 31 ? -(int32_t)mantissa : (int32_t)mantissa;
}

uint32_t exp2_neg(uint32_t u)
{
	uint32_t n = u >> 16, i = u >> 8 & 255;

	if (n > 17)
		return 0;   // Below half a unit.
	return (exp2_table[i] - ((exp2_table[i] - exp2_table[i + 1])*(u & 255) >> 8) + (128u << n)) >> (n + 8);
}

uint32_t sampler_choose(struct sampler *s, uint32_t n, uint32_t (*logit)(uint32_t i))
{
	uint32_t weight[TOPK_MAX], sum = 0, kept = 0, count, threshold;
	uint64_t limit;
	int32_t  first;

	if (s->inv_temperature == GREEDY)
		return 0;
	first = sampler_fixed(logit(0));
	for (count = 0; count < n; count++) {
		uint32_t d = (uint32_t)first - (uint32_t)sampler_fixed(logit(count));
		uint64_t u = (uint64_t)d*s->inv_temperature >> 16;
		uint32_t w = u < 18 << 16 ? exp2_neg(u) : 0;

		if (w == 0)
			break;   // So are all that follow.
		weight[count] = w;
		sum          += w;
	}
	limit = (uint64_t)s->top_p_q16*sum;
	for (n = 0; n < count; n++) {
		kept += weight[n];
		if ((uint64_t)kept << 16 >= limit) {
			n++;
			break;
		}
	}
	threshold = (uint64_t)next_random(s)*kept >> 32;
	for (uint32_t i = 0; i < n; i++) {
		if (weight[i] > threshold)
			return i;
		threshold -= weight[i];
	}
	return 0;   // Never: the threshold is below the sum.
}
