# SPDX-License-Identifier: BSD-2-Clause
"""GPT-2's alphabet of printable bytes, in which byte-level BPE writes its pieces.

In that alphabet a byte that prints (33-126, 161-172, 174-255) is the character of its own number, every other one is the
next unused character from 256 on. Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
"""


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
