// SPDX-License-Identifier: BSD-2-Clause
// The plain C decoder's view of the model: weights as they are stored, scales and norms as integers ready to use. "Q16" is a
// 32-bit number with 16 fraction bits.
#ifndef LLAMA_BASELINE_MODEL_H
#define LLAMA_BASELINE_MODEL_H

#include <stdint.h>

// Weight (row, block, i) = q*d*2^d_exponent + m*2^m_exponent, with one d and one m per block of 32. The q are read where they
// are, in the image: `quants` bytes into each group of `group_bytes`, `block_bytes` for a block.
struct matrix {
	uint32_t       type, rows, blocks;
	const uint8_t *groups;
	uint32_t       group_bytes, quants, block_bytes;
	int16_t       *d, *m;       // m is NULL where the type has no minimum.
	int32_t        d_exponent, m_exponent;
};

struct layer {
	int32_t      *norm1, *norm2;   // 20 fraction bits.
	struct matrix wk, wv, wq, wo, w13, w2;
};

// int8 vectors of positions, with one scale each: value = q*scale*2^-7 in Q16.
struct cache {
	int8_t  *q;
	int32_t *scale;
};

// Everything, and the work space of one token.
struct baseline {
	struct layer *layers;
	int32_t      *norm_final;
	struct matrix classifier, own_embedding, *embedding;
	struct cache  keys, values;    // (layer, KV head, position, element).
	int32_t      *rope;            // Cosine and sine of each pair at the token's position, 30 fraction bits.
	int32_t      *x, *y, *hidden;  // Q16: residual, result of a matrix, SwiGLU's output or attention's.
	int32_t      *scores;
	int8_t       *q;               // Quantised activations, the scales of their blocks (15 bits) and the blocks' sums.
	int32_t      *scale, *sum;
	uint32_t      bytes;           // Taken of DRAM.
};

// Prepare the valid image's model, in DRAM behind the image. Returns 0 or ERROR_MEMORY.
uint32_t baseline_load(struct baseline *b, uint32_t (*progress)(uint32_t done, uint32_t total));

// fp32 bits as an integer with `fraction` fraction bits, truncated, saturated to +-(2^31 - 1).
int32_t fixed_of_float(uint32_t bits, int32_t fraction);

#endif
