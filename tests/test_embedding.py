# SPDX-License-Identifier: BSD-2-Clause
"""LlamaEmbedding against numerics.dequantise_row, and its converters."""

import numpy as np
import pytest

from gateware import feed, run_block
from stage import Bench, f32_bits, sink_inputs
from litellama.accel import numerics
from litellama.accel.embedding import LlamaEmbedding, LlamaFP16ToFP, LlamaInt8ToFP
from litellama.accel.image import Q4_0, Q4_1, Q8_0, QMatrix
from litellama.accel.vector import DEST_X


def beats(w, lanes):
    """Beats of row 0 of QMatrix w as LlamaUnpack gives them."""
    bits, out = (8 if w.type == Q8_0 else 4), []
    n         = min(4*lanes//bits, 32)
    for b in range(w.blocks):
        q = w.q[0, b].astype(np.int64) & (1 << bits) - 1
        for i in range(0, 32, n):
            out.append(dict(q=sum(int(v) << bits*k for k, v in enumerate(q[i:i + n])), d=int(w.d[0, b]),
                m=0x1234 if w.m is None else int(w.m[0, b]), block_last=int(i + n == 32), last=0))
    out[-1]["last"] = 1
    return out


def row(type, blocks, rng):
    """A row with extreme quants and all sorts of fp16: subnormal, zero, negative, largest."""
    low, high, dtype = (-128, 128, np.int8) if type == Q8_0 else (0, 16, np.uint8)
    q = rng.integers(low, high, (1, blocks, 32)).astype(dtype)
    q[0, 0, :4] = (-128, 127, 0, -1) if type == Q8_0 else (0, 15, 8, 7)
    d, m = (rng.integers(0, 1 << 16, (1, blocks)).astype(np.uint16) for _ in range(2))
    d[0, :3], m[0, :3] = (0x0001, 0x83FF, 0x0000), (0x7BFF, 0x0000, 0x8001)
    return QMatrix(type, q, d & 0xBFFF, m & 0xBFFF if type == Q4_1 else None)


@pytest.mark.parametrize("lanes, probability, load", ((32, 1.0, 0.0), (8, 0.3, 0.3), (64, 1.0, 0.0)))
def test_rows(lanes, probability, load, tmp_path):
    rng   = np.random.default_rng(lanes)
    dut   = LlamaEmbedding(lanes)
    bench = Bench([dut], [*sink_inputs(dut.sink), dut.type], [dut.sink.ready])
    rows  = [row(type, 3, rng) for type in (Q8_0, Q4_0, Q4_1)]
    def main():
        for w in rows:
            yield dut.type.eq(w.type)
            yield from feed(dut.sink, beats(w, lanes), probability)
            for _ in range(10):
                yield
        for _ in range(40):
            yield
    results = bench.run(main(), tmp_path, load=load)
    want    = [bits for w in rows for bits in f32_bits(numerics.dequantise_row(w, [0]))]
    assert [r[1] for r in results] == want and all(r[2] == DEST_X for r in results)
    assert [i for i, r in enumerate(results) if r[3]] == [95, 191, 287]
    if not load:                        # A weight a clock.
        assert results[95][0] - results[0][0] == 95


def test_converters(tmp_path):
    """fp16 (every 137th, more of the subnormals) and int8 (all), stalled by `enable` at times."""
    half, byte = LlamaFP16ToFP(), LlamaInt8ToFP()
    bench  = Bench([], [half.h, half.enable, byte.v, byte.enable], [half.y, byte.y], [half, byte])
    h      = np.concatenate([np.arange(0, 1100, 3), np.arange(0x8000, 0x8400, 7), np.arange(0, 1 << 16, 137),
        np.arange(0x7BF0, 0x7C10)])
    got    = []
    def main():
        for i, value in enumerate([*h, 0, 0, 0]):
            enable = i % 5 != 4
            yield half.h.eq(int(value))
            yield byte.v.eq(i % 256)
            while True:
                yield half.enable.eq(enable)
                yield byte.enable.eq(enable)
                yield
                if enable:
                    break
                enable = True
            got.append(((yield half.y), (yield byte.y)))
    run_block(bench, [main()], bench.ios, tmp_path)
    n = len(h)
    assert [g[0] for g in got[2:n + 2]] == f32_bits(numerics.from_fp16(h))
    assert [g[1] for g in got[2:n + 2]] == f32_bits(np.arange(n).astype(np.uint8).astype(np.int8).astype(np.float32))
