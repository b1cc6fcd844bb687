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
	if (s->top_k > TOPK_MAX || sampler_candidates(s, model->vocab) > LLAMA_MAX_TOPK)
		return fail(ERROR_TOP_K, s->top_k, LLAMA_MAX_TOPK);
	if (s->top_p_q16 > 65536)
		return fail(ERROR_TOP_P, s->top_p_q16, 65536);
	if (s->inv_temperature != GREEDY && s->inv_temperature > INV_TEMPERATURE_MAX)
		return fail(ERROR_TEMPERATURE, s->inv_temperature, INV_TEMPERATURE_MAX);
	return 0;
}

// Wait for the pass that feeds the token at `position` and count it.
static uint32_t finish_pass(void)
{
	uint32_t error = llama_wait();

	if (!error)
		position++;
	return error;
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
static uint32_t feed_prompt(const struct run *run, const struct listener *listener, uint32_t topk, uint32_t *aborted,
	uint32_t *n_prompt)
{
	*n_prompt = 0;
	for (uint32_t i = 0; i < run->n_tokens && !*aborted; i++) {
		uint32_t error;

		llama_start(run->tokens[i], position, i == run->n_tokens - 1 ? topk : 0);
		if (i)
			listener->prompt(i, run->n_tokens);
		if ((error = finish_pass()))
			return error;
		++*n_prompt;
		*aborted = listener->aborted();
	}
	return 0;
}

// Sample a token from the last pass's candidates into *token, all but its cycles.
static void sample(struct run *run, uint32_t topk, struct wire_token *token, uint32_t index)
{
	uint32_t choice = sampler_choose(&run->sampler, topk, llama_topk_logit);

	token->index = index;
	token->id    = llama_topk_id(choice);
	token->logit = llama_topk_logit(choice);
	if (index < RECALL_TOKENS)
		recall[n_recall++] = token->id;
}

uint32_t session_run(struct run *run, const struct listener *listener, struct wire_done *done)
{
	uint32_t topk    = run->max_tokens ? sampler_candidates(&run->sampler, model->vocab) : 0, aborted = 0, error;
	uint64_t start   = arch_cycles(), prompt_end, last, now;

	memset(done, 0, sizeof(*done));
	n_recall = 0;
	if ((error = feed_prompt(run, listener, topk, &aborted, &done->n_prompt)))
		return error;
	prompt_end = now = last = arch_cycles();
	done->reason = aborted ? REASON_ABORT : run->max_tokens ? 0 : REASON_LENGTH;
	while (!done->reason) {
		struct wire_token token;

		sample(run, topk, &token, done->n_tokens++);
		now  = arch_cycles();
		if (done->n_tokens == 1)
			prompt_end = now;
		token.cycles = now - (done->n_tokens == 1 ? start : last);
		last         = now;
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
	for (uint32_t i = 0; i < N_COUNTERS; i++)
		done->counters[i] = llama_counter(i);
	return 0;
}
