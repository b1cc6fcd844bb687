# SPDX-License-Identifier: BSD-2-Clause
"""LlamaRope against numerics.rope: keys and queries, values passed, the quantiser's room, pace."""

import random

import numpy as np
import pytest

from migen import passive

from gateware import feed
from stage import Bench, f32_bits, items, pulse, sink_inputs, until
from litellama.accel import image, numerics
from litellama.accel.config import BLOCK
from litellama.accel.rope import LlamaRope
from litellama.accel.vector import DEST_ACT, DEST_KVBUF


def make():
    dut = LlamaRope(64)
    return dut, Bench([dut], [*sink_inputs(dut.sink, dut.vector), dut.load, dut.head_blocks, dut.kv_ready],
        [dut.sink.ready, dut.vector.ready, dut.load_done, dut.kv_claim])


def load(dut, table, probability):
    yield from pulse(dut.load)
    yield from feed(dut.vector, items(table), probability, seed=3)
    yield from until(dut.load_done)


@pytest.mark.parametrize("blocks, heads, probability, load_vpu", ((1, 2, 0.8, 0.4), (2, 1, 1.0, 0.0)))
def test_rotation(blocks, heads, probability, load_vpu, tmp_path):
    """wk, wv and wq, back to back."""
    rng, prng = np.random.default_rng(1), random.Random(2)
    dut, bench = make()
    hd     = blocks*BLOCK
    table  = image.rope_table(hd - 2 if heads == 1 else hd, 100)
    want, claims = [], []
    positions    = (0, 77) if blocks == 1 else (5,)
    @passive
    def room():
        while True:
            yield dut.kv_ready.eq(int(prng.random() < probability))
            yield
            if (yield dut.kv_claim):
                claims.append(1)
                assert (yield dut.kv_ready)
    def main():
        yield dut.head_blocks.eq(blocks)
        for position in positions:
            yield from load(dut, table[position], probability)
            for kind, n in ((image.WK, heads), (image.WV, heads), (image.WQ, 1)):
                x = (rng.standard_normal((1, n, hd))*10.0**rng.integers(-3, 3, (1, n, hd))).astype(np.float32)
                x[0, 0, :5] = 0
                x[0, -1, -2:] = numerics.F32_MAX, -numerics.F32_MIN
                y = x if kind == image.WV else numerics.rope(x, table[position:position + 1])
                want.extend(zip(f32_bits(y), [DEST_ACT if kind == image.WQ else DEST_KVBUF]*y.size, [0]*(y.size - 1) + [1]))
                yield from feed(dut.sink, items(x, kind=kind), probability, seed=position + kind)
        for _ in range(40):
            yield
    results = bench.run(main(), tmp_path, load=load_vpu, extra=[room()])
    assert [r[1:] for r in results] == want
    assert len(claims) == 2*len(positions)*heads


def test_pace_and_room(tmp_path):
    """One operation a clock; a head of keys that finds no room waits, one of queries does not."""
    rng = np.random.default_rng(1)
    dut, bench = make()
    table   = image.rope_table(BLOCK, 4)
    x       = rng.standard_normal((1, 2, BLOCK)).astype(np.float32)
    waiting = []
    def main():
        yield dut.head_blocks.eq(1)
        yield dut.kv_ready.eq(1)
        yield from load(dut, table[1], 1.0)
        yield from feed(dut.sink, items(x, kind=image.WK))
        yield dut.kv_ready.eq(0)
        yield from feed(dut.sink, items(x, kind=image.WQ))
        yield dut.sink.valid.eq(1)
        yield dut.sink.kind.eq(image.WV)
        for _ in range(30):
            yield
            waiting.append((yield dut.sink.ready))
    results = bench.run(main(), tmp_path)
    assert [r[1] for r in results] == 2*f32_bits(numerics.rope(x, table[1:2]))
    assert all(results[i + 63][0] - results[i][0] == 63 for i in (0, 64))
    assert not any(waiting)
