// SPDX-License-Identifier: BSD-2-Clause
// Per candidate a CSR write and read, two multiplies and a table look-up: about 100 cycles on VexRiscv; the penalty takes 200 more.
// Sources: xorshift64*, Vigna, arXiv 1402.6246; splitmix64, Steele, Lea and Flood, OOPSLA 2014; repetition penalty, Keskar et al.,
// arXiv 1909.05858.
#define LLAMA_WANT_EXP2
#include "llama_generated.h"
#include "sampler.h"

#define SEED_STEP   0x9e3779b97f4a7c15ull
#define NO_PENALTY  65536
#define FILTER_BITS 1024   // A power of 2.

void sampler_start(struct sampler *s, uint64_t seed)
{
	uint64_t z = seed + SEED_STEP;

	z = (z ^ z >> 30)*0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27)*0x94d049bb133111ebull;
	z ^= z >> 31;
	s->state = z ? z : SEED_STEP;
	// Divided once here, not once per candidate: a 64-bit division is a loop.
	s->inverse_q32 = s->penalty_q16 > NO_PENALTY && s->last_n ? (1ull << 48)/s->penalty_q16 : 0;
	s->n_recent    = 0;
}

void sampler_accept(struct sampler *s, uint32_t token)
{
	if (s->inverse_q32)
		s->recent[s->n_recent++ % s->last_n] = token;
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

	if (s->inv_temperature == GREEDY && !s->inverse_q32)
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

// A logit in Q16 with the penalty: divided by it if positive, else multiplied; rounded toward zero and saturated.
static int32_t penalised(const struct sampler *s, int32_t value)
{
	uint64_t m;

	if (value > 0)
		return (uint64_t)value*s->inverse_q32 >> 32;
	m = (uint64_t)-(int64_t)value*s->penalty_q16 >> 16;
	return m < INT32_MAX ? -(int32_t)m : -INT32_MAX;
}

// Candidates after the penalty, best first, of equals the lower id first: their logits in Q16 and places among the core's.
static void penalise(const struct sampler *s, uint32_t n, uint32_t (*id)(uint32_t i), uint32_t (*logit)(uint32_t i), int32_t *value,
	uint32_t *place)
{
	uint32_t filter[FILTER_BITS/32] = {0}, ids[TOPK_MAX];   // Most candidates are not recent: the filter says so at once.
	uint32_t n_recent = s->n_recent < s->last_n ? s->n_recent : s->last_n;

	for (uint32_t i = 0; i < n_recent; i++)
		filter[s->recent[i] % FILTER_BITS/32] |= 1u << s->recent[i] % 32;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t token = id(i), at = i;
		int32_t  v     = sampler_fixed(logit(i));

		if (filter[token % FILTER_BITS/32] >> token % 32 & 1)
			for (uint32_t k = 0; k < n_recent; k++)
				if (s->recent[k] == token) {
					v = penalised(s, v);
					break;
				}
		for (; at && (v > value[at - 1] || (v == value[at - 1] && token < ids[at - 1])); at--) {
			value[at] = value[at - 1];
			ids[at]   = ids[at - 1];
			place[at] = place[at - 1];
		}
		value[at] = v;
		ids[at]   = token;
		place[at] = i;
	}
}

uint32_t sampler_choose(struct sampler *s, uint32_t n, uint32_t (*id)(uint32_t i), uint32_t (*logit)(uint32_t i))
{
	uint32_t weight[TOPK_MAX], place[TOPK_MAX], sum = 0, kept = 0, count, threshold;
	int32_t  value[TOPK_MAX], first;
	uint32_t penalises = s->inverse_q32, min_p = s->min_p_q16;
	uint64_t limit;

	if (penalises)
		penalise(s, n, id, logit, value, place);
	if (s->inv_temperature == GREEDY)
		return penalises ? place[0] : 0;
	first = penalises ? value[0] : sampler_fixed(logit(0));
	for (count = 0; count < n; count++) {
		int32_t  v = penalises ? value[count] : sampler_fixed(logit(count));
		uint32_t d = (uint32_t)first - (uint32_t)v;
		uint64_t u = (uint64_t)d*s->inv_temperature >> 16;
		uint32_t w = u < 18 << 16 ? exp2_neg(u) : 0;

		if (w == 0)
			break;   // So are all that follow.
		weight[count] = w;
		sum          += w;
	}
	limit = (uint64_t)s->top_p_q16*sum;
	for (n = 0; n < count; n++) {
		if (weight[n] < min_p)   // The first one's weight is 65,536.
			break;
		kept += weight[n];
		if ((uint64_t)kept << 16 >= limit) {
			n++;
			break;
		}
	}
	threshold = (uint64_t)next_random(s)*kept >> 32;
	for (uint32_t i = 0; i < n; i++) {
		if (weight[i] > threshold)
			return penalises ? place[i] : i;
		threshold -= weight[i];
	}
	return 0;   // Never: the threshold is below the sum.
}
