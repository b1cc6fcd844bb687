// SPDX-License-Identifier: BSD-2-Clause
#include <string.h>

#include <generated/mem.h>
#include <generated/soc.h>

#include "arch.h"
#include "baseline.h"
#include "crc32.h"
#include "error.h"
#include "image.h"
#include "llama.h"
#include "measure.h"
#include "memtest.h"
#include "protocol.h"
#include "serial.h"
#include "server.h"
#include "session.h"

static struct run run;
static uint8_t    busy_type, busy_sequence;   // The request being served.
static uint32_t   abort_seen;

// The last PREFILL or GENERATE and its answer, for a host that lost that and sends the same again. Type 0: none.
static struct {
	uint8_t           type, sequence;
	uint32_t          position;
	struct wire_error error;   // Where it failed, else number 0.
	struct wire_done  done;
} last;

// Progress of the request being served, left out while the UART is behind.
static void send_progress(const struct wire_progress *p)
{
	if (serial_idle())
		protocol_send(FRAME_PROGRESS, busy_sequence, p, sizeof(*p));
}

uint32_t server_progress(uint32_t done, uint32_t total)
{
	struct wire_progress p = {done, total, 0, 0};

	send_progress(&p);
	return server_aborted() ? fail(ERROR_ABORTED, busy_type, 0) : 0;
}

static void send_token(const struct wire_token *token)
{
	protocol_send(FRAME_TOKEN, busy_sequence, token, sizeof(*token));
}

uint32_t server_aborted(void)
{
	struct frame f;

	if (!serial_ready)   // As nearly always: the core stands still while this is asked.
		return abort_seen;
	while (protocol_receive(&f)) {
		if (f.type == REQUEST_ABORT) {
			abort_seen = 1;
			protocol_send(REQUEST_ABORT | ANSWER, f.sequence, NULL, 0);
		} else if (f.type != busy_type || f.sequence != busy_sequence) {   // Else it came twice.
			fail(ERROR_BUSY, f.type, busy_type);
			protocol_refuse(f.sequence);
		}
	}
	return abort_seen;
}

static const struct listener listener = {send_progress, send_token, server_aborted};

// Check the image and prepare core and session for it. Returns 0 or an error number.
static uint32_t take_image(uint32_t contents)
{
	uint32_t error = image_check(contents, server_progress);

	session_reset();
	baseline_reset();
	if (!error)
		llama_setup();
	return error;
}

void server_answer(const void *payload, uint32_t length)
{
	protocol_send(busy_type | ANSWER, busy_sequence, payload, length);
}

// Copy the model's name (the string "name" of the META section's JSON object, without escapes) to `out`; returns its length.
static uint32_t model_name(char *out)
{
	static const char           key[] = "\"name\": \"";
	const struct image_section *meta  = model ? image_section(SECTION_META) : NULL;
	const char                 *text  = meta ? (const char *)image_at(meta->offset) : NULL;
	uint32_t                    n     = 0, i = 0;

	if (!meta)
		return 0;
	while (i + sizeof(key) <= meta->length && strncmp(text + i, key, sizeof(key) - 1))
		i++;
	for (i += sizeof(key) - 1; i < meta->length && n < NAME_MAX && text[i] != '"' && text[i] != '\\'; i++)
		out[n++] = text[i];
	return n;
}

static uint32_t serve_hello(void)
{
	struct {
		struct wire_hello h;
		char              name[NAME_MAX];
	} a;

	memset(&a, 0, sizeof(a));
	a.h.protocol         = PROTOCOL_VERSION;
	a.h.core_version     = llama_version();
	a.h.clock_hz         = CONFIG_CLOCK_FREQUENCY;
	a.h.port_bytes       = LLAMA_PORT_BYTES;
	a.h.main_ram_bytes   = MAIN_RAM_SIZE;
	a.h.image_offset     = LLAMA_IMAGE_OFFSET;
	a.h.lanes            = LLAMA_LANES;
	a.h.columns          = LLAMA_COLUMNS;
	a.h.max_dim          = LLAMA_MAX_DIM;
	a.h.max_hidden       = LLAMA_MAX_HIDDEN;
	a.h.max_heads_dim    = LLAMA_MAX_HEADS_DIM;
	a.h.max_head_dim     = LLAMA_MAX_HEAD_DIM;
	a.h.max_context      = LLAMA_MAX_CONTEXT;
	a.h.kv_bytes         = LLAMA_KV_BYTES;
	a.h.kv_scales        = LLAMA_KV_SCALES;
	a.h.max_topk         = LLAMA_MAX_TOPK;
	a.h.image_error      = image_error.number;
	a.h.image_value      = image_error.value;
	a.h.image_limit      = image_error.limit;
	a.h.sections_checked = image_sections_checked;
	a.h.context          = image_context;
	a.h.position         = session_position();
	if (model) {
		a.h.image_crc     = image_crc;
		a.h.image_bytes   = model->image_bytes;
		a.h.stream_bytes  = model->stream_bytes;
		a.h.dim           = model->dim;
		a.h.hidden        = model->hidden;
		a.h.n_layers      = model->n_layers;
		a.h.n_heads       = model->n_heads;
		a.h.n_kv_heads    = model->n_kv_heads;
		a.h.head_dim      = model->head_dim;
		a.h.vocab         = model->vocab;
		a.h.model_context = model->context;
	}
	server_answer(&a, sizeof(a.h) + model_name(a.name));
	return 0;
}

// A word: positions to keep.
static uint32_t serve_reset(const struct frame *f)
{
	uint32_t error;

	if (f->length != 4)
		return fail(ERROR_LENGTH, f->length, 4);
	if ((error = session_rewind(f->payload[0])))
		return error;
	server_answer(NULL, 0);
	return 0;
}

// Run what `run` holds for a request made for `position`, unless it is the last one again: then only its answer is given again.
static uint32_t serve_run(uint32_t position)
{
	uint32_t error;

	if (busy_type != last.type || busy_sequence != last.sequence || position != last.position) {
		if (model && position != session_position())
			return fail(ERROR_POSITION, position, session_position());
		if ((error = session_check(&run)))
			return error;
		last.type         = busy_type;
		last.sequence     = busy_sequence;
		last.position     = position;
		last.error.number = 0;
		if (session_run(&run, &listener, &last.done))
			last.error = last_error;
	}
	if (last.error.number)
		return fail(last.error.number, last.error.value, last.error.limit);
	server_answer(&last.done, sizeof(last.done));
	return 0;
}

static uint32_t serve_prefill(const struct frame *f)
{
	const struct wire_prefill *p = (const struct wire_prefill *)f->payload;

	if (f->length < sizeof(*p))
		return fail(ERROR_LENGTH, f->length, sizeof(*p));
	if (p->n_tokens > TOKENS_MAX)
		return fail(ERROR_N_TOKENS, p->n_tokens, TOKENS_MAX);
	if (f->length != sizeof(*p) + 4*p->n_tokens)
		return fail(ERROR_LENGTH, f->length, sizeof(*p) + 4*p->n_tokens);
	memset(&run, 0, sizeof(run));
	run.n_tokens = p->n_tokens;
	memcpy(run.tokens, p + 1, 4*run.n_tokens);
	return serve_run(p->position);
}

static uint32_t serve_generate(const struct frame *f)
{
	const struct wire_generate *g = (const struct wire_generate *)f->payload;
	const uint32_t             *ids;

	if (f->length < sizeof(*g))
		return fail(ERROR_LENGTH, f->length, sizeof(*g));
	if (g->n_stop > STOP_MAX)
		return fail(ERROR_N_STOP, g->n_stop, STOP_MAX);
	if (g->n_tokens > TOKENS_MAX)
		return fail(ERROR_N_TOKENS, g->n_tokens, TOKENS_MAX);
	if (g->n_recent > REPEAT_LAST_MAX)
		return fail(ERROR_N_RECENT, g->n_recent, REPEAT_LAST_MAX);
	if (f->length != sizeof(*g) + 4*(g->n_stop + g->n_recent + g->n_tokens))
		return fail(ERROR_LENGTH, f->length, sizeof(*g) + 4*(g->n_stop + g->n_recent + g->n_tokens));
	if (g->max_tokens < 1)
		return fail(ERROR_MAX_TOKENS, g->max_tokens, 1);
	if (g->repeat_last_n > REPEAT_LAST_MAX)   // Here already, because the recent tokens come next.
		return fail(ERROR_REPEAT_LAST_N, g->repeat_last_n, REPEAT_LAST_MAX);
	ids = (const uint32_t *)(g + 1);
	memset(&run, 0, sizeof(run));
	run.n_stop     = g->n_stop;
	run.n_tokens   = g->n_tokens;
	run.max_tokens = g->max_tokens;
	run.sampler.inv_temperature = g->inv_temperature;
	run.sampler.top_k           = g->top_k;
	run.sampler.top_p_q16       = g->top_p_q16;
	run.sampler.min_p_q16       = g->min_p_q16;
	run.sampler.penalty_q16     = g->repeat_penalty_q16;
	run.sampler.last_n          = g->repeat_last_n;
	sampler_start(&run.sampler, (uint64_t)g->seed_high << 32 | g->seed_low);
	memcpy(run.stop, ids, 4*run.n_stop);
	ids += run.n_stop;
	for (uint32_t i = 0; i < g->n_recent; i++)
		sampler_accept(&run.sampler, *ids++);
	memcpy(run.tokens, ids, 4*run.n_tokens);
	return serve_run(g->position);
}

// A word: index of the first token wanted.
static uint32_t serve_recall(const struct frame *f)
{
	uint32_t        n, first, part, words[PAYLOAD_MAX/4];   // The number of all, then the tokens from `first` on.
	const uint32_t *tokens = session_recall(&n);

	if (f->length != 4)
		return fail(ERROR_LENGTH, f->length, 4);
	first = f->payload[0];
	if (first > n)
		return fail(ERROR_RECALL, first, n);
	part     = n - first < PAYLOAD_MAX/4 - 1 ? n - first : PAYLOAD_MAX/4 - 1;
	words[0] = n;
	memcpy(words + 1, tokens + first, 4*part);
	server_answer(words, 4 + 4*part);
	return 0;
}

// A word with the byte offset into the image, then the bytes.
static uint32_t serve_load(const struct frame *f)
{
	uint32_t room = MAIN_RAM_SIZE - LLAMA_IMAGE_OFFSET, n = f->length - 4;

	if (f->length < 4)
		return fail(ERROR_LENGTH, f->length, 4);
	if (f->payload[0] > room || n > room - f->payload[0])
		return fail(ERROR_LOAD, f->payload[0], room);
	image_invalidate();
	memcpy(arch_ram(LLAMA_IMAGE_OFFSET + f->payload[0]), f->payload + 1, n);
	server_answer(NULL, 0);
	return 0;
}

// A word: non-zero to compare the contents of all sections with their CRC-32.
static uint32_t serve_verify(const struct frame *f)
{
	uint32_t error;

	if (f->length != 4)
		return fail(ERROR_LENGTH, f->length, 4);
	arch_flush();
	error = take_image(f->payload[0]);
	if (error)
		return error;
	server_answer(NULL, 0);
	return 0;
}

// Non-zero for the requests that leave session and image as they are. (Those that run replace `last` when they do.)
static uint32_t keeps_last(uint32_t type)
{
	return type == REQUEST_HELLO || type == REQUEST_STATS || type == REQUEST_PEEK || type == REQUEST_RECALL ||
		type == REQUEST_ABORT || type == REQUEST_PREFILL || type == REQUEST_GENERATE;
}

// Serve one request: 0 if it was answered, else the number of the error it is refused with.
static uint32_t serve(const struct frame *f)
{
	if (!keeps_last(f->type))
		last.type = 0;
	switch (f->type) {
	case REQUEST_HELLO:
		return serve_hello();
	case REQUEST_RESET:
		return serve_reset(f);
	case REQUEST_PREFILL:
		return serve_prefill(f);
	case REQUEST_GENERATE:
		return serve_generate(f);
	case REQUEST_ABORT:   // Nothing runs any more.
		server_answer(NULL, 0);
		return 0;
	case REQUEST_STATS:
		return measure_stats();
	case REQUEST_PEEK:
		return measure_peek(f);
	case REQUEST_LOAD:
		return serve_load(f);
	case REQUEST_VERIFY:
		return serve_verify(f);
	case REQUEST_BASELINE:
		return measure_baseline(f);
	case REQUEST_PROBE:
		return measure_probe(f);
	case REQUEST_SCAN:
		return measure_scan(f);
	case REQUEST_FILL:
		return memtest_fill(f);
	case REQUEST_RECALL:
		return serve_recall(f);
	}
	return fail(ERROR_REQUEST, f->type, REQUEST_LAST);
}

uint32_t server_poll(void)
{
	struct frame f;

	if (!protocol_receive(&f))
		return 0;
	busy_type     = f.type;
	busy_sequence = f.sequence;
	abort_seen    = 0;
	if (serve(&f))
		protocol_refuse(busy_sequence);
	return 1;
}

void server_init(void)
{
	arch_init();
	crc32_init();
	serial_init();
	protocol_init();
	llama_init();
	take_image(0);
}

void server_run(void)
{
	for (;;)
		if (!server_poll() && !protocol_pending())
			arch_sleep(&serial_ready);
}
