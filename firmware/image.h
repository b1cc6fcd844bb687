// SPDX-License-Identifier: BSD-2-Clause
// The model image in DRAM at LLAMA_IMAGE_OFFSET: checked against itself, against DRAM and against the core's limits before use.
#ifndef LLAMA_IMAGE_H
#define LLAMA_IMAGE_H

#include <stdint.h>

#include "llama_generated.h"

// The image's header where it is valid, else NULL.
extern const struct image_header *model;

// Error of the last image_check, its number 0 where the image is valid.
extern struct wire_error image_error;

// CRC-32 of header and section table (it covers the sections' own CRCs, so it names the image), as stored.
extern uint32_t image_crc;

// Non-zero if the contents of all sections were compared with their CRC-32.
extern uint32_t image_sections_checked;

// Positions that the core holds for the model (accel.config.CoreConfig.context_of), 0 without a model.
extern uint32_t image_context;

// Cache of keys and values in DRAM, by byte addresses from the start of DRAM; on chip: on_chip is set, the rest is not.
struct image_cache {
	uint32_t on_chip, keys, values, key_scales, value_scales;
};
extern struct image_cache image_cache;

// First byte of DRAM that neither image nor cache uses, from the start of DRAM.
extern uint32_t image_free;

// Check the image and set what is above. Header, section table, dimensions and every matrix header of the stream always, in
// some 10,000 cycles; with `contents` also the CRC-32 of each section, at about 10 cycles a byte. progress(done, total) is
// called with bytes now and then, and ends it with an error number. Returns 0 or an error number.
uint32_t image_check(uint32_t contents, uint32_t (*progress)(uint32_t done, uint32_t total));

// Take the image out of use, because it is being changed.
void image_invalidate(void);

// Section `name` (SECTION_*) of a valid image, or NULL.
const struct image_section *image_section(uint32_t name);

// A matrix or norm header of the weight stream.
struct matrix_header {
	uint16_t magic;
	uint8_t  type;
	int8_t   exponent;
	uint8_t  kind;
	uint8_t  reserved;
	uint16_t layer;
	uint32_t rows;
	uint32_t blocks;
	uint32_t piece;        // Of norm1, in units: see accel.image.pack_stream.
	uint32_t padding[3];
};

// Bytes of the data behind a matrix header.
uint64_t matrix_bytes(const struct matrix_header *h);

// Address of byte `offset` of the image.
const uint8_t *image_at(uint32_t offset);

#endif
