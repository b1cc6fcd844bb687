# SPDX-License-Identifier: BSD-2-Clause
"""Hugging Face folders of Llama models: config.json, tokenizer.json, tokenizer_config.json, *.safetensors.

There RoPE rotates pairs (i, i + head_dim/2) of a head; here pairs (2i, 2i + 1), so the rows of each head of wq and wk are
permuted: scores do not change. Names of files and keys: https://huggingface.co/docs/transformers. Errors are ValueError.
"""

import os

from ...accel.config import ModelConfig, check
from .pad import Builder, tensor_shapes
from .rope import Scaling, scaled_table
from .safetensors_file import SafeTensors, read_json
from .tokenizer_json import read_tokenizer

NAMES = {"embedding": "model.embed_tokens", "norm1": "model.layers.{}.input_layernorm", "wq": "model.layers.{}.self_attn.q_proj",
    "wk": "model.layers.{}.self_attn.k_proj", "wv": "model.layers.{}.self_attn.v_proj", "wo": "model.layers.{}.self_attn.o_proj",
    "norm2": "model.layers.{}.post_attention_layernorm", "w1": "model.layers.{}.mlp.gate_proj",
    "w2": "model.layers.{}.mlp.down_proj", "w3": "model.layers.{}.mlp.up_proj", "norm_final": "model.norm", "classifier": "lm_head"}
_REQUIRED = object()


def get(d, key, kind, default=_REQUIRED, where="config.json"):
    """d[key] as `kind` (int, float, str, bool or dict); null counts as absent."""
    value = d.get(key)
    if value is None:
        check(default is not _REQUIRED, f"{where} has no {key}")
        return default
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    check(type(value) is kind, f"{key} in {where} is {str(value)[:40]!r}, must be {kind.__name__}")
    return value


def read_config(d, context_max):
    """(ModelConfig, notes) of the object in config.json."""
    kind = get(d, "model_type", str)
    check(kind in ("llama", "mistral"),
        f"model_type is {kind[:40]!r}, only llama (and mistral without a sliding window) is supported")
    check(get(d, "hidden_act", str, "silu") == "silu", f"hidden_act is {d.get('hidden_act')!r}, only silu is supported")
    check(d.get("quantization_config") is None, "its weights are quantised: take the model in its original precision")
    dim, heads = get(d, "hidden_size", int), get(d, "num_attention_heads", int)
    check(heads > 0, f"num_attention_heads is {heads}, must be at least 1")
    trained = get(d, "max_position_embeddings", int, 2048)
    context = min(trained, context_max)
    window  = get(d, "sliding_window", int, trained)
    check(kind == "llama" or window >= context, f"a sliding window of {window} positions is not supported")
    rope    = get(d, "rope_parameters", dict, {})
    base    = get(rope, "rope_theta", float, get(d, "rope_theta", float, 10000.0))
    config  = ModelConfig(dim, get(d, "intermediate_size", int), get(d, "num_hidden_layers", int), heads,
        get(d, "num_key_value_heads", int, heads), get(d, "head_dim", int, dim//heads), get(d, "vocab_size", int), context,
        get(d, "rms_norm_eps", float, 1e-6), base)
    return config, [f"context cut from {trained} to {context}"] if trained > context else []


def read_scaling(d):
    """rope.Scaling of the object in config.json."""
    r    = get(d, "rope_parameters", dict, get(d, "rope_scaling", dict, {}))
    kind = get(r, "rope_type", str, get(r, "type", str, "default"))
    for key, usual in (("mscale", None), ("mscale_all_dim", None), ("truncate", True), ("partial_rotary_factor", 1)):
        value = r.get(key, d.get(key))
        check(value is None or value == usual, f"RoPE parameter {key} is {str(value)[:40]}, which is not supported")
    number   = lambda key, default: get(r, key, float, default)
    original = get(r, "original_max_position_embeddings", int, get(d, "max_position_embeddings", int, 2048))
    return Scaling(kind, number("factor", 1.0), original, number("low_freq_factor", 1.0), number("high_freq_factor", 4.0),
        number("beta_fast", 32.0), number("beta_slow", 1.0), number("attention_factor", None))


def adjacent_pairs(w, head_dim):
    """Rows of each head from half-split order to adjacent pairs."""
    return w.reshape(-1, 2, head_dim//2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def read_template(folder, settings):
    """Chat template: chat_template.jinja, or tokenizer_config.json's; "" if there is none."""
    path = os.path.join(folder, "chat_template.jinja")
    if os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read(1 << 20)
    template = settings.get("chat_template")
    if isinstance(template, list):   # Several, by name.
        named    = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default", next(iter(named.values()), None))
    return template if isinstance(template, str) else ""


def read_huggingface(folder, type=None, context_max=8192):
    """(Model, notes) of a folder. type: see pad.Builder."""
    def optional(name):
        path = os.path.join(folder, name)
        return read_json(path) if os.path.isfile(path) else {}
    check(os.path.isfile(os.path.join(folder, "config.json")), "this folder has no config.json: not a Hugging Face model")
    d             = read_json(os.path.join(folder, "config.json"))
    config, notes = read_config(d, context_max)
    shapes        = tensor_shapes(config)
    tensors       = SafeTensors(folder)
    name          = lambda kind, layer: NAMES[kind].format(layer) + ".weight"
    known         = {name(k, i) for k in shapes for i in range(config.n_layers if "{}" in NAMES[k] else 1)}
    unknown       = sorted(n for n in set(tensors.files) - known if not n.endswith("rotary_emb.inv_freq"))
    check(not unknown, f"there is a tensor {unknown[0][:80] if unknown else ''!r} that a plain llama does not have")
    tied          = get(d, "tie_word_embeddings", bool, False)
    settings      = optional("tokenizer_config.json")
    tokenizer, more = read_tokenizer(os.path.join(folder, "tokenizer.json"), config.vocab, settings, d,
        optional("generation_config.json"))
    rope          = scaled_table(config, read_scaling(d))
    def tensor(kind, layer):
        w = tensors.read(name(kind, layer), shapes[kind])
        return adjacent_pairs(w, config.head_dim) if kind in ("wq", "wk") else w
    build = Builder(config, type)
    label = os.path.basename(os.path.abspath(folder))
    model = build.model(tensor, tied, rope=rope, bos=tokenizer.bos, eos=tokenizer.eos, tokenizer=tokenizer.to_bytes(),
        template=read_template(folder, settings), meta=dict(name=label[:200], source="huggingface"))
    return model, notes + more + build.notes
