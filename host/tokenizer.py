# SPDX-License-Identifier: BSD-2-Clause
"""Tokenizers as data: text to token ids and back, incrementally; stored in the image's TOKN section.

Three kinds:
- `spm`: SentencePiece's BPE by score with byte fallback, as llama.cpp and llama2.c have it (spm.py).
- `bpe`: BPE with merges, of bytes or of characters, by the `tokenizers` library (library.py) with the normaliser, pre-tokenizer
  and options in `steps`.
- `unigram`: SentencePiece's unigram model, by the library likewise.

Text never becomes a control token: those come only from `encode_prompt` with the template's own text (host/template.py).

TOKN section: UTF-8 JSON, one object: `version` (2), `kind`, `pieces` (list of str, index is the id), `types` (str, one letter
per piece: n normal, u unknown, c control, d user-defined, a added: as d, but not of the model's own pieces, x unused, b byte),
`bos`, `eos`, `unknown` (ids), `stop` (ids that end a turn), `add_bos`, `add_space` (spm: a text starts with a space), `scores`
(spm, unigram) or `merges` (bpe: list of "left right" or [left, right]), `steps` (bpe, unigram; library.py), `decode` (what pieces
are: "bytes" in GPT-2's alphabet, or "spaces": text with "\\u2581" for a space), `strip` (spaces that decoding drops where a text
starts; -1: all of the first piece), `added` ({id: letters}: tokens found by their names as a tokenizer.json has it, added.FLAGS;
null: as llama.cpp has it) and `rstrip` (ids of control tokens that take the white space after them; llama.cpp). Sections of
version 1 are read. Errors are ValueError.
"""

import codecs
import functools
import json
import math
import re

from ..accel.config import LIMITS, check
from . import added as names
from . import bytelevel, library, pretokenizers
from .added import control_pattern
from .library import AFTER, BEGIN, INSIDE
from .spm import SPACE, Merger

VERSION = 2
TYPES   = "nucdaxb"
KINDS   = ("spm", "bpe", "unigram")
BYTE    = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


class StreamDecoder:
    """Text of a token stream: feed ids, get what is complete so far; incomplete UTF-8 waits, invalid becomes U+FFFD.

    at_start: the stream begins a text, so the space that encoding put there is dropped.
    """

    def __init__(self, tokenizer, at_start=True):
        self.tokenizer, self._strip = tokenizer, tokenizer.strip if at_start else 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token):
        """Text that `token` completes; control tokens give none."""
        t = self.tokenizer
        if t.is_control(token):
            return self._utf8.decode(b"", True)
        data = t.piece(token)
        if self._strip:
            kept        = data.lstrip(b" ") if self._strip < 0 else data[:self._strip].lstrip(b" ") + data[self._strip:]
            self._strip = 0 if kept or self._strip < 0 else self._strip - len(data)
            data        = kept
        return self._utf8.decode(data)

    def flush(self):
        """Text of what was left incomplete, at the end of the stream."""
        return self._utf8.decode(b"", True)


class Tokenizer:
    """See the module. pieces: list of str; types: str of TYPES, same length; stop: ids that end a turn besides eos; scores: list
    of float; `added`: {id: letters} or None; strip: as add_space unless given."""

    def __init__(self, kind, pieces, types, bos, eos, unknown=0, stop=(), add_bos=True, add_space=False, scores=None,
                 merges=None, steps=None, decode="spaces", strip=None, added=None, rstrip=()):
        n = len(pieces)
        check(kind in KINDS, f"tokenizer kind is {kind!r}, must be {', '.join(KINDS)}")
        check(1 <= n <= LIMITS["vocab"], f"tokenizer has {n} pieces, must be 1 to {LIMITS['vocab']}")
        check(len(types) == n and set(types) <= set(TYPES),
            f"tokenizer's {n} pieces have {len(types)} types, or unknown ones")
        for name, id in (("bos", bos), ("eos", eos), ("unknown", unknown), *(("stop", s) for s in stop),
                *(("added", i) for i in added or ()), *(("rstrip", i) for i in rstrip)):
            check(0 <= id < n, f"tokenizer's {name} token is {id}, it has {n} pieces")
        try:
            "".join(pieces).encode()
        except UnicodeEncodeError:
            raise ValueError("a tokenizer's piece is no valid Unicode") from None
        if kind != "bpe":
            check(scores is not None and len(scores) == n, f"tokenizer of kind {kind} needs a score for each piece")
            check(all(map(math.isfinite, scores)), "a tokenizer's score is NaN or infinity")
        if kind != "spm":
            check(isinstance(steps, dict) and isinstance(steps.get("model", {}), dict) and (kind != "bpe" or merges is not None),
                f"tokenizer of kind {kind} has no steps or merges")
            library.harmless(steps)   # Their form.
        check(decode in ("bytes", "spaces"), f"tokenizer's pieces are {decode!r}, must be bytes or spaces")
        self.kind, self.pieces, self.types, self.scores, self.merges, self.steps = kind, pieces, types, scores, merges, steps
        self.bos, self.eos, self.unknown, self.add_bos, self.add_space = bos, eos, unknown, add_bos, add_space
        self.decodes, self.strip, self.added, self.rstrip = decode, int(add_space) if strip is None else strip, added, tuple(rstrip)
        self.stop    = tuple(dict.fromkeys((eos, *stop)))
        self.control = {p: i for i, (p, t) in enumerate(zip(pieces, types)) if t == "c" and p}
        self._user   = {p: i for i, (p, t) in enumerate(zip(pieces, types)) if t in "da" and p}
        self._control_pattern = control_pattern(self.control)
        self._stripping = {pieces[i] for i in self.rstrip}

    # Ids to text ------------------------------------------------------------------------------------

    @property
    def vocab(self):
        """Number of pieces."""
        return len(self.pieces)

    def is_control(self, token):
        """True if `token` is a control (or unknown-to-us) id that has no text."""
        return not 0 <= token < self.vocab or self.types[token] in "cu"

    def piece(self, token):
        """Bytes that `token` stands for."""
        piece, type = self.pieces[token], self.types[token]
        if type in "da" and self.added is not None:
            piece = self._library.written(token) if "n" in self.added.get(token, "") else piece
            return (piece.replace(SPACE, " ") if self.decodes == "spaces" else piece).encode()
        if type in "cud":
            return piece.encode()
        if type == "b":
            return bytes([int(BYTE.match(piece)[1], 16)]) if BYTE.match(piece) else piece.encode()
        return bytelevel.to_bytes(piece) if self.decodes == "bytes" else piece.replace(SPACE, " ").encode()

    def decoder(self, after=None):
        """StreamDecoder for tokens that follow token `after` (None: nothing)."""
        return StreamDecoder(self, self._place(after) != INSIDE)

    def decode(self, tokens, after=None):
        """Text of `tokens` without control tokens."""
        d = self.decoder(after)
        return "".join(map(d.feed, tokens)) + d.flush()

    # Text to ids ------------------------------------------------------------------------------------

    def _place(self, after):
        return BEGIN if after is None else AFTER if self.is_control(after) or self.types[after] in "da" else INSIDE

    def flags(self, id):
        """{name: bool} of added.FLAGS for token `id`."""
        return {name: letter in (self.added or {}).get(id, "") for letter, name in names.FLAGS.items()}

    def encode(self, text, after=None):
        """Ids of plain text that follows token `after` (None: nothing), none of them a control token; no BOS."""
        return self._encode(text, self._place(after))

    def encode_prompt(self, text, clean=lambda s: s, after=None):
        """Ids of template text that follows token `after`: control tokens' names become them, what is between is `clean`ed and
        encoded as text. BOS is not added."""
        ids, place = [], self._place(after)
        parts = names.longest_first(text, self.control, self._stripping) if self.added is None else \
            names.leftmost(text, self.control, self._control_pattern, self.added)
        for part, id in parts:
            ids  += self._encode(clean(part), place) if id is None else [id]
            place = AFTER
        return ids

    def _encode(self, text, place):
        text = text.encode("utf-8", "replace").decode()
        if self.added is not None:   # The library finds them.
            return self._plain(text, place)
        ids = []
        for part, id in names.longest_first(text, self._user, self._stripping):
            ids  += self._plain(part, place) if id is None else [id]
            place = AFTER
        return ids

    def _plain(self, text, place):
        if not text:
            return []
        if self.kind != "spm":
            return self._library.encode(text, place)
        return self._merger.encode((" " if self.add_space and place != INSIDE else "") + text)

    @functools.cached_property
    def _library(self):
        return library.Library(self)

    def probe(self):
        """ValueError if the `tokenizers` library cannot make it, or fails on texts of some kind."""
        if self.kind != "spm":
            self._library.probe()

    @functools.cached_property
    def _merger(self):
        ids  = {p: i for i, (p, t) in reversed(list(enumerate(zip(self.pieces, self.types)))) if t in "ndx" and p}
        byte = ((i, BYTE.match(p)) for i, (p, t) in enumerate(zip(self.pieces, self.types)) if t == "b")
        return Merger(ids, self.scores, {int(m[1], 16): i for i, m in byte if m}, self.unknown)

    # Storage ----------------------------------------------------------------------------------------

    def to_bytes(self):
        """The TOKN section."""
        d = dict(version=VERSION, kind=self.kind, pieces=self.pieces, types=self.types, bos=self.bos, eos=self.eos,
            unknown=self.unknown, stop=self.stop, add_bos=self.add_bos, add_space=self.add_space, strip=self.strip,
            decode=self.decodes, added=self.added, rstrip=self.rstrip)
        if self.scores is not None:
            d["scores"] = [int(s) if s == int(s) else s for s in self.scores]
        if self.kind != "spm":
            d |= dict(merges=self.merges, steps=self.steps)
        return json.dumps(d, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data):
        """Tokenizer of a TOKN section; ValueError if it is none."""
        try:
            return cls._from_object(json.loads(bytes(data)))
        except RecursionError:
            raise ValueError("tokenizer section of the image is nested too deeply") from None
        except json.JSONDecodeError:
            raise ValueError("tokenizer section of the image is no JSON text") from None

    @classmethod
    def _from_object(cls, d):
        check(isinstance(d, dict) and d.get("version") in (1, VERSION), "tokenizer section of the image is of an unknown version")
        def list_of(name, kinds):
            value = d.get(name)
            check(isinstance(value, list) and all(isinstance(v, kinds) and not isinstance(v, bool) for v in value),
                f"tokenizer's {name} must be a list of {kinds}")
            return value
        d = d if d["version"] == VERSION else _of_version_1(d)
        for name, kind in dict(kind=str, types=str, bos=int, eos=int, unknown=int, add_bos=bool, add_space=bool, strip=int,
                decode=str).items():
            check(type(d.get(name)) is kind, f"tokenizer's {name} is {str(d.get(name))[:40]!r}, must be {kind.__name__}")
        merges = list_of("merges", (str, list)) if d["kind"] == "bpe" else None
        check(all(len(pair(m)) == 2 for m in merges or ()), "a merge of the tokenizer is no pair of pieces")
        added  = d.get("added")
        check(added is None or isinstance(added, dict) and all(k.isdecimal() and len(k) < 10 and isinstance(v, str)
            for k, v in added.items()), "tokenizer's added must be letters by id")
        return cls(d["kind"], list_of("pieces", str), d["types"], d["bos"], d["eos"], d["unknown"], list_of("stop", int),
            d["add_bos"], d["add_space"], None if d["kind"] == "bpe" else list_of("scores", (int, float)), merges, d.get("steps"),
            d["decode"], d["strip"], added and {int(k): v for k, v in added.items()}, list_of("rstrip", int))


def pair(merge):
    """(left, right) of an item of `merges`."""
    return merge.split(" ") if isinstance(merge, str) else merge


def _of_version_1(d):
    """A TOKN section of version 1 as one of version 2: names of pre-tokenizers, merges of characters without steps."""
    d = d | dict(strip=int(d.get("add_space") is True), decode="spaces", added=None, rstrip=[])
    if d.get("kind") == "bpe":
        pre   = str(d.get("pre"))
        kind, _, regex = pre.partition(":")
        steps = pretokenizers.by_patterns([regex], kind == "words") if regex and kind in ("split", "words") else \
            pretokenizers.steps(pre)[0]
        return d | dict(steps=steps, decode="bytes")
    if d.get("kind") == "spm" and "merges" in d:
        start = [dict(type="Prepend", prepend=SPACE)] if d["strip"] else []
        steps = [*start, dict(type="Replace", pattern=dict(String=" "), content=SPACE)]
        return d | dict(kind="bpe", steps=dict(normalizer=dict(type="Sequence", normalizers=steps), pre_tokenizer=None,
            model=dict(byte_fallback=True)))
    return d
