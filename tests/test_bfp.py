# SPDX-License-Identifier: BSD-2-Clause
"""LlamaBlockFloat and LlamaActivations against numerics.to_bfp, in Migen and in the emitted Verilog."""

import random

import numpy as np
import pytest

from migen import Cat, If, Signal

from litex.gen import LiteXModule

from gateware import run_block
from litellama.accel import numerics
from litellama.accel.bfp import LlamaActivations, LlamaBlockFloat, of_column
from litellama.accel.config import BLOCK

DEPTH = 16


class Converter(LiteXModule):
    """Block float converter and its memories. All outputs are combinational copies, and the block RAM's output shows from the
    third clock on: Icarus starts registers that are ports, and those inside a block RAM, as X."""
    def __init__(self, lanes, columns):
        self.activations = activations = LlamaActivations(lanes, columns, DEPTH, DEPTH)
        self.bfp         = bfp         = LlamaBlockFloat(lanes, activations)
        read      = activations.read
        known     = Signal(2)
        self.sync += known.eq(Cat(1, known))
        self.ios  = [bfp.valid, bfp.data, bfp.column, bfp.last, bfp.base, bfp.clear, activations.broadcast]
        fields    = {name: getattr(read, name) for name, *_ in read.layout}
        self.ios += [s for name, s in fields.items() if name.startswith(("word", "block"))]
        outputs   = [s for name, s in fields.items() if not name.startswith(("word", "block"))]
        for s in (bfp.done, bfp.emax, *bfp.column_emax, *outputs):
            shown = Signal.like(s)
            self.comb += If(known[1], shown.eq(s))
            self.ios.append(shown)


def signed(value, bits):
    """Two's complement of the low `bits` of value."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def vectors(prng, n):
    """fp32 vectors of n elements with every sort of block: normal, wide range, zeros, saturating, halves, largest, smallest."""
    normal = prng.standard_normal(n).astype(np.float32)
    wide   = (prng.standard_normal(n)*10.0**prng.integers(-20, 20, n)).astype(np.float32)
    zeros  = np.where(prng.random(n) < 0.9, 0, normal).astype(np.float32)
    edge   = prng.choice(np.array([1.9999999, -1.9999999, 1.99997, 2.0**-15, -2.0**-15, 2.0**-16, 3*2.0**-15, -3*2.0**-15,
        1.5*2.0**-14, 0, 1], np.float32), n)
    huge   = prng.choice(np.array([numerics.F32_MAX, -numerics.F32_MAX, numerics.F32_MIN, 1.0], np.float32), n)
    tiny   = prng.choice(np.array([numerics.F32_MIN, -numerics.F32_MIN*np.float32(1.5), 0], np.float32), n)
    return [normal, wide, zeros, edge, huge, tiny, np.zeros(n, np.float32)]


def drive(dut, columns, elements, base, gap, checks):
    """Generator: clear, send [(column, fp32, last)], wait for as many `done` as there are lasts, run `checks`."""
    prng, done = random.Random(len(elements)), 0
    yield dut.bfp.base.eq(base)
    yield dut.bfp.clear.eq(1)
    yield
    yield dut.bfp.clear.eq(0)
    for column, value, last in elements:
        yield dut.bfp.valid.eq(1)
        yield dut.bfp.column.eq(column)
        yield dut.bfp.data.eq(int(numerics.bits(value)))
        yield dut.bfp.last.eq(last)
        yield
        done += yield dut.bfp.done
        while prng.random() < gap:
            yield dut.bfp.valid.eq(0)
            yield
            done += yield dut.bfp.done
    yield dut.bfp.valid.eq(0)
    clocks = 0
    while done < sum(last for _, _, last in elements):
        yield
        done   += yield dut.bfp.done
        clocks += 1
        assert clocks < 200, "no done"
    if gap == 0:
        assert clocks <= 18 + 8*columns   # Blocks that ended at the same time wait for each other.
    yield from checks


def compare(dut, lanes, want, base, emax, converted=None):
    """Generator: read every block of every column, the columns at places of their own; `want` is a list of Bfp, one per
    column. converted: columns that were converted (all), which have a column_emax."""
    read, ways = dut.activations.read, max(1, lanes//BLOCK)
    n = len(want[0].exp)
    assert (yield dut.bfp.emax) == emax
    for c in range(len(want)) if converted is None else converted:
        assert (yield dut.bfp.column_emax[c]) == want[c].emax
    for j in range(n):
        mant   = [[] for _ in want]
        blocks = [(j + c) % n for c in range(len(want))]
        width  = [min(lanes, BLOCK) if c == 0 else lanes//2 for c in range(len(want))]
        for k in range(BLOCK//min(width)):
            for c, b in enumerate(blocks):
                place = (base + b)*BLOCK//width[c] + k % (BLOCK//width[c])
                yield of_column(read, "word", c).eq(place//ways if c == 0 else place)
                yield of_column(read, "block", c).eq(base + b)
            yield
            yield
            for c in range(len(want)):
                word = yield of_column(read, "mant", c)
                if len(mant[c]) < BLOCK:
                    mant[c] += [signed(word >> 16*i, 16) for i in range(width[c])]
            if k == 0:
                first = yield read.mant
        exp, total = (yield read.exp), (yield read.sum)
        for c, (w, b) in enumerate(zip(want, blocks)):
            assert mant[c] == w.mant[b].tolist(), (c, b)
            assert (exp & 255 if c == 0 else (yield of_column(read, "exp", c))) == w.exp[b]
        w, b = want[0], blocks[0]
        assert signed(total, 21) == w.sums()[b]
        pair = (base + b ^ 1) - base
        if ways > 1 and 0 <= pair < n:   # The other block of its word.
            assert [signed(first >> 16*i, 16) for i in range(BLOCK, lanes)] == w.mant[pair].tolist(), b
            assert exp >> 8 & 255 == w.exp[pair]
            assert signed(total >> 21, 21) == w.sums()[pair]


@pytest.mark.parametrize("lanes, columns", [(8, 1), (16, 2), (32, 1), (8, 3), (64, 1), (64, 2)])
def test_vectors(lanes, columns, tmp_path):
    """Full blocks, columns element by element in turn, one element a clock or with gaps; several vectors after each other."""
    dut, prng = Converter(lanes, columns), np.random.default_rng(lanes + columns)

    def bench():
        cases = vectors(prng, 2*BLOCK)
        for i, x in enumerate(cases):
            xs    = [cases[(i + c) % len(cases)] for c in range(columns)]
            want  = [numerics.to_bfp(x) for x in xs]
            base  = i % (DEPTH - 2)
            steps = [(c, xs[c][k], k == 2*BLOCK - 1) for k in range(2*BLOCK) for c in range(columns)]
            yield from drive(dut, columns, steps, base, 0.3*(i & 1), compare(dut, lanes, want, base, max(w.emax for w in want)))
    run_block(dut, [bench()], dut.ios, tmp_path)


@pytest.mark.parametrize("columns", [1, 2])
def test_partial_blocks(columns, tmp_path):
    """Vectors of 1 to 70 elements, column after column without a gap: the rest of the last block is zero."""
    dut, prng = Converter(8, columns), np.random.default_rng(5)

    def bench():
        for n in (1, 31, 32, 33, 70, 1):
            xs    = [prng.standard_normal(n).astype(np.float32)*np.float32(3.0**c) for c in range(columns)]
            want  = [numerics.to_bfp(np.concatenate([x, np.zeros(-n % BLOCK, np.float32)])) for x in xs]
            steps = [(c, x, k == n - 1) for c in range(columns) for k, x in enumerate(xs[c])]
            yield from drive(dut, columns, steps, 2, 0, compare(dut, 8, want, 2, max(w.emax for w in want)))
    run_block(dut, [bench()], dut.ios, tmp_path)


def test_broadcast(tmp_path):
    """While it is asked for, a vector goes to all columns; before and after, to its own."""
    dut, prng = Converter(16, 3), np.random.default_rng(8)

    def bench():
        xs   = [prng.standard_normal(2*BLOCK).astype(np.float32)*np.float32(2.0**c) for c in range(3)]
        want = [numerics.to_bfp(x) for x in xs]
        for broadcast, base in ((0, 3), (1, 7), (0, 11)):
            yield dut.activations.broadcast.eq(broadcast)
            steps = [(c, v, k == 2*BLOCK - 1) for c, x in enumerate(xs[:1] if broadcast else xs) for k, v in enumerate(x)]
            emax  = max(w.emax for w in (want[:1] if broadcast else want))
            seen  = [want[0]]*3 if broadcast else want
            yield from drive(dut, 3, steps, base, 0, compare(dut, 16, seen, base, emax, [0] if broadcast else None))
    run_block(dut, [bench()], dut.ios, tmp_path)


def test_clear_drops_half_a_block(tmp_path):
    """Elements of an abandoned vector do not reach the next one."""
    dut, prng = Converter(8, 1), np.random.default_rng(6)

    def bench():
        yield from drive(dut, 1, [(0, np.float32(1000), False)]*5, 0, 0, iter(()))
        for _ in range(20):
            yield
        x = prng.standard_normal(BLOCK).astype(np.float32)
        w = numerics.to_bfp(x)
        yield from drive(dut, 1, [(0, v, k == BLOCK - 1) for k, v in enumerate(x)], 0, 0, compare(dut, 8, [w], 0, w.emax))
    run_block(dut, [bench()], dut.ios, tmp_path)
