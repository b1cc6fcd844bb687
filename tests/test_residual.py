# SPDX-License-Identifier: BSD-2-Clause
"""LlamaXMemory and LlamaResidual against numerics.fadd."""

import random

import numpy as np
import pytest

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from gateware import feed
from stage import Bench, f32_bits, items, pulse, sink_inputs, until
from litellama.accel import numerics
from litellama.accel.residual import LlamaResidual, LlamaXMemory
from litellama.accel.vector import DEST_ACT, DEST_X, P_E, VPU_LAYOUT

MAX_DIM = 64


class Source(LiteXModule):
    """In LlamaEmbedding's place: a client of the vector unit that the test drives."""
    def __init__(self):
        self.vpu = stream.Endpoint(VPU_LAYOUT)


def debug_words(x, n):
    """Words 0 to n - 1 of the debug window, two clocks behind their index."""
    out = []
    for i in range(n + 2):
        yield x.debug_index.eq(i % MAX_DIM)
        yield
        if i >= 2:
            out.append((yield x.debug_data))
    return out


@pytest.mark.parametrize("n, probability, load", ((64, 1.0, 0.0), (24, 0.5, 0.4), (1, 1.0, 0.0)))
def test_residual(n, probability, load, tmp_path):
    """Store x, then add two matrices' rows to it, with zeros, cancellation and overflow among them."""
    rng, prng = np.random.default_rng(n), random.Random(n)
    x, source = LlamaXMemory(MAX_DIM), Source()
    dut       = LlamaResidual(x)
    bench     = Bench([dut, source], [*sink_inputs(dut.sink, source.vpu), x.clear, x.debug_index],
        [dut.sink.ready, source.vpu.ready, x.done, x.debug_data], [x])
    def vector():
        v = (rng.standard_normal(n)*10.0**rng.integers(-3, 3, n)).astype(np.float32)
        return np.where(rng.random(n) < 0.1, np.float32(0), v).astype(np.float32)
    now     = vector()
    now[-1] = numerics.F32_MAX
    def main():
        nonlocal now
        yield from pulse(x.clear)
        other = dict(e=1 << 23, p_sel=P_E, dest=DEST_ACT, last=1)
        first = [i for item in items(now, name="e", p_sel=P_E, dest=DEST_X)
            for i in ([other, item] if prng.random() < 0.2 else [item])]
        yield from feed(source.vpu, first, probability)
        yield from until(x.done)
        for row in (vector(), vector()):
            row[0]  = -now[0] if now[0] else 0
            row[-1] = numerics.F32_MAX
            yield from pulse(x.clear)
            yield from feed(dut.sink, items(row), probability)
            yield from until(x.done)
            yield
            now = numerics.fadd(now, row)
            assert (yield from debug_words(x, n)) == f32_bits(now)
    results = [r for r in bench.run(main(), tmp_path, load=load) if r[2] == DEST_X]
    assert len(results) == 3*n and [r[3] for r in results] == 3*([0]*(n - 1) + [1])
    if probability == 1 and not load:   # One row a clock.
        assert results[2*n - 1][0] - results[n][0] == n - 1
