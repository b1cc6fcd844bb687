# SPDX-License-Identifier: BSD-2-Clause
"""Llama models of GGUF files: configuration, RoPE and tensors. What else a file can say: gguf_keys.py. Errors are ValueError."""

import numpy as np

from ...accel.config import ModelConfig, check
from .chat_templates import gguf_template, gguf_tokens, template_notes
from .gguf_file import GGUF
from .gguf_keys import GGUF_KEYS, GGUF_TENSORS
from .gguf_tokenizer import read_tokenizer
from .keys import SAMPLING, find, judge
from .pad import Builder, known_tensors, tensor_shapes
from .rope import Scaling, scaled_table, yarn_magnitude
from .sampling import suggested

NAMES = {"norm1": "blk.{}.attn_norm", "wq": "blk.{}.attn_q", "wk": "blk.{}.attn_k", "wv": "blk.{}.attn_v",
    "wo": "blk.{}.attn_output", "norm2": "blk.{}.ffn_norm", "w1": "blk.{}.ffn_gate", "w2": "blk.{}.ffn_down",
    "w3": "blk.{}.ffn_up", "embedding": "token_embd", "norm_final": "output_norm", "classifier": "output"}


def _check_kind(g):
    """Say what a file is that is no whole model."""
    if g.fields.get("split.count", 0) not in (0, 1):   # Parts after the first say nothing of the model.
        n = g.fields.get("split.no")
        check(False, f"this is part {n + 1 if isinstance(n, int) else '?'} of the {g.fields['split.count']} of a split GGUF file: join "
            "them with `llama-gguf-split --merge`")
    kind = g.fields.get("general.type", "model")
    check(kind == "model", f"general.type of this GGUF file is {str(kind)[:40]!r}: no model by itself")
    arch = g.field("general.architecture", str)
    check(arch == "llama", f"GGUF architecture is {arch[:40]!r}, only llama is supported")


def read_config(g, context_max):
    """(ModelConfig, notes) of an opened GGUF file; context is cut to `context_max` and to a sliding window."""
    _check_kind(g)
    get    = lambda key, *kind: g.field("llama." + key, *kind)
    layers = get("block_count", int)
    same   = lambda key, *default: g.same("llama." + key, layers, *default)
    dim, heads = get("embedding_length", int), same("attention.head_count")
    check(heads > 0, f"GGUF field llama.attention.head_count is {heads}, must be at least 1")
    head_dim = get("attention.key_length", int, dim//heads)
    for key, usual in (("attention.value_length", dim//heads), ("rope.dimension_count", head_dim)):
        value = get(key, int, usual)
        check(value == head_dim, f"GGUF field llama.{key} is {value}{'' if 'llama.' + key in g.fields else ' (absent)'}, must be the "
            f"head's {head_dim}")
    experts = get("expert_count", int, 0)
    check(experts == 0, f"GGUF field llama.expert_count is {experts}: mixture-of-experts models are not supported")
    embedding = g.tensors.get(NAMES["embedding"] + ".weight")
    check(embedding is not None and len(embedding.shape) == 2, "GGUF file has no token embedding")
    trained = get("context_length", int)
    window  = same("attention.sliding_window", 0) or trained
    context = min(trained, window, context_max)
    notes   = [f"context cut from {trained} to {context}"
        + (", the sliding window" if context == window < trained else "")] if trained > context else []
    config  = ModelConfig(dim, same("feed_forward_length"), layers, heads, same("attention.head_count_kv", heads), head_dim,
        embedding.shape[0], context, get("attention.layer_norm_rms_epsilon", float), get("rope.freq_base", float, 10000.0))
    return config, notes


def read_rope(g, config):
    """(RoPE table, notes) of an opened GGUF file."""
    get   = lambda key, kind, default: g.field("llama.rope." + key, kind, default)
    kind  = get("scaling.type", str, "linear")
    older = get("scale_linear", float, 1.0)
    factor, notes = get("scaling.factor", float, older) or 1.0, []   # llama.cpp takes 0 for 1.
    check(kind in ("none", "linear", "yarn"), f"RoPE scaling {kind[:40]!r} (llama.rope.scaling.type) is not supported, only none, "
        "linear, yarn and tables are")
    if "llama.rope.scale_linear" in g.fields and older != factor:
        notes.append(f"llama.rope.scale_linear is {older:g}, but llama.rope.scaling.factor {factor:g}, which counts")
    if kind == "none" and factor != 1:
        notes.append(f"RoPE is not scaled by {factor:g}, since llama.rope.scaling.type is none")
    extra    = get("scaling.attn_factor", float, 1.0)
    original = get("scaling.original_context_length", int, g.field("llama.context_length", int))
    if kind != "yarn" and "llama.rope.scaling.original_context_length" in g.fields:
        notes.append(f"llama.rope.scaling.original_context_length means nothing to RoPE scaling {kind}")
    more = g.read("rope_freqs.weight", (config.head_dim//2,)) if "rope_freqs.weight" in g.tensors else None
    scaling = Scaling(kind, factor, original, attention=extra*(yarn_magnitude(factor) if kind == "yarn" else 1))
    return scaled_table(config, scaling, more), notes


def read_gguf(data, type=None, context_max=8192):
    """(Model, notes) of a GGUF file's bytes (uint8 array). type: see pad.Builder."""
    g             = GGUF(data)
    config, notes = read_config(g, context_max)
    shapes        = tensor_shapes(config)
    name          = lambda kind, layer: NAMES[kind].format(layer) + ".weight"
    known_tensors(g.tensors, NAMES, config, GGUF_TENSORS, "rope_freqs.weight")
    notes        += judge(g.fields, GGUF_KEYS, "GGUF file", config)
    key           = {k: find(k, GGUF_KEYS) for k in g.fields}
    sampling      = {k.rpartition(".")[2]: v for k, v in g.fields.items() if key[k] and key[k].verdict == SAMPLING}
    options, more = suggested(sampling, "GGUF file")
    notes        += more
    rope, more    = read_rope(g, config)
    notes        += more
    tokenizer, more = read_tokenizer(g, config.vocab)
    template, told  = gguf_template(g)
    names         = gguf_tokens(g, tokenizer)
    notes        += told + template_notes(template, tokenizer, names)
    build = Builder(config, type)
    meta  = dict(name=g.field("general.name", str, "")[:200], source="gguf", special_tokens=names)
    model = build.model(lambda kind, layer: g.read(name(kind, layer), shapes[kind]), name("classifier", 0) not in g.tensors, rope=rope,
        bos=tokenizer.bos, eos=tokenizer.eos, tokenizer=tokenizer.to_bytes(), template=template,
        meta=meta | (dict(sampling=options) if options else {}))
    return model, notes + more + build.notes
