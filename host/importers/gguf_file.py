# SPDX-License-Identifier: BSD-2-Clause
"""GGUF files (version 2 and 3, little-endian) of architecture `llama`.

The header is read here and not by the `gguf` package, whose reader follows a hostile file's counts without end. Nothing is
allocated by what a file claims: every count and length is compared with the bytes that are left, tensors are views of the
mapped file. Tensor types: importers/ggml.py. Errors are ValueError.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from dataclasses import dataclass, replace
import math

import numpy as np

from ...accel.config import ModelConfig, check
from . import ggml
from .ggml import GGML_TYPES, OTHER_TYPES
from .gguf_tokenizer import read_tokenizer
from .pad import Builder, tensor_shapes
from .rope import Scaling, scaled_table

MAGIC    = b"GGUF"
VERSIONS = (2, 3)
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
_STRING, _ARRAY = 8, 9
_DEEPEST  = 4          # Nesting of arrays.
_REQUIRED = object()

NAMES = {"norm1": "blk.{}.attn_norm", "wq": "blk.{}.attn_q", "wk": "blk.{}.attn_k", "wv": "blk.{}.attn_v",
    "wo": "blk.{}.attn_output", "norm2": "blk.{}.ffn_norm", "w1": "blk.{}.ffn_gate", "w2": "blk.{}.ffn_down",
    "w3": "blk.{}.ffn_up", "embedding": "token_embd", "norm_final": "output_norm", "classifier": "output"}


class _Cursor:
    """Reads forward through `data` (uint8 array), never past its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size, what):
        """The next `size` bytes, as a view."""
        check(size <= len(self.data) - self.at, f"GGUF file is truncated or corrupt: {what} at byte {self.at} claims {size} "
            f"bytes, {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, dtype, what):
        """One number."""
        return self.take(np.dtype(dtype).itemsize, what).view(dtype)[0].item()

    def string(self, what):
        """Length and bytes, as str."""
        return self.take(self.number("<u8", what), what).tobytes().decode("utf-8", "replace")

    def value(self, type, what, depth=0):
        """Scalar, str, NumPy array of scalars or list of values."""
        if type in _SCALARS:
            return self.number(_SCALARS[type], what)
        if type == _STRING:
            return self.string(what)
        check(type == _ARRAY and depth < _DEEPEST, f"GGUF value {what} has unknown type {type} or is nested too deeply")
        item, n = self.number("<u4", what), self.number("<u8", what)
        if item in _SCALARS:
            return self.take(n*np.dtype(_SCALARS[item]).itemsize, what).view(_SCALARS[item])
        left = len(self.data) - self.at
        check(n*8 <= left, f"GGUF value {what} claims {n} items, {left} bytes are left")
        return [self.value(item, what, depth + 1) for _ in range(n)]


@dataclass(frozen=True)
class TensorInfo:
    """Place of a tensor: GGML type, shape as (rows, columns) or (columns,), first byte in the file."""
    type:   int
    shape:  tuple
    offset: int


class GGUF:
    """Header of a GGUF file over `data` (uint8 array, may be a memory map): `fields` {key: value}, `tensors` {name:
    TensorInfo}."""

    def __init__(self, data):
        c, self.data = _Cursor(data), data
        check(bytes(c.take(4, "magic")) == MAGIC, "not a GGUF file")
        version = c.number("<u4", "version")
        check(version in VERSIONS, f"GGUF version is {version:#x}, readable are 2 and 3 (little-endian)")
        n_tensors, n_fields = c.number("<u8", "tensor count"), c.number("<u8", "field count")
        check(n_tensors*24 + n_fields*12 <= len(data),
            f"GGUF file claims {n_tensors} tensors and {n_fields} fields in {len(data)} bytes")
        self.fields = {}
        for _ in range(n_fields):
            key = c.string("field name")
            check(key not in self.fields, f"GGUF field {key[:60]!r} appears twice")
            self.fields[key] = c.value(c.number("<u4", key[:60]), key[:60])
        infos, self.tensors = [], {}
        for _ in range(n_tensors):
            name  = c.string("tensor name")
            n     = c.number("<u4", name[:60])
            check(1 <= n <= 4, f"GGUF tensor {name[:60]!r} has {n} dimensions, must be 1 to 4")
            shape = tuple(c.number("<u8", name[:60]) for _ in range(n))[::-1]
            infos.append((name, shape, c.number("<u4", name[:60]), c.number("<u8", name[:60])))
        align = self.fields.get("general.alignment", 32)
        check(isinstance(align, int) and 1 <= align <= 1 << 20 and align & (align - 1) == 0,
            f"GGUF alignment {str(align)[:40]} is no power of two up to 2**20")
        start = -(-c.at//align)*align
        for name, shape, type, offset in infos:
            check(name not in self.tensors, f"GGUF tensor {name[:60]!r} appears twice")
            self.tensors[name] = TensorInfo(type, shape, start + offset)
        total = sum(self.size(name) for name in self.tensors)   # Tensors that share bytes could claim any amount.
        check(total <= len(data), f"GGUF file's tensors claim {total} bytes, the file has {len(data)}")

    def field(self, key, kind, default=_REQUIRED):
        """Field `key` as `kind` (int, float, str or bool); ValueError if it is absent without a default, or of another kind."""
        value = self.fields.get(key, default)
        check(value is not _REQUIRED, f"GGUF file has no field {key}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        check(value is default or (isinstance(value, kind) and (kind is not int or not isinstance(value, bool))),
            f"GGUF field {key} is {str(value)[:40]!r}, must be {kind.__name__}")
        return value

    def size(self, name):
        """Bytes of tensor `name`; 0 where its type is unknown."""
        info = self.tensors[name]
        _, items, size = GGML_TYPES.get(info.type, ("", 1, 0))
        return math.prod(info.shape)//items*size

    def read(self, name, shape):
        """Tensor `name` of `shape`: QMatrix, Foreign or float32 array. ValueError if absent, of other shape or type, or cut off."""
        info = self.tensors.get(name)
        check(info is not None, f"GGUF file has no tensor {name}")
        check(info.shape == shape, f"GGUF tensor {name} has shape {info.shape}, expected {shape}")
        check(info.type in GGML_TYPES, f"GGUF tensor {name} is of type {OTHER_TYPES.get(info.type, info.type)}, "
            f"readable are {', '.join(t[0] for t in GGML_TYPES.values())}")
        kind, items, _ = GGML_TYPES[info.type]
        check(shape[-1] % items == 0, f"GGUF tensor {name} has rows of {shape[-1]}, {kind} needs multiples of {items}")
        total = self.size(name)
        check(info.offset + total <= len(self.data), f"GGUF file is truncated: tensor {name} ends at byte "
            f"{info.offset + total}, the file at {len(self.data)}")
        raw = np.asarray(self.data[info.offset:info.offset + total])
        if items == 1:
            return ggml.floats(raw, kind).reshape(shape)
        check(len(shape) == 2, f"GGUF tensor {name} is {kind}, but no matrix")
        return ggml.matrix(raw, shape[0], kind)


# Llama --------------------------------------------------------------------------------------------

def read_config(g, context_max):
    """(ModelConfig, notes) of an opened GGUF file; context is cut to `context_max`."""
    arch = g.field("general.architecture", str)
    check(arch == "llama", f"GGUF architecture is {arch[:40]!r}, only llama is supported")
    get  = lambda key, kind=int, default=_REQUIRED: g.field("llama." + key, kind, default)
    check(get("expert_count", int, 0) == 0, "mixture-of-experts models are not supported")
    dim, heads = get("embedding_length"), get("attention.head_count")
    check(heads > 0, f"GGUF field llama.attention.head_count is {heads}, must be at least 1")
    head_dim = get("attention.key_length", int, dim//heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        value = get(key, int, head_dim)
        check(value == head_dim, f"GGUF field llama.{key} is {value}, must be the head's {head_dim}")
    embedding = g.tensors.get(NAMES["embedding"] + ".weight")
    check(embedding is not None and len(embedding.shape) == 2, "GGUF file has no token embedding")
    context = get("context_length")
    notes   = [f"context cut from {context} to {context_max}"] if context > context_max else []
    config  = ModelConfig(dim, get("feed_forward_length"), get("block_count"), heads,
        get("attention.head_count_kv", int, heads), head_dim, embedding.shape[0], min(context, context_max),
        get("attention.layer_norm_rms_epsilon", float, 1e-5), get("rope.freq_base", float, 10000.0))
    return config, notes


def read_rope(g, config):
    """RoPE table of an opened GGUF file."""
    get   = lambda key, kind, default: g.field("llama.rope." + key, kind, default)
    kind  = get("scaling.type", str, "none")
    check(kind in ("none", "linear", "yarn"),
        f"RoPE scaling {kind[:40]!r} is not supported, only none, linear, yarn and tables are")
    factor = get("scaling.factor", float, get("scale_linear", float, 1.0))   # The second is the older name.
    if kind == "none" and "llama.rope.scale_linear" in g.fields:
        kind = "linear"
    more = None
    if "rope_freqs.weight" in g.tensors:
        more = g.read("rope_freqs.weight", (config.head_dim//2,))
    if kind != "yarn":
        return scaled_table(config, Scaling(kind, factor), more)
    for key, usual in (("scaling.yarn_ext_factor", 1.0), ("scaling.yarn_log_multiplier", 0.0)):
        value = get(key, float, usual)
        check(value == usual, f"GGUF field llama.rope.{key} is {value}, must be {usual}")
    extra = get("scaling.yarn_attn_factor", float, get("scaling.attn_factor", float, 1.0))
    yarn  = Scaling(kind, factor, get("scaling.original_context_length", int, config.context), attention=None,
        beta_fast=get("scaling.yarn_beta_fast", float, 32.0), beta_slow=get("scaling.yarn_beta_slow", float, 1.0))
    return scaled_table(config, replace(yarn, attention=extra*yarn.magnitude), more)


def read_gguf(data, type=None, context_max=8192):
    """(Model, notes) of a GGUF file's bytes (uint8 array). type: see pad.Builder."""
    g             = GGUF(data)
    config, notes = read_config(g, context_max)
    shapes        = tensor_shapes(config)
    name          = lambda kind, layer: NAMES[kind].format(layer) + ".weight"
    known         = {name(k, i) for k in shapes for i in range(config.n_layers if "{}" in NAMES[k] else 1)}
    unknown       = sorted(set(g.tensors) - known - {"rope_freqs.weight"})
    check(not unknown, f"GGUF file has a tensor {unknown[0][:60] if unknown else ''!r} that a plain llama does not have")
    tokenizer, more = read_tokenizer(g, config.vocab)
    build     = Builder(config, type)
    model     = build.model(lambda kind, layer: g.read(name(kind, layer), shapes[kind]),
        name("classifier", 0) not in g.tensors, rope=read_rope(g, config), bos=tokenizer.bos, eos=tokenizer.eos,
        tokenizer=tokenizer.to_bytes(), template=g.field("tokenizer.chat_template", str, ""),
        meta=dict(name=g.field("general.name", str, "")[:200], source="gguf"))
    return model, notes + more + build.notes
