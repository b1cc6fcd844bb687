# SPDX-License-Identifier: BSD-2-Clause
"""Tokenizers as data: text to token ids and back, incrementally; stored in the image's TOKN section.

Two kinds:
- `spm`: SentencePiece's BPE by score with byte fallback, as llama.cpp and llama2.c have it: text becomes characters (a
  space is "\\u2581"), the adjacent pair whose concatenation is the piece of highest score is merged, leftmost first among
  equals, until none is left; what is no piece then becomes the tokens of its UTF-8 bytes. With `merges` instead of scores
  (tokenizer.json's form) the pair that comes first there is merged. Source: Sennrich et al., arXiv 1508.07909; Kudo and
  Richardson, arXiv 1808.06226.
- `bpe`: byte-level BPE with merges, done by the `tokenizers` library with the pre-tokenizer that `pre` names.

Text never becomes a control token: those come only from `encode_prompt` with the template's own text (host/template.py).

TOKN section: UTF-8 JSON, one object: `version` (1), `kind`, `pieces` (list of str, index is the id), `types` (str, one
letter per piece: n normal, u unknown, c control, d user-defined, x unused, b byte), `bos`, `eos`, `unknown` (ids), `stop`
(ids that end a turn), `add_bos`, `add_space` (spm: a text starts with a space that decoding drops), and `scores` or
`merges` (list of "left right"; spm) or `merges` and `pre` (bpe). Errors are ValueError.
"""

import codecs
import functools
import heapq
import json
import math
import re

from ..accel.config import LIMITS, check
from . import bytelevel

VERSION = 1
SPACE   = "\u2581"
TYPES   = "nucdxb"
BYTE    = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
# Names of control tokens that end a turn in known chat formats.
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>", "<|eom_id|>",
    "</s>")


def control_pattern(names):
    """Regular expression that finds any of `names`, longest first; None if there are none."""
    return re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))) if names else None


class StreamDecoder:
    """Text of a token stream: feed ids, get what is complete so far; incomplete UTF-8 waits, invalid becomes U+FFFD.

    at_start: the stream begins a text (after BOS or a control token), so the space that spm puts there is dropped.
    """

    def __init__(self, tokenizer, at_start=True):
        self.tokenizer, self.at_start = tokenizer, at_start
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token):
        """Text that `token` completes; control tokens give none."""
        t = self.tokenizer
        if t.is_control(token):
            self.at_start = True
            return self._utf8.decode(b"", True)
        data = t.piece(token)
        if self.at_start and t.add_space and data.startswith(b" "):
            data = data[1:]
        self.at_start = False
        return self._utf8.decode(data)

    def flush(self):
        """Text of what was left incomplete, at the end of the stream."""
        return self._utf8.decode(b"", True)


class Tokenizer:
    """See the module. pieces: list of str; types: str of TYPES, same length; stop: ids that end a turn besides eos.

    scores (spm): list of float. merges (bpe, spm without scores): list of "left right". pre (bpe): name of the pre-tokenizer
    (see bytelevel).
    """

    def __init__(self, kind, pieces, types, bos, eos, unknown=0, stop=(), add_bos=True, add_space=False, scores=None,
                 merges=None, pre=None):
        n = len(pieces)
        check(kind in ("spm", "bpe"), f"tokenizer kind is {kind!r}, must be spm or bpe")
        check(1 <= n <= LIMITS["vocab"], f"tokenizer has {n} pieces, must be 1 to {LIMITS['vocab']}")
        check(len(types) == n and set(types) <= set(TYPES),
            f"tokenizer's {n} pieces have {len(types)} types, or unknown ones")
        for name, id in (("bos", bos), ("eos", eos), ("unknown", unknown), *(("stop", s) for s in stop)):
            check(0 <= id < n, f"tokenizer's {name} token is {id}, it has {n} pieces")
        try:
            "".join(pieces).encode()
        except UnicodeEncodeError:
            raise ValueError("a tokenizer's piece is no valid Unicode") from None
        if kind == "spm":
            check(merges is not None or scores is not None and len(scores) == n, "an spm tokenizer needs a score for each piece")
            check(all(map(math.isfinite, scores or ())), "a tokenizer's score is NaN or infinity")
        else:
            check(merges is not None and bytelevel.is_known(pre),
                f"pre-tokenizer {pre!r} is unknown, known: {', '.join(bytelevel.PRE)}")
        self.kind, self.pieces, self.types, self.scores, self.merges, self.pre = kind, pieces, types, scores, merges, pre
        self.bos, self.eos, self.unknown, self.add_bos, self.add_space = bos, eos, unknown, add_bos, add_space
        self.stop    = tuple(dict.fromkeys((eos, *stop)))
        self.control = {p: i for i, (p, t) in enumerate(zip(pieces, types)) if t == "c" and p}
        self._user   = {p: i for i, (p, t) in enumerate(zip(pieces, types)) if t == "d" and p}
        self._control_pattern = control_pattern(self.control)
        self._user_pattern    = control_pattern(self._user)
        self._ids    = {p: i for i, (p, t) in reversed(list(enumerate(zip(pieces, types)))) if t in "ndx" and p}

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
        if type in "cu":
            return piece.encode()
        if type == "b":
            return bytes([int(BYTE.match(piece)[1], 16)]) if BYTE.match(piece) else piece.encode()
        if self.kind == "bpe":
            return piece.encode() if type == "d" else bytelevel.to_bytes(piece)
        return piece.replace(SPACE, " ").encode()

    def decoder(self, after=None):
        """StreamDecoder for tokens that follow token `after` (None: nothing)."""
        return StreamDecoder(self, after is None or self.is_control(after))

    def decode(self, tokens, after=None):
        """Text of `tokens` without control tokens."""
        d = self.decoder(after)
        return "".join(map(d.feed, tokens)) + d.flush()

    # Text to ids ------------------------------------------------------------------------------------

    def encode(self, text, at_start=True):
        """Ids of plain text, none of them a control token; no BOS. at_start: spm's leading space is wanted."""
        text, ids, start = text.encode("utf-8", "replace").decode(), [], 0
        for found in self._user_pattern.finditer(text) if self._user_pattern else ():
            ids  += self._plain(text[start:found.start()], at_start and not ids) + [self._user[found[0]]]
            start = found.end()
        return ids + self._plain(text[start:], at_start and not ids)

    def encode_prompt(self, text, clean=lambda s: s, at_start=True):
        """Ids of template text: control tokens' names become them, what is between is `clean`ed and encoded as text.

        at_start: the text begins after nothing or a control token. BOS is not added.
        """
        ids, start = [], 0
        for found in self._control_pattern.finditer(text) if self._control_pattern else ():
            ids  += self.encode(clean(text[start:found.start()]), at_start or bool(ids)) + [self.control[found[0]]]
            start = found.end()
        return ids + self.encode(clean(text[start:]), at_start or bool(ids))

    def _plain(self, text, at_start):
        if not text:
            return []
        if self.kind == "bpe":
            return self._library.encode(text, add_special_tokens=False).ids
        return self._spm((" " if self.add_space and at_start else "") + text)

    @functools.cached_property
    def _library(self):
        return bytelevel.build(self._ids, self.merges, self.pre)

    @functools.cached_property
    def _ranks(self):
        return {tuple(m.split(" ")): i for i, m in reversed(list(enumerate(self.merges)))}

    def _cost(self, left, right):
        """What decides which pair is merged first, the lowest; None if these two are not merged."""
        if self.scores is None:
            return self._ranks.get((left, right))
        id = self._ids.get(left + right)
        return None if id is None else -self.scores[id]

    def _spm(self, text):
        """Merge loop over a linked list of symbols, with the candidates in a heap: O(n log n)."""
        text  = text.replace(" ", SPACE)
        n     = len(text)
        left, right, part = list(range(-1, n - 1)), list(range(1, n)) + [-1], list(text)
        heap  = []
        def propose(a):
            b = right[a] if a >= 0 else -1
            if b >= 0 and (cost := self._cost(part[a], part[b])) is not None:
                heapq.heappush(heap, (cost, a, b, len(part[a]) + len(part[b])))
        for i in range(n):
            propose(i)
        while heap:
            _, a, b, size = heapq.heappop(heap)
            if not part[a] or not part[b] or right[a] != b or len(part[a]) + len(part[b]) != size:
                continue   # One of the two was merged meanwhile.
            part[a] += part[b]
            part[b]  = ""
            right[a] = right[b]
            if right[a] >= 0:
                left[right[a]] = a
            propose(left[a])
            propose(a)
        ids = []
        for symbol in filter(None, part):
            id = self._ids.get(symbol)
            ids += self._bytes(symbol) if id is None else [id]
        return ids

    @functools.cached_property
    def _byte_ids(self):
        found = ((i, BYTE.match(p)) for i, (p, t) in enumerate(zip(self.pieces, self.types)) if t == "b")
        return {int(m[1], 16): i for i, m in found if m}

    def _bytes(self, symbol):
        """Byte tokens of a symbol that is no piece; the unknown token where there are none."""
        ids = [self._byte_ids.get(b) for b in symbol.encode()]
        return [self.unknown] if None in ids else ids

    # Storage ----------------------------------------------------------------------------------------

    def to_bytes(self):
        """The TOKN section."""
        d = dict(version=VERSION, kind=self.kind, pieces=self.pieces, types=self.types, bos=self.bos, eos=self.eos,
            unknown=self.unknown, stop=self.stop, add_bos=self.add_bos, add_space=self.add_space)
        if self.scores is not None:
            d["scores"] = [int(s) if s == int(s) else s for s in self.scores]
        else:
            d |= dict(merges=self.merges) if self.kind == "spm" else dict(merges=self.merges, pre=self.pre)
        return json.dumps(d, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data):
        """Tokenizer of a TOKN section; ValueError if it is none."""
        try:
            d = json.loads(bytes(data))
        except (ValueError, RecursionError):
            raise ValueError("tokenizer section of the image is no JSON text") from None
        def list_of(name, kinds):
            value = d.get(name)
            check(isinstance(value, list) and all(isinstance(v, kinds) and not isinstance(v, bool) for v in value),
                f"tokenizer's {name} must be a list of {kinds}")
            return value
        check(isinstance(d, dict) and d.get("version") == VERSION, "tokenizer section of the image is of an unknown version")
        for name, kind in dict(kind=str, types=str, bos=int, eos=int, unknown=int, add_bos=bool, add_space=bool).items():
            check(type(d.get(name)) is kind, f"tokenizer's {name} is {str(d.get(name))[:40]!r}, must be {kind.__name__}")
        spm, scored = d["kind"] == "spm", d["kind"] == "spm" and "merges" not in d
        return cls(d["kind"], list_of("pieces", str), d["types"], d["bos"], d["eos"], d["unknown"], list_of("stop", int),
            d["add_bos"], d["add_space"], list_of("scores", (int, float)) if scored else None,
            None if scored else list_of("merges", str), None if spm else d.get("pre"))


def end_of_turn_ids(pieces, types):
    """Ids of control tokens that end a turn in known chat formats."""
    return [i for i, (p, t) in enumerate(zip(pieces, types)) if t == "c" and p in END_OF_TURN]
