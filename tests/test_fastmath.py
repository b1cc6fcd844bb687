# SPDX-License-Identifier: BSD-2-Clause
"""The compiled loops give the bits of the plain definitions in numerics.py, for every type, extreme and number of columns."""

import numpy as np
import pytest

from litellama.accel import fastmath, image, numerics
from litellama.accel.numerics import Bfp, Decoder
from litellama.host.random_model import odd_configs, random_model


def matrix(rng, type, rows, blocks, bits=None):
    """QMatrix of any integers; scales of any finite fp16, or around `bits`."""
    q = rng.integers(-128, 128, (rows, blocks, 32)).astype(np.int8) if type == image.Q8_0 else \
        rng.integers(0, 16, (rows, blocks, 32)).astype(np.uint8)
    def scales():
        h = rng.integers(0, 1 << 16, (rows, blocks)) if bits is None else bits + rng.integers(-2000, 2000, (rows, blocks))
        return np.where(h & 0x7C00 == 0x7C00, h & 0x83FF, h).astype(np.uint16)   # No infinity: subnormals instead.
    return image.QMatrix(type, q, scales(), scales() if type == image.Q4_1 else None)


def vectors(rng, columns, blocks, spread):
    """Bfp with exponents that differ by up to `spread`, some mantissas at their limits."""
    mant = rng.integers(-32767, 32768, (columns, blocks, 32)).astype(np.int16)
    mant[rng.random(mant.shape) < 0.1] = 32767
    mant[0, 0] = -32767
    exp  = rng.integers(200 - spread, 201, (columns, blocks))
    return Bfp(mant, exp, exp.max(-1))


@pytest.mark.parametrize("columns", [1, 3, fastmath.MANY - 1, fastmath.MANY, 37])
@pytest.mark.parametrize("type", [image.Q8_0, image.Q4_0, image.Q4_1])
@pytest.mark.parametrize("bits,spread", [(None, 200), (0x2000, 4), (0x2000, 0)])
def test_rows(type, columns, bits, spread, monkeypatch):
    rng  = np.random.default_rng([type, columns, spread])
    w, x = matrix(rng, type, 45, 7, bits), vectors(rng, columns, 7, spread)
    for exponent in (w.scale_exponent(), numerics.K_EXPONENT):
        want = numerics.accumulate_rows(w, x, exponent)
        assert np.array_equal(fastmath.accumulate_rows(w, x, exponent), want)
        monkeypatch.setattr(fastmath, "PART_OPS", 1000)   # Many parts, on threads.
        assert np.array_equal(fastmath.accumulate_rows(w, x, exponent), want)
        monkeypatch.undo()


@pytest.mark.parametrize("columns", [1, fastmath.MANY])
def test_largest_sums(columns):
    """Every product of one sign and as large as can be."""
    for q, type in ((-128, image.Q8_0), (15, image.Q4_1), (0, image.Q4_0)):
        d = np.full((3, 512), 0x7BFF, np.uint16)
        w = image.QMatrix(type, np.full((3, 512, 32), q, np.int8 if q < 0 else np.uint8), d, d if type == image.Q4_1 else None)
        x = Bfp(np.full((columns, 512, 32), -32767, np.int16), np.full((columns, 512), 9), np.full(columns, 9))
        assert np.array_equal(fastmath.accumulate_rows(w, x, 5), numerics.accumulate_rows(w, x, 5))


def test_views_and_other_integer_types():
    """What the decoder and the gateware's tests pass: slices of a cache, transposed values, wider integers."""
    rng   = np.random.default_rng(3)
    cache = rng.integers(-127, 128, (2, 64, 96)).astype(np.int8)
    x     = vectors(rng, 5, 3, 9)
    wide  = Bfp(x.mant.astype(np.int64), x.exp.astype(np.int32), x.emax.astype(np.int32))
    for q in (cache[1, :40].reshape(40, 3, 32), cache[:, ::2, :48].reshape(32, 3, 32),
            np.asfortranarray(cache[0, :8].reshape(8, 3, 32))):
        w = image.QMatrix(image.Q8_0, q, rng.integers(0, 0x5000, q.shape[:2]).astype(np.uint16)[::-1])
        for v in (x, wide):
            assert np.array_equal(fastmath.accumulate_rows(w, v, 5), numerics.accumulate_rows(w, x, 5))


def test_sum_of_squares(monkeypatch):
    rng = np.random.default_rng(4)
    x   = np.concatenate([rng.standard_normal((20, 576)), rng.standard_normal((20, 576))*10.0**rng.integers(-25, 25, (20, 576))])
    x   = x.astype(np.float32)
    x[0], x[1], x[2], x[3, 5] = 0, numerics.F32_MAX, numerics.F32_MIN, -numerics.F32_MAX
    x[4] = 1.0842022e-19   # Its square is just below the normal range.
    for shape in ((40, 576), (2, 20, 576), (40*576//8, 8)):
        fast = numerics.sum_of_squares(x.reshape(shape))
        monkeypatch.setattr(numerics, "_fast", lambda: None)
        assert np.array_equal(numerics.bits(fast), numerics.bits(numerics.sum_of_squares(x.reshape(shape))))
        monkeypatch.undo()


@pytest.mark.parametrize("name,config,tied", odd_configs(), ids=[c[0] for c in odd_configs()])
def test_whole_models(name, config, tied, monkeypatch):
    """Logits, keys, values and every tap, prompts and single steps."""
    model = random_model(config, lambda kind, layer: dict(wq="q4_0", w2="q8_0").get(kind, "q4_1"), "q8_0", seed=2, tied=tied)
    def run():
        d    = Decoder(model, taps={})
        outs = [d.forward(list(range(20, 60)), "all"), d.forward([7]), d.forward([9, 11, 13], "all")]
        return [*outs, d.k, d.v, d.k_scale, d.v_scale, *(d.taps[key] for key in sorted(d.taps))]
    fast = run()
    monkeypatch.setattr(numerics, "_fast", lambda: None)
    for a, b in zip(fast, run(), strict=True):
        assert np.array_equal(a, b)


def test_it_is_used():
    """numba is one of the pinned packages."""
    assert numerics._fast() is fastmath and fastmath.GUARD == numerics.GUARD
