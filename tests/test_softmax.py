# SPDX-License-Identifier: BSD-2-Clause
"""LlamaSoftmax against the attention of numerics.Decoder: scores, probabilities times value scales, division by their sum."""

from migen import passive
import numpy as np
import pytest

from gateware import feed
from stage import Bench, f32_bits, in_turns, items, pulse, sink_inputs, until
from litellama.accel import numerics
from litellama.accel.config import CoreConfig
from litellama.accel.kv import LlamaKVOwner
from litellama.accel.softmax import LlamaSoftmax
from litellama.accel.vector import DEST_ACT, DEST_SCORE, KIND_SCORE, KIND_VALUE

def make(context=128, columns=1):
    config = CoreConfig(lanes=8, columns=columns, kv_bytes=1024, kv_scales=context, max_context=context, max_head_dim=32)
    kv     = LlamaKVOwner(config)
    dut    = LlamaSoftmax(config, kv)
    bench  = Bench([dut], [*sink_inputs(dut.sink), dut.clear, dut.start, dut.n_columns, dut.positions, dut.sbase, dut.score_scale,
        dut.debug_index, kv.write_values, kv.write_scale_valid, kv.write_scale_address, kv.write_scale],
        [dut.sink.ready, dut.scores_done, dut.done, dut.debug_data], [kv])
    return dut, kv, bench


def golden(rows, scale, value_scales, values):
    """Fixed-point scores, probabilities times value scales, sum of the probabilities, values over it."""
    s     = numerics.score_fixed(rows, scale)
    p     = numerics.exp2_neg(s.max() - s)
    w     = numerics.fmul(p.astype(np.float32), numerics.from_fp16(value_scales))
    total = p.sum()
    return s, w, total, numerics.fmul(values, numerics.recip(np.float32(total)))


def scores(kind, n, rng):
    """n scores: usual; saturating; far apart, so that all but one vanish; equal."""
    return dict(
        usual  = rng.standard_normal(n)*20,
        huge   = rng.choice([1e12, -1e12, 70000, -3e5, 5], n),
        apart  = np.where(np.arange(n) == n//2, 0, -200 - np.arange(n)),
        equal  = np.full(n, -3.3),
    )[kind].astype(np.float32)


def store(kv, value_scales):
    """Generator: write value scales from 0 on."""
    yield kv.write_values.eq(1)
    for i, v in enumerate(value_scales):
        yield kv.write_scale_valid.eq(1)
        yield kv.write_scale_address.eq(i)
        yield kv.write_scale.eq(int(v))
        yield
    yield kv.write_scale_valid.eq(0)


@pytest.mark.parametrize("probability, load", ((1.0, 0.0), (0.5, 0.4), (1.0, in_turns(60, 30))))
def test_heads(probability, load, tmp_path):
    """One head after the other, as the controller does it; also while the vector unit and the table are taken 60 clocks in a row."""
    rng        = np.random.default_rng(7)
    dut, kv, bench = make()
    value_scales   = rng.integers(0, 0x7C00, 128)
    value_scales[::5] &= 0x3FF
    value_scales[0] = 0
    heads = [("usual", 34, 0), ("huge", 12, 7), ("usual", 1, 3), ("equal", 2, 5), ("apart", 9, 60)]
    heads = heads if not load else [("usual", 80, 5)] if callable(load) else [("apart", 7, 64), ("usual", 14, 9)]
    scale, want = np.float32(np.log2(np.e)/8), []
    def main():
        yield dut.score_scale.eq(f32_bits(scale)[0])
        yield from store(kv, value_scales)
        for kind, n, sbase in heads:
            x       = scores(kind, n, rng)
            values  = (rng.standard_normal(8)*1e3).astype(np.float32)
            s, w, total, v = golden(x, scale, value_scales[sbase:sbase + n], values)
            want.extend((DEST_ACT, b, int(i == n - 1)) for i, b in enumerate(f32_bits(w)))
            want.extend((DEST_ACT, b, int(i == 7)) for i, b in enumerate(f32_bits(v)))
            yield from pulse(dut.clear)
            yield from feed(dut.sink, items(x, kind=KIND_SCORE), probability, seed=n)
            yield from until(dut.scores_done)
            yield dut.positions.eq(n)
            yield dut.sbase.eq(sbase)
            yield from pulse(dut.start)
            if n % 2:                   # Values may come early: they wait.
                yield from feed(dut.sink, items(values, kind=KIND_VALUE), probability, seed=n)
            else:
                yield from until(dut.done)
                yield from feed(dut.sink, items(values, kind=KIND_VALUE), probability, seed=n)
            for i in range(n + 2):      # The scores, by the debug window.
                yield dut.debug_index.eq(i if i < n else 0)
                yield
                if i >= 2:
                    assert (yield dut.debug_data) == int(s[i - 2]) & 0xFFFFFFFF, (kind, i - 2)
        for _ in range(40):
            yield
    results = [(d, b, l, c) for c, b, d, l in bench.run(main(), tmp_path, load=load, function_load=0 if callable(load) else None) if d != DEST_SCORE]
    assert [r[:3] for r in results] == want
    if not load:                        # A probability a clock.
        assert results[33][3] - results[0][3] == 33


@pytest.mark.parametrize("columns, sets, probability, load", ((1, (1, 1), 0.7, 0), (3, (3, 1, 2), 1, 0), (3, (2, 3), 0.5, 0.4)))
def test_columns(columns, sets, probability, load, tmp_path):
    """Heads side by side, as many as there are columns or fewer: each column's probabilities against its own maximum, to that
    column; its values times its own 1/sum, all to column 0."""
    rng          = np.random.default_rng(10*columns + len(sets))
    dut, kv, bench = make(128, columns)
    value_scales = rng.integers(0x2000, 0x5000, 128)
    scale, want, got = np.float32(np.log2(np.e)/8), [], []
    def main():
        yield dut.score_scale.eq(f32_bits(scale)[0])
        yield from store(kv, value_scales)
        for i, n in enumerate(sets):
            positions, sbase = (19, 1, 33)[i], (0, 60, 95)[i]
            x      = np.stack([scores(("usual", "equal", "apart")[(c + i) % 3], positions, rng) + np.float32(3*c) for c in range(n)])
            values = (rng.standard_normal((n, 6))*1e3).astype(np.float32)
            s, w, _, v = zip(*(golden(a, scale, value_scales[sbase:sbase + positions], b) for a, b in zip(x, values)))
            for c in range(n):
                want.extend((DEST_ACT, c, b, int(k == positions - 1)) for k, b in enumerate(f32_bits(w[c])))
            want.extend((DEST_ACT, 0, b, int((c, k) == (n - 1, 5))) for c in range(n) for k, b in enumerate(f32_bits(v[c])))
            yield dut.n_columns.eq(n)
            yield from pulse(dut.clear)
            rows = [dict(item, column=c) for t in range(positions) for c, item in enumerate(items(x[:, t], kind=KIND_SCORE))]
            yield from feed(dut.sink, [dict(row, last=int(k == len(rows) - 1)) for k, row in enumerate(rows)], probability)
            yield from until(dut.scores_done)
            yield dut.positions.eq(positions)
            yield dut.sbase.eq(sbase)
            yield from pulse(dut.start)
            rows = [dict(item, column=c) for c in range(n) for item in items(values[c], kind=KIND_VALUE)]
            if i != 1:
                yield from until(dut.done)
            yield from feed(dut.sink, [dict(row, last=int(k == len(rows) - 1)) for k, row in enumerate(rows)], probability)
            places = [(c, t) for c in range(n) for t in range(positions)]
            for k, (c, t) in enumerate([*places, (0, 0), (0, 0)]):
                yield dut.debug_index.eq(128*c + t)
                yield
                if k >= 2:
                    c, t = places[k - 2]
                    assert (yield dut.debug_data) == int(s[c][t]) & 0xFFFFFFFF, (c, t)
        for _ in range(40):
            yield
    @passive
    def watch():
        source = bench.vpu.source
        while True:
            if (yield source.valid) and (yield source.dest) == DEST_ACT:
                got.append((DEST_ACT, (yield source.column), (yield source.data), (yield source.last)))
            yield
    bench.run(main(), tmp_path, load=load, extra=[watch()])
    assert got == want


def test_latency(tmp_path):
    """Clocks from start to the first operation's result and from the last to done, printed by the assertion if they grow."""
    dut, kv, bench = make()
    clocks = []
    def main():
        yield dut.positions.eq(32)
        yield from pulse(dut.clear)
        yield from feed(dut.sink, items(np.linspace(-4, 4, 32).astype(np.float32), kind=KIND_SCORE))
        yield from until(dut.scores_done)
        yield from pulse(dut.start)
        clocks.append((yield from until(dut.done)))
    bench.run(main(), tmp_path)
    assert clocks[0] <= 32 + 70, clocks


def test_long_sum(tmp_path):
    """A sum of more than 24 bits is rounded to nearest even: down from a tie over an even number, up over an odd one."""
    dut, kv, bench = make(512)
    scale, values, want = np.float32(1), np.linspace(1, 2, 4, dtype=np.float32), []
    x      = (-np.arange(300)*0.001).astype(np.float32)
    sums   = {n: int(golden(x[:n], scale, np.zeros(n, np.uint16), values)[2]) for n in range(258, 300)}
    counts = [next(n for n, total in sums.items() if total % 4 == remainder and total > 1 << 24) for remainder in (1, 3)]
    def main():
        yield dut.score_scale.eq(f32_bits(scale)[0])
        yield from pulse(dut.clear)
        yield from feed(dut.sink, items(x[:max(counts)], kind=KIND_SCORE))
        yield from until(dut.scores_done)
        for n in counts:
            want.extend(f32_bits(golden(x[:n], scale, np.zeros(n, np.uint16), values)[3]))
            yield dut.positions.eq(n)
            yield from pulse(dut.start)
            yield from feed(dut.sink, items(values, kind=KIND_VALUE))
            for _ in range(25):
                yield
    results = [r for r in bench.run(main(), tmp_path) if r[2] == DEST_ACT]
    assert [r[1] for r in results if r[1]] == want    # The value scales are 0, so only values are not.
