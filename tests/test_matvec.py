# SPDX-License-Identifier: BSD-2-Clause
"""LlamaMatVec against numerics.matvec: all types, lanes and columns, extremes of every operand, jobs back to back, full rate."""

from typing import NamedTuple

import numpy as np
import pytest
from migen import Signal, log2_int

from litex.gen import LiteXModule

from gateware import drain, feed, run_block
from litellama.accel import numerics
from litellama.accel.bfp import LlamaActivations
from litellama.accel.config import BLOCK
from litellama.accel.image import Q4_0, Q4_1, Q8_0, QMatrix
from litellama.accel.matvec import LlamaMatVec
from test_unpack import random_matrix, shown, weight_beats

DEPTH     = 16
TURN_ROWS = 16


class Engine(LiteXModule):
    """LlamaMatVec and its activation memory; outputs are combinational copies."""
    def __init__(self, lanes, columns):
        self.activations = activations = LlamaActivations(lanes, columns, DEPTH, DEPTH)
        self.matvec      = mv          = LlamaMatVec(lanes, columns, activations, TURN_ROWS)
        self.source      = shown(self, mv.source)
        self.ios         = [mv.sink, self.source, mv.start, mv.rows, mv.blocks, mv.turns, mv.type, mv.exponent, mv.base,
            mv.column_blocks, *mv.emax, mv.n_columns, mv.by_column, mv.kind, activations.write]
        for s in (mv.ready_for_start, mv.done):
            copy = Signal()
            self.comb += copy.eq(s)
            self.ios.append(copy)


def store(activations, vectors):
    """Generator: write DEPTH blocks of each column (list of Bfp)."""
    write, step = activations.write, activations.step
    for c, v in enumerate(vectors):
        yield write.column.eq(c)
        for j in range(len(v.exp)):
            yield write.block.eq(j)
            yield write.mant_we.eq(1)
            yield write.exp.eq(int(v.exp[j]))
            yield write.sum.eq(int(v.sums()[j]) & 0x1FFFFF)
            for k in range(BLOCK//step):
                yield write.index.eq(k)
                yield write.meta_we.eq(k == BLOCK//step - 1)
                yield write.mant.eq(int.from_bytes(v.mant[j, step*k:step*(k + 1)].astype("<i2").tobytes(), "little"))
                yield
    yield write.mant_we.eq(0)
    yield write.meta_we.eq(0)


def random_vectors(prng, columns):
    """Bfp of DEPTH blocks per column: any mantissas, extreme blocks and a zero block, exponents near and far."""
    out = []
    for _ in range(columns):
        mant    = prng.integers(-32767, 32768, (DEPTH, BLOCK)).astype(np.int16)
        mant[2:4] = 32767
        mant[4] = 0
        mant[6] = -32767
        exp     = 120 + 9*len(out) + prng.integers(-3, 4, DEPTH)
        exp[5]  = 60
        exp[4]  = 0
        out.append(numerics.Bfp(mant, exp, exp.max()))
    return out


def scales(prng, w, spread):
    """Replace the scales of `w`: exponent fields from `spread` (low, high), any sign and fraction; a few 0."""
    for s in (w.d, w.m):
        if s is not None:
            s[:] = prng.integers(*spread, s.shape) << 10 | prng.integers(0, 1 << 10, s.shape) | prng.integers(0, 2, s.shape) << 15
            s[prng.random(s.shape) < 0.05] = 0
    return w


class Job(NamedTuple):
    """w: QMatrix; exponent: None for its own; base; more: added to emax; n_columns: None for all; turns: strips that the
    blocks of a row come in, results by column; column_blocks: from a column's vector to the next's."""
    w:             QMatrix
    exponent:      int = None
    base:          int = 0
    more:          int = 0
    n_columns:     int = None
    turns:         int = 0
    column_blocks: int = 0

    def strips(self):
        """The matrices whose beats come one after the other."""
        n = self.w.blocks//(self.turns or 1)
        return [QMatrix(self.w.type, *(a if a is None else a[:, i:i + n] for a in (self.w.q, self.w.d, self.w.m)))
            for i in range(0, self.w.blocks, n)]


def make_jobs(prng, lanes):
    """[Job]: all types and extremes, then strips by column, and vectors at different places."""
    jobs = []
    for type in (Q4_1, Q8_0, Q4_0):
        jobs.append((scales(prng, random_matrix(prng, type, 4, 5), (8, 12)), None, 1, 0, None))
        jobs.append((scales(prng, random_matrix(prng, type, 6, 1), (0, 3)), None, 7, 3, None))          # Subnormal scales.
        jobs.append((scales(prng, random_matrix(prng, type, 2, 3), (0, 31)), None, 2, 0, None))         # Every exponent.
        w = random_matrix(prng, type, 2, 2)                                                            # Largest of everything.
        w.q[:] = -128 if type == Q8_0 else 15
        w.q[1] = 127 if type == Q8_0 else 0
        w.d.fill(0x7BFF)
        if w.m is not None:
            w.m.fill(0xFBFF)
        jobs.append((w, None, 2, 0, None))
    jobs.append((scales(prng, random_matrix(prng, Q8_0, 5, 2), (5, 15)), numerics.K_EXPONENT, 6, 1, 1))
    w = random_matrix(prng, Q8_0, 3, 4)
    w.d.fill(numerics.FP16_ONE)
    jobs.append((w, numerics.V_EXPONENT, 8, 0, None))
    jobs += [(scales(prng, random_matrix(prng, Q4_1, 1, 1), (8, 12)), None, k, 0, None) for k in range(4)]   # Shortest jobs.
    jobs.append((scales(prng, random_matrix(prng, Q4_1, 1, DEPTH), (1, 31)), None, 0, 80, None))      # All shifted out.
    jobs = [Job(*j) for j in jobs]
    for turns, rows, n_columns in ((3, TURN_ROWS, None), (1, 8, None), (5, 9, 1), (2, 12, None)):
        w = scales(prng, random_matrix(prng, Q8_0, rows, turns), (6, 15))
        jobs.insert(len(jobs)//2, Job(w, numerics.K_EXPONENT, 3, 0, n_columns, turns))
        jobs.append(jobs[-turns])
        jobs.append(Job(scales(prng, random_matrix(prng, Q8_0, 3, 2), (6, 15)), numerics.K_EXPONENT, 4, 0, None, 0, 3))
    jobs.append(Job(scales(prng, random_matrix(prng, Q4_1, 8, 6), (6, 15)), None, 1, 0, None, 3))
    jobs = [j if j.w.type == Q8_0 else j._replace(n_columns=1) for j in jobs]
    if lanes > BLOCK:   # Pairs of blocks: an even base.
        paired = lambda j: j.w.type != Q8_0 and j.strips()[0].blocks % 2 == 0
        jobs   = [j._replace(base=j.base & ~1) if paired(j) else j for j in jobs]
        jobs  += [Job(scales(prng, random_matrix(prng, type, 6, 10), (0, 31)), None, 6, 0, 1) for type in (Q4_0, Q4_1)]
    return jobs


def idle_bits(prng, beat):
    """`beat` with any bits where 64 lanes must not look: the second half where a block is alone."""
    if beat.get("pair", 1):
        return beat
    noise = {k: int.from_bytes(prng.bytes(n//8), "little") << n for k, n in (("q", 128), ("d", 16), ("m", 16))}
    if beat["q"] >> 128:
        del noise["q"]
    return dict(beat, **{k: beat[k] | v for k, v in noise.items()})


@pytest.mark.parametrize("lanes, columns, feeding, draining", [(8, 1, 0.7, 0.7), (8, 2, 1, 1), (16, 1, 1, 1), (16, 2, 0.8, 0.4),
    (32, 1, 1, 0.6), (32, 3, 1, 1), (64, 1, 1, 1), (64, 3, 0.7, 0.7)])
def test_jobs(lanes, columns, feeding, draining, tmp_path):
    """Every job's rows, kinds, columns and `last`, bit for bit."""
    dut, prng = Engine(lanes, columns), np.random.default_rng(10*lanes + columns)
    mv, jobs  = dut.matvec, make_jobs(prng, lanes)
    vectors   = random_vectors(prng, columns)
    beats, want, got, dones = [], [], [], [0]
    for i, job in enumerate(jobs):
        w, n   = job.w, job.n_columns or columns
        beats += [{k: v for k, v in idle_bits(prng, b).items() if k not in ("first", "last")} for part in job.strips()
            for b in weight_beats(part, lanes)]
        at     = [job.base + c*job.column_blocks for c in range(columns)]
        x      = numerics.Bfp(*(np.stack([getattr(v, f)[a:a + w.blocks] for a, v in zip(at, vectors)]) for f in ("mant", "exp")),
            np.array([v.emax + job.more for v in vectors]))
        y      = numerics.bits(numerics.matvec(w, x, job.exponent))
        order  = [(r, c) for c in range(n) for r in range(w.rows)] if job.turns else [(r, c) for r in range(w.rows)
            for c in range(n)]
        want  += [dict(data=int(y[c, r]), kind=i % 13, column=c, first=0, last=int((r, c) == (w.rows - 1, n - 1)))
            for r, c in order]

    def control():
        yield from store(dut.activations, vectors)
        for i, job in enumerate(jobs):
            w = job.w
            while not (yield mv.ready_for_start):
                yield
            for s, v in ((mv.rows, w.rows), (mv.blocks, w.blocks//(job.turns or 1)), (mv.turns, job.turns or 1), (mv.type, w.type),
                    (mv.base, job.base), (mv.column_blocks, job.column_blocks), (mv.kind, i % 13),
                    (mv.exponent, w.scale_exponent() if job.exponent is None else job.exponent),
                    (mv.n_columns, job.n_columns or columns), (mv.by_column, int(job.turns > 0)),
                    *((e, int(v.emax + job.more)) for e, v in zip(mv.emax, vectors))):
                yield s.eq(v)
            yield mv.start.eq(1)
            yield
            yield mv.start.eq(0)
            for s in (mv.rows, mv.blocks, mv.turns, mv.type, mv.base, mv.column_blocks, mv.kind, mv.exponent, mv.by_column, *mv.emax):
                yield s.eq(i & 3)   # Parameters are sampled.
            yield
        yield from feed_done()

    def feed_done():
        while dones[0] < len(jobs):
            yield

    def count_done():
        while dones[0] < len(jobs):
            dones[0] += yield mv.done
            yield
    run_block(dut, [control(), count_done(), feed(mv.sink, beats, feeding), drain(dut.source, got, len(want), draining)],
        dut.ios, tmp_path)
    assert got == want


@pytest.mark.parametrize("lanes, columns, type, blocks", [(32, 1, Q4_0, 1), (32, 2, Q8_0, 1), (16, 2, Q8_0, 1), (8, 1, Q4_1, 2),
    (64, 1, Q4_1, 2), (64, 2, Q8_0, 2)])
def test_one_beat_a_clock(lanes, columns, type, blocks, tmp_path):
    """Rows as short as one beat are taken without a pause while the consumer takes every result at once."""
    dut, prng = Engine(lanes, columns), np.random.default_rng(3)
    mv, w     = dut.matvec, random_matrix(prng, type, 60, blocks)
    beats     = weight_beats(w, lanes)

    def control():
        for s, v in ((mv.rows, w.rows), (mv.blocks, w.blocks), (mv.type, w.type), (mv.start, 1), (dut.source.ready, 1)):
            yield s.eq(v)
        yield
        yield mv.start.eq(0)
        yield mv.sink.valid.eq(1)
        for b in beats:
            for k in set(b) - {"first", "last"}:
                yield getattr(mv.sink, k).eq(b[k])
            yield
            assert (yield mv.sink.ready)
        yield mv.sink.valid.eq(0)
        clocks = 0
        while not (yield mv.done):
            yield
            clocks += 1
            assert clocks < 100
        assert clocks == 17 + log2_int(lanes) + columns - 1
    run_block(dut, [control()], dut.ios, tmp_path)


@pytest.mark.parametrize("lanes, columns, type, turns", ((32, 1, Q4_0, 0), (32, 3, Q8_0, 0), (32, 3, Q8_0, 2)))
def test_consumer_waits(lanes, columns, type, turns, tmp_path):
    """Short rows while nobody takes results, then while hardly anybody does: the array stops in time and loses nothing, be it one
    result a row or one for each column."""
    rows      = TURN_ROWS if turns else 80//columns
    dut, prng = Engine(lanes, columns), np.random.default_rng(4)
    mv, w     = dut.matvec, random_matrix(prng, type, rows, turns or 1)
    vectors   = random_vectors(prng, columns)
    scales(prng, w, (8, 12))
    job       = Job(w, turns=turns)
    beats     = [{k: v for k, v in b.items() if k not in ("first", "last")} for part in job.strips() for b in weight_beats(part, lanes)]
    x         = numerics.Bfp(*(np.stack([getattr(v, f)[:w.blocks] for v in vectors]) for f in ("mant", "exp")),
        np.array([v.emax for v in vectors]))
    y         = numerics.bits(numerics.matvec(w, x))
    order     = [(c, r) for c in range(columns) for r in range(rows)] if turns else [(c, r) for r in range(rows) for c in range(columns)]
    want, got = [(int(y[c, r]), c) for c, r in order], []

    def control():
        yield from store(dut.activations, vectors)
        for s, v in ((mv.rows, w.rows), (mv.blocks, 1), (mv.turns, turns or 1), (mv.by_column, int(turns > 0)), (mv.type, w.type),
                (mv.exponent, w.scale_exponent()), *((e, int(v.emax)) for e, v in zip(mv.emax, vectors)), (mv.start, 1)):
            yield s.eq(v)
        yield
        yield mv.start.eq(0)
        for _ in range(120):
            yield
        yield from drain(dut.source, got, len(want)//2, 0.2, timeout=600)
        yield from drain(dut.source, got, len(want), timeout=600)
    run_block(dut, [control(), feed(mv.sink, beats)], dut.ios, tmp_path)
    assert [(g["data"], g["column"]) for g in got] == want
