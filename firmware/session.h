// SPDX-License-Identifier: BSD-2-Clause
// One conversation: what is in the KV memory stays there between requests, so that only new tokens are computed.
#ifndef LLAMA_SESSION_H
#define LLAMA_SESSION_H

#include <stdint.h>

#include "llama_generated.h"
#include "sampler.h"

// A request to feed tokens and, with max_tokens > 0, to sample some.
struct run {
	uint32_t       tokens[TOKENS_MAX];
	uint32_t       n_tokens;
	uint32_t       stop[STOP_MAX];
	uint32_t       n_stop;
	uint32_t       max_tokens;
	struct sampler sampler;   // It has accepted what was in the context before.
};

// Who runs a request: all are called while the core works, none may wait for long.
struct listener {
	void     (*progress)(const struct wire_progress *p);      // At most every PROGRESS_CYCLES.
	void     (*token)(const struct wire_token *token);        // A token was sampled.
	uint32_t (*aborted)(void);                                // Non-zero: stop before the next token. Asked in every tick, too.
};

// Forget all positions.
void session_reset(void);

// Forget the positions from `keep` on. Returns 0, or ERROR_POSITION if there are fewer.
uint32_t session_rewind(uint32_t keep);

// Positions in use.
uint32_t session_position(void);

// One pass of `token` at any position of the context, of the first `layers` layers: see llama_probe. The session is cut to
// `position` at most. Returns 0 or an error number.
uint32_t session_probe(uint32_t token, uint32_t at, uint32_t layers, uint32_t topk, void (*waiting)(uint32_t layer),
	struct wire_probe *probe);

// Check `run` against model and context: 0 or an error number. Nothing is changed.
uint32_t session_check(const struct run *run);

// Feed the run's tokens at the next positions, then sample: *done says how it ended. The last token sampled is not fed, except that
// an abort may come after it was. Returns 0, or ERROR_CORE_*: then position counts the tokens that were fed before.
uint32_t session_run(struct run *run, const struct listener *told, struct wire_done *done);

// The first tokens sampled by the last run, and how many these are: RECALL_TOKENS at most.
const uint32_t *session_recall(uint32_t *n);

#endif
