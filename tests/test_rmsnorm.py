# SPDX-License-Identifier: BSD-2-Clause
"""LlamaRMSNorm against numerics.sum_of_squares and numerics.rmsnorm."""

import numpy as np
import pytest

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from gateware import feed, run_block
from stage import Bench, f32_bits, items, pulse, sink_inputs, until
from litellama.accel import numerics
from litellama.accel.residual import LlamaXMemory
from litellama.accel.rmsnorm import LlamaRMSNorm, LlamaSumOfSquares
from litellama.accel.vector import DEST_ACT, DEST_X, P_E, VPU_LAYOUT, LlamaVPU


class Source(LiteXModule):
    """In LlamaResidual's place: a client of the vector unit that the test drives."""
    def __init__(self):
        self.vpu = stream.Endpoint(VPU_LAYOUT)


def vectors(n, rng):
    """Vectors of n elements: small, wide, of few elements, zero, overflowing, vanishing."""
    normal = rng.standard_normal(n).astype(np.float32)
    few    = np.zeros(n, np.float32)
    few[[1, 9]] = 3, -4
    return [normal, (normal*10.0**rng.integers(-8, 8, n)).astype(np.float32), few, np.zeros(n, np.float32),
        normal*np.float32(1e25), normal*np.float32(1e-25)]


@pytest.mark.parametrize("n, probability, load", ((32, 1.0, 0.0), (64, 0.8, 0.3)))
def test_rmsnorm(n, probability, load, tmp_path):
    """Store x, normalise it; the next vector at once."""
    rng   = np.random.default_rng(n)
    x, source = LlamaXMemory(64), Source()
    dut   = LlamaRMSNorm(x)
    bench = Bench([dut, source], [*sink_inputs(source.vpu, dut.vector), x.clear, dut.start, dut.dim_blocks, dut.inv_dim, dut.eps],
        [source.vpu.ready, dut.vector.ready, x.done, dut.done], [x])
    want, spans = [], []
    def main():
        yield dut.dim_blocks.eq(n//32)
        for i, v in enumerate(vectors(n, rng)[1:] if not load else vectors(n, rng)[:2]):
            weight  = rng.standard_normal(n).astype(np.float32)
            inv_dim = np.float32(1/(n - 3))
            eps     = np.float32(1e-5 if i % 2 else 1e-3)
            want.extend(zip(f32_bits(numerics.rmsnorm(v, weight, inv_dim, eps)), [0]*(n - 1) + [1]))
            yield dut.inv_dim.eq(f32_bits(inv_dim)[0])
            yield dut.eps.eq(f32_bits(eps)[0])
            yield from pulse(x.clear)
            yield from feed(source.vpu, items(v, name="e", p_sel=P_E, dest=DEST_X), probability)
            yield from until(x.done)
            yield from pulse(dut.start)
            if i == 0:
                for _ in range(90):     # The weights may come late.
                    yield
            yield from feed(dut.vector, items(weight), probability)
            spans.append((yield from until(dut.done)))
    results = [r for r in bench.run(main(), tmp_path, load=load) if r[2] == DEST_ACT]
    assert [(r[1], r[3]) for r in results] == want
    if probability == 1:                # An element a clock, done with the last result.
        assert all(results[i + n - 1][0] - results[i][0] == n - 1 for i in range(0, len(results), n))
        assert max(spans) <= LlamaVPU.latency


def test_sum_of_squares(tmp_path):
    """Any gaps, finish with the last element or long after it, 8 elements and more."""
    rng, dut  = np.random.default_rng(5), LlamaSumOfSquares()
    bench     = Bench([], [dut.clear, dut.valid, dut.data, dut.finish], [dut.done, dut.sum], [dut])
    def main():
        for n, gap, wait in ((8, 0, 0), (64, 0, 0), (64, 0.4, 0), (32, 0, 30), (16, 0.9, 3)):
            x = (rng.standard_normal(n)*10.0**rng.integers(-3, 3, n)).astype(np.float32)
            yield from pulse(dut.clear)
            for i, b in enumerate(f32_bits(x)):
                while rng.random() < gap:
                    yield
                yield dut.valid.eq(1)
                yield dut.data.eq(b)
                if i == n - 1 and wait == 0:
                    yield dut.finish.eq(1)
                yield
                yield dut.valid.eq(0)
                yield dut.finish.eq(0)
            if wait:
                for _ in range(wait):
                    yield
                yield from pulse(dut.finish)
            yield from until(dut.done)
            assert (yield dut.sum) == f32_bits(numerics.sum_of_squares(x))[0]
    run_block(bench, [main()], bench.ios, tmp_path)
