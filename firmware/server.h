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

// Tell its progress, where no pass runs.
void server_progress(uint32_t done, uint32_t total);

// Serve for ever, asleep while there is nothing to do.
void server_run(void);

#endif
