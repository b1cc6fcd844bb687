// SPDX-License-Identifier: BSD-2-Clause
// Errors: functions that can fail return 0 or the number of an error; its value and limit are kept here until the next one.
#ifndef LLAMA_ERROR_H
#define LLAMA_ERROR_H

#include "llama_generated.h"

extern struct wire_error last_error;

// Note error `number` with the value found and the limit or value expected; returns the number.
static inline uint32_t fail(uint32_t number, uint32_t value, uint32_t limit)
{
	last_error.number = number;
	last_error.value  = value;
	last_error.limit  = limit;
	return number;
}

#endif
