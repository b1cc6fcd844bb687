# SPDX-License-Identifier: BSD-2-Clause
"""Tokenizers of GGUF files: the fields `tokenizer.*`, whose meaning is what llama.cpp makes of them. Errors are ValueError."""

import numpy as np

from ...accel.config import check
from .. import bytelevel
from ..tokenizer import Tokenizer, end_of_turn_ids

TOKEN_TYPES = {1: "n", 2: "u", 3: "c", 4: "d", 5: "x", 6: "b"}


def read_tokenizer(g, vocab):
    """(Tokenizer, notes) of an opened GGUF file."""
    get    = lambda key, *kind: g.field("tokenizer.ggml." + key, *kind)
    model  = get("model", str)
    pieces = g.fields.get("tokenizer.ggml.tokens")
    check(isinstance(pieces, list) and len(pieces) == vocab and all(isinstance(p, str) for p in pieces),
        f"GGUF tokenizer's pieces must be {vocab} strings")
    def column(name, default):
        values = g.fields.get("tokenizer.ggml." + name, np.full(vocab, default))
        check(isinstance(values, np.ndarray) and len(values) == vocab, f"GGUF tokenizer's {name} must be {vocab} numbers")
        return values.tolist()
    types = "".join(TOKEN_TYPES.get(t, "n") for t in column("token_type", 1))
    eos   = get("eos_token_id", int, 0)
    bos   = get("bos_token_id", int, eos)
    more  = [t for t in (get("eot_token_id", int, None), get("eom_token_id", int, None)) if t is not None and t < vocab]
    other = dict(unknown=get("unknown_token_id", int, 0), stop=[*more, *end_of_turn_ids(pieces, types)])
    if model == "llama":
        return Tokenizer("spm", pieces, types, bos, eos, add_bos=get("add_bos_token", bool, True),
            add_space=get("add_space_prefix", bool, True), scores=column("scores", 0.0), **other), []
    check(model == "gpt2", f"GGUF tokenizer is {model[:40]!r}, supported are llama and gpt2")
    pre, merges = get("pre", str, "default"), g.fields.get("tokenizer.ggml.merges")
    check(pre in bytelevel.PRE, f"GGUF pre-tokenizer is {pre[:40]!r}, supported are {', '.join(bytelevel.PRE)}")
    check(isinstance(merges, list) and all(isinstance(m, str) for m in merges), "GGUF tokenizer has no list of merges")
    add_bos = get("add_bos_token", bool, bytelevel.PRE[pre] == "llama3")
    return Tokenizer("bpe", pieces, types, bos, eos, add_bos=add_bos, merges=merges, pre=pre, **other), []
