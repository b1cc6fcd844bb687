// SPDX-License-Identifier: BSD-2-Clause
// Weights stay where they are; fp16 scales become 15-bit integers with an exponent per matrix, fp32 vectors fixed point.
#include <stddef.h>
#include <string.h>

#include <generated/mem.h>
#include <generated/soc.h>

#include "arch.h"
#include "baseline_model.h"
#include "error.h"
#include "image.h"

#define ALIGN      32u
#define SCALE_BITS 4     // An fp16 mantissa has 11 bits: shifted so, the largest of a matrix has 15.
#define NORM_BITS  20

// DRAM behind the image, taken from front to back. While measuring, nothing is written.
struct arena {
	uint64_t offset;     // Of main_ram.
	uint32_t measuring;
};

// Take `bytes` bytes; NULL while measuring.
static void *take(struct arena *a, uint64_t bytes)
{
	void *p = a->measuring ? NULL : arch_ram(a->offset);

	a->offset += (bytes + ALIGN - 1)/ALIGN*ALIGN;
	return p;
}

int32_t fixed_of_float(uint32_t bits, int32_t fraction)
{
	int32_t shift    = (int32_t)(bits >> 23 & 255) - 150 + fraction;
	int32_t mantissa = (bits & 0x7fffff) | 0x800000;

	if (shift >= 8)
		mantissa = 0x7fffffff;
	else
		mantissa = shift >= 0 ? mantissa << shift : shift < -23 ? 0 : mantissa >> -shift;
	return bits >> 31 ? -mantissa : mantissa;
}

// Exponent of fp16 `h`: value = mantissa*2^exponent with an integer mantissa of 11 bits.
static int32_t half_exponent(uint32_t h)
{
	uint32_t e = h >> 10 & 31;

	return (int32_t)(e ? e : 1) - 25;
}

static int32_t half_mantissa(uint32_t h)
{
	int32_t m = (h & 1023) | (h >> 10 & 31 ? 1024 : 0);

	return h >> 15 ? -m : m;
}

// Convert the fp16 scales of a plane (0: d, 1: m) to 15 bits and their common exponent, which is returned.
static int32_t convert_scales(const struct matrix *m, uint32_t plane, int16_t *out)
{
	uint32_t blocks  = m->rows*m->blocks;
	int32_t  largest = -24;

	for (uint32_t pass = 0; pass < 2; pass++) {
		const uint8_t *group = m->groups + 32*plane;

		for (uint32_t i = 0; i < blocks; i++) {
			uint32_t h = ((const uint16_t *)group)[i % GROUP_BLOCKS];
			if (pass)
				out[i] = (half_mantissa(h)*(1 << SCALE_BITS)) >> (largest - half_exponent(h));
			else if (half_exponent(h) > largest)
				largest = half_exponent(h);
			if (i % GROUP_BLOCKS == GROUP_BLOCKS - 1)
				group += m->group_bytes;
		}
	}
	return largest - SCALE_BITS;
}

// Take the matrix whose header is at *at of the image, and step behind it.
static void load_matrix(struct arena *a, struct matrix *m, uint32_t *at)
{
	const struct matrix_header *h = (const struct matrix_header *)image_at(*at);

	m->type        = h->type;
	m->rows        = h->rows;
	m->blocks      = h->blocks;
	m->groups      = (const uint8_t *)(h + 1);
	m->quants      = h->type == TYPE_Q4_1 ? 64 : 32;
	m->block_bytes = h->type == TYPE_Q8_0 ? BLOCK : BLOCK/2;
	m->group_bytes = m->quants + GROUP_BLOCKS*m->block_bytes;
	m->d           = take(a, (uint64_t)h->rows*h->blocks*2);
	m->m           = h->type == TYPE_Q4_1 ? take(a, (uint64_t)h->rows*h->blocks*2) : NULL;
	if (!a->measuring) {
		m->d_exponent = convert_scales(m, 0, m->d);
		m->m_exponent = m->m ? convert_scales(m, 1, m->m) : 0;
	}
	*at += UNIT_BYTES + matrix_bytes(h);
}

static int32_t *load_norm(struct arena *a, uint32_t *at)
{
	const struct matrix_header *h   = (const struct matrix_header *)image_at(*at);
	const uint32_t             *in  = (const uint32_t *)(h + 1);
	int32_t                    *out = take(a, (uint64_t)h->blocks*BLOCK*4);

	if (!a->measuring)
		for (uint32_t i = 0; i < h->blocks*BLOCK; i++)
			out[i] = fixed_of_float(in[i], NORM_BITS);
	*at += UNIT_BYTES + matrix_bytes(h);
	return out;
}

// Zeroed work space of `n` elements of `size` bytes.
static void *clear(struct arena *a, uint64_t n, uint32_t size)
{
	void *p = take(a, n*size);

	if (!a->measuring)
		memset(p, 0, n*size);
	return p;
}

// Returns 0, or what progress() does to end it.
static uint32_t load_all(struct arena *a, struct baseline *b, uint32_t (*progress)(uint32_t done, uint32_t total))
{
	uint32_t at      = model->stream_offset, own = model->embed_offset;
	uint32_t dim     = model->dim_blocks, hidden = model->hidden_blocks, heads = model->n_heads*model->head_blocks;
	uint32_t widest  = hidden > heads ? hidden : heads, longest;
	uint64_t vectors = (uint64_t)model->n_layers*model->n_kv_heads*image_context;
	uint32_t error;
	struct layer measured = {0}, *l;

	widest    = widest > dim ? widest : dim;
	longest   = model->vocab > 2*widest*BLOCK ? model->vocab : 2*widest*BLOCK;
	b->layers = take(a, model->n_layers*sizeof(struct layer));
	for (uint32_t i = 0; i < model->n_layers; i++) {
		l        = a->measuring ? &measured : &b->layers[i];
		l->norm1 = load_norm(a, &at);
		load_matrix(a, &l->wk, &at);
		load_matrix(a, &l->wv, &at);
		load_matrix(a, &l->wq, &at);
		load_matrix(a, &l->wo, &at);
		l->norm2 = load_norm(a, &at);
		load_matrix(a, &l->w13, &at);
		load_matrix(a, &l->w2, &at);
		if (!a->measuring && (error = progress(i + 1, model->n_layers + 1)))
			return error;
	}
	b->norm_final = load_norm(a, &at);
	load_matrix(a, &b->classifier, &at);
	b->embedding = &b->classifier;
	if (image_section(SECTION_EMBD)) {
		load_matrix(a, &b->own_embedding, &own);
		b->embedding = &b->own_embedding;
	}
	b->keys.q       = clear(a, vectors, model->head_blocks*BLOCK);
	b->keys.scale   = clear(a, vectors, 4);
	b->values.q     = clear(a, vectors, model->head_blocks*BLOCK);
	b->values.scale = clear(a, vectors, 4);
	b->rope         = clear(a, model->head_blocks*BLOCK, 4);
	b->x            = clear(a, dim*BLOCK, 4);
	b->y            = clear(a, longest, 4);
	b->hidden       = clear(a, widest*BLOCK, 4);
	b->scores       = clear(a, image_context, 4);
	b->q            = clear(a, widest*BLOCK, 1);
	b->scale        = clear(a, widest, 4);
	b->sum          = clear(a, widest, 4);
	return 0;
}

uint32_t baseline_load(struct baseline *b, uint32_t (*progress)(uint32_t done, uint32_t total))
{
	uint32_t     first = (image_free + ALIGN - 1)/ALIGN*ALIGN, room = MAIN_RAM_SIZE - first;
	struct arena a     = {first, 1};

	load_all(&a, b, NULL);
	if (first > MAIN_RAM_SIZE || a.offset - first > room)
		return fail(ERROR_MEMORY, a.offset - first > 0xffffffff ? 0xffffffff : a.offset - first, room);
	b->bytes    = a.offset - first;
	a.offset    = first;
	a.measuring = 0;
	return load_all(&a, b, progress);
}
