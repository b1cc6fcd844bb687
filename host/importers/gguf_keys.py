# SPDX-License-Identifier: BSD-2-Clause
"""What a GGUF file of architecture `llama` can say: rows of keys.Key, the first that matches counts.

llama.cpp reads some keys for other architectures only. Where such a key would change the model, it is refused here: whoever wrote it
meant something by it. Names: gguf.md of https://github.com/ggml-org/ggml, and those that llama.cpp's library holds.
"""

import math

from .keys import NOTHING, REFUSED, SAMPLING, TOLD, USED, Key


def _names(text, prefix="llama."):
    return " ".join(prefix + name for name in text.split())


_GENERAL = """author version organization description quantized_by license license.* url doi uuid repo_url source.* base_model.*
    dataset.* datasets tags languages basename finetune size_label file_type"""
# Of other architectures, all of which do more than a plain llama.
_OTHERS = """attention.clamp_kqv attention.max_alibi_bias attn_logit_softcapping final_logit_softcapping router_logit_softcapping
    activation.* adapters.* altup.* attention.compress_* attention.*_lora_rank* attention.group_norm_groups attention.indexer.*
    attention.*_mla attention.*_mla_swa attention.output_group_count attention.recurrent_layers attention.relative_buckets_count
    attention.rope_pattern attention.shared_kv_layers attention.temperature_* attention.value_expert_* attn_res.* conv_* convnext.*
    block_size decision.* decoder_block_count deepstack_mapping dense_* embedding_length_per_layer_input expert_* experts_per_group
    full_attention_interval hash_layer_count hrm.* hyper_connection.* interleave_moe_layer_step kda.* leading_dense_block_count moe_*
    n_deepstack_layers nextn_predict_layers norm_before_* ple.* posnet.* rescale_every_n_layers rope.dimension_sections selector_*
    shortconv.* ssm.* swiglu_clamp_* swin_norm target_hidden_size target_layers time_decay_extra_dim time_mix_extra_dim
    token_shift_count use_parallel_residual wkv.* skip_loop_final_norm"""

GGUF_KEYS = (
    Key("general.architecture", USED, "must be llama"),
    Key("general.name", USED, "`inspect` shows it"),
    Key("general.alignment", USED),
    Key("general.type", REFUSED, "this is an adapter or another part of a model", ("model",)),
    Key("general.quantization_version", REFUSED, "blocks of older versions have another layout", (2,)),
    Key("general.sampling.sequence", TOLD, "the order here is fixed"),
    Key(_names("temp top_k top_p min_p penalty_repeat penalty_last_n", "general.sampling."), SAMPLING),
    Key(_names("mirostat mirostat_eta mirostat_tau xtc_probability xtc_threshold", "general.sampling."), TOLD,
        "there is no such sampler here", (0,)),
    Key(_names(_GENERAL, "general.") + " quantize.imatrix.*", NOTHING, "describe the file"),
    Key("general.tensor_extra.*", TOLD, "precision of other engines"),
    Key("split.count", REFUSED, "a part of a split file: join the parts with `llama-gguf-split --merge`", (0, 1)),
    Key("split.no split.tensors.count", NOTHING, "beside split.count"),
    Key("adapter.*", REFUSED, "this is an adapter: merge it into its model first"),
    Key("tokenizer.chat_template tokenizer.chat_template.*", USED, "the default one, the others are told: templates.md"),
    Key("tokenizer.chat_templates", NOTHING, "names of the others"),
    Key("tokenizer.*", USED, "tokenizers.md"),
    Key(_names("context_length embedding_length block_count feed_forward_length attention.head_count attention.head_count_kv"), USED,
        "one value for all layers, or a list of equal ones"),
    Key("llama.attention.key_length", USED),
    Key("llama.attention.value_length llama.rope.dimension_count", USED, "must be the head's size"),
    Key("llama.attention.layer_norm_rms_epsilon llama.rope.freq_base", USED),
    Key("llama.attention.sliding_window", USED, "the context is cut to it, so that all positions see each other"),
    Key("llama.attention.sliding_window_pattern", NOTHING, "since the context is cut to the window"),
    Key("llama.rope.scaling.type", USED, "none, linear, yarn; linear unless given, as in llama.cpp; longrope is refused"),
    Key("llama.rope.scaling.factor llama.rope.scale_linear", USED, "the second if the first is absent; not with type none"),
    Key("llama.rope.scaling.attn_factor", USED, "on cosines and sines, with every type"),
    Key("llama.rope.scaling.original_context_length", USED, "yarn; the context unless given"),
    Key("llama.rope.scaling.finetuned", NOTHING),
    Key("llama.rope.scaling.yarn_ext_factor llama.rope.scaling.yarn_attn_factor llama.rope.scaling.yarn_beta_slow", TOLD,
        "nor does llama.cpp read it for this architecture", (1,)),
    Key("llama.rope.scaling.yarn_beta_fast", TOLD, "nor does llama.cpp read it for this architecture", (32,)),
    Key("llama.rope.scaling.yarn_log_multiplier", TOLD, "nor does llama.cpp read it for this architecture", (0,)),
    Key("llama.rope.scaling.alpha", REFUSED, "", (0, 1)),
    Key("llama.vocab_size", TOLD, "the embedding's rows count", lambda v, c: v == c.vocab),
    Key("llama.attention.scale", REFUSED, "must be 1/sqrt(head size)",
        lambda v, c: v == 0 or math.isclose(v, c.head_dim**-0.5, rel_tol=1e-6)),
    Key(_names("logit_scale residual_scale embedding_scale attention.value_scale attention.output_scale num_loops"), REFUSED, "",
        (0, 1)),
    Key("llama.attention.causal", REFUSED, "", (True,)),
    Key("llama.hidden_activation", REFUSED, "", ("silu", "swish")),
    Key("llama.embedding_length_out llama.features_length", REFUSED, "must be the embedding's length", lambda v, c: v in (0, c.dim)),
    Key("llama.attention.key_length_swa llama.attention.value_length_swa llama.rope.dimension_count_swa", REFUSED,
        "must be the head's size", lambda v, c: v == c.head_dim),
    Key("llama.rope.freq_base_swa", REFUSED, "must be rope.freq_base", lambda v, c: v == c.rope_base),
    Key("llama.attention.layer_norm_epsilon llama.attention.group_norm_epsilon", TOLD, "there is RMSNorm alone"),
    Key("llama.tensor_data_layout", REFUSED, "", ("Meta AI original pth", "reference")),
    Key("llama.pooling_type llama.classifier.* llama.decoder_start_token_id", TOLD, "for embeddings or other kinds of model", (0,)),
    Key(_names(_OTHERS), REFUSED, "of another kind of model", (0, False)),
)
GGUF_TENSORS = (
    Key("token_embd.weight output_norm.weight output.weight", USED, "without `output` the classifier is the embedding"),
    Key(" ".join(f"blk.*.{n}.weight" for n in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate",
        "ffn_up", "ffn_down")), USED, "for each layer"),
    Key("rope_freqs.weight", USED, "divisors of the frequencies, beside any scaling"),
    Key("rope_factors_long.weight rope_factors_short.weight", REFUSED, "longrope"),
    Key("*.bias", REFUSED, "a bias"),
    Key("*_exps.* *_shexp.* *ffn_gate_inp.* blk.*.ffn_*.*.weight", REFUSED, "mixture of experts"),
    Key("*_norm.weight", REFUSED, "a further norm"),
    Key("*.lora_a *.lora_b", REFUSED, "an adapter: merge it into its model first"),
    Key("*.scale *.input_scale", REFUSED, "a scale of its own"),
    Key("*", REFUSED, "no plain llama has it"),
)
