// SPDX-License-Identifier: BSD-2-Clause
// Layout: accel/image.py. Everything is bounded before it is used: a hostile image gets an error number and is never followed.
#include <stddef.h>

#include <generated/mem.h>
#include <generated/soc.h>

#include "arch.h"
#include "crc32.h"
#include "error.h"
#include "image.h"

#define SECTIONS_MAX   16
#define CRC_STEP_BYTES 65536
#define FP32_LEAST     0x00800000u   // The least normal number's bits.
#define FP32_ONE       0x3f800000u
#define FP32_TWO       0x40000000u
#define FP32_INFINITY  0x7f800000u
#define NO_TOKEN       0xffffffffu
#define ROOM           ((uint32_t)(MAIN_RAM_SIZE - LLAMA_IMAGE_OFFSET))

const struct image_header *model;
struct wire_error          image_error;
uint32_t                   image_crc, image_sections_checked, image_context, image_free;
struct image_cache         image_cache;

const uint8_t *image_at(uint32_t offset)
{
	return arch_ram(LLAMA_IMAGE_OFFSET + offset);
}

static const struct image_header *header(void)
{
	return (const struct image_header *)image_at(0);
}

static const struct image_section *table(void)
{
	return (const struct image_section *)image_at(IMAGE_HEADER_BYTES);
}

const struct image_section *image_section(uint32_t name)
{
	for (uint32_t i = 0; i < header()->n_sections; i++)
		if (table()[i].name == name)
			return &table()[i];
	return NULL;
}

uint64_t matrix_bytes(const struct matrix_header *h)
{
	static const uint32_t group_bytes[] = {0, GROUP_BYTES_Q8_0, GROUP_BYTES_Q4_0, GROUP_BYTES_Q4_1};
	uint64_t              blocks = (uint64_t)h->rows*h->blocks;

	if (h->type == TYPE_F32)
		return blocks*BLOCK*4;
	return (blocks + GROUP_BLOCKS - 1)/GROUP_BLOCKS*group_bytes[h->type];
}

// Check magic, version, header CRC, section table; after it, all of them can be read safely.
static uint32_t check_table(void)
{
	const struct image_header *h = header();
	uint32_t                   crc, end;

	if (h->magic_low != IMAGE_MAGIC_LOW || h->magic_high != IMAGE_MAGIC_HIGH)
		return fail(ERROR_MAGIC, h->magic_low, IMAGE_MAGIC_LOW);
	if (h->version != IMAGE_VERSION)
		return fail(ERROR_VERSION, h->version, IMAGE_VERSION);
	if (h->header_bytes != IMAGE_HEADER_BYTES)
		return fail(ERROR_HEADER_BYTES, h->header_bytes, IMAGE_HEADER_BYTES);
	if (h->n_sections < 1 || h->n_sections > SECTIONS_MAX)
		return fail(ERROR_SECTIONS, h->n_sections, SECTIONS_MAX);
	end       = IMAGE_HEADER_BYTES + h->n_sections*sizeof(struct image_section);
	image_crc = *(const uint32_t *)image_at(end);
	crc       = crc32(0, h, end);
	if (crc != image_crc)
		return fail(ERROR_HEADER_CRC, crc, image_crc);
	if (h->image_bytes < SECTION_ALIGN || h->image_bytes > ROOM)
		return fail(ERROR_IMAGE_BYTES, h->image_bytes, ROOM);
	for (uint32_t i = 0; i < h->n_sections; i++) {
		const struct image_section *s = &table()[i];
		if (s->offset % SECTION_ALIGN || s->offset > h->image_bytes || s->length > h->image_bytes - s->offset)
			return fail(ERROR_SECTION_BOUNDS, i, h->image_bytes);
	}
	if (!image_section(SECTION_STRM))
		return fail(ERROR_SECTION_NONE, SECTION_STRM, 0);
	if (!image_section(SECTION_ROPE))
		return fail(ERROR_SECTION_NONE, SECTION_ROPE, 0);
	return 0;
}

// One of the limits below: 0 or the error `number`.
static uint32_t within(uint32_t number, uint32_t value, uint32_t least, uint32_t limit)
{
	return value < least || value > limit ? fail(number, value, limit) : 0;
}

static uint32_t blocks_of(uint32_t elements)
{
	return (elements + BLOCK - 1)/BLOCK;
}

// Check the dimensions for being sane and consistent; after it, no product of them overflows 64 bits.
static uint32_t check_dimensions(void)
{
	const struct image_header *h = header();
	uint32_t                   e, rope;

	if ((e = within(ERROR_DIM, h->dim, 1, LIMIT_DIM)) || (e = within(ERROR_HIDDEN, h->hidden, 1, LIMIT_HIDDEN)) ||
	    (e = within(ERROR_N_LAYERS, h->n_layers, 1, LIMIT_N_LAYERS)) ||
	    (e = within(ERROR_N_HEADS, h->n_heads, 1, LIMIT_N_HEADS)) ||
	    (e = within(ERROR_N_KV_HEADS, h->n_kv_heads, 1, h->n_heads)) ||
	    (e = within(ERROR_HEAD_DIM, h->head_dim, 2, LIMIT_HEAD_DIM)) ||
	    (e = within(ERROR_VOCAB, h->vocab, 1, LIMIT_VOCAB)) ||
	    (e = within(ERROR_MODEL_CONTEXT, h->context, 1, LIMIT_CONTEXT)))
		return e;
	if (h->n_heads % h->n_kv_heads)
		return fail(ERROR_N_KV_HEADS, h->n_kv_heads, h->n_heads);
	if (h->head_dim % 2)
		return fail(ERROR_HEAD_DIM, h->head_dim, LIMIT_HEAD_DIM);
	if ((e = within(ERROR_BLOCKS, h->dim_blocks, blocks_of(h->dim), blocks_of(h->dim))) ||
	    (e = within(ERROR_BLOCKS, h->hidden_blocks, blocks_of(h->hidden), blocks_of(h->hidden))) ||
	    (e = within(ERROR_BLOCKS, h->head_blocks, blocks_of(h->head_dim), blocks_of(h->head_dim))))
		return e;
	rope = h->context*h->head_blocks*BLOCK*4;
	if (image_section(SECTION_ROPE)->length != rope || image_section(SECTION_ROPE)->offset != h->rope_offset)
		return fail(ERROR_ROPE_BYTES, image_section(SECTION_ROPE)->length, rope);
	return 0;
}

// fp32 bits of 1/n, rounded to the nearest; the mantissa's leading one adds 1 to the exponent.
static uint32_t inverse(uint32_t n)
{
	uint32_t shift = 23;

	while ((1ull << shift)/n < 1 << 23)
		shift++;
	return ((127 + 23 - shift - 1) << 23) + (uint32_t)(((2ull << shift)/n + 1)/2);
}

// Check the constants that the core is given, and what else the header says of the model. No constant is 0, subnormal, negative,
// infinite or not a number: of positive floats the bits are in their order.
static uint32_t check_constants(void)
{
	const struct image_header *h = header();
	uint32_t                   e;

	if ((e = within(ERROR_INV_DIM, h->inv_dim, inverse(h->dim), inverse(h->dim))) ||
	    (e = within(ERROR_EPS, h->eps, FP32_LEAST, FP32_ONE - 1)) || (e = within(ERROR_EPS, h->eps_core, h->eps, h->eps)) ||
	    (e = within(ERROR_SCORE_SCALE, h->score_scale, FP32_LEAST, FP32_TWO - 1)) ||
	    (e = within(ERROR_ROPE_BASE, h->rope_base, FP32_LEAST, FP32_INFINITY - 1)))
		return e;
	if (h->bos >= h->vocab && h->bos != NO_TOKEN)
		return fail(ERROR_SPECIAL, h->bos, h->vocab);
	if (h->eos >= h->vocab && h->eos != NO_TOKEN)
		return fail(ERROR_SPECIAL, h->eos, h->vocab);
	return 0;
}

// Check the model against what the core was built for and set image_context (accel.config.CoreConfig.check_model).
static uint32_t check_core(void)
{
	const struct image_header *h = header();
	uint32_t                   e, kv_heads = h->n_layers*h->n_kv_heads, head_bytes = h->head_blocks*BLOCK;
	uint32_t                   positions = h->context < LLAMA_MAX_CONTEXT ? h->context : LLAMA_MAX_CONTEXT;
	uint32_t                   rows = blocks_of(positions)*BLOCK, base, room, keys, scales;
	uint64_t                   block_bytes = (uint64_t)2*BLOCK*kv_heads*(head_bytes + 2);

	if ((e = within(ERROR_MAX_DIM, h->dim_blocks*BLOCK, 0, LLAMA_MAX_DIM)) ||
	    (e = within(ERROR_MAX_HIDDEN, h->hidden_blocks*BLOCK, 0, LLAMA_MAX_HIDDEN)) ||
	    (e = within(ERROR_MAX_HEADS_DIM, h->n_heads*h->head_blocks*BLOCK, 0, LLAMA_MAX_HEADS_DIM)) ||
	    (e = within(ERROR_MAX_HEAD_DIM, head_bytes, 0, LLAMA_MAX_HEAD_DIM)))
		return e;
	image_cache.on_chip = (uint64_t)kv_heads*rows*head_bytes <= LLAMA_KV_BYTES && (uint64_t)kv_heads*rows <= LLAMA_KV_SCALES;
	base = image_free = LLAMA_IMAGE_OFFSET + (h->image_bytes + SECTION_ALIGN - 1)/SECTION_ALIGN*SECTION_ALIGN;
	if (!image_cache.on_chip) {
		room = base < MAIN_RAM_SIZE ? MAIN_RAM_SIZE - base : 0;
		if (block_bytes > room)
			return fail(ERROR_KV_BYTES, block_bytes, room);
		if (rows > room/block_bytes*BLOCK)
			rows = room/block_bytes*BLOCK;
		keys   = kv_heads*rows*head_bytes;
		scales = kv_heads*rows*2;
		image_cache.keys         = base;
		image_cache.values       = base + keys;
		image_cache.key_scales   = base + 2*keys;
		image_cache.value_scales = base + 2*keys + scales;
		image_free               = base + 2*(keys + scales);
	}
	image_context = positions < rows ? positions : rows;
	return 0;
}

// Position in the stream section while it is walked.
struct walk {
	const uint8_t *data;
	uint32_t       length;
	uint32_t       offset;
};

// Check the matrix header at the walk's offset and step behind its data.
static uint32_t step(struct walk *w, uint32_t kind, uint32_t layer, uint32_t rows, uint32_t blocks)
{
	const struct matrix_header *m    = (const struct matrix_header *)(w->data + w->offset);
	uint32_t                    norm = kind == KIND_NORM1 || kind == KIND_NORM2 || kind == KIND_NORM_FINAL;

	if (w->length - w->offset < UNIT_BYTES)
		return fail(ERROR_STREAM_BYTES, w->length, w->offset + UNIT_BYTES);
	if (m->magic != MATRIX_MAGIC || (norm ? m->type != TYPE_F32 : m->type < TYPE_Q8_0 || m->type > TYPE_Q4_1))
		return fail(ERROR_STREAM, w->offset, 0);
	if (m->kind != kind || m->layer != layer)
		return fail(ERROR_STREAM, w->offset, 1);
	if (m->rows != rows)
		return fail(ERROR_STREAM, w->offset, 2);
	if (m->blocks != blocks)
		return fail(ERROR_STREAM, w->offset, 3);
	w->offset += UNIT_BYTES;
	if (matrix_bytes(m) > w->length - w->offset)
		return fail(ERROR_STREAM_BYTES, w->length, w->offset + (uint32_t)matrix_bytes(m));
	w->offset += matrix_bytes(m);
	return 0;
}

// Check every matrix header of the stream, its lengths, and where the embedding is.
static uint32_t check_stream(void)
{
	const struct image_header  *h = header();
	const struct image_section *s = image_section(SECTION_STRM), *own = image_section(SECTION_EMBD);
	struct walk                 w = {image_at(s->offset), s->length, 0};
	uint32_t                    e, kv = h->n_kv_heads*h->head_blocks, q = h->n_heads*h->head_blocks;
	uint32_t                    dim = h->dim_blocks, hidden = h->hidden_blocks, embedding;
	uint32_t                    begin = 0, piece = h->first_bytes;   // Of the stream: see accel.image.pack_stream.

	if (h->stream_offset != s->offset || h->stream_bytes != s->length)
		return fail(ERROR_STREAM_BYTES, h->stream_bytes, s->length);
	for (uint32_t i = 0; i < h->n_layers; i++) {
		const struct matrix_header *norm = (const struct matrix_header *)(w.data + w.offset);

		if ((e = step(&w, KIND_NORM1, i, 1, dim)) || (e = step(&w, KIND_WK, i, kv*BLOCK, dim)) ||
		    (e = step(&w, KIND_WV, i, kv*BLOCK, dim)) || (e = step(&w, KIND_WQ, i, q*BLOCK, dim)))
			return e;
		if (w.offset - begin != piece)
			return fail(ERROR_PIECE_BYTES, piece, w.offset - begin);
		begin = w.offset;
		piece = norm->piece*UNIT_BYTES;
		if ((e = step(&w, KIND_WO, i, dim*BLOCK, q)) || (e = step(&w, KIND_NORM2, i, 1, dim)) ||
		    (e = step(&w, KIND_W13, i, 2*hidden*BLOCK, dim)) || (e = step(&w, KIND_W2, i, dim*BLOCK, hidden)))
			return e;
	}
	if (w.offset - begin != piece)
		return fail(ERROR_PIECE_BYTES, piece, w.offset - begin);
	if (h->layers_bytes != w.offset)
		return fail(ERROR_LAYERS_BYTES, h->layers_bytes, w.offset);
	if ((e = step(&w, KIND_NORM_FINAL, 0, 1, dim)))
		return e;
	embedding = s->offset + w.offset;
	if ((e = step(&w, KIND_CLASSIFIER, 0, h->vocab, dim)))
		return e;
	if (w.offset != w.length)
		return fail(ERROR_STREAM_BYTES, w.length, w.offset);
	if (own) {
		struct walk o = {image_at(own->offset), own->length, 0};

		embedding = own->offset;
		if ((e = step(&o, KIND_EMBEDDING, 0, h->vocab, dim)))
			return fail(ERROR_EMBEDDING, h->embed_offset, embedding);
	}
	if (h->embed_offset != embedding || ((const struct matrix_header *)image_at(embedding))->type != h->embed_type)
		return fail(ERROR_EMBEDDING, h->embed_offset, embedding);
	return 0;
}

// Compare the contents of all sections with their CRC-32.
static uint32_t check_contents(uint32_t (*progress)(uint32_t done, uint32_t total))
{
	const struct image_header *h = header();
	uint32_t                   done = 0, total = 0, error;

	for (uint32_t i = 0; i < h->n_sections; i++)
		total += table()[i].length;
	for (uint32_t i = 0; i < h->n_sections; i++) {
		const struct image_section *s   = &table()[i];
		uint32_t                    crc = 0, n;

		for (uint32_t at = 0; at < s->length; at += n, done += n) {
			n   = s->length - at < CRC_STEP_BYTES ? s->length - at : CRC_STEP_BYTES;
			crc = crc32(crc, image_at(s->offset + at), n);
			if ((error = progress(done + n, total)))
				return error;
		}
		if (crc != s->crc)
			return fail(ERROR_SECTION_CRC, i, s->crc);
	}
	return 0;
}

void image_invalidate(void)
{
	model         = NULL;
	image_context = image_crc = image_sections_checked = 0;
	fail(ERROR_UNVERIFIED, 0, 0);
	image_error   = last_error;
}

uint32_t image_check(uint32_t contents, uint32_t (*progress)(uint32_t done, uint32_t total))
{
	uint32_t e;

	image_invalidate();
	if ((e = check_table()) || (e = check_dimensions()) || (e = check_constants()) || (e = check_core()) || (e = check_stream()) ||
	    (contents && (e = check_contents(progress)))) {
		image_error   = last_error;
		image_context = 0;
		return e;
	}
	image_error.number     = 0;
	image_sections_checked = contents;
	model                  = header();
	return 0;
}
