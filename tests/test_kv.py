# SPDX-License-Identifier: BSD-2-Clause
"""KV memory: layout, sustained reads, back-pressure, writes beside reads; the same as a tile that a cache streams through."""

import random

from migen import passive
import numpy as np
import pytest

from gateware import drain, feed, run_block, throttle
from stage import Bench, pulse
from litellama.accel.config import BLOCK, CoreConfig, ceil_div
from litellama.accel.kv import FILL_KEYS, FILL_KEY_SCALES, FILL_VALUES, FILL_VALUE_SCALES, LlamaKVOwner
from litellama.accel.numerics import FP16_ONE

WRITE = ("write_values", "write_valid", "write_address", "write_data", "write_scale_valid", "write_scale_address",
    "write_scale")
JOB   = ("read_values", "base", "sbase", "row_blocks", "n_blocks")


def owner(lanes=8, kv_bytes=1024, context=32):
    return LlamaKVOwner(CoreConfig(lanes=lanes, kv_bytes=kv_bytes, kv_scales=context, max_context=context, max_head_dim=64))


def run(dut, generators, path):
    """Through Migen and Verilog, all outputs compared."""
    fill  = dut.fill
    bench = Bench([], [getattr(dut, n) for n in WRITE + JOB] + [dut.start, dut.source.ready, dut.value_scale_address,
        dut.value_scale_enable, dut.debug_index, dut.streamed, dut.restart, dut.scales_free, fill.valid, fill.last,
        *fill.payload.flatten()], [dut.done, dut.busy, dut.conflict, dut.source.valid, dut.source.last,
        *dut.source.payload.flatten(), dut.value_scale_data, dut.debug_keys, dut.debug_values, dut.debug_key_scales,
        dut.debug_value_scales, fill.ready], [dut])
    run_block(bench, generators, bench.ios, path)


def conflicts(dut, seen):
    """Generator: add up the clocks of `conflict` into seen[0]."""
    @passive
    def watch():
        while True:
            seen[0] += yield dut.conflict
            yield
    return watch()


def beats(data, scales, values, row_blocks, beat_bytes):
    """Expected beats of a run of bytes `data`: keys with a scale per row of row_blocks, or values."""
    out = []
    for i in range(0, len(data), beat_bytes):
        d = FP16_ONE if values else int(scales[i//(row_blocks*BLOCK)])
        out.append(dict(q=int.from_bytes(bytes(data[i:i + beat_bytes]), "little"), d=d, m=0,
            block_last=int((i + beat_bytes) % BLOCK == 0), last=0, first=0, **(dict(pair=0) if beat_bytes == BLOCK else {})))
    out[-1]["last"] = 1
    return out


def begin(dut, job):
    for name, value in zip(JOB, job):
        yield getattr(dut, name).eq(int(value))
    yield from pulse(dut.start)


# On chip ------------------------------------------------------------------------------------------

def at_full_rate(dut, job, want):
    """Generator: start a job whose beats `want` then come 5 clocks later, one a clock; the source must be ready."""
    clocks, n = 0, 0
    yield from begin(dut, job)
    while n < len(want):
        yield
        clocks += 1
        if (yield dut.source.valid):
            assert (yield dut.source.q) == want[n]["q"]
            n += 1
    assert clocks == len(want) + 5 - 1, f"{clocks} clocks for {len(want)} beats of {job}"


class Contents:
    """Bytes and scales of keys [0] and values [1]: what may be written, and what has been."""
    def __init__(self, seed):
        rng         = np.random.default_rng(seed)
        self.bytes  = rng.integers(0, 256, (2, 1024))
        self.scales = rng.integers(0, 1 << 16, (2, 32))
        self.stored = np.zeros((2, 1024), np.uint8)

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
        """Of the first bytes of the keys, the first positions of a head's tile of values, and all scales."""
        values = [32*i + t for i in range(32) for t in range(positions)]
        return [(kind, a, i if i < 32 else None) for kind, addresses in ((0, range(keys)), (1, values))
            for i, a in enumerate(addresses)]

    def beats(self, job, beat_bytes):
        """Expected beats of a read job."""
        values, base, sbase, row_blocks, n_blocks = job
        return beats(self.stored[values, base:base + n_blocks*BLOCK], self.scales[0, sbase:], values, row_blocks, beat_bytes)


@pytest.mark.parametrize("lanes", (8, 32, 64))
def test_jobs(lanes, tmp_path):
    """Keys of one and of two blocks, a tile of values, from any place, with `done` once."""
    dut, c, rng = owner(lanes), Contents(1), random.Random(2)
    jobs = [(0, 0, 0, 1, 1), (1, 0, 0, 1, 32), (0, 192, 16, 1, 5), (0, 64, 8, 2, 6), (1, 64, 0, 2, 8)]
    met  = [0]
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
    run(dut, [main(), conflicts(dut, met)], tmp_path)
    assert met == [0]


def test_one_beat_a_clock(tmp_path):
    """Keys and values stream without a bubble, row borders included; the first beat comes five clocks after start."""
    dut, c = owner(32), Contents(3)
    def main():
        yield from c.store(dut, c.places(640, 8))
        yield dut.source.ready.eq(1)
        for job in ((0, 0, 0, 1, 20), (0, 0, 0, 2, 18), (1, 0, 0, 1, 32)):
            yield from at_full_rate(dut, job, c.beats(job, 16))
            yield
            yield
    run(dut, [main()], tmp_path)


def test_writes_beside_reads(tmp_path):
    """The value of a position is stored while keys are read, and a key beyond the positions that are read."""
    dut, c = owner(16), Contents(4)
    got, job, met, written = [], (0, 0, 0, 1, 8), [0], []
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
        for j in ((0, 256, 8, 1, 2), (1, 0, 0, 1, 32)):
            yield from begin(dut, j)
            got2.clear()
            yield from drain(dut.source, got2, len(c.beats(j, 8)))
            assert got2 == c.beats(j, 8)
            yield
            yield
        assert (yield from value_scales(dut, 32)) == list(c.scales[1])
    def writer():
        while not (yield dut.busy):
            yield
        yield from c.store(dut, late)
        written.append(1)
    run(dut, [main(), writer(), conflicts(dut, met)], tmp_path)
    assert got == c.beats(job, 8) and met == [0]


def value_scales(dut, n):
    """Generator: the first n value scales, as LlamaSoftmax reads them."""
    out = []
    for i in range(n):
        yield dut.value_scale_address.eq(i)
        yield dut.value_scale_enable.eq(1)
        yield
        yield
        out.append((yield dut.value_scale_data))
    return out


def test_conflict_is_seen(tmp_path):
    """A byte that is written in the clock in which its beat is read raises conflict, once."""
    dut, met = owner(16), [0]
    def main():
        yield from begin(dut, (0, 0, 0, 1, 4))
        yield dut.source.ready.eq(1)
        yield dut.write_valid.eq(1)
        yield dut.write_address.eq(17)
        for _ in range(30):
            yield
    run(dut, [main(), conflicts(dut, met)], tmp_path)
    assert met == [1]


@pytest.mark.parametrize("lanes", (8, 32, 64))
def test_debug_window(lanes, tmp_path):
    """Words come two clocks after their index, one a clock."""
    dut, c = owner(lanes), Contents(6)
    def main():
        indices = [0, 1, 2, 3, 4, 31, 255, 254, 17, 30, 16]
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


# Streamed -----------------------------------------------------------------------------------------

class Head:
    """What streams in for a read of `positions` keys and values of row_blocks blocks: bytes and scales."""
    def __init__(self, rng, positions, row_blocks):
        n = row_blocks*BLOCK
        self.positions, self.row_blocks = positions, row_blocks
        self.bytes  = rng.integers(0, 256, positions*n, np.uint8), rng.integers(0, 256, ceil_div(positions, BLOCK)*BLOCK*n, np.uint8)
        self.scales = rng.integers(0, 1 << 16, (2, ceil_div(positions, 16)*16))

    def fills(self, beat_bytes):
        """Items of the `fill` stream, in order."""
        parts = [(kind, self.scales[i].astype("<u2").tobytes()) for i, kind in enumerate((FILL_KEY_SCALES, FILL_VALUE_SCALES))]
        parts += [(kind, self.bytes[i].tobytes()) for i, kind in enumerate((FILL_KEYS, FILL_VALUES))]
        return [dict(data=int.from_bytes(data[i:i + beat_bytes], "little"), kind=kind, last=int(i + beat_bytes == len(data)))
            for kind, data in parts for i in range(0, len(data), beat_bytes)]

    def job(self, values):
        """Read job, with places that a tile has no use for."""
        return values, 96, 5, self.row_blocks, len(self.bytes[values])//BLOCK


def read_head(dut, head, prng, probability, progress):
    """Generator: keys, then the value scales, then the values with scales_free, as the controller does it."""
    lanes_bytes = len(dut.fill.data)//8
    for values in (0, 1):
        want, got = beats(head.bytes[values], head.scales[0], values, head.row_blocks, lanes_bytes), []
        if values:
            for _ in range(prng.randrange(60)):
                yield
            assert (yield from value_scales(dut, head.positions)) == list(head.scales[1, :head.positions]), "scales of another head"
            yield dut.scales_free.eq(1)
            progress["freed"] += 1
        yield from begin(dut, head.job(values))
        yield dut.scales_free.eq(0)
        yield from drain(dut.source, got, len(want), probability, seed=prng.random())
        assert got == want, ("keys", "values")[values]
        yield
        yield
        assert not (yield dut.busy) and not (yield dut.source.valid)


def watch_scales(dut, progress):
    """Generator: scales of head n are only taken once those of head n - 1 are free."""
    @passive
    def watch():
        n = 0
        while True:
            if (yield dut.fill.valid) and (yield dut.fill.ready) and (yield dut.fill.kind) == FILL_KEY_SCALES:
                assert n <= progress["freed"], "scales are overwritten while they are needed"
            if (yield dut.fill.valid) and (yield dut.fill.ready) and (yield dut.fill.kind) == FILL_VALUE_SCALES:
                n += yield dut.fill.last
            yield
    return watch()


@pytest.mark.parametrize("lanes, tile, filling, reading", ((8, 256, 1, 0.5), (16, 256, 0.4, 1), (32, 256, 0.8, 0.8),
    (32, 2048, 1, 1), (16, 2048, 1, 0.6), (64, 512, 0.8, 0.8), (64, 2048, 1, 1)))
def test_tile(lanes, tile, filling, reading, tmp_path):
    """Heads stream through a tile that is a fraction of them, or a little more: beats, scales and `last` are theirs, whoever is
    slower, and the scales of a head stay while the next one's wait."""
    rng, prng = np.random.default_rng(lanes), random.Random(lanes)
    dut       = owner(lanes, kv_bytes=tile, context=64)
    heads     = [Head(rng, *shape) for shape in ((1, 1), (33, 1), (17, 2), (7, 1), (32, 1))]
    met, progress = [0], dict(freed=0)
    def main():
        for head in heads:
            yield from read_head(dut, head, prng, reading, progress)
    items = [item for head in heads for item in head.fills(lanes//2)]
    run(dut, [streamed(dut, main()), feed(dut.fill, items, filling), conflicts(dut, met), watch_scales(dut, progress)], tmp_path)
    assert met == [0]


def streamed(dut, main):
    """Generator: `main` with a tile, emptied as before a pass."""
    yield dut.streamed.eq(1)
    yield from main


def test_tile_runs_ahead(tmp_path):
    """While nobody reads, a tile fills: scales and a tile of keys, no more; then a beat a clock goes in and out."""
    rng    = np.random.default_rng(9)
    dut    = owner(32, kv_bytes=256, context=64)
    head   = Head(rng, 40, 1)
    items  = head.fills(16)
    scales = sum(item["kind"] in (FILL_KEY_SCALES, FILL_VALUE_SCALES) for item in items)
    taken, met = [0], [0]
    @passive
    def count():
        while True:
            taken[0] += (yield dut.fill.valid) and (yield dut.fill.ready)
            yield
    def main():
        for _ in range(100):
            yield
        assert taken[0] == scales + 256//16
        yield dut.source.ready.eq(1)
        yield from at_full_rate(dut, head.job(0), beats(head.bytes[0], head.scales[0], 0, 1, 16))
        yield from drain_all()
    def drain_all():
        got, want = [], beats(head.bytes[1], None, 1, 1, 16)
        yield
        yield from begin(dut, head.job(1))
        yield from drain(dut.source, got, len(want))
        assert got == want
    run(dut, [streamed(dut, main()), feed(dut.fill, items), count(), conflicts(dut, met)], tmp_path)
    assert met == [0]


@pytest.mark.parametrize("left", (1, 5, 14, 40))
def test_restart(left, tmp_path):
    """What a pass leaves in the tile, in the middle of scales, keys or values, is not seen by the next one."""
    rng, prng = np.random.default_rng(left), random.Random(left)
    dut       = owner(16, kv_bytes=256, context=64)
    heads     = [Head(rng, 9, 1), Head(rng, 20, 1), Head(rng, 33, 1)]
    met, progress, go = [0], dict(freed=0), []
    def main():
        yield from read_head(dut, heads[0], prng, 1, progress)
        for _ in range(left + 60):
            yield
        yield from pulse(dut.restart)
        progress["freed"] += 1
        go.append(1)
        yield from read_head(dut, heads[2], prng, 0.7, progress)
    def fill():
        yield from feed(dut.fill, heads[0].fills(8) + heads[1].fills(8)[:left])
        while not go:
            yield
        yield from feed(dut.fill, heads[2].fills(8), 0.7)
    run(dut, [streamed(dut, main()), fill(), conflicts(dut, met)], tmp_path)
    assert met == [0]
