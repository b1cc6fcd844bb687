# SPDX-License-Identifier: BSD-2-Clause
"""The function table against numerics, over the whole range of each function, and its sharing by clients."""

import numpy as np
from migen import Cat, Replicate, Signal

from gateware import feed, run_block
from litellama.accel import numerics
from litellama.accel.function import LlamaFunction, LlamaFunctionArbiter
from litellama.accel.numerics import EXP2, RECIP, RSQRT, SIGMOID

U_MAX = (32 << 16) - 1


def golden(func, x, u):
    """(y bits, p or None) of one request."""
    x = np.array([x], np.uint32).view(np.float32)
    if func == EXP2:
        p = numerics.exp2_neg(u)
        return int(numerics.bits(np.float32(p))), int(p)
    f = {RECIP: numerics.recip, RSQRT: numerics.rsqrt, SIGMOID: numerics.sigmoid}[func]
    return int(numerics.bits(f(x))[0]), None


def while_valid(dut, source):
    """What the Verilog is compared on: valid, and y and p while they are (the table's read register has no value at power-on)."""
    shown     = Signal(len(source.y) + len(source.p))
    dut.comb += shown.eq(Cat(source.y, source.p) & Replicate(source.valid, len(shown)))
    return [source.valid, shown]


def requests(rng, n):
    """n requests of each function, mixed, with the edges of each."""
    number = lambda low, high: int(rng.integers(low, high) << 23 | rng.integers(0, 1 << 23))
    one    = 127 << 23
    out    = []
    for _ in range(n):
        out += [(EXP2, number(1, 255), int(rng.integers(0, 20 << 16) >> rng.integers(0, 20))),
                (RECIP,   number(1, 255), 0),
                (RSQRT,   number(1, 255), 5),
                (SIGMOID, number(100, 134) | int(rng.integers(0, 2)) << 31, 0)]
    for x in (0, 1 << 23, (1 << 23) + 1, (2 << 23) - 1, one, one - 1, one + 1, (254 << 23) + 0x7FFFFF, 253 << 23, 2 << 23, 3 << 23):
        out += [(RECIP, x, 0), (RSQRT, x, 0), (SIGMOID, x, 0), (SIGMOID, x | (1 << 31 if x else 0), 0)]
    for e in range(94, 134):                               # Both sides of each power of two, up to 16 and beyond.
        for x in (e << 23, (e << 23) - 1):
            out += [(SIGMOID, x, 0), (SIGMOID, x | 1 << 31, 0)]
    for n in range(32):                                    # Every shift of EXP2, at both ends of its segments.
        out += [(EXP2, 0, u) for u in (n << 16, (n << 16) + 1, (n << 16) + 0xFF, (n << 16) + 0x8000, (n << 16) + 0xFFFF)]
    return [out[i] for i in rng.permutation(len(out))]


def test_functions(tmp_path):
    items   = requests(np.random.default_rng(1), 250)
    dut     = LlamaFunction()
    results = []
    def generator():
        rng, waiting = np.random.default_rng(2), list(enumerate(items))
        for cycle in range(int(1.25*len(items)) + 100):
            go = bool(waiting) and rng.random() < 0.8
            if go:
                tag, (func, x, u) = waiting.pop(0)
                yield dut.sink.func.eq(func)
                yield dut.sink.x.eq(x)
                yield dut.sink.u.eq(u)
                yield dut.sink.tag.eq(tag & 255)
            yield dut.sink.valid.eq(int(go))
            yield
            if (yield dut.source.valid):
                results.append(((yield dut.source.y), (yield dut.source.p), (yield dut.source.tag)))
    run_block(dut, [generator()], [dut.sink, dut.source.tag, *while_valid(dut, dut.source)], tmp_path)
    assert len(results) == len(items)
    for i, ((func, x, u), (y, p, tag)) in enumerate(zip(items, results)):
        want = golden(func, x, u)
        assert tag == i & 255
        assert (y, p if func == EXP2 else None) == want, (func, f"{x:08x}", u, f"{y:08x}", p, want)


def test_arbiter(tmp_path):
    rng   = np.random.default_rng(3)
    items = [requests(rng, 20)[:150] for _ in range(3)]
    dut   = LlamaFunctionArbiter(3)
    got   = [[] for _ in items]
    def monitor():
        since, cycle, granted = [], 0, 0
        while min(map(len, got)) < 150 and cycle < 3000:
            yield
            cycle += 1
            grants = 0
            for client in dut.clients:
                if (yield client.valid) and (yield client.ready):
                    since.append(cycle)
                    grants += 1
            assert grants <= 1
            for out, source in zip(got, dut.sources):
                if (yield source.valid):
                    out.append(((yield source.y), (yield source.p)))
                    assert since.pop(0) == cycle - dut.latency
    sources = [feed(client, [dict(func=f, x=x, u=u) for f, x, u in i], 0.5, seed=k)
        for k, (client, i) in enumerate(zip(dut.clients, items))]
    run_block(dut, [*sources, monitor()], [*dut.clients, *(s for source in dut.sources for s in while_valid(dut, source))], tmp_path)
    for requested, results in zip(items, got):
        assert len(results) == len(requested)
        for (func, x, u), (y, p) in zip(requested, results):
            assert (y, p if func == EXP2 else None) == golden(func, x, u)
