// SPDX-License-Identifier: BSD-2-Clause
// Stands for LiteX's generated/soc.h; the core's limits are variables here, so that one library serves all tests.
#ifndef STUB_SOC_H
#define STUB_SOC_H

#include <stdint.h>

struct stub_limits {
	uint32_t lanes, columns, max_dim, max_hidden, max_heads_dim, max_head_dim, max_context, kv_bytes, kv_scales, max_topk;
};

extern struct stub_limits stub_limits;

#define LLAMA_LANES         stub_limits.lanes
#define LLAMA_COLUMNS       stub_limits.columns
#define LLAMA_MAX_DIM       stub_limits.max_dim
#define LLAMA_MAX_HIDDEN    stub_limits.max_hidden
#define LLAMA_MAX_HEADS_DIM stub_limits.max_heads_dim
#define LLAMA_MAX_HEAD_DIM  stub_limits.max_head_dim
#define LLAMA_MAX_CONTEXT   stub_limits.max_context
#define LLAMA_KV_BYTES      stub_limits.kv_bytes
#define LLAMA_KV_SCALES     stub_limits.kv_scales
#define LLAMA_MAX_TOPK      stub_limits.max_topk
#define LLAMA_PORT_BYTES    16
#define LLAMA_IMAGE_OFFSET  0x1000

#define CONFIG_CLOCK_FREQUENCY 100000000
#define UART_INTERRUPT         0
#define LLAMA_INTERRUPT        1

#endif
