# SPDX-License-Identifier: BSD-2-Clause
"""The definitions of numerics.py against mathematics: exact rationals with the rounding that is written there, float64 within the
stated bounds, and values worked out by hand. Nothing here asks numerics what is right."""

from fractions import Fraction
import math

import numpy as np
import pytest

from litellama.accel import image, numerics as n
from litellama.accel.config import BLOCK

MAX, MIN = Fraction(float(np.finfo(np.float32).max)), Fraction(2)**-126


def nearest_even(x):
    """Integer nearest to a Fraction, ties to even."""
    low = math.floor(x)
    return low + (x - low > Fraction(1, 2) or (x - low == Fraction(1, 2) and low % 2))


def away(x):
    """Integer nearest to a Fraction, ties away from zero."""
    return int(math.copysign(1, x))*math.floor(abs(x) + Fraction(1, 2))


def power(x):
    """Largest e with 2**e <= abs(x), of a Fraction that is not 0."""
    e = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    return e if Fraction(2)**e <= abs(x) else e - 1


def to_f32(x):
    """fp32 of a Fraction as numerics has it: nearest even, below 2**-126 zero, saturated."""
    if abs(x) < MIN:
        return Fraction(0)
    unit = Fraction(2)**(power(x) - 23)
    return max(-MAX, min(MAX, nearest_even(x/unit)*unit))


def frac(x):
    """Fractions of floats."""
    return [Fraction(float(v)) for v in np.ravel(x)]


def floats(seed, count=400):
    """fp32 of all sizes, no subnormals; some with few bits, so that sums and products tie."""
    prng = np.random.default_rng(seed)
    b    = prng.integers(0, 1 << 32, count, dtype=np.uint64).astype(np.uint32)
    e    = b >> 23 & 255
    b    = np.where((e == 0) | (e == 255), b ^ 0x3F800000, b).astype(np.uint32)
    b[::4] &= 0xFFFFF000
    near    = b.copy()
    near[1::2] = b[1::2] & 0x807FFFFF | prng.integers(100, 130, count//2).astype(np.uint32) << 23
    return near.view(np.float32)


def same(got, want):
    """AssertionError unless the fp32 are those Fractions, and every zero is +0."""
    got = np.asarray(got, np.float32)
    assert frac(got) == list(want)
    assert not (n.bits(got) == 0x80000000).any()


# fp32 ---------------------------------------------------------------------------------------------

def test_products_and_sums():
    """Rounded once, ties to even, flushed below 2**-126 before rounding, saturated."""
    a, b = floats(1), floats(2)
    same(n.fmul(a, b), [to_f32(x*y) for x, y in zip(frac(a), frac(b))])
    same(n.fadd(a, b), [to_f32(x + y) for x, y in zip(frac(a), frac(b))])


@pytest.mark.parametrize("a, b, product, total", (
    (1 + 2**-23, 1 + 2**-23, 1 + 2**-22, 2 + 2**-22),
    (1 + 2**-12, 1 + 2**-12, 1 + 2**-11, 2 + 2**-11),                # 2**-24 of the product is a tie: down to even.
    (1 + 2**-12, 1 + 2**-12 + 2**-22, 1 + 2**-11 + 2**-22 + 2**-23, 2 + 2**-11 + 2**-22),   # More than a tie.
    (2.0**-63, 2.0**-63, 2.0**-126, 2.0**-62),                       # The smallest that stays.
    (2.0**-63, 2.0**-63*(1 - 2**-24), 0, 2.0**-62),     # Rounds up to it, and is flushed before.
    (2.0**-100, -2.0**-100, 0, 0),
    (2.0**100, 2.0**100, float(MAX), 2.0**101),
    (-2.0**127, 2.0**127, -float(MAX), 0),
    (2.0**127, 2.0**127, float(MAX), float(MAX)),
    (1, 2.0**-24, 2.0**-24, 1),                                      # Ties of a sum.
    (1 + 2**-23, 2.0**-24, 2.0**-24*(1 + 2**-23), 1 + 2**-22),
))
def test_products_and_sums_by_hand(a, b, product, total):
    """The corners of both."""
    a, b = np.float32(a), np.float32(b)
    for x, y in ((a, b), (b, a)):
        assert float(n.fmul(x, y)) == product and float(n.fadd(x, y)) == total


def test_fixed_point():
    """int64 times a power of two: rounded once to 24 bits, ties to even, then flushed and saturated."""
    prng   = np.random.default_rng(3)
    values = [0, 1, -1, (1 << 24) + 1, (1 << 24) + 3, -(1 << 24) - 1, (1 << 25) - 1, (1 << 63) - 1, -(1 << 63), (1 << 40) + (1 << 16), (1 << 40) +
        (3 << 16), *(int(v) >> int(s) for v, s in zip(prng.integers(-1 << 63, (1 << 63) - 1, 200), prng.integers(0, 63, 200)))]
    for e in (-300, -150, -149, -127, -126, -100, -24, 0, 5, 64, 104, 127, 200):
        def want(v):
            rounded = nearest_even(Fraction(v)/Fraction(2)**max(0, power(Fraction(v)) - 23))*Fraction(2)**max(0, power(Fraction(v)) - 23) if v else 0
            return to_f32(rounded*Fraction(2)**e)
        same(n.from_fixed(np.array(values, np.int64), e), [want(v) for v in values])


def test_fp16():
    """Every fp16 to fp32 and back; ties go up; the largest is the end; subnormals are kept."""
    h    = np.arange(0x7C00, dtype=np.uint16)
    want = [float(v) for v in h.view(np.float16)]
    assert [float(v) for v in n.from_fp16(h)] == want
    assert [float(v) for v in n.from_fp16(h | 0x8000)] == [-v for v in want]
    mant, e = n.fp16_parts(np.array([0, 1, 0x3FF, 0x400, 0x3C00, 0xBC01, 0x7BFF], np.uint16))
    assert mant.tolist() == [0, 1, 1023, 1024, 1024, -1025, 2047] and e.tolist() == [-24, -24, -24, -24, -10, -10, 5]
    assert (n.to_fp16(np.float32(want)) == h).all()
    middle = (np.float32(want[:-1]) + np.float32(want[1:]))/np.float32(2)       # Exact in fp32.
    assert (n.to_fp16(middle) == h[1:]).all()
    below  = np.nextafter(middle, np.float32(0))
    assert (n.to_fp16(below)[1:] == h[1:-1]).all()
    assert n.to_fp16(np.float32([65519.99, 65520, 65536, 1e38])).tolist() == [0x7BFF]*4
    assert n.to_fp16(np.float32([0, 1e-30, 2.0**-25, 2.0**-24])).tolist() == [0, 0, 1, 1]


def test_halves_go_away_from_zero():
    """By hand, and what lies beside a half."""
    x = np.array([0, 0.5, -0.5, 1.5, -1.5, 2.5, 0.4999, -2.4999, 126.5, -126.5, 1e9 + 0.5])
    assert n.round_away(x).tolist() == [0, 1, -1, 2, -2, 3, 0, -2, 127, -127, 10**9 + 1]


# Functions ----------------------------------------------------------------------------------------

def test_exp2():
    """Every u up to 20.0, within 0.6 of a unit; 1 is exact; a 33rd doubling is none."""
    u = np.arange(20 << 16)
    p = n.exp2_neg(u)
    assert np.abs(p - 65536*2.0**(-u/65536)).max() <= 0.6
    assert p[0] == 65536 and p[1 << 16] == 32768 and p[16 << 16] == 1 and (np.diff(p) <= 0).all()
    assert n.exp2_neg(np.array([18 << 16, (32 << 16) - 1, 32 << 16, 1 << 40])).tolist() == [0]*4


def test_reciprocals_and_roots():
    """Every mantissa step of some exponents, both parities: the stated relative errors. 0 gives 0."""
    m = np.float32(1) + np.arange(0, 1 << 23, 37).astype(np.float32)*np.float32(2.0**-23)
    for e in (-125, -124, -60, -1, 0, 1, 2, 63, 64, 124, 125, 126, 127):
        x = np.ldexp(m, e).astype(np.float32)
        if e < 126:
            assert np.abs(n.recip(x)*x.astype(np.float64) - 1).max() <= 4e-6, f"recip at 2**{e}"
        assert np.abs(n.rsqrt(x)*np.sqrt(x.astype(np.float64)) - 1).max() <= 2e-6, f"rsqrt at 2**{e}"
    for f in (n.recip, n.rsqrt):
        assert f(np.float32(0)) == 0
        assert f(np.float32(1)) == 1 and f(np.float32(4)) in (0.25, 0.5)
    assert n.recip(np.float32(2.0**126)) == np.float32(2.0**-126) and n.recip(np.float32(2.0**127)) == 0


def test_sigmoid():
    """Dense from -20 to 20: 3.5e-6; both halves are one curve; the ends are exact."""
    powers = 2.0**np.arange(-40, 9)
    x      = np.concatenate([np.linspace(-20, 20, 400001), powers, -powers]).astype(np.float32)
    assert np.abs(n.sigmoid(x) - 1/(1 + np.exp(-x.astype(np.float64)))).max() <= 3.5e-6
    assert n.sigmoid(np.float32([-16, 16, -1e30, 1e30, 0])).tolist() == [0, 1, 0, 1, 0.5]


# Block floating point and matrices ----------------------------------------------------------------

def test_block_floating_point():
    """Mantissas against the largest of their block: halves away from zero, saturated; a block of zeros has exponent 0."""
    x = floats(5, 32*24).reshape(2, -1)
    x[:, 32:64] = 0
    x[0, 64:96] = np.float32(1.5)*np.float32(2.0)**-np.arange(32)      # 1.5 units at the 15th: a tie.
    x[1, 64:96] = -x[0, 64:96]
    x[0, 96]    = np.float32(2 - 2**-23)                              # Rounds to 32,768: saturates.
    x[0, 97:128] = 0.25
    b = n.to_bfp(x)
    for row in range(2):
        for j in range(x.shape[1]//BLOCK):
            block = frac(x[row, BLOCK*j:BLOCK*(j + 1)])
            top   = max(map(abs, block))
            e     = power(top) + 127 if top else 0
            assert b.exp[row, j] == e
            assert b.mant[row, j].tolist() == [max(-32767, min(32767, away(v/Fraction(2)**(e - 141)) if v else 0)) for v in block]
        assert b.emax[row] == max(b.exp[row])
    assert b.mant[0, 3, 0] == 32767 and b.mant[0, 2, 14:17].tolist() == [2, 1, 0] and b.mant[1, 2, 14:17].tolist() == [-2, -1, 0]
    assert np.array_equal(b.sums()[0], b.mant[0].astype(int).sum(-1))
    assert frac(b.values()[1]) == [int(m)*Fraction(2)**(int(e) - 141) for mant, e in zip(b.mant[1], b.exp[1]) for m in mant]


@pytest.mark.parametrize("type", (image.Q8_0, image.Q4_0, image.Q4_1))
@pytest.mark.parametrize("fast", (True, False))
def test_rows(type, fast, monkeypatch):
    """Each block's integer, times its scale, cut to whole units of 2**-8 of the largest (towards minus infinity), summed, rounded
    once: in rationals, from weights as the format has them."""
    if not fast:
        monkeypatch.setattr(n, "_fast", lambda: None)
    prng = np.random.default_rng(type)
    q    = prng.integers(-128, 128, (6, 5, BLOCK)).astype(np.int8) if type == image.Q8_0 else prng.integers(0, 16, (6, 5, BLOCK)).astype(np.uint8)
    d, m = (prng.integers(1, 31, (6, 5)).astype(np.uint16) << 10 | prng.integers(0, 1024, (6, 5)).astype(np.uint16) |
        prng.integers(0, 2, (6, 5)).astype(np.uint16) << 15 for _ in range(2))
    d[0], d[1, 0] = prng.integers(0, 1024, 5), 0
    w    = image.QMatrix(type, q, d, m if type == image.Q4_1 else None)
    mant = prng.integers(-32767, 32768, (3, 5, BLOCK)).astype(np.int16)
    exp  = prng.integers(100, 140, (3, 5))
    exp[0, 1] = 0
    x    = n.Bfp(mant, exp, exp.max(-1))
    got  = n.matvec(w, x)
    e    = max(power(Fraction(float(v))) for s in ([d, m] if w.m is not None else [d]) for v in s.view(np.float16).ravel() if v) - 10
    for t in range(3):
        unit = Fraction(2)**(e + int(x.emax[t]) - 141 - 8)
        for row in range(6):
            total = 0
            for j in range(5):
                ints = [int(v) - (8 if type == image.Q4_0 else 0) for v in q[row, j]]
                size = Fraction(2)**(int(exp[t, j]) - 141)
                total += math.floor(sum(a*int(b) for a, b in zip(ints, mant[t, j]))*size*Fraction(float(d.view(np.float16)[row, j]))/unit)
                if w.m is not None:
                    total += math.floor(int(mant[t, j].astype(int).sum())*size*Fraction(float(m.view(np.float16)[row, j]))/unit)
            assert Fraction(float(got[t, row])) == to_f32(total*unit), f"row {row}, vector {t}"


# Stages -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fast", (True, False))
def test_sum_of_squares(fast, monkeypatch):
    """Eight partial sums, element i to number i modulo 8, added i and i + 4, i and i + 2, 0 and 1: each rounded."""
    if not fast:
        monkeypatch.setattr(n, "_fast", lambda: None)
    x = (np.random.default_rng(4).standard_normal((4, 96))*np.float32(10.0)**np.arange(-2, 2)[:, None]).astype(np.float32)
    x[3, ::7] *= 1000
    for row, got in zip(x, n.sum_of_squares(x)):
        sums = [Fraction(0)]*8
        for i, v in enumerate(frac(row)):
            sums[i % 8] = to_f32(sums[i % 8] + to_f32(v*v))
        for half in (4, 2, 1):
            sums = [to_f32(sums[i] + sums[i + half]) for i in range(half)]
        assert Fraction(float(got)) == sums[0]


def test_norm_rotation_and_gate():
    """RMSNorm, RoPE and SwiGLU in float64, within what their tables allow."""
    prng    = np.random.default_rng(9)
    x, w    = prng.standard_normal((3, 64)).astype(np.float32)*np.float32(3), prng.standard_normal(64).astype(np.float32)
    d       = x.astype(np.float64)
    want    = d/np.sqrt((d[:, :60]**2).sum(-1, keepdims=True)/60 + 0.25 + (d[:, 60:]**2).sum(-1, keepdims=True)/60)*w
    got     = n.rmsnorm(x, w, np.float32(1/60), np.float32(0.25))
    assert np.abs(got - want).max() <= 4e-6*np.abs(want).max()
    angle   = prng.uniform(0, 7, (3, 16))
    table   = np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)
    heads   = x.reshape(3, 2, 32)
    z       = (heads[..., 0::2] + 1j*heads[..., 1::2])*np.exp(1j*angle)[:, None]
    got     = n.rope(heads, table)
    assert np.abs(got[..., 0::2] - z.real).max() <= 3e-6 and np.abs(got[..., 1::2] - z.imag).max() <= 3e-6
    a, b    = x[0].astype(np.float64), x[1].astype(np.float64)
    assert np.abs(n.swiglu(x[0], x[1]) - a/(1 + np.exp(-a))*b).max() <= 3.6e-6*np.abs(a*b).max()


def test_keys_and_values():
    """int8 with a scale of largest/127 in fp16: off by half a step and what the scale's own rounding costs; zeros stay zeros."""
    x = (np.random.default_rng(2).standard_normal((50, 64))*np.geomspace(1e-4, 1e4, 50)[:, None]).astype(np.float32)
    x[7] = 0
    q, scale = n.quantise_kv(x)
    s = scale.view(np.float16).astype(np.float64)
    ok = s >= 2**-14
    assert np.abs(s[ok]/(np.abs(x[ok]).max(-1)/127) - 1).max() <= 2**-11 + 1e-6
    step = np.abs(x - q*s[:, None])/(s[:, None] + (s == 0)[:, None])
    assert step[ok & (s != 0)].max() <= 0.5 + 127*2**-11 and np.abs(q).max() == 127 and not q[7].any() and not scale[7]
    exact = np.float32([127, 0.5, -0.5, 1.5, -1.5, 63.5, -127])
    q, scale = n.quantise_kv(exact)
    assert scale == 0x3C00 and q.tolist() == [127, 1, -1, 2, -2, 64, -127]


def test_scores():
    """16 fraction bits, halves away from zero, saturated."""
    s = n.score_fixed(np.float32([0, 1, -1, 2.0**-17, -2.0**-17, 3*2.0**-17, 32767.5, 40000, -40000]), np.float32(1))
    assert s.tolist() == [0, 65536, -65536, 1, -1, 2, 32767*65536 + 32768, 2**31 - 1, -2**31]
    assert n.score_fixed(np.float32(3), np.float32(-0.5)) == -98304


def test_embedding_and_candidates():
    """Rows by the format's formula; of equal logits the lower index first."""
    q = np.arange(64).reshape(2, 1, 32).astype(np.uint8) % 16
    d, m = np.float16([[0.5], [-2]]).view(np.uint16), np.float16([[3], [0.25]]).view(np.uint16)
    assert n.dequantise_row(image.QMatrix(image.Q4_0, q, d), [1, 0]).tolist() == [[k*(v % 16 - 8) for v in range(32)]
        for k in (-2.0, 0.5)]
    assert n.dequantise_row(image.QMatrix(image.Q4_1, q, d, m), [0]).tolist() == [[0.5*(v % 16) + 3 for v in range(32)]]
    assert n.dequantise_row(image.QMatrix(image.Q8_0, q.astype(np.int8) - 120, d), [1]).tolist() == [[-2.0*(v % 16 - 120) for v in range(32)]]
    assert n.topk(np.float32([1, 3, -2, 3, 0, 3]), 4).tolist() == [1, 3, 5, 0]
