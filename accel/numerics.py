# SPDX-License-Identifier: BSD-2-Clause
"""The published arithmetic of LiteLlama: a bit-exact NumPy twin of the gateware, stage by stage.

Numbers are of five kinds (accel/README.md has the table):
- fp32: IEEE binary32, round to nearest even, subnormals flushed, overflow saturates, zero is always +0; no NaN, no infinity.
- weights: llama.cpp blocks of 32 integers with fp16 scale d (and minimum m).
- activations: 16-bit block floating point, one exponent per 32 (`Bfp`).
- keys, values: int8 with one fp16 scale per (position, KV head).
- accumulator of a row: 64-bit fixed point relative to the largest scale and activation exponents, so order does not matter.

`Decoder` runs a whole model over any number of positions at once; every method is one stage of the gateware. What takes the
time (`accumulate_rows`, `sum_of_squares`) is also compiled in fastmath.py, to the same bits; here is what it means.
"""

from dataclasses import dataclass
import functools

import numpy as np

from .config import BLOCK, check
from . import image

GUARD    = 8         # Fraction bits of the accumulator below the largest block's unit.
P_ONE    = 1 << 16   # Probability 1.
SCORE_Q  = 16        # Fraction bits of a score in the softmax, in units of log2.
F32_MIN  = np.float32(2.0**-126)
F32_MAX  = np.finfo(np.float32).max
PARTIALS = 8         # Interleaved partial sums of the sum of squares.
FP16_ONE   = 0x3C00
K_EXPONENT = 5       # Accumulator reference of the scores: no fp16 scale is above it.
V_EXPONENT = -10     # Accumulator reference of the values, whose scale is in the probabilities: that of 1.0.


@functools.cache
def _fast():
    """The module fastmath, or None where numba is not installed."""
    try:
        from . import fastmath
    except ImportError:
        return None
    return fastmath


# fp32 ---------------------------------------------------------------------------------------------

def _settle(r, exact):
    """Flush what is below the normal range before rounding, saturate, make every zero +0."""
    r = np.clip(r, -F32_MAX, F32_MAX)
    return np.where(np.abs(exact) < F32_MIN, np.float32(0), r).astype(np.float32)


def fmul(a, b):
    """fp32 product."""
    exact = np.multiply(a, b, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        return _settle(exact.astype(np.float32), exact)


def fadd(a, b):
    """fp32 sum."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        r = a + b
    return _settle(r, r)


def from_fixed(value, exponent):
    """fp32 of the int64 value*2**exponent."""
    with np.errstate(over="ignore", under="ignore"):
        r     = np.asarray(value, np.int64).astype(np.float32).astype(np.float64)
        exact = np.ldexp(r, np.clip(exponent, -1000, 1000))
        return _settle(exact.astype(np.float32), exact)


def bits(x):
    """fp32 as uint32."""
    return np.asarray(x, np.float32).view(np.uint32)


def biased_exponent(x):
    """Biased exponent field of fp32, 0 to 254."""
    return (bits(x) >> 23 & 255).astype(np.int64)


def fp16_parts(h):
    """(signed mantissa, exponent) of fp16 bits: value = mantissa*2**exponent, exponent -24 to 5; subnormals are exact."""
    h = np.asarray(h, np.int64)
    e, f = h >> 10 & 31, h & 1023
    mant = np.where(e > 0, f + 1024, f)
    return np.where(h >> 15 & 1, -mant, mant), np.maximum(e, 1) - 25


def to_fp16(x):
    """fp16 bits of a fp32 >= 0, rounded half up, saturated at 65,504."""
    scaled = np.minimum(np.asarray(x, np.float64), 2.0**16)   # (Beyond that the mantissa would not be an int64.)
    e      = np.clip(biased_exponent(x) - 127, -14, 16)
    mant   = np.floor(np.ldexp(scaled, 10 - e) + 0.5).astype(np.int64)       # 1024 to 2048, below 1024 where subnormal.
    return np.minimum(mant + ((e + 14) << 10), 0x7BFF).astype(np.uint16)     # A carry out of the mantissa steps the exponent.


def from_fp16(h):
    """fp32 of fp16 bits, exact."""
    m, e = fp16_parts(h)
    return np.ldexp(m.astype(np.float32), e).astype(np.float32)


def round_away(x):
    """Nearest integer of a float64, halves away from zero, as int64."""
    return (np.sign(x)*np.floor(np.abs(x) + 0.5)).astype(np.int64)


# Functions by table and linear interpolation --------------------------------------------------------

EXP2, RECIP, RSQRT, SIGMOID = range(4)
TABLE_BASE = {EXP2: 0, RECIP: 256, RSQRT: 512, SIGMOID: 1024}   # RSQRT: 256 entries of [1, 2), then 256 of [2, 4).
TABLE_SIZE = 2048


def _function_table():
    """(y0, dy) of all 2,048 segments, int64: y in units of 2**-24, dy = y0 - next y0 (every function here falls)."""
    i = np.arange(257)/256
    s = np.arange(1025)/64
    curves = [2.0**-i, 1/(1 + i), 1/np.sqrt(1 + i), 1/np.sqrt(2 + 2*i), 1/(1 + np.exp(s))]
    y = [np.floor(c*2**24 + 0.5).astype(np.int64) for c in curves]
    return np.concatenate([c[:-1] for c in y]), np.concatenate([c[:-1] - c[1:] for c in y])


TABLE_Y0, TABLE_DY = _function_table()


def _interpolate(index, fraction):
    """y in units of 2**-24 at segment `index` and 15-bit `fraction`."""
    return TABLE_Y0[index] - (TABLE_DY[index]*fraction >> 15)


def exp2_neg(u):
    """2**-(u/65536) of integers u >= 0, as an integer of 17 bits (1 is 65,536). Largest error 0.6 of a unit."""
    u  = np.minimum(np.asarray(u, np.int64), (32 << 16) - 1)
    y  = _interpolate(TABLE_BASE[EXP2] + (u >> 8 & 255), (u & 255) << 7)
    n  = u >> 16
    return y + (np.int64(128) << n) >> n + 8


def _parts(x):
    e = biased_exponent(x) - 127
    f = (bits(x) & 0x7FFFFF).astype(np.int64)
    return e, f >> 15, f & 0x7FFF


def recip(x):
    """1/x of fp32 x >= 0 (0 gives 0). Largest relative error 4e-6."""
    e, index, fraction = _parts(x)
    y = from_fixed(_interpolate(TABLE_BASE[RECIP] + index, fraction), -24 - e)
    return np.where(biased_exponent(x) == 0, np.float32(0), y)


def rsqrt(x):
    """1/sqrt(x) of fp32 x >= 0 (0 gives 0). Largest relative error 2e-6."""
    e, index, fraction = _parts(x)
    odd = e & 1
    y   = from_fixed(_interpolate(TABLE_BASE[RSQRT] + 256*odd + index, fraction), -24 - (e - odd)//2)
    return np.where(biased_exponent(x) == 0, np.float32(0), y)


def sigmoid(x):
    """1/(1 + exp(-x)) of fp32. Largest absolute error 3.5e-6; below -16 it is 0, above 16 it is 1."""
    a = np.minimum(np.floor(np.ldexp(np.abs(np.asarray(x, np.float64)), 20)), 2.0**24).astype(np.int64)
    y = np.where(a >> 24, 0, _interpolate(TABLE_BASE[SIGMOID] + np.minimum(a >> 14, 1023), (a & 0x3FFF) << 1))
    return from_fixed(np.where(bits(x) >> 31 != 0, y, (1 << 24) - y), -24)


# Block floating point -------------------------------------------------------------------------------

@dataclass
class Bfp:
    """Activation vectors: mantissas int16 (..., blocks, 32); biased exponents int64 (..., blocks) of each block's largest
    element (0 where all are zero) and emax (...,) of each vector. value = mantissa*2**(exponent - 127 - 14)."""
    mant: np.ndarray
    exp:  np.ndarray
    emax: np.ndarray

    def sums(self):
        """Sum of each block's mantissas, int64 (..., blocks): what a Q4_1 minimum multiplies."""
        return self.mant.astype(np.int64).sum(-1)

    def values(self):
        """float64 values (..., blocks*32)."""
        v = np.ldexp(self.mant.astype(np.float64), (self.exp - 141)[..., None])
        return v.reshape(*v.shape[:-2], -1)


def to_bfp(x):
    """Convert fp32 (..., blocks*32): round half away from zero, saturate at +-32,767."""
    x    = np.asarray(x, np.float32)
    b    = x.reshape(*x.shape[:-1], -1, BLOCK)
    exp  = biased_exponent(b).max(-1)
    mant = np.clip(round_away(np.ldexp(b.astype(np.float64), (141 - exp)[..., None])), -32767, 32767)
    return Bfp(mant.astype(np.int16), exp, exp.max(-1))


# Stages ---------------------------------------------------------------------------------------------

def accumulate(p, scale, exponent, shift):
    """Terms of the row accumulator: block integers p times fp16 scale bits, aligned. `exponent` is the matrix's reference,
    `shift` = emax - block exponent. Floors, so that any order gives the same sum."""
    mant, es = fp16_parts(scale)
    return (p*mant << GUARD) >> np.minimum(exponent - es + shift, 63)


def accumulate_rows(w, x, exponent):
    """Row accumulators of `matvec`: int64 (T, rows)."""
    q, sums = w.signed().astype(np.float64), x.sums()
    acc     = np.zeros((x.mant.shape[0], w.rows), np.int64)
    for j in range(w.blocks):
        p     = (x.mant[:, j].astype(np.float64) @ q[:, j].T).astype(np.int64)
        shift = (x.emax - x.exp[:, j])[:, None]
        acc  += accumulate(p, w.d[None, :, j], exponent, shift)
        if w.m is not None:
            acc += accumulate(sums[:, j, None], w.m[None, :, j], exponent, shift)
    return acc


def matvec(w, x, exponent=None):
    """Rows of QMatrix `w` times activation vectors `x` (Bfp of (T, blocks, 32)): fp32 (T, rows).

    exponent: the accumulator's reference, no smaller than any scale's; from the matrix header unless given.

    Block dot products are exact integers; each is scaled by its fp16 d (Q4_1 adds m times the block's activation sum),
    aligned and added in 64-bit fixed point; the sum is rounded once to fp32.
    """
    exponent = w.scale_exponent() if exponent is None else exponent
    acc      = _fast().accumulate_rows(w, x, exponent) if _fast() else accumulate_rows(w, x, exponent)
    return from_fixed(acc, (exponent + x.emax - 141 - GUARD)[:, None])


def sum_of_squares(x):
    """fp32 sum of squares over the last axis: 8 interleaved partial sums, then a tree (i + i+4, i + i+2, 0 + 1)."""
    if _fast():
        return _fast().sum_of_squares(x, PARTIALS)
    sq  = fmul(x, x).reshape(*x.shape[:-1], -1, PARTIALS)
    acc = np.zeros((*x.shape[:-1], PARTIALS), np.float32)
    for i in range(sq.shape[-2]):
        acc = fadd(acc, sq[..., i, :])
    while acc.shape[-1] > 1:
        half = acc.shape[-1]//2
        acc  = fadd(acc[..., :half], acc[..., half:])
    return acc[..., 0]


def rmsnorm(x, weight, inv_dim, eps):
    """RMSNorm (Zhang and Sennrich, arXiv 1910.07467) of padded fp32 vectors (..., n): fp32 (..., n)."""
    r = rsqrt(fadd(fmul(sum_of_squares(x), inv_dim), eps))
    return fmul(fmul(x, r[..., None]), weight)


def rope(x, table):
    """Rotate adjacent pairs: x fp32 (T, heads, n), table fp32 (T, n/2, 2)."""
    a, b = x[..., 0::2], x[..., 1::2]
    c, s = table[:, None, :, 0], table[:, None, :, 1]
    out  = np.empty_like(x)
    out[..., 0::2] = fadd(fmul(a, c), -fmul(b, s))
    out[..., 1::2] = fadd(fmul(a, s), fmul(b, c))
    return out


def quantise_kv(x):
    """int8 and fp16 scale bits of each head's vector: x fp32 (..., n) gives (int8 (..., n), uint16 (...,))."""
    scale = to_fp16(fmul(np.abs(x).max(-1), np.float32(1/127)))
    q     = fmul(x, recip(from_fp16(scale))[..., None])
    return np.clip(round_away(q.astype(np.float64)), -127, 127).astype(np.int8), scale


def score_fixed(score, scale):
    """Attention score in fixed point: fp32 score times log2(e)/sqrt(head_dim), 16 fraction bits, saturated to int32."""
    s = fmul(score, scale).astype(np.float64)*2.0**SCORE_Q
    return round_away(np.clip(s, -2**31, 2**31 - 1))


def swiglu(a, b):
    """SwiGLU (Shazeer, arXiv 2002.05202): silu(a)*b, fp32."""
    return fmul(fmul(a, sigmoid(a)), b)


def dequantise_row(w, rows):
    """fp32 values of rows of the embedding, (len(rows), blocks*32)."""
    q = image.QMatrix(w.type, w.q[rows], w.d[rows]).signed()
    x = fmul(q.astype(np.float32), from_fp16(w.d[rows])[..., None])
    if w.m is not None:
        x = fadd(x, np.broadcast_to(from_fp16(w.m[rows])[..., None], x.shape))
    return x.reshape(len(rows), -1)


def topk(logits, k):
    """Indices of the k largest logits, largest first; of equals the lower index first."""
    return np.argsort(-logits.astype(np.float64), kind="stable")[:k]


class Decoder:
    """The decoder over a Model: stateful KV cache, any number of new positions per call.

    kv: "int8" (the gateware's arithmetic) or "float" (keys and values kept as fp32, to see what int8 costs).
    taps: if a dict, every stage's output of the last call is stored in it by (name, layer), for debug comparison.
    """

    def __init__(self, model, context=None, kv="int8", taps=None):
        self.model, self.kv, self.taps = model, kv, taps
        c = self.config = model.config
        self.context = min(context or c.context, c.context)
        self.inv_dim, self.eps, self.score_scale = image.constants(c)
        shape        = (c.n_layers, c.n_kv_heads, self.context)
        dtype        = np.int8 if kv == "int8" else np.float32
        self.k, self.v             = (np.zeros((*shape, c.head_blocks*BLOCK), dtype) for _ in range(2))
        self.k_scale, self.v_scale = (np.zeros(shape, np.uint16) for _ in range(2))
        self.position = 0

    def _tap(self, name, layer, value):
        if self.taps is not None:
            self.taps[name, layer] = value

    def forward(self, tokens, logits="last"):
        """Decode `tokens` (T ints) at the next positions; returns fp32 logits (vocab,) of the last, (T, vocab) for
        logits="all", or None for logits=None. ValueError if they do not fit the context."""
        m, c = self.model, self.config
        T, p0 = len(tokens), self.position
        check(p0 + T <= self.context, f"{p0 + T} positions, the context holds {self.context}")
        check(all(0 <= t < c.vocab for t in tokens), f"token {max(tokens, key=abs)} is outside the vocabulary of {c.vocab}")
        x     = dequantise_row(m.embedding, np.asarray(tokens))
        table = np.asarray(m.rope[p0:p0 + T])
        self._tap("embedding", 0, x)
        for i, layer in enumerate(m.layers):
            x = self._layer(i, layer, x, table, p0)
        self.position += T
        if logits is None:
            return None
        x = x if logits == "all" else x[-1:]
        y = matvec(m.classifier, to_bfp(rmsnorm(x, m.norm_final, self.inv_dim, self.eps)))
        return y if logits == "all" else y[0]

    def _layer(self, i, layer, x, table, p0):
        c, T  = self.config, len(x)
        n     = c.head_blocks*BLOCK
        a     = to_bfp(rmsnorm(x, layer.norm1, self.inv_dim, self.eps))
        k     = rope(matvec(layer.wk, a).reshape(T, -1, n), table)
        v     = matvec(layer.wv, a).reshape(T, -1, n)
        q     = rope(matvec(layer.wq, a).reshape(T, -1, n), table)
        self._store(i, p0, k, v)
        o     = self._attention(i, p0, q)
        x     = fadd(x, matvec(layer.wo, to_bfp(o)))
        self._tap("attention", i, o)
        h     = matvec(layer.w13, to_bfp(rmsnorm(x, layer.norm2, self.inv_dim, self.eps)))
        x     = fadd(x, matvec(layer.w2, to_bfp(swiglu(h[:, 0::2], h[:, 1::2]))))
        self._tap("layer", i, x)
        return x

    def _store(self, i, p0, k, v):
        at = slice(p0, p0 + len(k))
        for x, cache, scales in ((k, self.k, self.k_scale), (v, self.v, self.v_scale)):
            x = x.swapaxes(0, 1)
            if self.kv == "int8":
                cache[i, :, at], scales[i, :, at] = quantise_kv(x)
            else:
                cache[i, :, at] = x

    def _attention(self, i, p0, q):
        """Causal attention of T query vectors (T, heads, n): fp32 (T, heads*n). Position p0 + t sees 0..p0 + t only."""
        c, (T, H, n) = self.config, q.shape
        end, out     = p0 + T, np.empty_like(q)
        flat         = to_bfp(q.reshape(T, -1))   # One emax over all heads of a position.
        seen         = np.arange(end)[None] <= np.arange(p0, end)[:, None]
        if self.kv != "int8":
            for h in range(H):
                out[:, h] = self._float_head(q[:, h], self.k[i, h//c.group, :end], self.v[i, h//c.group, :end], seen)
            return out.reshape(T, -1)
        columns = lambda a, g: a.reshape(T, c.n_kv_heads, c.group, -1)[:, g].reshape(T*c.group, -1)   # Of one KV head.
        mant    = flat.mant.reshape(T, -1)
        emax    = np.repeat(flat.emax, c.group)
        seen    = np.repeat(seen, c.group, 0)
        for g in range(c.n_kv_heads):
            keys  = image.QMatrix(image.Q8_0, self.k[i, g, :end].reshape(end, -1, BLOCK),
                np.repeat(self.k_scale[i, g, :end, None], n//BLOCK, 1))
            query = Bfp(columns(mant, g).reshape(T*c.group, -1, BLOCK), columns(flat.exp, g), emax)
            s     = score_fixed(matvec(keys, query, K_EXPONENT), self.score_scale)
            top   = np.where(seen, s, -2**31).max(-1, keepdims=True)
            p     = np.where(seen, exp2_neg(np.maximum(top - s, 0)), 0)
            w     = np.zeros((len(p), -(-end//BLOCK)*BLOCK), np.float32)
            w[:, :end] = np.where(seen, fmul(p.astype(np.float32), from_fp16(self.v_scale[i, g, :end])[None]), 0)
            v     = np.zeros((w.shape[1], n), np.int8)
            v[:end] = self.v[i, g, :end]
            vt    = image.QMatrix(image.Q8_0, v.T.reshape(n, -1, BLOCK), np.full((n, len(v)//BLOCK), FP16_ONE, np.uint16))
            o     = fmul(matvec(vt, to_bfp(w), V_EXPONENT), recip(p.sum(-1).astype(np.float32))[:, None])
            out[:, g*c.group:(g + 1)*c.group] = o.reshape(T, c.group, n)
        return out.reshape(T, -1)

    def _float_head(self, q, k, v, seen):
        s = q.astype(np.float64) @ k.T.astype(np.float64)*float(self.score_scale)
        s = np.where(seen, s, -np.inf)
        p = np.exp2(s - s.max(-1, keepdims=True))
        return ((p @ v.astype(np.float64))/p.sum(-1, keepdims=True)).astype(np.float32)

