// SPDX-License-Identifier: BSD-2-Clause
#include <generated/csr.h>
#include <generated/soc.h>
#include <irq.h>

#include "arch.h"
#include "error.h"
#include "image.h"
#include "llama.h"

#define CONTROL_START 1
#define CONTROL_RESET 2
#define CONTROL_SCAN  4
#define FLAG_LOGITS   1
#define STATUS_BUSY   1
#define STATUS_DONE   2
#define STATUS_ERROR(status) ((status) >> 8 & 255)
#define ERROR_OUT_OF_STEP 1

// A pass reads the stream once; below an eighth of a byte a clock, and a fixed time more, the core hangs.
#define TIMEOUT_BASE_CYCLES (1u << 24)
#define TIMEOUT_PER_BYTE    8
#define RESET_POLLS         100000

#define COUNTER_TOTAL 0   // The counters' order: accel/counters.py.

uint32_t llama_passes;
uint64_t llama_pass_cycles;

static volatile uint32_t ready;     // Set by the interrupt.
static uint32_t          position_, topk_;
static uint64_t          deadline, timeout_cycles;

// Interrupt of the core: token_ready.
static void llama_isr(void)
{
	llama_ev_pending_write(1);
	ready = 1;
}

// Reset the core and wait until it has taken in what it had asked the DRAM for.
static void reset(void)
{
	llama_control_write(CONTROL_RESET);
	for (uint32_t i = 0; i < RESET_POLLS && llama_status_read() & STATUS_BUSY; i++)
		;
}

void llama_init(void)
{
	llama_passes      = 0;
	llama_pass_cycles = 0;
	reset();
	llama_ev_pending_write(1);
	llama_ev_enable_write(1);
	irq_attach(LLAMA_INTERRUPT, llama_isr);
	irq_setmask(irq_getmask() | (1 << LLAMA_INTERRUPT));
}

void llama_setup(void)
{
	uint32_t context = (image_context + BLOCK - 1)/BLOCK*BLOCK;

	reset();
	llama_dim_blocks_write(model->dim_blocks);
	llama_hidden_blocks_write(model->hidden_blocks);
	llama_head_blocks_write(model->head_blocks);
	llama_heads_write(model->n_heads);
	llama_group_write(model->n_heads/model->n_kv_heads);
	llama_q_blocks_write(model->n_heads*model->head_blocks);
	llama_kv_blocks_write(model->n_kv_heads*model->head_blocks);
	llama_layers_write(model->n_layers);
	llama_vocab_write(model->vocab);
	llama_context_write(context);
	llama_kv_stride_write(context*model->head_blocks*BLOCK);
	llama_kv_dram_write(!image_cache.on_chip);
	if (!image_cache.on_chip) {
		llama_k_base_write(image_cache.keys);
		llama_v_base_write(image_cache.values);
		llama_k_scale_base_write(image_cache.key_scales);
		llama_v_scale_base_write(image_cache.value_scales);
	}
	llama_inv_dim_write(model->inv_dim);
	llama_eps_write(model->eps_core);
	llama_score_scale_write(model->score_scale);
	llama_stream_base_write(LLAMA_IMAGE_OFFSET + model->stream_offset);
	llama_embed_base_write(LLAMA_IMAGE_OFFSET + model->embed_offset + UNIT_BYTES);
	llama_rope_base_write(LLAMA_IMAGE_OFFSET + model->rope_offset);
	llama_first_bytes_write(model->first_bytes);
	llama_layers_bytes_write(model->layers_bytes);
	llama_stream_bytes_write(model->stream_bytes);
	llama_embed_type_write(model->embed_type);
	timeout_cycles = TIMEOUT_BASE_CYCLES + (uint64_t)model->stream_bytes*TIMEOUT_PER_BYTE;
}

void llama_start(uint32_t token, uint32_t position, uint32_t topk)
{
	ready = 0;
	llama_token_write(token);
	llama_position_write(position);
	llama_flags_write(topk ? FLAG_LOGITS : 0);
	if (topk)
		llama_topk_write(topk);
	llama_control_write(CONTROL_START);
	llama_counter_select_write(COUNTER_TOTAL);   // For llama_wait: after the pass each read delays the next one.
	position_ = position;
	topk_     = topk;
	deadline  = arch_cycles() + timeout_cycles;
	llama_passes++;
}

// Reset the core and note what was wrong.
static uint32_t broken(uint32_t number, uint32_t limit)
{
	reset();
	return fail(number, position_, limit);
}

// One copy, beside arch_sleep (linker.ld): where wfi is a nop it spins, and must find itself in the caches, not in the DRAM that
// the core reads.
__attribute__((noinline, noclone)) uint32_t llama_wait(void (*waiting)(uint32_t layer))
{
	uint32_t status, error, tick = arch_ticks;

	while (!ready) {
		arch_sleep(&ready);
		if (ready || arch_ticks == tick)   // Where wfi sleeps, nothing but a tick may ever end it if the core hangs.
			continue;
		tick = arch_ticks;
		if (arch_cycles() > deadline)
			return broken(ERROR_CORE_TIMEOUT, timeout_cycles/1000);
		waiting(llama_layer_read());
	}
	status = llama_status_read();
	error  = STATUS_ERROR(status);
	if (error)
		return broken(error == ERROR_OUT_OF_STEP ? ERROR_CORE_STREAM : ERROR_CORE_DIMENSION, error);
	if (!(status & STATUS_DONE) || (status & STATUS_BUSY))
		return broken(ERROR_CORE_STREAM, status);
	if (topk_ && llama_topk_count_read() != topk_)
		return fail(ERROR_CORE_TOPK, llama_topk_count_read(), topk_);
	llama_pass_cycles += llama_counter_value_read();
	return 0;
}

uint32_t llama_probe(uint32_t token, uint32_t position, uint32_t layers, uint32_t topk, void (*waiting)(uint32_t layer),
	struct wire_probe *probe)
{
	uint64_t start = arch_cycles();
	uint32_t error;

	llama_layers_write(layers);
	llama_start(token, position, topk);
	error         = llama_wait(waiting);
	probe->cycles = arch_cycles() - start;
	for (uint32_t i = 0; i < N_COUNTERS; i++)
		probe->counters[i] = llama_counter(i);
	if (layers != model->n_layers)
		reset();   // What was read ahead of the layers that did not run.
	llama_layers_write(model->n_layers);
	return error;
}

uint32_t llama_scan(uint32_t offset, uint32_t bytes, void (*waiting)(uint32_t layer), struct wire_scan *scan, uint32_t *signature)
{
	uint64_t timeout = TIMEOUT_BASE_CYCLES + (uint64_t)bytes*TIMEOUT_PER_BYTE, start;
	uint32_t error;

	arch_flush();   // What the CPU has written is there, too.
	llama_stream_base_write(offset);
	llama_stream_bytes_write(bytes);
	ready    = 0;
	start    = arch_cycles();
	deadline = start + timeout;
	topk_    = 0;
	llama_control_write(CONTROL_SCAN);
	error        = llama_wait(waiting);
	scan->cycles = arch_cycles() - start;
	for (uint32_t i = 0; i < N_COUNTERS; i++)
		scan->counters[i] = llama_counter(i);
	for (uint32_t i = 0; i < LLAMA_LANES/8; i++)
		signature[i] = llama_counter(N_COUNTERS + i);
	if (model) {
		llama_stream_base_write(LLAMA_IMAGE_OFFSET + model->stream_offset);
		llama_stream_bytes_write(model->stream_bytes);
	}
	return error ? fail(ERROR_SCAN_TIMEOUT, bytes, timeout/1000) : 0;
}

uint32_t llama_topk_id(uint32_t i)
{
	llama_topk_select_write(i);
	return llama_topk_id_read();
}

uint32_t llama_topk_logit(uint32_t i)
{
	llama_topk_select_write(i);
	return llama_topk_logit_read();
}

uint32_t llama_counter(uint32_t i)
{
	llama_counter_select_write(i);
	return llama_counter_value_read();
}

uint32_t llama_version(void)
{
	return llama_version_read();
}
