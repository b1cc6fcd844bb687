# SPDX-License-Identifier: BSD-2-Clause
"""Blocks of 32 weights: float32 to Q8_0, Q4_0, Q4_1, and between these.

`plain` rounds as llama.cpp's reference does:
- Q8_0: d = max|x|/127, q = round(x/d), halves away from zero.
- Q4_0: d = (the x of largest magnitude, the first of equals)/-8, q = min(15, floor(x/d + 8.5)), value d*(q - 8).
- Q4_1: m = min x, d = (max x - m)/15, q = min(15, floor((x - m)/d + 0.5)), value d*q + m.
All in float32, with the reciprocal of the unrounded d; d and m are then rounded to fp16.

`quantise` searches scales of less squared error (scales.py), block by block, and keeps the plain ones where they are as good: no block
is worse, and one that the type represents exactly comes back exactly. Errors are ValueError: NaN or infinity in the weights, a
plain scale beyond fp16.
"""

from dataclasses import dataclass

import numpy as np

from ..accel.config import BLOCK, GROUP_BLOCKS, check
from ..accel.image import GROUP_BYTES, Q4_0, Q4_1, Q8_0, TYPE_NAMES, QMatrix
from .scales import best_scales

TYPES    = {name: type for type, name in TYPE_NAMES.items() if type in (Q8_0, Q4_0, Q4_1)}   # By name.
FP16_MAX = 65504.0
BITS     = {type: 8*GROUP_BYTES[type]/(GROUP_BLOCKS*BLOCK) for type in TYPES.values()}   # Per weight, scales included.
PART     = 1 << 20   # Weights that are looked at together.


@dataclass(frozen=True)
class QuantError:
    """Distance of quantised weights from their source. relative: RMS error over RMS of the source; largest: absolute."""
    relative: float
    largest:  float

    def __str__(self):
        return f"error {100*self.relative:.2f} % of RMS, at most {self.largest:.3g}"


def quantisation_error(source, w):
    """QuantError of QMatrix `w` against float32 `source` of its shape (rows, blocks*32)."""
    difference = w.dequantise() - source
    power      = float(np.square(source, dtype=np.float64).sum())
    wrong      = float(np.square(difference, dtype=np.float64).sum())
    return QuantError((wrong/power)**0.5 if power else 0.0, float(np.abs(difference).max(initial=0)))


def _fp16(x, what):
    """fp16 bits of float32 `x`; ValueError if one is beyond fp16."""
    with np.errstate(over="ignore"):
        h = x.astype(np.float16)
    check(np.isfinite(h).all(), f"a block's {what} is {float(np.abs(x).max()):.6g}, fp16 holds at most {FP16_MAX:.0f}")
    return h.view(np.uint16)


def _reciprocal(d):
    """1/d in float32, 0 where d is 0 or its reciprocal overflows (a block of subnormals: rounds to zeros)."""
    with np.errstate(divide="ignore", over="ignore"):
        r = np.float32(1)/d
    return np.where(np.isfinite(r), r, np.float32(0))


def _blocks(w):
    check(w.ndim == 2 and w.shape[1] % BLOCK == 0 and w.size, f"matrix of shape {w.shape}: rows must be multiples of {BLOCK}")
    check(np.isfinite(w).all(), "weights contain NaN or infinity")
    return np.ascontiguousarray(w, np.float32).reshape(w.shape[0], -1, BLOCK)


def _q8_0(b):
    top  = np.abs(b).max(-1)
    d    = top/np.float32(127)
    x    = b*_reciprocal(d)[..., None]
    q    = np.trunc(x.astype(np.float64) + np.copysign(0.5, x))   # In float64: 0.49999997 + 0.5 is 1 in float32.
    return QMatrix(Q8_0, np.clip(q, -127, 127).astype(np.int8), _fp16(d, "scale"))


def _q4_0(b):
    first = np.abs(b).argmax(-1)
    d     = np.take_along_axis(b, first[..., None], -1)[..., 0]/np.float32(-8)
    q     = np.floor(b*_reciprocal(d)[..., None] + np.float32(8.5))
    return QMatrix(Q4_0, np.clip(q, 0, 15).astype(np.uint8), _fp16(d, "scale"))


def _q4_1(b):
    low  = b.min(-1)
    with np.errstate(over="ignore"):
        d = (b.max(-1) - low)/np.float32(15)
    bits = _fp16(d, "scale"), _fp16(low, "minimum")
    q    = np.floor((b - low[..., None])*_reciprocal(d)[..., None] + np.float32(0.5))
    return QMatrix(Q4_1, np.clip(q, 0, 15).astype(np.uint8), *bits)


_ROUND = {Q8_0: _q8_0, Q4_0: _q4_0, Q4_1: _q4_1}


def plain(w, type):
    """QMatrix of float weights `w` (rows, a multiple of 32) in `type` (Q8_0, Q4_0 or Q4_1), as llama.cpp's reference rounds."""
    check(type in _ROUND, f"matrix type {type} cannot be made, must be one of {', '.join(TYPES)}")
    return _ROUND[type](_blocks(w))


def _nearest(b, type, d, m):
    """QMatrix of blocks `b` (rows, blocks, 32) with the integers that are nearest for scales d and m (fp16)."""
    x = b if m is None else b - m.astype(np.float32)[..., None]
    r = np.divide(1, d, out=np.zeros(d.shape, np.float64), where=d != 0, dtype=np.float64)
    low, high, zero = {Q8_0: (-127, 127, 0), Q4_0: (-8, 7, 8), Q4_1: (0, 15, 0)}[type]
    q = (np.clip(np.rint(x*r[..., None]), low, high) + zero).astype(np.int8 if type == Q8_0 else np.uint8)
    return QMatrix(type, q, d.view(np.uint16), None if m is None else m.view(np.uint16))


def _block_errors(w, b):
    """Squared error of each block of QMatrix `w` against the blocks `b`."""
    difference = np.subtract(w.dequantise().reshape(b.shape), b, dtype=np.float64)
    return np.einsum("...i,...i->...", difference, difference)


def _quantise_rows(w, type):
    """See quantise."""
    b      = _blocks(w)
    result = plain(w, type)
    d, m   = best_scales(b.reshape(-1, BLOCK), type)
    better = _nearest(b, type, d.reshape(b.shape[:2]), None if m is None else m.reshape(b.shape[:2]))
    where  = _block_errors(better, b) < _block_errors(result, b)
    for name in ("q", "d", "m")[:3 if type == Q4_1 else 2]:
        getattr(result, name)[where] = getattr(better, name)[where]
    return result


def quantise(w, type):
    """QMatrix of float weights `w` (rows, a multiple of 32) in `type` (Q8_0, Q4_0 or Q4_1), scales by least squared error."""
    check(w.size, f"matrix of shape {w.shape}: it has no weights")
    rows  = max(1, PART//w.shape[1])   # A part at a time, for the memory's sake.
    parts = [_quantise_rows(w[at:at + rows], type) for at in range(0, len(w), rows)]
    return QMatrix(type, *(np.concatenate([getattr(p, n) for p in parts]) for n in ("q", "d", "m")[:3 if type == Q4_1 else 2]))


def requantise(w, type):
    """(QMatrix of QMatrix `w` in `type`, QuantError): the same object if the type is, exact from Q4_0 to the others."""
    none = QuantError(0.0, 0.0)
    if w.type == type:
        return w, none
    if w.type == Q4_0 and type == Q8_0:
        return QMatrix(Q8_0, w.signed(), w.d), none
    if w.type == Q4_0 and type == Q4_1:
        low = w.d.view(np.float16).astype(np.float32)*np.float32(-8)
        if np.abs(low).max(initial=0) <= FP16_MAX:
            return QMatrix(Q4_1, w.q, w.d, low.astype(np.float16).view(np.uint16)), none
    source = w.dequantise()
    result = quantise(source, type)
    return result, quantisation_error(source, result)


def zeros(type, rows, blocks):
    """QMatrix whose values are all 0."""
    q = np.full((rows, blocks, BLOCK), 8 if type == Q4_0 else 0, np.int8 if type == Q8_0 else np.uint8)
    d = np.zeros((rows, blocks), np.uint16)
    return QMatrix(type, q, d, d.copy() if type == Q4_1 else None)


def take_rows(w, index):
    """QMatrix of rows `index` of `w`; -1 stands for a row of zeros."""
    index = np.asarray(index)
    blank = zeros(w.type, 1, w.blocks)
    def pick(a, empty):
        out = a[np.maximum(index, 0)]
        out[index < 0] = empty[0]
        return out
    return QMatrix(w.type, pick(w.q, blank.q), pick(w.d, blank.d), None if w.m is None else pick(w.m, blank.m))
