# SPDX-License-Identifier: BSD-2-Clause
"""KV memory: layout, sustained reads, back-pressure, writes beside reads."""

import random

import numpy as np
import pytest

from gateware import drain, run_block
from stage import Bench
from litellama.accel.config import BLOCK, CoreConfig
from litellama.accel.kv import LlamaKVOwner
from litellama.accel.numerics import FP16_ONE

WRITE = ("write_values", "write_valid", "write_address", "write_data", "write_scale_valid", "write_scale_address",
    "write_scale")
JOB   = ("read_values", "base", "sbase", "positions", "head_blocks", "context")


def owner(lanes=8):
    return LlamaKVOwner(CoreConfig(lanes=lanes, kv_bytes=1024, kv_scales=32, max_context=64, max_head_dim=64))


def run(dut, generators, path):
    """Through Migen and Verilog, all outputs compared."""
    bench = Bench([], [getattr(dut, n) for n in WRITE + JOB] + [dut.start, dut.source.ready, dut.value_scale_address,
        dut.value_scale_enable, dut.debug_index], [dut.done, dut.busy, dut.conflict, dut.source.valid, dut.source.last,
        *dut.source.payload.flatten(), dut.value_scale_data, dut.debug_keys, dut.debug_values, dut.debug_key_scales,
        dut.debug_value_scales], [dut])
    run_block(bench, generators, bench.ios, path)


class Contents:
    """Bytes and scales of keys [0] and values [1]: what may be written, and what has been."""
    def __init__(self, seed):
        rng         = np.random.default_rng(seed)
        self.bytes  = rng.integers(0, 256, (2, 1024))
        self.scales = rng.integers(0, 1 << 16, (2, 32))
        self.stored = np.zeros((2, 1024), int)

    def store(self, dut, places):
        """Write (kind, byte address, scale address or None) one a clock."""
        for kind, address, scale in places:
            self.stored[kind, address] = self.bytes[kind, address]
            yield dut.write_values.eq(kind)
            yield dut.write_valid.eq(1)
            yield dut.write_address.eq(address)
            yield dut.write_data.eq(int(self.bytes[kind, address]))
            yield dut.write_scale_valid.eq(scale is not None)
            yield dut.write_scale_address.eq(scale or 0)
            yield dut.write_scale.eq(int(self.scales[kind, scale or 0]))
            yield
        yield dut.write_valid.eq(0)
        yield dut.write_scale_valid.eq(0)
        yield

    def places(self, keys, positions):
        """Of the first bytes of the keys, the first positions of a head's values, and all scales."""
        values = [32*i + t for i in range(32) for t in range(positions)]
        return [(kind, a, i if i < 32 else None) for kind, addresses in ((0, range(keys)), (1, values))
            for i, a in enumerate(addresses)]

    def beats(self, job, beat_bytes):
        """Expected (q, d, block_last, last) of a read job."""
        values, base, sbase, positions, head_blocks, context = job
        hd   = head_blocks*BLOCK
        rows = ([[base + i*context + t for t in range(-(-positions//BLOCK)*BLOCK)] for i in range(hd)] if values else
            [[base + t*hd + i for i in range(hd)] for t in range(positions)])
        out  = []
        for r, addresses in enumerate(rows):
            for i in range(0, len(addresses), beat_bytes):
                q = sum(int(self.stored[int(values), a]) << 8*k for k, a in enumerate(addresses[i:i + beat_bytes]))
                d = FP16_ONE if values else int(self.scales[0, sbase + r])
                out.append(dict(q=q, d=d, m=0, block_last=int((i + beat_bytes) % BLOCK == 0), last=0, first=0))
        out[-1]["last"] = 1
        return out


def begin(dut, job):
    for name, value in zip(JOB, job):
        yield getattr(dut, name).eq(int(value))
    yield dut.start.eq(1)
    yield
    yield dut.start.eq(0)


@pytest.mark.parametrize("lanes", (8, 32))
def test_jobs(lanes, tmp_path):
    dut, c, rng = owner(lanes), Contents(1), random.Random(2)
    jobs = [(0, 0, 0, 1, 1, 32), (1, 0, 0, 1, 1, 32), (0, 192, 16, 5, 1, 32), (0, 64, 8, 3, 2, 32), (1, 0, 0, 5, 1, 32)]
    errors = []
    def main():
        yield from c.store(dut, c.places(352, 6))
        for probability in (1.0, 0.6):
            for job in jobs if probability == 1 else jobs[2:4]:
                got, want = [], c.beats(job, lanes//2)
                done      = 0
                yield from begin(dut, job)
                yield from drain(dut.source, got, len(want), probability, seed=rng.random())
                assert got == want, job
                for _ in range(rng.randrange(1, 4)):
                    yield
                    done += (yield dut.done)
                    assert not (yield dut.source.valid)
                assert done == 1 and not (yield dut.busy)
                errors.append((yield dut.conflict))
    run(dut, [main()], tmp_path)
    assert not any(errors)


def test_one_beat_a_clock(tmp_path):
    """Keys and values stream without a bubble, row borders included; the first beat comes five clocks after start."""
    dut, c = owner(32), Contents(3)
    def main():
        yield from c.store(dut, c.places(640, 8))
        yield dut.source.ready.eq(1)
        for job in ((0, 0, 0, 20, 1, 32), (0, 0, 0, 9, 2, 32), (1, 0, 0, 20, 1, 32)):
            want, clocks, gaps, n = c.beats(job, 16), 0, 0, 0
            yield from begin(dut, job)
            while n < len(want):
                yield
                clocks += 1
                if (yield dut.source.valid):
                    assert (yield dut.source.q) == want[n]["q"]
                    n += 1
            assert clocks == len(want) + 5 - 1, f"{clocks} clocks for {len(want)} beats of {job}"
            yield
            yield
    run(dut, [main()], tmp_path)


def test_writes_beside_reads(tmp_path):
    """The value of a position is stored while keys are read, and a key beyond the positions that are read."""
    dut, c = owner(16), Contents(4)
    got, job, conflicts, written = [], (0, 0, 0, 8, 1, 32), [], []
    late    = [(1, 500 + i, i) for i in range(32)] + [(0, 256 + i, 8 + i//32) for i in range(64)]
    later   = {(k, a) for k, a, _ in late}
    scales  = {(k, s) for k, _, s in late}
    def main():
        yield from c.store(dut, [(k, a, None if (k, s) in scales else s) for k, a, s in c.places(320, 3)
            if (k, a) not in later])
        yield from begin(dut, job)
        yield from drain(dut.source, got, len(c.beats(job, 8)), 0.4)
        while not written:
            yield
        got2 = []
        for j in ((0, 256, 8, 2, 1, 32), (1, 0, 0, 5, 1, 32)):
            yield from begin(dut, j)
            got2.clear()
            yield from drain(dut.source, got2, len(c.beats(j, 8)))
            assert got2 == c.beats(j, 8)
            yield
            yield
        for i in range(0, 32, 7):
            yield dut.value_scale_address.eq(i)
            yield dut.value_scale_enable.eq(1)
            yield
            yield
            assert (yield dut.value_scale_data) == c.scales[1, i]
    def writer():
        while not (yield dut.busy):
            yield
        yield from c.store(dut, late)
        written.append(1)
    def watch():
        for _ in range(1000):
            conflicts.append((yield dut.conflict))
            yield
    run(dut, [main(), writer(), watch()], tmp_path)
    assert got == c.beats(job, 8) and not any(conflicts)


def test_conflict_is_seen(tmp_path):
    dut, c, seen = owner(16), Contents(5), []
    def main():
        yield from begin(dut, (0, 0, 0, 4, 1, 32))
        yield dut.source.ready.eq(1)
        yield dut.write_valid.eq(1)
        yield dut.write_address.eq(17)
        for _ in range(30):
            yield
            seen.append((yield dut.conflict))
    run(dut, [main()], tmp_path)
    assert sum(seen) == 1


def test_debug_window(tmp_path):
    """Words come two clocks after their index, one a clock."""
    dut, c = owner(32), Contents(6)
    def main():
        indices = [0, 1, 2, 3, 4, 31, 255, 254, 17]
        yield from c.store(dut, [(kind, 4*i + k, i if i < 32 else None) for kind in (0, 1) for i in indices for k in range(4)])
        for i, index in enumerate(indices + [0, 0]):
            yield dut.debug_index.eq(index)
            yield
            if i >= 2:
                w = indices[i - 2]
                for port, kind in ((dut.debug_keys, 0), (dut.debug_values, 1)):
                    assert (yield port) == sum(int(c.bytes[kind, 4*w + k]) << 8*k for k in range(4))
                if w < 32:
                    assert (yield dut.debug_key_scales) == c.scales[0, w]
                    assert (yield dut.debug_value_scales) == c.scales[1, w]
    run(dut, [main()], tmp_path)
