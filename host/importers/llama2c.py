# SPDX-License-Identifier: BSD-2-Clause
"""llama2.c's legacy checkpoints (`.bin`, version 0) with their `tokenizer.bin`.

Checkpoint, little-endian: 7 int32 (dim, hidden, layers, heads, kv_heads, vocab (negative: classifier of its own), context),
then float32 tensors by kind, each over all layers: embedding, norm1, wq, wk, wv, wo, norm2, w1, w2, w3, norm_final, two
RoPE tables (context x head_dim/2 each; run.c computes its own with base 10,000, so do we, and say if these differ), and the
classifier where it is not tied.
There is no magic: the size must fit exactly. RMSNorm's epsilon is 1e-5, BOS 1, EOS 2.

Tokenizer: int32 longest piece, then per piece float32 score, int32 length, bytes. Errors are ValueError.
"""

import math
import re
import struct

import numpy as np

from ...accel.config import ModelConfig, check
from ...accel.image import rope_table
from ..added import end_of_turn
from ..spm import SPACE
from ..tokenizer import Tokenizer
from .pad import Builder, tensor_shapes

HEADER   = struct.Struct("<7i")
BOS, EOS = 1, 2
PER_LAYER = ("norm1", "wq", "wk", "wv", "wo", "norm2", "w1", "w2", "w3")
_CONTROL = re.compile(rf"<\|[^|<>\s{SPACE}]+\|>\Z")   # How chat models name control tokens.
_BYTE    = re.compile(r"<0x[0-9A-Fa-f]{2}>\Z")


def read_config(data):
    """(ModelConfig, tied) of a checkpoint's header; ValueError if it can be none."""
    what = "no model that is known here (image, GGUF, llama2.c checkpoint, Hugging Face folder)"
    check(len(data) >= HEADER.size, f"file has {len(data)} bytes: {what}")
    numbers = HEADER.unpack_from(bytes(data[:HEADER.size]))
    dim, hidden, layers, heads, kv_heads, vocab, context = numbers
    check(min(dim, hidden, layers, heads, kv_heads, abs(vocab), context) > 0 and max(map(abs, numbers)) < 1 << 24,
        f"{what}: begins with {bytes(data[:8]).hex(' ')}")
    check(dim % heads == 0, f"llama2.c checkpoint's dim is {dim}, must be a multiple of its {heads} heads")
    check(vocab > EOS or vocab < -EOS, f"vocabulary is {abs(vocab)}, must hold BOS {BOS} and EOS {EOS}")
    return ModelConfig(dim, hidden, layers, heads, kv_heads, dim//heads, abs(vocab), context), vocab > 0


def check_size(data):
    """ValueError if `data` is no whole checkpoint: there is no magic, so the size decides."""
    config, tied = read_config(data)
    size = HEADER.size + 4*layout(config, tied)[1]
    check(len(data) >= size, f"llama2.c checkpoint is truncated, or another kind of file: {len(data)} bytes, its dimensions need {size}")
    check(len(data) == size, f"llama2.c checkpoint has {len(data)} bytes, its dimensions need {size}: another kind of file, or damaged")


def layout(config, tied):
    """({kind: first float32 of the tensor}, total number of float32): where tensors lie after the header."""
    shapes, at, offsets = tensor_shapes(config), 0, {}
    for kind in ("embedding", *PER_LAYER, "norm_final", "rope") + (() if tied else ("classifier",)):
        offsets[kind] = at
        size = config.context*config.head_dim if kind == "rope" else math.prod(shapes[kind])
        at  += size*(config.n_layers if kind in PER_LAYER else 1)
    return offsets, at


def read_tokenizer(data, vocab):
    """Tokenizer of a tokenizer.bin's bytes with `vocab` pieces. A piece `<|name|>` is taken as a control token."""
    check(len(data) >= 4, "tokenizer.bin is truncated: it has no length field")
    data, at, pieces, scores = bytes(data), 4, [], []
    for i in range(vocab):
        check(at + 8 <= len(data), f"tokenizer.bin is truncated or for another model: it ends at piece {i} of {vocab}")
        score, length = struct.unpack_from("<fi", data, at)
        check(0 <= length <= len(data) - at - 8,
            f"tokenizer.bin is corrupt: piece {i} claims {length} bytes, {len(data) - at - 8} are left")
        pieces.append(data[at + 8:at + 8 + length].decode("utf-8", "replace").replace(" ", SPACE))
        scores.append(score)
        at += 8 + length
    check(at == len(data), f"tokenizer.bin has {len(data) - at} bytes more than the {vocab} pieces of this model: it is for another one")
    types = "".join("u" if i == 0 else "c" if i in (BOS, EOS) or _CONTROL.match(p) else "b" if _BYTE.match(p) else "n"
        for i, p in enumerate(pieces))
    types, stop = end_of_turn(pieces, types)
    # llama2.c's stories separate texts by BOS, so BOS ends one too.
    return Tokenizer("spm", pieces, types, BOS, EOS, stop=[BOS, *stop], add_space=True, scores=scores)


def read_llama2c(data, tokenizer, type=None):
    """(Model, notes) of a checkpoint's bytes (uint8 array); tokenizer: the tokenizer.bin's bytes. type: see pad.Builder."""
    check_size(data)
    config, tied   = read_config(data)
    offsets, _     = layout(config, tied)
    floats, shapes = data[HEADER.size:].view("<f4"), tensor_shapes(config)
    def tensor(kind, layer):
        size = math.prod(shapes[kind])
        at   = offsets[kind] + layer*size
        return np.asarray(floats[at:at + size]).reshape(shapes[kind])
    t     = read_tokenizer(tokenizer, config.vocab)
    rope  = rope_table(config.head_dim, config.context)
    size  = config.context*config.head_dim//2
    there = floats[offsets["rope"]:offsets["rope"] + 2*size].reshape(2, config.context, -1)
    same  = all(np.allclose(a, b, atol=5e-3) for a, b in zip(there, np.moveaxis(rope[:, :config.head_dim//2], 2, 0)))
    notes = [] if same else ["its RoPE tables are not those of base 10,000, which counts here as in run.c"]
    build = Builder(config, type)
    model = build.model(tensor, tied, rope=rope, bos=t.bos, eos=t.eos, tokenizer=t.to_bytes(), meta=dict(name="", source="llama2.c"))
    return model, notes + build.notes
