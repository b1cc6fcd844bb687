// SPDX-License-Identifier: BSD-2-Clause
#include <string.h>

#include <generated/soc.h>

#include "arch.h"
#include "error.h"
#include "image.h"
#include "llama.h"
#include "session.h"

static uint32_t position;
static uint32_t recall[RECALL_TOKENS], n_recall;

static const struct listener *listener;
static struct wire_progress   progress;        // Of the run: what was told last.
static uint64_t               progress_due;    // Cycle from which more may be told.
static uint32_t               fed;             // Tokens of the run, prompt and sampled.

void session_reset(void)
{
	position = n_recall = 0;
}

uint32_t session_rewind(uint32_t keep)
{
	if (keep > position)
		return fail(ERROR_POSITION, keep, position);
	position = keep;
	return 0;
}

uint32_t session_position(void)
{
	return position;
}

const uint32_t *session_recall(uint32_t *n)
{
	*n = n_recall;
	return recall;
}

uint32_t session_check(const struct run *run)
{
	const struct sampler *s = &run->sampler;

	if (!model)
		return fail(image_error.number, image_error.value, image_error.limit);
	if (run->n_tokens < 1 || run->n_tokens > TOKENS_MAX)
		return fail(ERROR_N_TOKENS, run->n_tokens, TOKENS_MAX);
	if (run->n_tokens > image_context - position)
		return fail(ERROR_CONTEXT, position + run->n_tokens, image_context);
	for (uint32_t i = 0; i < run->n_tokens; i++)
		if (run->tokens[i] >= model->vocab)
			return fail(ERROR_TOKEN, run->tokens[i], model->vocab);
	if (!run->max_tokens)
		return 0;
	if (s->top_k > TOPK_MAX || sampler_candidates(s, model->vocab) > LLAMA_MAX_TOPK)
		return fail(ERROR_TOP_K, s->top_k, LLAMA_MAX_TOPK);
	if (s->top_p_q16 > 65536)
		return fail(ERROR_TOP_P, s->top_p_q16, 65536);
	if (s->min_p_q16 > 65536)
		return fail(ERROR_MIN_P, s->min_p_q16, 65536);
	if (s->penalty_q16 < 65536 || s->penalty_q16 > REPEAT_PENALTY_MAX)
		return fail(ERROR_REPEAT_PENALTY, s->penalty_q16, REPEAT_PENALTY_MAX);
	if (s->inv_temperature != GREEDY && s->inv_temperature > INV_TEMPERATURE_MAX)
		return fail(ERROR_TEMPERATURE, s->inv_temperature, INV_TEMPERATURE_MAX);
	return 0;
}

uint32_t session_probe(uint32_t token, uint32_t at, uint32_t layers, uint32_t topk, void (*waiting)(uint32_t layer),
	struct wire_probe *probe)
{
	if (!model)
		return fail(image_error.number, image_error.value, image_error.limit);
	if (at >= image_context)
		return fail(ERROR_CONTEXT, at + 1, image_context);
	if (token >= model->vocab)
		return fail(ERROR_TOKEN, token, model->vocab);
	if (layers < 1 || layers > model->n_layers || (topk && layers != model->n_layers))
		return fail(ERROR_LAYERS, layers, model->n_layers);
	if (topk > LLAMA_MAX_TOPK || topk > model->vocab)
		return fail(ERROR_TOP_K, topk, LLAMA_MAX_TOPK);
	if (position > at)
		position = at;
	return llama_probe(token, at, layers, topk, waiting, probe);
}

// Tell the listener that the pass is at `layer`, if that is news and it was not told a moment ago.
static void tell_progress(uint32_t layer)
{
	uint64_t now = arch_cycles();

	if (now < progress_due || (progress.done == fed && progress.layer == layer))
		return;
	progress.done  = fed;
	progress.layer = layer;
	progress_due   = now + PROGRESS_CYCLES;
	listener->progress(&progress);
}

// While a pass runs: the host learns where it is, and is answered.
static void look(uint32_t layer)
{
	tell_progress(layer);
	listener->aborted();
}

// Wait for the pass that feeds the token at `position` and count it.
static uint32_t finish_pass(void)
{
	uint32_t error = llama_wait(look);

	if (error)
		return error;
	position++;
	fed++;
	return 0;
}

// Non-zero if `token` ends the run.
static uint32_t is_stop(const struct run *run, uint32_t token)
{
	for (uint32_t i = 0; i < run->n_stop; i++)
		if (run->stop[i] == token)
			return 1;
	return 0;
}

// Feed all tokens; with `topk` the last pass keeps candidates. Sets *aborted. Returns 0 or an error number.
static uint32_t feed_prompt(struct run *run, uint32_t topk, uint32_t *aborted)
{
	for (uint32_t i = 0; i < run->n_tokens && !*aborted; i++) {
		uint32_t error;

		llama_start(run->tokens[i], position, i == run->n_tokens - 1 ? topk : 0);
		sampler_accept(&run->sampler, run->tokens[i]);   // Beside the pass, as is telling.
		if (i)
			tell_progress(0);
		if ((error = finish_pass()))
			return error;
		*aborted = listener->aborted();
	}
	return 0;
}

// Sample a token from the last pass's candidates into *token, all but its cycles.
static void sample(struct run *run, uint32_t topk, struct wire_token *token, uint32_t index)
{
	uint32_t choice = sampler_choose(&run->sampler, topk, llama_topk_id, llama_topk_logit);

	token->index = index;
	token->id    = llama_topk_id(choice);
	token->logit = llama_topk_logit(choice);
	sampler_accept(&run->sampler, token->id);
	if (index < RECALL_TOKENS)
		recall[n_recall++] = token->id;
}

uint32_t session_run(struct run *run, const struct listener *told, struct wire_done *done)
{
	uint32_t topk    = run->max_tokens ? sampler_candidates(&run->sampler, model->vocab) : 0, aborted = 0, error;
	uint64_t start   = arch_cycles(), prompt_end, last, now, passes, sampled;

	memset(done, 0, sizeof(*done));
	memset(&progress, 0, sizeof(progress));
	progress.total  = run->n_tokens;
	progress.layers = model->n_layers;
	progress_due    = start + PROGRESS_CYCLES;
	listener        = told;
	n_recall = fed  = 0;
	if ((error = feed_prompt(run, topk, &aborted)))
		return error;
	done->n_prompt = fed;
	prompt_end = now = last = arch_cycles();
	passes     = sampled = llama_pass_cycles;
	done->reason = aborted ? REASON_ABORT : run->max_tokens ? 0 : REASON_LENGTH;
	while (!done->reason) {
		struct wire_token token;

		sample(run, topk, &token, done->n_tokens++);
		now  = arch_cycles();
		if (done->n_tokens == 1)
			prompt_end = now;
		token.cycles = now - (done->n_tokens == 1 ? start : last);
		last         = now;
		sampled      = llama_pass_cycles;
		if (is_stop(run, token.id))
			done->reason = REASON_STOP;
		else if (done->n_tokens == run->max_tokens || position == image_context)
			done->reason = REASON_LENGTH;
		else
			llama_start(token.id, position, topk);
		listener->token(&token);   // Beside the pass, if there is one.
		if (!done->reason) {
			if ((error = finish_pass()))
				return error;
			if (listener->aborted())
				done->reason = REASON_ABORT;
		}
	}
	done->position           = position;
	done->prompt_cycles_low  = prompt_end - start;
	done->prompt_cycles_high = (prompt_end - start) >> 32;
	done->decode_cycles_low  = last - prompt_end;
	done->decode_cycles_high = (last - prompt_end) >> 32;
	done->pass_cycles_low    = sampled - passes;
	done->pass_cycles_high   = (sampled - passes) >> 32;
	for (uint32_t i = 0; i < N_COUNTERS; i++)
		done->counters[i] = llama_counter(i);
	return 0;
}
