# SPDX-License-Identifier: BSD-2-Clause
"""fp32 pipelines against numerics: random pairs and every edge of rounding, cancellation, underflow and overflow."""

import numpy as np
import pytest

from gateware import run_block
from litellama.accel import fp, numerics

LARGEST  = 0x7F7FFFFF
SMALLEST = 0x00800000


def run_pipeline(dut, inputs, output, items, latency, path):
    """Feed one item (a tuple, one value per input) a clock; results in order."""
    results = []
    def generator():
        for i in range(len(items) + latency):
            for s, v in zip(inputs, items[min(i, len(items) - 1)]):
                yield s.eq(int(v))
            yield
            if i >= latency:
                results.append((yield output))
    run_block(dut, [generator()], [*inputs, output], path)
    return results


def as_float(bits):
    """fp32 of bit patterns."""
    return np.asarray(bits, np.uint32).view(np.float32)


def pair_bits(rng, n):
    """Pairs of fp32 bit patterns, n of each kind: anything, close exponents, near-cancellation, ties, both ends of the range."""
    def number(low, high, size=n):
        return (rng.integers(low, high, size, np.int64) << 23 | rng.integers(0, 1 << 23, size) | rng.integers(0, 2, size) << 31)
    sign  = np.int64(1) << 31
    parts = [(number(1, 255), number(1, 255))]
    e = rng.integers(30, 225, n)                                                  # Close exponents.
    parts += [(number(0, 1) | e << 23, number(0, 1) | e + rng.integers(-27, 28, n) << 23)]
    a = number(1, 255)                                                            # Cancellation to a few bits, or to 0.
    parts += [(a, a + rng.integers(-3, 4, n) ^ sign), (a, a ^ sign)]
    sparse = rng.integers(0, 8, (2, n)) << 20 | rng.choice([0, 1, 2, 3, 4, 0x7FFFFF, 0x400000, 0x7FF000], (2, n))
    parts += [(e << 23 | sparse[0], e + rng.integers(-26, 27, n) << 23 | sparse[1] ^ rng.integers(0, 2, n) << 31)]   # Ties.
    low = rng.integers(1, 127, n)                                                 # Product or difference near underflow.
    parts += [(number(0, 1) | low << 23, number(0, 1) | np.clip(127 - low + rng.integers(-2, 3, n), 1, 254) << 23),
              (number(1, 4), number(1, 4))]
    high = rng.integers(128, 255, n)                                              # Product or sum near overflow.
    parts += [(number(0, 1) | high << 23, number(0, 1) | np.clip(381 - high + rng.integers(-2, 3, n), 1, 254) << 23),
              (number(252, 255), number(252, 255))]
    edge = np.array([0, SMALLEST, SMALLEST + 1, 0x3F800000, 0x3F800001, 0x3F7FFFFF, 0x4B800000, 0x4B800001, 0x00FFFFFF,
        0x20000000, 0x1FFFFFFF, 0x1F800000, 0x20000001, LARGEST, LARGEST - 1, 0x7F000000, 0x40000000], np.int64)
    edge = np.concatenate([edge, edge | sign])
    parts += [tuple(x.reshape(-1) for x in np.meshgrid(edge, edge))]
    a, b  = (np.concatenate(x) & 0xFFFFFFFF for x in zip(*parts))
    valid = ((a >> 23 & 255) < 255) & ((b >> 23 & 255) < 255)
    return a[valid], b[valid]


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("name", ["mul", "add"])
def test_pairs(tmp_path, name, part):
    a, b     = (x[part::3] for x in pair_bits(np.random.default_rng(1), 500))
    dut, f   = {"mul": (fp.LlamaFPMul(), numerics.fmul), "add": (fp.LlamaFPAdd(), numerics.fadd)}[name]
    expected = numerics.bits(f(as_float(a), as_float(b)))
    got      = run_pipeline(dut, [dut.a, dut.b], dut.p if name == "mul" else dut.s, list(zip(a, b)), dut.latency, tmp_path)
    bad      = np.flatnonzero(np.asarray(got) != expected)
    assert len(bad) == 0, [(f"{a[i]:08x} {b[i]:08x}: {got[i]:08x}, expected {expected[i]:08x}") for i in bad[:5]]
    # The vectors do reach the edges.
    results = expected & 0x7FFFFFFF
    assert (results == LARGEST).sum() > 20 and (results == 0).sum() > 50 and (results >> 23 == 1).sum() > 20


@pytest.mark.parametrize("width", [5, 12, 24, 26, 33, 48, 64])
def test_from_fixed(tmp_path, width):
    rng   = np.random.default_rng(width)
    ends  = [0, 1, -1, 2**(width - 1) - 1, -2**(width - 1), -2**(width - 1) + 1]
    value = [int(v) >> int(s) for v, s in zip(rng.integers(-2**(width - 1), 2**(width - 1), 400, np.int64), rng.integers(0, width, 400))]
    for e in range(24, width - 1):      # Halfway, and one above or below it.
        base   = (1 << e) + (int(rng.integers(0, 4)) << e - 23)
        value += [sign*(base + (1 << e - 24) + d) for sign in (1, -1) for d in (-1, 0, 1)] + [(2 << e) - 1]
    value    = [v for v in ends*3 + value if -2**(width - 1) <= v < 2**(width - 1)]
    exponent = rng.integers(-60, 60, len(value))
    near     = rng.choice([-1, 0, 1, 2], len(value)) - np.array([abs(v).bit_length() for v in value])
    exponent = np.where(rng.random(len(value)) < 0.2, near - 126, exponent)       # Underflow.
    exponent = np.where(rng.random(len(value)) < 0.2, near + 127, exponent)       # Overflow.
    exponent[:len(ends)]              = 2047
    exponent[len(ends):2*len(ends)]   = -2048
    dut      = fp.LlamaFixedToFP(width)
    expected = numerics.bits(numerics.from_fixed(np.array(value, np.int64), exponent))
    got      = run_pipeline(dut, [dut.value, dut.exponent], dut.y, list(zip(value, exponent)), dut.latency, tmp_path)
    bad      = np.flatnonzero(np.asarray(got) != expected)
    assert len(bad) == 0, [(value[i], exponent[i], f"{got[i]:08x}, expected {expected[i]:08x}") for i in bad[:5]]


def test_to_score(tmp_path):
    rng  = np.random.default_rng(3)
    bits = np.concatenate([
        rng.integers(100, 150, 1000) << 23 | rng.integers(0, 1 << 23, 1000) | rng.integers(0, 2, 1000) << 31,
        rng.integers(1, 255, 300) << 23 | rng.integers(0, 1 << 23, 300) | rng.integers(0, 2, 300) << 31,
        numerics.bits((rng.integers(-300, 300, 300) + 0.5)/65536),                   # Halves.
        numerics.bits([0, 32768, -32768, 32767.998, -32767.998, 2**-17, -2**-17, 2**-17*0.9999999, 1e38, -1e38, 1, -1])])
    dut      = fp.LlamaFPToScore()
    expected = numerics.score_fixed(np.clip(as_float(bits), -2**40, 2**40).astype(np.float32), np.float32(1))
    got      = run_pipeline(dut, [dut.x], dut.s, [(b,) for b in bits], dut.latency, tmp_path)
    bad      = np.flatnonzero(np.asarray(got) != expected)
    assert len(bad) == 0, [(f"{bits[i]:08x}", got[i], expected[i]) for i in bad[:5]]
