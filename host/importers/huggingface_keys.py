# SPDX-License-Identifier: BSD-2-Clause
"""What a Hugging Face folder can say: rows of keys.Key, the first that matches counts.

Keys that transformers' LlamaConfig and MistralConfig do not have, but their relatives do, are refused where they would change the
model: whoever wrote one meant something by it. Names: https://huggingface.co/docs/transformers.
"""

import math

from .keys import NOTHING, REFUSED, SAMPLING, TOLD, USED, Key

_DESCRIBES = """_name_or_path name_or_path transformers_version tokenizer_class unsloth_* pretraining_tp transformers.js_config
    is_llama_config finetuning_task id2label label2id problem_type license"""
_RUNS = """use_cache initializer_range attention_dropout hidden_dropout embd_pdrop resid_pdrop dropout gradient_checkpointing
    return_dict output_attentions output_hidden_states torchscript use_bfloat16 chunk_size_feed_forward _attn_implementation*
    attn_implementation _flash_attn_* is_decoder pad_token_id use_return_dict tf_legacy_loss max_window_layers rope_scaling_layers"""
_BIAS    = "attention_bias mlp_bias qkv_bias attn_bias attention_out_bias use_bias bias lm_head_bias"
_MULTIPLIERS = "residual_multiplier logits_scaling logit_scale embedding_multiplier scale_emb lm_head_multiplier rope_ratio"
_OTHERS  = """use_qk_norm qk_norm qk_layernorm clip_qkv final_logit_softcapping attn_logit_softcapping no_rope_layer_interval
    num_local_experts num_experts n_routed_experts n_shared_experts num_experts_per_tok moe_* num_nextn_predict_layers kv_lora_rank
    q_lora_rank parallel_attn use_parallel_residual rope_interleaved interleaved attention_chunk_size alibi use_mup
    is_encoder_decoder add_cross_attention attn_temperature_tuning attention_sink_size pruned_heads
    attn_layernorms sandwich_norm"""

CONFIG_KEYS = (
    Key("model_type", USED, "llama or mistral"),
    Key("hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size "
        "max_position_embeddings rms_norm_eps tie_word_embeddings", USED, "with transformers' defaults where absent"),
    Key("rope_theta rope_scaling rope_parameters original_max_position_embeddings", USED, "see the table of RoPE"),
    Key("bos_token_id eos_token_id", USED, "by the tokenizer"),
    Key("sliding_window use_sliding_window", USED, "the context is cut to the window, so that all positions see each other"),
    Key("dtype torch_dtype", USED, "a note if the tensors have another"),
    Key("architectures", TOLD, "", ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM")),
    Key("auto_map", TOLD, "code of its own is not run"),
    Key("quantization_config compression_config", REFUSED, "its weights are quantised: take the model in its original precision"),
    Key("hidden_act hidden_activation", REFUSED, "", ("silu", "swish")),
    Key(_BIAS, REFUSED, "", (False,)),
    Key(_MULTIPLIERS, REFUSED, "", (1,)),
    Key("attention_multiplier", REFUSED, "must be 1/sqrt(head_dim)", lambda v, c: math.isclose(v, c.head_dim**-0.5, rel_tol=1e-6)),
    Key("query_pre_attn_scalar", REFUSED, "must be head_dim", lambda v, c: v == c.head_dim),
    Key("partial_rotary_factor rotary_pct", REFUSED, "", (1,)),
    Key("no_rope_layers", REFUSED, "a layer without RoPE", (1,)),
    Key("layer_types", REFUSED, "", ("full_attention", "attention", "sliding_attention")),
    Key("is_causal", REFUSED, "", (True,)),
    Key(_OTHERS, REFUSED, "of another kind of model", (0, False)),
    Key("temperature top_k top_p min_p do_sample repetition_penalty max_new_tokens", TOLD, "generation_config.json is its place",
        (False,)),
    Key("num_beams num_beam_groups num_return_sequences typical_p length_penalty", TOLD, "there is no such search here", (1,)),
    Key("no_repeat_ngram_size encoder_no_repeat_ngram_size diversity_penalty min_length early_stopping", TOLD,
        "there is nothing like it here", (0, False)),
    Key("suppress_tokens begin_suppress_tokens bad_words_ids forced_bos_token_id forced_eos_token_id "
        "exponential_decay_length_penalty", TOLD, "there is nothing like it here"),
    Key("max_length output_scores return_dict_in_generate remove_invalid_values decoder_start_token_id sep_token_id prefix "
        "task_specific_params tie_encoder_decoder cross_attention_hidden_size", NOTHING),
    Key(" ".join(_DESCRIBES.split()), NOTHING, "describe the model"),
    Key(" ".join(_RUNS.split()), NOTHING, "training, or how transformers runs it"),
)
# Of rope_parameters or rope_scaling. Which of them a kind of scaling reads: ROPE_OF_KIND.
ROPE_KEYS = (
    Key("rope_type type", USED, "default, linear, llama3, yarn; any other is refused"),
    Key("rope_theta", USED),
    Key("factor", USED, "linear, llama3, yarn (there max_position_embeddings/original unless given)"),
    Key("low_freq_factor high_freq_factor", USED, "llama3"),
    Key("original_max_position_embeddings", USED, "llama3, yarn; outside of rope_parameters it counts more"),
    Key("beta_fast beta_slow attention_factor mscale mscale_all_dim truncate", USED, "yarn"),
    Key("partial_rotary_factor", REFUSED, "", (1,)),
    Key("finetuned", NOTHING),
)
_ORIGINAL    = ("factor", "original_max_position_embeddings")
ROPE_OF_KIND = {"default": (), "linear": ("factor",), "llama3": (*_ORIGINAL, "low_freq_factor", "high_freq_factor"),
    "yarn": (*_ORIGINAL, "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate")}
_NO_SEARCH = """num_beams num_beam_groups num_return_sequences typical_p length_penalty encoder_repetition_penalty guidance_scale
    top_h"""
_NO_RULE   = """no_repeat_ngram_size encoder_no_repeat_ngram_size diversity_penalty min_length min_new_tokens early_stopping
    epsilon_cutoff eta_cutoff penalty_alpha prompt_lookup_num_tokens renormalize_logits token_healing suppress_tokens
    begin_suppress_tokens bad_words_ids force_words_ids constraints forced_bos_token_id forced_eos_token_id sequence_bias
    exponential_decay_length_penalty watermarking_config dola_layers max_time use_mtp"""
GENERATION_KEYS = (
    Key("eos_token_id", USED, "all of them end an answer"),
    Key("do_sample", USED, "without it transformers is greedy, as the command line is by default"),
    Key("temperature top_k top_p min_p repetition_penalty max_new_tokens stop_strings", SAMPLING),
    Key(" ".join(_NO_SEARCH.split()), TOLD, "there is no such search here", (1,)),
    Key(" ".join(_NO_RULE.split()), TOLD, "there is nothing like it here", (0, False)),
    Key("bos_token_id pad_token_id decoder_start_token_id max_length transformers_version _from_model_config use_cache "
        "cache_implementation cache_config return_dict_in_generate output_* remove_invalid_values return_legacy_cache "
        "generation_kwargs low_memory compile_config disable_compile max_cache_len is_assistant num_assistant_tokens* "
        "assistant_* target_lookbehind max_matching_ngram_size speculation_type prefill_chunk_size continuous_batching_config "
        "trust_remote_code", NOTHING,
        "describe the file, or how transformers runs it"),
)
ADAPTER = "adapter_config.json"
HF_TENSORS = (
    Key("model.embed_tokens.weight model.norm.weight lm_head.weight", USED, "tied: the one that is there; both, and they differ: both"),
    Key(" ".join(f"model.layers.*.{n}.weight" for n in ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
        "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")), USED, "for each layer"),
    Key("*rotary_emb.inv_freq", USED, "a note if it is not what the configuration says, which counts"),
    Key("*.bias", REFUSED, "a bias"),
    Key("*.experts.* *.block_sparse_moe.* *.mlp.gate.weight", REFUSED, "mixture of experts"),
    Key("*lora_A* *lora_B*", REFUSED, "an adapter: merge it into its model first"),
    Key("*_norm.weight", REFUSED, "a further norm"),
    Key("*_scale *.scales *.qweight *.qzeros *.g_idx *.weight_packed *.weight_shape", REFUSED, "of quantised weights"),
    Key("*", REFUSED, "no plain llama has it"),
)
