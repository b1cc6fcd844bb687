# SPDX-License-Identifier: BSD-2-Clause
"""LlamaStreamReader on modelled native ports: order, alternation, prefetch, reservation, flush."""

from collections import deque
import random

import pytest
from migen import Signal, passive

from litedram.common import LiteDRAMNativePort
from litex.gen import LiteXModule

from gateware import drain, feed, run_block, throttle
from litellama.accel.stream import CHUNK_UNITS, LlamaStreamReader
from test_unpack import shown


class Reader(LiteXModule):
    """LlamaStreamReader behind ports of its own; outputs are combinational copies."""
    def __init__(self, n_ports, port_bytes, beat_bytes, fifo_bytes):
        self.ports  = [LiteDRAMNativePort("read", 33 - port_bytes.bit_length(), port_bytes*8) for _ in range(n_ports)]
        self.reader = r = LlamaStreamReader(self.ports, beat_bytes, fifo_bytes)
        self.source = shown(self, r.source)
        self.ios    = [r.sink, self.source, r.flush]
        for p in self.ports:
            self.ios += [p.cmd.ready, p.rdata.valid, p.rdata.data]
            for s in (p.cmd.valid, p.cmd.we, p.rdata.ready, p.cmd.addr):
                copy = Signal.like(s)
                self.comb += copy.eq(s)
                self.ios.append(copy)
        for s in (r.idle, r.beat, r.no_data, r.no_room):
            copy = Signal()
            self.comb += copy.eq(s)
            self.ios.append(copy)


def content(address, n):
    """The n bytes of DRAM at a byte address, as a little-endian integer: each byte is a hash of where it is."""
    return int.from_bytes(bytes((a*2654435761 >> 13) & 255 for a in range(address, address + n)), "little")


def memory(port, log, accept, latency, seed, spread=0):
    """Generator: one native port's DRAM; takes commands with probability `accept`, answers in order `latency` or more clocks
    later. Appends every word address to `log`. AssertionError if a word comes that cannot be stored."""
    prng, go, queue, clock, held = random.Random(seed), throttle(seed + 1, accept), deque(), 0, None
    while True:
        yield port.cmd.ready.eq(int(next(go)))
        word = queue.popleft()[1] if queue and queue[0][0] <= clock else None
        yield port.rdata.valid.eq(word is not None)
        if word is not None:
            yield port.rdata.data.eq(content(word*port.data_width//8, port.data_width//8))
        yield
        clock += 1
        if word is not None:
            assert (yield port.rdata.ready), "a word came back that cannot be stored"
        valid, address = (yield port.cmd.valid), (yield port.cmd.addr)
        assert held is None or (valid and address == held), "a command was withdrawn or changed"
        held = address if valid else None
        if valid and (yield port.cmd.ready):
            assert not (yield port.cmd.we)
            log.append(address)
            due  = clock + latency + prng.randrange(spread + 1)
            due  = max(due, queue[-1][0] + 1) if queue else due
            held = None
            queue.append((due, address))


def expected(commands, beat_bytes):
    """Beats of [(address, units)], in order."""
    return [content(32*a + i, beat_bytes) for a, units in commands for i in range(0, 32*units, beat_bytes)]


COMMANDS = [(5, 3), (61, 7), (130, 1), (1000, 0), (255, 2), (184, 12), (63, 1), (1 << 20, 4), ((1 << 27) - 9, 9)]


@pytest.mark.parametrize("n_ports, port_bytes, beat_bytes, accept, spread, draining", [(1, 16, 16, 1, 0, 1), (1, 2, 4, 0.8, 5, 1),
    (2, 16, 16, 0.7, 30, 0.6), (2, 8, 16, 0.9, 8, 0.7), (4, 32, 16, 0.5, 20, 0.8), (1, 32, 4, 1, 0, 1)])
def test_reads(n_ports, port_bytes, beat_bytes, accept, spread, draining, tmp_path):
    """Commands of all alignments: every beat in order, every word read once, chunks on their ports."""
    dut      = Reader(n_ports, port_bytes, beat_bytes, 1024)
    commands = COMMANDS + [(64, 64), (300, 90)]*(n_ports*port_bytes == 16)
    want     = expected(commands, beat_bytes)
    got, logs, idles = [], [[] for _ in dut.ports], []

    def finish():
        while len(got) < len(want):
            idles.append((yield dut.reader.idle))
            yield
        for _ in range(4):
            yield
        assert (yield dut.reader.idle)

    run_block(dut, [feed(dut.reader.sink, [dict(address=a, units=n) for a, n in commands], 0.3), finish(),
        drain(dut.source, got, len(want), draining),
        *[passive(memory)(p, log, accept, 12, i, spread) for i, (p, log) in enumerate(zip(dut.ports, logs))]], dut.ios, tmp_path)
    assert [g["data"] for g in got] == want
    words = 32//port_bytes
    for i, log in enumerate(logs):
        assert log == [w for a, n in commands for w in range(a*words, (a + n)*words)
            if w//(words*CHUNK_UNITS) % n_ports == i]


@pytest.mark.parametrize("n_ports, port_bytes", [(1, 16), (2, 16)])
def test_full_rate_and_prefetch(n_ports, port_bytes, tmp_path):
    """While beats wait, the reads of later commands are issued until the buffer is full; then a word a clock comes out, across
    chunk and command borders."""
    dut, depth = Reader(n_ports, port_bytes, port_bytes, 2048), 2048//port_bytes
    commands   = [(7, 20), (64 - 10, 30), (200, 70), (1024, 20)]
    want       = expected(commands, port_bytes)
    got, logs  = [], [[] for _ in dut.ports]

    def take():
        for _ in range(depth + 100):
            yield
        ahead = sum(map(len, logs))
        assert ahead <= depth + 4 + 3*n_ports       # No more than can be stored, buffer registers included.
        assert ahead >= depth if n_ports == 1 else ahead > 40*32//port_bytes
        yield dut.source.ready.eq(1)
        clocks = 0
        while len(got) < len(want):
            yield
            clocks += 1
            if (yield dut.source.valid):
                got.append((yield dut.source.data))
                assert (yield dut.reader.beat) and not (yield dut.reader.no_data)
        assert clocks <= len(want) + 10

    run_block(dut, [feed(dut.reader.sink, [dict(address=a, units=n) for a, n in commands]), take(),
        *[passive(memory)(p, log, 1, 10, i) for i, (p, log) in enumerate(zip(dut.ports, logs))]], dut.ios, tmp_path)
    assert got == want


@pytest.mark.parametrize("n_ports, port_bytes, beat_bytes", [(1, 16, 16), (2, 4, 16), (2, 32, 8)])
def test_flush(n_ports, port_bytes, beat_bytes, tmp_path):
    """Whatever is queued, outstanding or buffered is dropped; idle says when; the next command starts clean. Flush as a pulse
    and as a level, at many moments."""
    dut  = Reader(n_ports, port_bytes, beat_bytes, 512)
    prng = random.Random(9)
    r    = dut.reader

    def command(address, units):
        yield r.sink.valid.eq(1)
        yield r.sink.address.eq(address)
        yield r.sink.units.eq(units)
        yield
        while not (yield r.sink.ready):
            yield
        yield r.sink.valid.eq(0)

    def bench():
        for i in range(6):
            yield dut.source.ready.eq(i & 1)
            for _ in range(1 + i % 4):
                yield from command(prng.randrange(4096), prng.randrange(1, 50))
            for _ in range(prng.randrange(60)):
                yield
            yield r.flush.eq(1)
            yield
            if i % 3 == 0:
                while not (yield r.idle):
                    yield
            yield r.flush.eq(0)
            yield
            while not (yield r.idle):
                yield
            assert not (yield dut.source.valid)
            commands, got = [(prng.randrange(4096), 3)], []
            yield from command(*commands[0])
            yield from drain(dut.source, got, 96//beat_bytes)
            assert [g["data"] for g in got] == expected(commands, beat_bytes)
            yield dut.source.ready.eq(1)
            for _ in range(40):                     # Nothing follows: no beat, no read that is still to come.
                yield
                assert not (yield dut.source.valid), "a beat of before the flush"
            assert (yield r.idle)
            yield dut.source.ready.eq(0)

    run_block(dut, [bench(), *[passive(memory)(p, [], 0.8, 15, i, 10) for i, p in enumerate(dut.ports)]], dut.ios, tmp_path)
