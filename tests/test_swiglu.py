# SPDX-License-Identifier: BSD-2-Clause
"""LlamaSwiGLU against numerics.swiglu."""

import numpy as np
import pytest

from gateware import feed
from stage import Bench, f32_bits, sink_inputs
from litellama.accel import numerics
from litellama.accel.swiglu import LlamaSwiGLU, PAIRS
from litellama.accel.vector import DEST_ACT


@pytest.mark.parametrize("n, probability, load, function_load",
    ((40, 1.0, 0.0, 0.0), (24, 0.5, 0.5, 0.5), (21, 1.0, 0.95, 0.0), (1, 1.0, 0.0, 0.0)))
def test_swiglu(n, probability, load, function_load, tmp_path):
    """Two matrices back to back: gates from deep in the table's range to far beyond, zeros, overflow."""
    rng   = np.random.default_rng(n)
    dut   = LlamaSwiGLU()
    bench = Bench([dut], sink_inputs(dut.sink), [dut.sink.ready])
    want, items = [], []
    for _ in range(1 if load else 2):
        a = (rng.standard_normal(n)*10.0**rng.integers(-3, 3, n)).astype(np.float32)
        b = rng.standard_normal(n).astype(np.float32)
        if n > 8:
            a[:8], b[:4] = [0, 30, -30, 16, -16, 1e38, 1e-30, -1e30], [5, 7, 7, 0]
            b[5] = 1e30
        want += list(zip(f32_bits(numerics.swiglu(a, b)), [DEST_ACT]*n, [0]*(n - 1) + [1]))
        rows  = f32_bits(np.stack([a, b], 1))
        items += [dict(data=r, last=int(i == 2*n - 1)) for i, r in enumerate(rows)]
    def main():
        yield from feed(dut.sink, items, probability)
        while (yield dut.vpu.valid) or (yield dut.space) < PAIRS:
            yield
        for _ in range(25):
            yield
    results = bench.run(main(), tmp_path, load=load, function_load=function_load)
    assert [r[1:] for r in results] == want
    if probability == 1 and not load and n > 1:   # A row a clock, so a result every second.
        assert results[-1][0] - results[0][0] == 2*(2*n - 1)
