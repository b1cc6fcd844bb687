// SPDX-License-Identifier: BSD-2-Clause
// Stands for LiteX's generated/csr.h: each register's accessor ends in stub.c.
#ifndef STUB_CSR_H
#define STUB_CSR_H

#include <stdint.h>

#define STUB_REGISTERS(R) \
	R(control) R(token) R(position) R(flags) R(dim_blocks) R(hidden_blocks) R(head_blocks) R(heads) R(group) R(q_blocks) R(kv_blocks) R(kv_stride) R(kv_dram) R(k_base) R(v_base) R(k_scale_base) \
	R(v_scale_base) R(first_bytes) R(layers) \
	R(vocab) R(context) R(inv_dim) R(eps) R(score_scale) R(stream_base) R(embed_base) R(rope_base) R(layers_bytes) \
	R(stream_bytes) R(embed_type) R(topk) R(topk_select) R(topk_id) R(topk_logit) R(topk_count) R(status) R(counter_select) \
	R(counter_value) R(version) R(layer) R(ev_status) R(ev_pending) R(ev_enable)

#define R(name) STUB_##name,
enum stub_register { STUB_REGISTERS(R) STUB_N_REGISTERS };
#undef R

uint32_t stub_read(enum stub_register reg);
void     stub_write(enum stub_register reg, uint32_t value);

#define R(name) \
	static inline uint32_t llama_##name##_read(void) { return stub_read(STUB_##name); } \
	static inline void llama_##name##_write(uint32_t value) { stub_write(STUB_##name, value); }
STUB_REGISTERS(R)
#undef R

uint32_t uart_rxtx_read(void);
void     uart_rxtx_write(uint32_t value);
uint32_t uart_txfull_read(void);
uint32_t uart_rxempty_read(void);
uint32_t uart_ev_pending_read(void);
void     uart_ev_pending_write(uint32_t value);
void     uart_ev_enable_write(uint32_t value);

#endif
