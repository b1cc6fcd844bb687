# SPDX-License-Identifier: BSD-2-Clause
"""Scales of blocks of 32 weights with the least squared error that a search finds: d of Q4_0 and Q8_0 (value d*q), d and m of
Q4_1 (value d*q + m).

Blocks that a type represents exactly are recognised. For the others a grid of scales is tried (of Q4_0 the largest weight at 5.8 to
9.6 steps of either sign), each time so: round the weights by them; for these integers take the d (and m) of least squares,
exactly, and round it to fp16; what error does it leave? From the best a few steps are tried nearby, and rounding and least
squares are repeated. Over random weights the squared error is above the least that exists by 0.02 % (Q4_0), 1 % (Q4_1) and 12 % (Q8_0,
whose error is small to begin with); plain rounding's by 13, 32 and 36 %. Nothing is random: the same blocks
have the same scales.

All of a block is scaled by a power of two (and for Q4_1 moved by the middle of its values) so that float32 suffices for any
magnitude; what fp16 makes of d and m is looked at in their true magnitude, subnormals included.
"""

from itertools import product

import numpy as np

from ..accel.config import BLOCK
from ..accel.image import Q4_1, Q8_0

TINY     = 2.0**-24   # The smallest fp16.
CLOSE    = 2.0**-23   # Of the largest weight: what rounding two weights to float32 may have changed their difference by.
SHORT    = 63         # Bits of a float32 that are 0 in an fp16 times 7 bits.
N_BLOCKS = 4096       # At a time: they stay in the processor's cache.

# Where the largest weight is tried to be, in steps. Below 0: at the end that has a step more.
STEPS_4   = (*np.arange(-9.6, -5.9, 0.4), *np.arange(5.8, 9.1, 0.4))
STEPS_8   = (126.0, 126.5, 127.0, 127.5, 128.0)
# Of Q4_1: steps between the smallest and the largest weight, and by how many the middle of both is off the steps' middle.
STEPS_4_1 = tuple(product((12.5, 13.2, 13.9, 14.6, 15.3), (-0.33, 0.0, 0.33)))
STEPS_127 = np.arange(1.0, 128.0)   # Of exact blocks.
STEPS_15  = STEPS_127[:15]
NEARBY    = (0.03, -0.03, 0.015, -0.015)   # Changes of the best d.
SHIFTS    = (0.2, -0.2)                    # Changes of the best m, in steps.


def _half(x):
    """float64 of what fp16 makes of float64 `x`; infinity beyond it."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def _inverse(d, dtype):
    """1/d, 0 where d is 0."""
    return np.divide(1, d, out=np.zeros(d.shape, dtype), where=d != 0, dtype=dtype)


class _Best:
    """The scales of least error so far, per block."""

    def __init__(self, n):
        self.error, self.d, self.m = np.full(n, np.inf), np.zeros(n), np.zeros(n)

    def offer(self, error, d, m=0.0):
        """Take over where the error is smaller."""
        better     = error < self.error   # Not where it is NaN: a scale beyond fp16.
        self.error = np.where(better, error, self.error)
        self.d     = np.where(better, d, self.d)
        self.m     = np.where(better, m, self.m)


def _top(b):
    """The weight of largest magnitude of each block, the first of equals."""
    return np.take_along_axis(b, np.abs(b).argmax(-1)[:, None], -1)[:, 0].astype(np.float64)


def _normal(b, top, dtype):
    """(blocks times a power of two that brings `top` between 0.5 and 1, exponents)."""
    exponent = np.frexp(top)[1]
    return np.ldexp(b, -exponent[:, None]).astype(dtype), exponent


def _rounded(x, q, low, high):
    """q, rounded to integers from low to high, in place; and the sums of x*q and q*q."""
    np.rint(q, out=q)
    np.minimum(q, high, out=q)
    np.maximum(q, low, out=q)
    return np.vecdot(x, q).astype(np.float64), np.vecdot(q, q).astype(np.float64)


def _search_d(b, top, low, high, steps, dtype):
    """d (float64, of fp16) of blocks `b`, of largest weight `top`, for integers from low to high."""
    x, exponent = _normal(b.astype(np.float64), top, dtype)
    power, q    = np.vecdot(x, x).astype(np.float64), np.empty_like(x)
    best        = _Best(len(b))
    def attempt(d):   # In true magnitude.
        d    = np.copysign(np.maximum(np.abs(d), TINY), d)
        np.multiply(x, _inverse(np.ldexp(d, -exponent), dtype)[:, None], out=q)
        c, p = _rounded(x, q, low, high)
        true = _half(np.ldexp(c*_inverse(p, np.float64), exponent))
        d    = np.ldexp(true, -exponent)
        with np.errstate(invalid="ignore"):
            best.offer(power - d*(2*c - d*p), true)
    for step in steps:
        attempt(top/step)
    for change in NEARBY:
        attempt(best.d*(1 + change))
    attempt(best.d)
    return best.d


def _search_d_m(b):
    """(d, m) of blocks `b` for integers from 0 to 15."""
    wide        = b.astype(np.float64)
    low, high   = wide.min(-1), wide.max(-1)
    middle      = low/2 + high/2
    x, exponent = _normal(wide - middle[:, None], high - middle, np.float32)
    one         = np.ones(BLOCK, np.float32)
    power, sx   = np.vecdot(x, x).astype(np.float64), np.vecdot(x, one).astype(np.float64)
    q, best     = np.empty_like(x), _Best(len(b))
    def attempt(d, m):   # In true magnitude.
        d    = np.maximum(d, TINY)
        r    = _inverse(np.ldexp(d, -exponent), np.float64)
        np.multiply(x, r.astype(np.float32)[:, None], out=q)
        np.add(q, ((middle - m)/d).astype(np.float32)[:, None], out=q)
        c, p = _rounded(x, q, 0, 15)
        s    = np.vecdot(q, one).astype(np.float64)
        true = _half(np.ldexp((BLOCK*c - sx*s)*_inverse(BLOCK*p - s*s, np.float64), exponent))
        d    = np.ldexp(true, -exponent)
        base = _half(np.ldexp((sx - d*s)/BLOCK, exponent) + middle)
        m    = np.ldexp(base - middle, -exponent)
        with np.errstate(invalid="ignore"):
            best.offer(power + d*(d*p - 2*c + 2*m*s) + m*(BLOCK*m - 2*sx), true, base)
    for steps, shift in STEPS_4_1:
        d = (high - low)/steps
        attempt(d, middle - (7.5 + shift)*d)
    for change in NEARBY[:2]:
        attempt(best.d*(1 + change), best.m - 7.5*change*best.d)
    for shift in SHIFTS:
        attempt(best.d, best.m + shift*best.d)
    attempt(best.d, best.m)
    return best.d, best.m


def _first(index):
    """Where each value of the sorted `index` appears first."""
    return np.flatnonzero(np.diff(index, prepend=-1))


def _exact_d(b, top, steps, low, high):
    """(index of blocks that are d*q for integers q from low to high, their d): those whose `top` is one of `steps` times an fp16."""
    left = np.flatnonzero((top.astype(np.float32).view(np.uint32) & SHORT == 0) & (top != 0))
    d    = _half(top[left, None]/steps)
    i, k = np.nonzero((d*steps == top[left, None]) & (d != 0))
    i, d = left[i], d[i, k]
    q    = b[i]/d[:, None]
    ok   = np.flatnonzero(((q == np.rint(q)) & (q >= low) & (q <= high)).all(-1))
    ok   = ok[_first(i[ok])]
    return i[ok], d[ok]


def _exact_d_m(b):
    """(index of blocks that are d*q + m, as float32 rounds it, for integers q from 0 to 15; their d, their m)."""
    low  = b.min(-1).astype(np.float64)
    span = b.max(-1) - low
    near = np.abs(b).max(-1)*CLOSE
    d    = _half(np.where(span[:, None] > 0, span[:, None]/STEPS_15, (low - _half(low))[:, None]))   # Constant: what an fp16 lacks.
    i, k = np.nonzero(np.where(span[:, None] > 0, np.abs(d*STEPS_15 - span[:, None]) <= near[:, None], STEPS_15 == 1))
    d, x = d[i, k], b[i] - low[i, None]
    q    = np.rint(x*_inverse(d, np.float64)[:, None])
    ok   = np.flatnonzero((np.abs(x - q*d[:, None]) <= near[i, None]).all(-1) & np.isfinite(d))
    i, q, d = i[ok], q[ok].astype(np.float32), d[ok]
    found   = []
    for j in range(16 if len(i) else 0):   # The lowest weight is d*j + m.
        m    = _half(low[i] - j*d)
        same = ((q + np.float32(j))*d[:, None].astype(np.float32) + m[:, None].astype(np.float32) == b[i]).all(-1)
        same = np.flatnonzero(same & (q.max(-1) + j <= 15) & np.isfinite(m))
        found.append((i[same], d[same], m[same]))
    i, d, m = map(np.concatenate, zip(*found)) if found else (i, d, d)
    order   = np.argsort(i, kind="stable")
    order   = order[_first(i[order])]
    return i[order], d[order], m[order]


def best_scales(b, type):
    """(d, m) as fp16 of float32 blocks `b` (n, 32) in `type`; m is None unless Q4_1. Where nothing finite was found they are 0."""
    d, m = np.zeros(len(b)), np.zeros(len(b))
    for at in range(0, len(b), N_BLOCKS):
        part, to = b[at:at + N_BLOCKS], slice(at, at + N_BLOCKS)
        if type == Q4_1:
            d[to], m[to]  = _search_d_m(part)
            i, exact, low = _exact_d_m(part)
            m[at + i]     = low
        elif type == Q8_0:
            top      = np.abs(_top(part))
            d[to]    = _search_d(part, top, -127, 127, STEPS_8, np.float64)
            i, exact = _exact_d(part, top, STEPS_127, -127, 127)
        else:
            top      = _top(part)
            d[to]    = _search_d(part, top, -8, 7, STEPS_4, np.float32)
            i, exact = _exact_d(part, top, -STEPS_127[:8], -8, 7)
        d[at + i] = exact
    return d.astype(np.float16), m.astype(np.float16) if type == Q4_1 else None
