# SPDX-License-Identifier: BSD-2-Clause
"""Byte-level BPE by the `tokenizers` library: pre-tokenizers by name, and GPT-2's alphabet of printable bytes.

In that alphabet a byte that prints (33-126, 161-172, 174-255) is the character of its own number, every other one is the
next unused character from 256 on. Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
"""

from ..accel.config import check

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
PRE    = {"gpt-2": "gpt2", "gpt2": "gpt2", "default": "gpt2", "smollm": "smollm", "llama-bpe": "llama3", "llama3": "llama3",
    "llama-v3": "llama3"}   # GGUF's name of a pre-tokenizer: the kind here.
SPLIT  = "split:"   # Before a regular expression: words are what it finds, and what is between.
WORDS  = "words:"   # As SPLIT, and words that are pieces stay whole, whatever the merges say (as llama3).


def is_known(pre):
    """True if `pre` names a pre-tokenizer: in PRE, or SPLIT or WORDS and a regular expression."""
    return isinstance(pre, str) and (pre in PRE or pre.startswith((SPLIT, WORDS)))


def _alphabet():
    own   = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in own}
    rest  = [b for b in range(256) if b not in table]
    return table | {b: chr(256 + i) for i, b in enumerate(rest)}


ALPHABET = _alphabet()
_BYTES   = {c: b for b, c in ALPHABET.items()}


def to_bytes(piece):
    """Bytes of a piece written in the alphabet; characters outside it stand for themselves."""
    return b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in piece)


def from_bytes(data):
    """Piece of `data`, written in the alphabet."""
    return "".join(ALPHABET[b] for b in data)


def build(ids, merges, pre):
    """tokenizers.Tokenizer over pieces `ids` ({piece: id}) and `merges` (["left right"]); ValueError if they do not fit."""
    import tokenizers
    from tokenizers import models, pre_tokenizers
    kind  = PRE.get(pre, pre[:len(SPLIT)])
    pairs = [tuple(m.split(" ")) for m in merges]
    for m, pair in zip(merges, pairs):
        known = len(pair) == 2 and pair[0] in ids and pair[1] in ids and "".join(pair) in ids
        check(known, f"merge {m[:40]!r} has parts that are no pieces")
    t = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs, ignore_merges=kind in ("llama3", WORDS)))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "smollm"))
    if kind in ("gpt2", "smollm"):
        first = [pre_tokenizers.Digits(individual_digits=True)] if kind == "smollm" else []
    else:
        try:
            first = [pre_tokenizers.Split(tokenizers.Regex(LLAMA3 if kind == "llama3" else pre[len(SPLIT):]), "isolated")]
        except Exception as e:   # What the library raises.
            raise ValueError(f"pre-tokenizer's regular expression cannot be used: {' '.join(str(e).split())[:200]}") from None
    t.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])
    return t
