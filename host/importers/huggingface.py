# SPDX-License-Identifier: BSD-2-Clause
"""Hugging Face folders of Llama models: config.json, tokenizer.json, tokenizer_config.json, *.safetensors.

There RoPE rotates pairs (i, i + head_dim/2) of a head; here pairs (2i, 2i + 1), so the rows of each head of wq and wk are
permuted: scores do not change. Names of files and keys: https://huggingface.co/docs/transformers. Errors are ValueError.
"""

from fnmatch import fnmatchcase
import os

import numpy as np

from ...accel.config import ModelConfig, check
from .chat_templates import folder_template, folder_tokens, template_notes
from .huggingface_keys import ADAPTER, CONFIG_KEYS, GENERATION_KEYS, HF_TENSORS, ROPE_KEYS, ROPE_OF_KIND
from .keys import judge, short
from .pad import Builder, known_tensors, tensor_shapes
from .rope import Scaling, scaled_table, yarn_magnitude
from .safetensors_file import SafeTensors, read_json
from .sampling import of_generation
from .tokenizer_json import read_tokenizer

NAMES = {"embedding": "model.embed_tokens", "norm1": "model.layers.{}.input_layernorm", "wq": "model.layers.{}.self_attn.q_proj",
    "wk": "model.layers.{}.self_attn.k_proj", "wv": "model.layers.{}.self_attn.v_proj", "wo": "model.layers.{}.self_attn.o_proj",
    "norm2": "model.layers.{}.post_attention_layernorm", "w1": "model.layers.{}.mlp.gate_proj",
    "w2": "model.layers.{}.mlp.down_proj", "w3": "model.layers.{}.mlp.up_proj", "norm_final": "model.norm", "classifier": "lm_head"}
# What transformers takes where config.json has no such key (null is another thing: it means none, or the key it is derived from).
ABSENT = {"llama": dict(max_position_embeddings=2048), "mistral": dict(max_position_embeddings=131072, num_key_value_heads=8,
    sliding_window=4096)}
INV_FREQ     = "*rotary_emb.inv_freq"
DTYPE_NAMES  = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_REQUIRED    = object()


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
    """(ModelConfig, notes) of the object in config.json; context is cut to `context_max` and to a sliding window."""
    kind = get(d, "model_type", str)
    check(kind in ABSENT, f"model_type is {kind[:40]!r}, only {', '.join(ABSENT)} are supported")
    d    = ABSENT[kind] | d
    quantised = d.get("quantization_config")
    method    = f", {short(quantised.get('quant_method'))}" if isinstance(quantised, dict) else ""
    check(quantised is None, f"its weights are quantised (quantization_config in config.json{method}): take the model in its original "
        "precision")
    dim, heads = get(d, "hidden_size", int), get(d, "num_attention_heads", int)
    check(heads > 0, f"num_attention_heads is {heads}, must be at least 1")
    trained = get(d, "max_position_embeddings", int, ABSENT[kind]["max_position_embeddings"])
    unused  = get(d, "use_sliding_window", bool, True) is False
    window  = trained if unused and kind == "llama" else get(d, "sliding_window", int, trained)
    check(window > 0, f"sliding_window in config.json is {window}, must be at least 1")
    context = min(trained, window, context_max)
    notes   = [f"context cut from {trained} to {context}"
        + (", the sliding window" if context == window < trained else "")] if trained > context else []
    if unused and window < trained:
        notes.append(f"use_sliding_window in config.json is not used: for {kind} sliding_window alone counts")
    config  = ModelConfig(dim, get(d, "intermediate_size", int), get(d, "num_hidden_layers", int), heads,
        get(d, "num_key_value_heads", int, heads), get(d, "head_dim", int, dim//heads), get(d, "vocab_size", int), context,
        get(d, "rms_norm_eps", float, 1e-6), get(rope_parameters(d), "rope_theta", float, get(d, "rope_theta", float, 10000.0)))
    return config, notes + judge(d, CONFIG_KEYS, "config.json", config)


def rope_parameters(d):
    """The object about RoPE in config.json: the older name counts more, as in transformers."""
    return get(d, "rope_scaling", dict, {}) or get(d, "rope_parameters", dict, {})


def read_scaling(d, config):
    """(rope.Scaling, notes) of the object in config.json."""
    r    = rope_parameters(d)
    kind = get(r, "rope_type", str, get(r, "type", str, "default"))
    check(kind in ROPE_OF_KIND, f"RoPE scaling {kind[:40]!r} in config.json is not supported, only {', '.join(ROPE_OF_KIND)} are")
    check(not any(isinstance(v, dict) for v in r.values()), "RoPE parameters of each kind of layer are not supported")
    notes  = judge(r, ROPE_KEYS, "RoPE parameters in config.json", config)
    idle   = [k for k, v in r.items() if v is not None and k not in ROPE_OF_KIND[kind] and any(k in o for o in ROPE_OF_KIND.values())]
    notes += [f"RoPE parameters {', '.join(idle)} mean nothing to RoPE scaling {kind}"] if idle else []
    number = lambda key, default=_REQUIRED: get(r, key, float, default, "RoPE scaling in config.json")
    if kind == "default":
        return Scaling(), notes
    if kind == "linear":
        return Scaling(kind, number("factor")), notes
    trained  = get(d, "max_position_embeddings", int, ABSENT[d["model_type"]]["max_position_embeddings"])
    original = get(d, "original_max_position_embeddings", int, get(r, "original_max_position_embeddings", int, trained))
    if kind == "llama3":
        return Scaling(kind, number("factor"), original, number("low_freq_factor"), number("high_freq_factor")), notes
    check(original > 0, f"original_max_position_embeddings is {original}, must be at least 1")
    factor       = number("factor", trained/original)
    some, all    = number("mscale", 0.0), number("mscale_all_dim", 0.0)
    magnitude    = yarn_magnitude(factor, some)/yarn_magnitude(factor, all) if some and all else yarn_magnitude(factor)
    return Scaling(kind, factor, original, beta_fast=number("beta_fast", 0.0) or 32.0, beta_slow=number("beta_slow", 0.0) or 1.0,
        attention=number("attention_factor", magnitude), truncate=get(r, "truncate", bool, True)), notes


def adjacent_pairs(w, head_dim):
    """Rows of each head from half-split order to adjacent pairs."""
    return w.reshape(-1, 2, head_dim//2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def _check_folder(folder):
    """Say what a folder is that is no whole model."""
    files = sorted(os.listdir(folder))
    check(ADAPTER not in files, f"there is an {ADAPTER} in it: this is an adapter (LoRA), merge it into its model first")
    if "config.json" not in files:
        ggufs = [f for f in files if f.endswith(".gguf")]
        check(not ggufs, f"this folder has no config.json, but GGUF files: name one of them, {short(ggufs[0] if ggufs else '')}")
        check("params.json" not in files, "this folder has a params.json but no config.json: Meta's or Mistral's own format, take "
            "the one for transformers")
        check(False, "this folder has no config.json: not a Hugging Face model")


def _tensors(folder, d, config, divisors):
    """(function (kind, layer) -> tensor, whether classifier and embedding are one, notes)."""
    tensors, shapes = SafeTensors(folder), tensor_shapes(config)
    name  = lambda kind, layer: NAMES[kind].format(layer) + ".weight"
    notes = list(tensors.notes)
    known_tensors(tensors.files, NAMES, config, HF_TENSORS, INV_FREQ)
    tied, embedding, classifier = get(d, "tie_word_embeddings", bool, False), name("embedding", 0), name("classifier", 0)
    there = [n for n in (embedding, classifier) if n in tensors.files]
    if tied and len(there) == 2 and not np.array_equal(*(tensors.read(n, shapes["embedding"]) for n in there)):
        tied = False   # As transformers does.
        notes.append("config.json says that lm_head.weight is the embedding, but it is another tensor: kept")
    frequencies = config.rope_base**(-np.arange(0, config.head_dim, 2)/config.head_dim)/divisors
    for n in tensors.files:
        if fnmatchcase(n, INV_FREQ):
            stored = tensors.read(n, (config.head_dim//2,))
            if not np.allclose(stored, frequencies, rtol=0.01, atol=0):   # They may be rounded to bfloat16.
                notes.append(f"{n} is not what config.json says of RoPE, and not used")
                break
    stored, said = sorted(tensors.dtypes()), get(d, "dtype", str, get(d, "torch_dtype", str, None))
    if said is not None and stored != [DTYPE_NAMES.get(said.removeprefix("torch."))]:
        notes.append(f"config.json says {said[:20]!r}, the tensors are {', '.join(stored)}: kept as they are")
    def tensor(kind, layer):
        n = name(kind, layer)
        w = tensors.read(there[0] if tied and there and n == embedding else n, shapes[kind])
        return adjacent_pairs(w, config.head_dim) if kind in ("wq", "wk") else w
    return tensor, tied, notes


def read_huggingface(folder, type=None, context_max=8192):
    """(Model, notes) of a folder. type: see pad.Builder."""
    def optional(name):
        path = os.path.join(folder, name)
        return read_json(path) if os.path.isfile(path) else {}
    _check_folder(folder)
    d               = read_json(os.path.join(folder, "config.json"))
    config, notes   = read_config(d, context_max)
    scaling, more   = read_scaling(d, config)
    notes          += more
    rope            = scaled_table(config, scaling)
    tensor, tied, more = _tensors(folder, d, config, scaling.divisors(config.head_dim, config.rope_base))
    notes          += more
    settings, generation = optional("tokenizer_config.json"), optional("generation_config.json")
    notes          += judge(generation, GENERATION_KEYS, "generation_config.json", config)
    options, more   = of_generation(generation, "generation_config.json")
    notes          += more
    tokenizer, more = read_tokenizer(os.path.join(folder, "tokenizer.json"), config.vocab, settings, d, generation)
    template, told  = folder_template(folder, settings)
    names           = {k: v for k, v in folder_tokens(settings, optional("special_tokens_map.json")).items()
        if k not in ("bos_token", "eos_token") or v in tokenizer.pieces}
    notes          += told + template_notes(template, tokenizer, names)
    build = Builder(config, type)
    label = os.path.basename(os.path.abspath(folder))
    model = build.model(tensor, tied, rope=rope, bos=tokenizer.bos, eos=tokenizer.eos, tokenizer=tokenizer.to_bytes(), template=template,
        meta=dict(name=label[:200], source="huggingface", special_tokens=names) | (dict(sampling=options) if options else {}))
    return model, notes + more + build.notes
