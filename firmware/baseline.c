// SPDX-License-Identifier: BSD-2-Clause
// All inner loops are products of 8-bit activations and 4-bit or 8-bit weights in 32-bit sums, scaled once per block
// of 32. Everything between the matrices is 32-bit fixed point, since this CPU has no floating point; only 1/sqrt of a norm
// uses the library's.
#include <stddef.h>
#include <string.h>

#include "arch.h"
#include "baseline.h"
#include "baseline_model.h"
#include "error.h"
#include "image.h"
#include "sampler.h"

#define LOG2E_Q16   94548
#define NORM_BITS   20
#define SQUARE_BITS 2           // Shifted out of Q16 before squaring: 64 bits hold 4,096 squares of up to 4,096.
#define PRODUCT_BITS 6          // Shifted out of a block's weight scale times activation scale, 30 bits: 24 are left.
#define SUM_SHIFT    11         // A block's sum has 20 bits; the high word of its product with these scales is accumulated.
#define RECIP127    0x81020409u // 2^38/127.
#define VALUE_MAX   (1 << 30)

static struct baseline b;
static uint32_t        loaded;
static uint64_t        setup_cycles;

void baseline_reset(void)
{
	loaded = 0;
}

// x shifted left by n, right where n is negative, saturated to +-VALUE_MAX.
static int32_t shift_sat(int64_t x, int32_t n)
{
	if (n >= 0)
		x = n > 31 || x > VALUE_MAX >> n || x < -(VALUE_MAX >> n) ? (x > 0 ? VALUE_MAX : x < 0 ? -VALUE_MAX : 0) : x << n;
	else
		x = -n > 63 ? 0 : x >> -n;
	return x > VALUE_MAX ? VALUE_MAX : x < -VALUE_MAX ? -VALUE_MAX : x;
}

// Bits needed for v.
static int32_t bits_of(uint32_t v)
{
	int32_t n = 0;

	while (v >> n && n < 31)
		n++;
	return v >> n ? 32 : n;
}

// Quantise `n` Q16 values to int8 with one scale, which is returned: value = q*scale*2^-7 in Q16.
static int32_t quantise(const int32_t *x, uint32_t n, int8_t *q)
{
	uint32_t largest = 0, inverse;
	int32_t  shift;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t a = x[i] < 0 ? -x[i] : x[i];
		largest = a > largest ? a : largest;
	}
	if (largest == 0) {
		memset(q, 0, n);
		return 0;
	}
	shift   = bits_of(largest) > 16 ? bits_of(largest) - 16 : 0;
	inverse = (127u << 23)/((largest >> shift) + 1);
	for (uint32_t i = 0; i < n; i++)
		q[i] = ((x[i] >> shift)*(int32_t)inverse + (1 << 22)) >> 23;
	return ((uint64_t)largest + 1)*RECIP127 >> 31;
}

// Quantise activations of `blocks` blocks: b.q, b.sum, and b.scale with 15 bits. Returns their exponent: value =
// q*scale*2^(exponent - 7) in Q16.
static int32_t quantise_blocks(const int32_t *x, uint32_t blocks)
{
	int32_t largest = 0, shift;

	for (uint32_t j = 0; j < blocks; j++) {
		const int8_t *q   = b.q + j*BLOCK;
		int32_t       sum = 0;

		b.scale[j] = quantise(x + j*BLOCK, BLOCK, b.q + j*BLOCK);
		largest    = b.scale[j] > largest ? b.scale[j] : largest;
		for (uint32_t i = 0; i < BLOCK; i++)
			sum += q[i];
		b.sum[j] = sum;
	}
	shift = bits_of(largest) > 15 ? bits_of(largest) - 15 : 0;
	for (uint32_t j = 0; j < blocks; j++)
		b.scale[j] >>= shift;
	return shift;
}

// The two below are unrolled by 8 and no further, and not inlined: what the compiler spills goes through to the bus (measured: 13
// cycles a product when unrolled by 32, 6 so).

// Sum of products of `n` (a multiple of 8) int8.
static __attribute__((noinline)) int32_t dot8(const int8_t *restrict a, const int8_t *restrict c, uint32_t n)
{
	int32_t sum = 0;

#pragma GCC unroll 1
	for (const int8_t *end = a + n; a < end; a += 8, c += 8)
#pragma GCC unroll 8
		for (uint32_t i = 0; i < 8; i++)
			sum += a[i]*c[i];
	return sum;
}

// Sum of products of a block's 32 nibbles and int8.
static __attribute__((noinline)) int32_t dot4(const uint8_t *restrict nibbles, const int8_t *restrict c)
{
	int32_t sum = 0;

#pragma GCC unroll 1
	for (const uint8_t *end = nibbles + BLOCK/2; nibbles < end; nibbles += 4, c += 8)
#pragma GCC unroll 4
		for (uint32_t i = 0; i < 4; i++)
			sum += (nibbles[i] & 15)*c[2*i] + (nibbles[i] >> 4)*c[2*i + 1];
	return sum;
}

// High word of a product.
static inline int32_t high(int32_t a, int32_t c)
{
	return (int64_t)a*c >> 32;
}

// Rows of a matrix of `type`, a constant, times the activations in b.q with their `exponent`: Q16.
static inline __attribute__((always_inline)) void rows(const struct matrix *w, uint32_t type, int32_t exponent, int32_t *out)
{
	const uint8_t *q = w->groups + w->quants;
	const int16_t *d = w->d, *m = w->m;
	uint32_t       in_group = 0;

	for (uint32_t r = 0; r < w->rows; r++) {
		int32_t acc = 0, acc_m = 0;

		for (uint32_t j = 0; j < w->blocks; j++) {
			int32_t sum = type == TYPE_Q8_0 ? dot8((const int8_t *)q, b.q + j*BLOCK, BLOCK) : dot4(q, b.q + j*BLOCK);

			if (type == TYPE_Q4_0)
				sum -= 8*b.sum[j];
			acc += high(sum << SUM_SHIFT, *d++*b.scale[j] >> PRODUCT_BITS);
			if (type == TYPE_Q4_1)
				acc_m += high(b.sum[j] << SUM_SHIFT, *m++*b.scale[j] >> PRODUCT_BITS);
			q += type == TYPE_Q8_0 ? BLOCK : BLOCK/2;
			if (++in_group == GROUP_BLOCKS) {
				in_group = 0;
				q       += type == TYPE_Q4_1 ? 64 : 32;
			}
		}
		out[r] = shift_sat(acc, exponent + w->d_exponent);
		if (type == TYPE_Q4_1)
			out[r] += shift_sat(acc_m, exponent + w->m_exponent);
	}
}

// Rows of `w` times the Q16 vector `x`: Q16.
static void matvec(const struct matrix *w, const int32_t *x, int32_t *out)
{
	int32_t exponent = quantise_blocks(x, w->blocks) - 7 + PRODUCT_BITS + 32 - SUM_SHIFT;

	if (w->type == TYPE_Q8_0)
		rows(w, TYPE_Q8_0, exponent, out);
	else if (w->type == TYPE_Q4_0)
		rows(w, TYPE_Q4_0, exponent, out);
	else
		rows(w, TYPE_Q4_1, exponent, out);
}

// 1/sqrt(v), v > 0: Newton's method from an estimate on the bits.
static float rsqrt(float v)
{
	union { float f; uint32_t u; } y = {v};

	y.u = 0x5f3759df - (y.u >> 1);
	for (uint32_t i = 0; i < 3; i++)
		y.f = y.f*(1.5f - 0.5f*v*y.f*y.f);
	return y.f;
}

// RMSNorm of the residual b.x into b.hidden or another vector as long.
static void rmsnorm(const int32_t *weight, int32_t *out)
{
	union { float f; uint32_t u; } r, inv_dim = {.u = model->inv_dim}, eps = {.u = model->eps_core};
	uint32_t n = model->dim_blocks*BLOCK;
	uint64_t squares = 0;
	int32_t  factor, shift;
	float    mean;

	for (uint32_t i = 0; i < n; i++) {
		int32_t v = b.x[i] >> SQUARE_BITS;
		squares += (int64_t)v*v;
	}
	mean   = ((float)(uint32_t)(squares >> 32)*4294967296.0f + (float)(uint32_t)squares)*inv_dim.f;
	r.f    = rsqrt(mean*(1.0f/(1 << 2*(16 - SQUARE_BITS))) + eps.f);
	shift  = 23 + 127 - (int32_t)(r.u >> 23 & 255);   // r = factor*2^-shift, factor of 24 bits.
	factor = (r.u & 0x7fffff) | 0x800000;
	for (uint32_t i = 0; i < n; i++)
		out[i] = (int64_t)shift_sat((int64_t)b.x[i]*factor, -shift)*weight[i] >> NORM_BITS;
}

// Rotate the pairs of one head in place.
static void rope(int32_t *x)
{
	for (uint32_t i = 0; i < model->head_blocks*BLOCK; i += 2) {
		int64_t c = b.rope[i], s = b.rope[i + 1];
		int32_t even = (x[i]*c - x[i + 1]*s) >> 30, odd = (x[i]*s + x[i + 1]*c) >> 30;

		x[i]     = even;
		x[i + 1] = odd;
	}
}

// Index in a cache of position 0 of a layer's KV head.
static uint32_t cache_base(uint32_t layer, uint32_t kv_head)
{
	return (layer*model->n_kv_heads + kv_head)*image_context;
}

// Quantise the heads in b.y into `cache` at `position`, with_rope: rotated before.
static void store(struct cache *cache, uint32_t layer, uint32_t position, uint32_t with_rope)
{
	uint32_t n = model->head_blocks*BLOCK;

	for (uint32_t g = 0; g < model->n_kv_heads; g++) {
		uint32_t at = cache_base(layer, g) + position;

		if (with_rope)
			rope(b.y + g*n);
		cache->scale[at] = quantise(b.y + g*n, n, cache->q + (uint64_t)at*n);
	}
}

// Probabilities of positions 0..position for the query in b.y at `q`, times the values' scales: b.scores, so small that
// 32 bits hold their sum over int8 values. Returns their exponent; *total is the sum of probabilities in units of 1/65,536.
static int32_t attend(const int32_t *q, uint32_t base, uint32_t position, uint32_t *total)
{
	uint32_t n       = model->head_blocks*BLOCK;
	int32_t  scale_q = ((int64_t)quantise(q, n, b.q)*fixed_of_float(model->score_scale, 30)) >> 30;
	int32_t  cut     = bits_of(scale_q) > 15 ? bits_of(scale_q) - 15 : 0, top = -VALUE_MAX, shift;
	uint32_t limit   = (1u << 24)/(position + 1);
	uint64_t largest = 0;

	for (uint32_t t = 0; t <= position; t++) {
		int64_t product = (int64_t)dot8(b.keys.q + (uint64_t)(base + t)*n, b.q, n)*b.keys.scale[base + t] >> 8;

		b.scores[t] = shift_sat(product*(scale_q >> cut), cut - 22);
		top         = b.scores[t] > top ? b.scores[t] : top;
	}
	*total = 0;
	for (uint32_t t = 0; t <= position; t++) {
		uint32_t p = exp2_neg(top - b.scores[t]);
		uint64_t v = (uint64_t)p*b.values.scale[base + t];

		*total     += p;
		b.scores[t] = p;
		largest     = v > largest ? v : largest;
	}
	for (shift = 0; largest >> shift > limit; shift++)
		;
	for (uint32_t t = 0; t <= position; t++)
		b.scores[t] = (uint64_t)b.scores[t]*b.values.scale[base + t] >> shift;
	return shift;
}

// Attention of all heads over positions 0..position: queries in b.y, result in b.hidden.
static void attention(uint32_t layer, uint32_t position)
{
	uint32_t n = model->head_blocks*BLOCK, group = model->n_heads/model->n_kv_heads;

	for (uint32_t h = 0; h < model->n_heads; h++) {
		uint32_t base = cache_base(layer, h/group), total;
		int32_t  shift;
		int64_t  inverse;

		rope(b.y + h*n);
		shift   = attend(b.y + h*n, base, position, &total);
		inverse = (1ull << 47)/total;
		for (uint32_t i = 0; i < n; i += 4) {
			const int8_t *v = b.values.q + (uint64_t)base*n + i;
			int32_t       s0 = 0, s1 = 0, s2 = 0, s3 = 0;

			for (uint32_t t = 0; t <= position; t++, v += n) {
				int32_t p = b.scores[t];

				s0 += p*v[0];
				s1 += p*v[1];
				s2 += p*v[2];
				s3 += p*v[3];
			}
			b.hidden[h*n + i]     = shift_sat(s0*inverse, shift - 54);
			b.hidden[h*n + i + 1] = shift_sat(s1*inverse, shift - 54);
			b.hidden[h*n + i + 2] = shift_sat(s2*inverse, shift - 54);
			b.hidden[h*n + i + 3] = shift_sat(s3*inverse, shift - 54);
		}
	}
}

// SwiGLU of the pairs in b.y into b.hidden: a*sigmoid(a)*c.
static void swiglu(void)
{
	for (uint32_t i = 0; i < model->hidden_blocks*BLOCK; i++) {
		int32_t  a = b.y[2*i], c = b.y[2*i + 1];
		uint64_t u = (uint64_t)(uint32_t)(a < 0 ? -a : a)*LOG2E_Q16 >> 16;
		uint32_t e = u < 32 << 16 ? exp2_neg(u) : 0, s = (1u << 31)/(65536 + e);   // 15 fraction bits.

		if (a < 0)
			s = (1 << 15) - s;
		b.hidden[i] = shift_sat(((int64_t)a*s >> 15)*c, -16);
	}
}

// Add b.y to the residual.
static void add(void)
{
	for (uint32_t i = 0; i < model->dim_blocks*BLOCK; i++)
		b.x[i] += b.y[i];
}

// Row `token` of the embedding into the residual.
static void embed(uint32_t token)
{
	const struct matrix *e = b.embedding;

	for (uint32_t j = 0; j < e->blocks; j++) {
		uint32_t       at = token*e->blocks + j;
		const uint8_t *q  = e->groups + (uint64_t)(at/GROUP_BLOCKS)*e->group_bytes + e->quants + at % GROUP_BLOCKS*e->block_bytes;
		int32_t        m  = e->m ? shift_sat(e->m[at], 16 + e->m_exponent) : 0;

		for (uint32_t i = 0; i < BLOCK; i++) {
			int32_t v = e->type == TYPE_Q8_0 ? (int8_t)q[i] : (q[i/2] >> 4*(i % 2) & 15) - (e->type == TYPE_Q4_0 ? 8 : 0);
			b.x[j*BLOCK + i] = shift_sat(v*e->d[at], 16 + e->d_exponent) + m;
		}
	}
}

// One token through the model: logits in b.y, Q16.
static void decode(uint32_t token, uint32_t position)
{
	const uint32_t *table = (const uint32_t *)image_at(model->rope_offset) + (uint64_t)position*model->head_blocks*BLOCK;

	for (uint32_t i = 0; i < model->head_blocks*BLOCK; i++)
		b.rope[i] = fixed_of_float(table[i], 30);
	embed(token);
	for (uint32_t l = 0; l < model->n_layers; l++) {
		const struct layer *w = &b.layers[l];

		rmsnorm(w->norm1, b.hidden);
		matvec(&w->wk, b.hidden, b.y);
		store(&b.keys, l, position, 1);
		matvec(&w->wv, b.hidden, b.y);
		store(&b.values, l, position, 0);
		matvec(&w->wq, b.hidden, b.y);
		attention(l, position);
		matvec(&w->wo, b.hidden, b.y);
		add();
		rmsnorm(w->norm2, b.hidden);
		matvec(&w->w13, b.hidden, b.y);
		swiglu();
		matvec(&w->w2, b.hidden, b.y);
		add();
	}
	rmsnorm(b.norm_final, b.hidden);
	matvec(&b.classifier, b.hidden, b.y);
}

uint32_t baseline_token(uint32_t token, uint32_t position, uint32_t (*progress)(uint32_t done, uint32_t total),
	struct wire_baseline *result)
{
	uint64_t start = arch_cycles(), cycles;
	uint32_t error, best = 0;

	if (!model)
		return fail(image_error.number, image_error.value, image_error.limit);
	if (token >= model->vocab)
		return fail(ERROR_TOKEN, token, model->vocab);
	if (position >= image_context)
		return fail(ERROR_CONTEXT, position + 1, image_context);
	if (!loaded) {
		if ((error = baseline_load(&b, progress)))
			return error;
		loaded       = 1;
		setup_cycles = arch_cycles() - start;
		start        = arch_cycles();
	}
	decode(token, position);
	for (uint32_t i = 1; i < model->vocab; i++)
		if (b.y[i] > b.y[best])
			best = i;
	cycles = arch_cycles() - start;
	*result = (struct wire_baseline){best, b.y[best], cycles, cycles >> 32, setup_cycles, setup_cycles >> 32, b.bytes};
	return 0;
}
