// SPDX-License-Identifier: BSD-2-Clause
// The requests of the protocol (README.md), each answered or refused.
#ifndef LLAMA_SERVER_H
#define LLAMA_SERVER_H

#include <stdint.h>

// Start everything: time, UART, core, image. Called once after reset.
void server_init(void);

// Serve what has been received; returns 1 if that was a request, 0 if nothing is complete yet.
uint32_t server_poll(void);

// Answer the request that is being served.
void server_answer(const void *payload, uint32_t length);

// Answer what the host has sent while it is served: ABORT is obeyed, it itself ignored, all else refused. Non-zero once ABORT came.
// Its own frame is gone then.
uint32_t server_aborted(void);

// Tell its progress, where no pass runs, and do as server_aborted. Returns 0, or ERROR_ABORTED.
uint32_t server_progress(uint32_t done, uint32_t total);

// Serve for ever, asleep while there is nothing to do.
void server_run(void);

#endif
