# SPDX-License-Identifier: BSD-2-Clause
"""Models with random weights, for tests and measurements where the sense of the text does not matter.

Matrices are N(0, 1/sqrt(columns)), so activations stay near 1 at any depth; embedding and classifier have twice that, so
that logits spread by 2 and no token is certain; norms are near 1. The tokenizer is a small spm one: control tokens, bytes,
printable characters, then words.
"""

import struct

import numpy as np

from ..accel.config import ModelConfig, check
from ..accel.image import Q8_0, rope_table
from .importers import llama2c
from .importers.pad import Builder, tensor_shapes
from .quantise import TYPES, plain
from .tokenizer import SPACE, Tokenizer


def random_tensors(config, seed=0):
    """Function (kind, layer) -> float32 tensor in plain shape; the same for the same seed, in any order of calls."""
    shapes = tensor_shapes(config)
    kinds  = list(shapes)
    def tensor(kind, layer):
        rng, shape = np.random.default_rng([seed, kinds.index(kind), layer]), shapes[kind]
        if len(shape) == 1:
            return (1 + 0.1*rng.standard_normal(shape)).astype(np.float32)
        scale = shape[1]**-0.5*(2 if kind in ("embedding", "classifier") else 1)
        return rng.standard_normal(shape, np.float32)*np.float32(scale)
    return tensor


def random_tokenizer(vocab):
    """spm Tokenizer of `vocab` (at least 3) pieces: <unk>, <s>, </s>, 256 bytes, 95 characters, then words, as far as vocab
    goes."""
    check(vocab >= 3, f"vocab is {vocab}, must be at least 3")
    rows  = [("<unk>", "u"), ("<s>", "c"), ("</s>", "c")] + [(f"<0x{b:02X}>", "b") for b in range(256)]
    rows += [(SPACE if c == " " else c, "n") for c in map(chr, range(32, 127))]
    rows += [(f"{SPACE}word{i}", "n") for i in range(vocab - len(rows))]
    pieces, types = zip(*rows[:vocab])
    return Tokenizer("spm", list(pieces), "".join(types), 1, 2, add_space=True, scores=[-float(i) for i in range(vocab)])


def random_model(config, layers=Q8_0, classifier=None, seed=0, tied=True):
    """accel.image.Model of ModelConfig `config` with random weights.

    layers: type of the layers' matrices (accel.image.Q8_0, Q4_0, Q4_1, or its name), or a function (kind, layer) -> type
    with kinds wk, wv, wq, wo, w1, w3, w2 (of w1 and w3 the larger counts). classifier: type of embedding and classifier, as
    `layers` unless given. tied: classifier and embedding are one. Rounding is plain: a search for better scales takes time and
    has no sense here.
    """
    def type_of(kind, layer):
        type = classifier if kind in ("embedding", "classifier") and classifier is not None else layers
        type = type(kind, layer) if callable(type) else type
        return TYPES.get(type, type)
    t = random_tokenizer(config.vocab)
    return Builder(config, type_of, plain).model(random_tensors(config, seed), tied, bos=t.bos, eos=t.eos, tokenizer=t.to_bytes(),
        rope=rope_table(config.head_dim, config.context, config.rope_base), meta=dict(name=f"random {seed}", source="random"))


def llama2c_bytes(config, seed=0, tied=True):
    """(checkpoint, tokenizer) as bytes of llama2.c's legacy format; head_dim must be dim/n_heads."""
    check(config.head_dim*config.n_heads == config.dim,
        f"head_dim is {config.head_dim}, this format has dim/n_heads {config.dim/config.n_heads:g}")
    tensor  = random_tensors(config, seed)
    n_vocab = config.vocab if tied else -config.vocab
    parts   = [llama2c.HEADER.pack(config.dim, config.hidden, config.n_layers, config.n_heads, config.n_kv_heads, n_vocab,
        config.context), tensor("embedding", 0).tobytes()]
    parts  += [tensor(kind, i).tobytes() for kind in llama2c.PER_LAYER for i in range(config.n_layers)]
    rope    = rope_table(config.head_dim, config.context)[:, :config.head_dim//2]
    parts  += [tensor("norm_final", 0).tobytes(), rope[..., 0].tobytes(), rope[..., 1].tobytes()]
    parts  += [] if tied else [tensor("classifier", 0).tobytes()]
    t       = random_tokenizer(config.vocab)
    pieces  = [(p.replace(SPACE, " ").encode(), s) for p, s in zip(t.pieces, t.scores)]
    longest = struct.pack("<i", max(len(p) for p, _ in pieces))
    return b"".join(parts), longest + b"".join(struct.pack("<fi", s, len(p)) + p for p, s in pieces)


def odd_configs():
    """The three dimension sets that tests run end to end: (name, ModelConfig, tied)."""
    return [
        ("hidden172-head8", ModelConfig(64, 172, 5, 8, 4, 8, 512, 128), True),
        ("head48-one-kv",   ModelConfig(96, 256, 2, 2, 1, 48, 600, 128), True),
        ("untied",          ModelConfig(128, 320, 2, 4, 2, 32, 777, 128), False),
    ]
