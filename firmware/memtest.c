// SPDX-License-Identifier: BSD-2-Clause
#include <generated/mem.h>
#include <generated/soc.h>

#include "arch.h"
#include "baseline.h"
#include "error.h"
#include "image.h"
#include "memtest.h"
#include "server.h"
#include "session.h"

#define STEP_BYTES 65536   // From one look at the line to the next.

// Word at byte `offset` of main_ram (host/selftest.py has the twin). Address: two words that share a wrong address line differ;
// mixed: neighbours differ in half of their bits.
static uint32_t pattern(uint32_t kind, uint32_t offset, uint32_t seed)
{
	uint32_t mixed = offset*0x9e3779b1u;

	if (kind == PATTERN_CONSTANT)
		return seed;
	return seed ^ (kind == PATTERN_ADDRESS ? offset : mixed ^ mixed >> 15);
}

// 0, or the error number that ends this: now and then the host is told, and answered.
static uint32_t progress(uint32_t done, uint32_t total)
{
	return done % STEP_BYTES ? 0 : server_progress(done, total);
}

static uint32_t fill(uint32_t offset, uint32_t bytes, uint32_t kind, uint32_t seed)
{
	uint32_t *words = (uint32_t *)arch_ram(offset), error;

	session_reset();   // Its keys and values may be there.
	baseline_reset();
	for (uint32_t i = 0; i < bytes; i += 4) {
		words[i/4] = pattern(kind, offset + i, seed);
		if ((error = progress(i + 4, bytes)))
			return error;
	}
	arch_flush();
	return 0;
}

static uint32_t compare(uint32_t offset, uint32_t bytes, uint32_t kind, uint32_t seed, struct wire_fill *found)
{
	const uint32_t *words = (const uint32_t *)arch_ram(offset);
	uint32_t        error;

	arch_flush();
	for (uint32_t i = 0; i < bytes; i += 4) {
		uint32_t wrong = words[i/4] ^ pattern(kind, offset + i, seed);

		if ((error = progress(i + 4, bytes)))
			return error;
		if (wrong && !found->n_wrong++)
			found->first = offset + i;
		found->bits |= wrong;
	}
	return 0;
}

// Words: byte offset in main_ram, bytes, kind of pattern, seed, 1 to compare instead of writing.
uint32_t memtest_fill(const struct frame *f)
{
	const uint32_t  *w     = f->payload;
	uint32_t         from  = LLAMA_IMAGE_OFFSET + (model ? model->image_bytes : 0);
	uint64_t         start = arch_cycles();
	struct wire_fill found = {0};
	uint32_t         error;

	if (f->length != 20)
		return fail(ERROR_LENGTH, f->length, 20);
	if (w[0] < from || w[0] >= MAIN_RAM_SIZE)
		return fail(ERROR_FILL_OFFSET, w[0], from);
	if (w[1] < UNIT_BYTES || w[1] > MAIN_RAM_SIZE - w[0])
		return fail(ERROR_FILL_BYTES, w[1], MAIN_RAM_SIZE - w[0]);
	if (w[0] % UNIT_BYTES || w[1] % UNIT_BYTES)
		return fail(ERROR_FILL_ALIGN, w[0] % UNIT_BYTES ? w[0] : w[0] + w[1], UNIT_BYTES);
	if (w[2] > PATTERN_MIXED)
		return fail(ERROR_PATTERN, w[2], PATTERN_MIXED);
	error = w[4] ? compare(w[0], w[1], w[2], w[3], &found) : fill(w[0], w[1], w[2], w[3]);
	if (error)
		return error;
	found.cycles = arch_cycles() - start;
	server_answer(&found, sizeof(found));
	return 0;
}
