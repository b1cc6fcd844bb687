# SPDX-License-Identifier: BSD-2-Clause
"""Encoding by the `tokenizers` library: the normaliser, pre-tokenizer, model and added tokens of a Tokenizer as the library's own
object, without control tokens, which text never becomes. Errors are ValueError.

`steps` of a Tokenizer: {"normalizer": ..., "pre_tokenizer": ..., "model": options}, as in a tokenizer.json.
"""

import json

from ..accel.config import check
from . import guard
from .pretokenizers import FAST

SECONDS = 5       # CPU time of one text where a step is not known to be harmless.
BEGIN, AFTER, INSIDE = "begin", "after", "inside"   # Where a part of a text stands: first, after a token found by its name, else.
_HARMLESS = ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Strip", "StripAccents", "Lowercase", "ByteLevel", "Metaspace", "Digits",
    "Punctuation", "Whitespace", "WhitespaceSplit", "CharDelimiterSplit", "UnicodeScripts", "FixedLength", "BertPreTokenizer")
# Probes that a bad regular expression takes long for.
PROBES = [c*n + end for c in ("a", " ", "0", "\n", "!", "\u00e9", "a ", "aA", "a1", "\t ", "\u65e5") for n in (30, 1000)
    for end in ("", "\x00", "!", "x")]


def flat(step, key):
    """Steps of a normaliser, pre-tokenizer or decoder, sequences flattened. key: what a Sequence calls its parts."""
    if step is None:
        return []
    check(isinstance(step, dict) and isinstance(step.get("type"), str), "tokenizer.json is corrupt: a step without a type")
    if step["type"] != "Sequence":
        return [step]
    check(isinstance(step.get(key), list), "tokenizer.json is corrupt: an empty sequence")
    return [part for s in step[key] for part in flat(s, key)]


def harmless(steps):
    """True if no step can take long or make a text much longer."""
    for s in flat(steps.get("normalizer"), "normalizers") + flat(steps.get("pre_tokenizer"), "pretokenizers"):
        pattern = s.get("pattern")
        regex   = pattern.get("Regex") if isinstance(pattern, dict) else None
        short   = s["type"] == "Prepend" and len(str(s.get("prepend"))) < 5 or s["type"] == "Replace" and regex is None \
            and len(str(s.get("content"))) < 5
        if s["type"] not in _HARMLESS and not short and not (s["type"] == "Split" and (regex is None or regex in FAST)):
            return False
    return len(str(steps.get("normalizer"))) < 2000


def _placed(step, key, place):
    """`step` as it is for a part of a text at `place`: what is put before a text goes away where nothing begins."""
    if not isinstance(step, dict) or place == BEGIN:
        return step
    if step["type"] == "Sequence":
        parts = [_placed(s, key, place) for s in step[key]]
        return step | {key: [s for s in parts if s is not None]}
    if step["type"] == "Metaspace":
        scheme = step.get("prepend_scheme", "always")
        return step | dict(prepend_scheme="never" if place == INSIDE or scheme == "first" else scheme)
    if place == INSIDE and step["type"] == "ByteLevel":
        return step | dict(add_prefix_space=False)
    return None if place == INSIDE and step["type"] == "Prepend" else step


class Library:
    """The library's object for a Tokenizer `t` (kinds bpe, unigram)."""

    def __init__(self, t):
        self._t, self._made = t, {}
        self._careful = not harmless(t.steps)
        self._ours    = [i for i, p in enumerate(t.pieces) if p and t.types[i] in "nbdux"]   # The library's ids: places here.
        seen          = {}
        self._ours    = [i for i in self._ours if seen.setdefault(t.pieces[i], i) == i]

    def _build(self, place):
        import tokenizers
        t, n  = self._t, len(self._ours)
        ids   = {t.pieces[i]: k for k, i in enumerate(self._ours)}
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False} if t.kind == "bpe" else {"type": "Unigram"}
        model |= t.steps.get("model", {})
        if t.kind == "bpe":
            model |= dict(vocab=ids, merges=self._merges(ids))
        else:
            model |= dict(vocab=[[t.pieces[i], t.scores[i]] for i in self._ours],
                unk_id=ids.get(t.pieces[t.unknown]) if t.types[t.unknown] == "u" else None)
        steps = {key: _placed(t.steps.get(key), parts, place) for key, parts in
            (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"))}
        made  = guard.call(tokenizers.Tokenizer.from_str, json.dumps(dict(version="1.0", truncation=None, padding=None,
            added_tokens=[], post_processor=None, decoder=None, model=model) | steps))
        table = list(self._ours)
        if t.added is not None:
            own = [i for i, p in enumerate(t.pieces) if p and t.types[i] in "da"]
            guard.call(made.add_tokens, [tokenizers.AddedToken(t.pieces[i], special=False, **t.flags(i)) for i in own])
            for i in own:
                id = made.token_to_id(t.pieces[i])
                table += [0]*(id + 1 - len(table))
                table[id] = i
        return made, table

    def _merges(self, ids):
        """Pairs of pieces, without those of control tokens; ValueError if one has parts that are no pieces."""
        t, pairs = self._t, []
        hidden   = {p for p, c in zip(t.pieces, t.types) if c in "ca"} - set(ids)
        for merge in dict.fromkeys(m if isinstance(m, str) else tuple(m) for m in t.merges):
            parts = merge.split(" ") if isinstance(merge, str) else merge
            known = len(parts) == 2 and parts[0] in ids and parts[1] in ids and "".join(parts) in ids
            check(known or len(parts) == 2 and {*parts, "".join(parts)} & hidden,
                f"merge {str(merge)[:40]!r} has parts that are no pieces")
            pairs += [list(parts)] if known else []
        return pairs

    def encode(self, text, place=BEGIN):
        """Ids of a part of a text that stands at `place`."""
        if place not in self._made:
            self._made[place] = self._build(place)
        made, table = self._made[place]
        work = lambda: made.encode(text, add_special_tokens=False).ids
        try:
            ids = guard.run(work, SECONDS) if self._careful else guard.call(work)
        except ValueError as e:
            raise ValueError(f"the model's tokenizer fails on this text: {e}") from None
        return [table[i] for i in ids]

    def written(self, id):
        """Name of added token `id` as it stands in a text: the normalised one, where it is found in the normalised text."""
        if BEGIN not in self._made:
            self._made[BEGIN] = self._build(BEGIN)
        made, table = self._made[BEGIN]
        return made.id_to_token(table.index(id))

    def probe(self):
        """ValueError if the tokenizer cannot be built, or fails on one of PROBES."""
        def work():
            made, _ = self._build(BEGIN)
            for text in PROBES if self._careful else PROBES[:1]:
                guard.call(lambda: made.encode(text, add_special_tokens=False))
        work() if not self._careful else guard.run(work, 2*SECONDS)
