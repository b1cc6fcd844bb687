# SPDX-License-Identifier: BSD-2-Clause
"""Top-k against numerics: every k, ties, orders that are best and worst for insertion, jobs back to back, and its speed."""

import numpy as np
import pytest
from migen import passive

from gateware import feed, run_block
from litellama.accel import numerics
from litellama.accel.topk import LlamaTopK


def run_jobs(path, max_k, jobs, probability):
    """Run jobs (k, fp32 logits) on one instance; returns the (ids, logits) and the clocks of each."""
    dut, results, clocks, dones = LlamaTopK(max_k), [], [], []
    now, limit = [0], sum(100*len(logits)/probability + 200 for _, logits in jobs)
    def clock():
        while True:
            yield
            now[0] += 1
            assert now[0] < limit, "no done"
            if (yield dut.done):
                dones.append(now[0])
    def generator():
        for n, (k, logits) in enumerate(jobs):
            yield dut.k.eq(k)
            yield dut.start.eq(1)
            yield
            yield dut.start.eq(0)
            began = now[0]
            items = [dict(data=int(b), last=int(i == len(logits) - 1)) for i, b in enumerate(numerics.bits(logits))]
            yield from feed(dut.sink, items, probability, seed=n)
            while len(dones) == n:
                yield
            for _ in range(3):
                yield
            assert len(dones) == n + 1, "more than one done"
            clocks.append(dones[-1] - began)
            read = []
            count = (yield dut.count)
            for i in range(count + 2):                            # One clock to drive the index, one to read.
                yield dut.index.eq(min(i, max_k - 1))
                if i >= 2:
                    read.append(((yield dut.id), (yield dut.logit)))
                yield
            results.append(([r[0] for r in read], [r[1] for r in read]))
    ios = [dut.start, dut.k, dut.sink, dut.done, dut.index, dut.id, dut.logit, dut.count]
    run_block(dut, [generator(), passive(clock)()], ios, path)
    return results, clocks


def verify(jobs, results, max_k):
    """Each result is numerics.topk of its job."""
    assert len(results) == len(jobs)
    for (k, logits), (ids, read) in zip(jobs, results):
        want = numerics.topk(logits, min(k, max_k))
        assert ids == list(want), (k, len(logits))
        assert read == [int(b) for b in numerics.bits(logits[want])]


def logits(rng, n, kind):
    """n fp32 logits: normal, few distinct values with ties, rising, falling, all equal, extremes."""
    x = rng.normal(size=n)*10
    x = {"normal": x, "ties": np.round(x/8), "rising": np.sort(x), "falling": -np.sort(x), "equal": x*0 - 3,
        "extremes": rng.choice([numerics.F32_MAX, -numerics.F32_MAX, numerics.F32_MIN, -numerics.F32_MIN, 0], n)}[kind]
    return x.astype(np.float32) + np.float32(0)      # No -0.


@pytest.mark.parametrize("max_k,probability", [(64, 1.0), (7, 0.5), (1, 1.0)])
def test_jobs(tmp_path, max_k, probability):
    rng  = np.random.default_rng(max_k)
    jobs = [(k, logits(rng, n, kind)) for k, n, kind in (
        (max_k, 70, "normal"), (12, 40, "ties"), (1, 30, "normal"), (2, 30, "ties"), (3, 30, "rising"), (64, 8, "normal"),
        (5, 1, "normal"), (1, 1, "equal"), (17, 18, "falling"), (7, 30, "extremes"), (8, 26, "rising"), (100, 65, "equal"))]
    verify(jobs, run_jobs(tmp_path, max_k, jobs, probability)[0], max_k)


def test_nothing_kept(tmp_path):
    rng = np.random.default_rng(5)
    (kept, again), (clocks, _) = run_jobs(tmp_path, 8, [(0, logits(rng, 20, "normal")), (8, logits(rng, 20, "normal"))], 1.0)
    assert kept == ([], []) and len(again[0]) == 8
    assert clocks < 30


def test_speed(tmp_path):
    """About 3 + k/4 clocks per row that gets in, 1 per row that does not."""
    rng, k   = np.random.default_rng(6), 32
    jobs     = [(k, logits(rng, 300, "normal")), (k, logits(rng, 300, "falling"))]
    results, (random_order, falling) = run_jobs(tmp_path, 64, jobs, 1.0)
    verify(jobs, results, 64)
    kept, inserted = [], 0
    for x in jobs[0][1]:
        if len(kept) < k or x > kept[0]:
            kept, inserted = sorted(kept + [x])[-k:], inserted + 1
    assert inserted > 80
    assert random_order < 300 - inserted + (3 + k/4)*inserted
    assert falling < 300 + 4*k
