# SPDX-License-Identifier: BSD-2-Clause
"""LlamaKVWriter against a native write port that takes commands when it likes and wants their data some clocks later, present or
not; what the DRAM then holds against a byte-wise model."""

from collections import deque
import random

from migen import passive
import numpy as np
import pytest
from litedram.common import LiteDRAMNativePort

from gateware import run_block
from stage import Bench
from litellama.accel.config import BLOCK, UNIT_BYTES, CoreConfig
from litellama.accel.kvwriter import LlamaKVWriter

WRITE = ("write_values", "write_valid", "write_address", "write_data", "write_scale_valid", "write_scale_address", "write_scale")
BASES = 3, 700, 1500, 1501   # Keys, values, key scales, value scales: units of 32 bytes.
FAR   = (1 << 27) - 300000, 0x2AAAAAB, 0x6ABCDEF, 0x5555555   # The same, far apart; the keys up to the end of 4 GB.


def make(width, max_head_dim=64):
    config = CoreConfig(lanes=8, max_dim=64, max_heads_dim=128, max_head_dim=max_head_dim, max_context=64, kv_scales=64)
    port   = LiteDRAMNativePort("write", address_width=35 - width.bit_length() + 1, data_width=width)   # 4 GB.
    dut    = LlamaKVWriter(config, port)
    bench  = Bench([], [*dut.base, dut.flush, *(getattr(dut, n) for n in WRITE), port.cmd.ready, port.wdata.ready],
        [dut.room, dut.idle, port.cmd.valid, port.cmd.we, port.cmd.addr, port.wdata.valid, port.wdata.data, port.wdata.we], [dut])
    return bench, dut, port


class Memory:
    """DRAM behind the port: `bytes` by address, commands taken, bytes of all commands."""
    def __init__(self, dut, port, prng, ready, latency):
        self.dut, self.port, self.prng, self.ready, self.latency = dut, port, prng, ready, latency
        self.bytes, self.commands, self.taken = {}, [], 0
        self.due = deque()   # (clock from which the data is wanted, address).

    @passive
    def run(self):
        """Generator: the port. `ready` is the share of clocks in which a command is taken, or a function of the clock."""
        cmd, wdata, clock = self.port.cmd, self.port.wdata, 0
        n_bytes = self.port.data_width//8
        while True:
            ready = self.ready(clock) if callable(self.ready) else self.prng.random() < self.ready
            wants = bool(self.due) and self.due[0][0] <= clock + 1
            yield cmd.ready.eq(int(ready))
            yield wdata.ready.eq(int(wants))
            yield
            clock += 1
            if wants:
                assert (yield wdata.valid), "the controller wants data that is not there"
                data, we = (yield wdata.data), (yield wdata.we)
                at       = self.due.popleft()[1]*n_bytes
                self.bytes.update({at + i: data >> 8*i & 255 for i in range(n_bytes) if we >> i & 1})
            if (yield cmd.valid) and (yield cmd.ready):
                assert (yield cmd.we)
                self.commands.append((yield cmd.addr))
                self.due.append((max(clock + self.prng.randint(*self.latency), self.due[-1][0] + 1 if self.due else 0),
                    self.commands[-1]))
                self.taken += bin((yield self.dut.commands.source.we)).count("1")

    def settle(self):
        """Generator: until all data has been written."""
        while self.due:
            yield


class Heads:
    """Bytes and scales as LlamaKVQuantise gives them out, and what memory should hold then; `bases` see BASES."""
    def __init__(self, dut, prng, bases=BASES):
        self.dut, self.prng, self.bases = dut, prng, bases
        self.bytes, self.given, self.waits, self.complete = {}, 0, 0, True

    def write(self, values, base, sbase, position, data, scale, gap=0.0):
        """Generator: one head, as soon as there is room."""
        dut, hd = self.dut, len(data)
        yield
        while not (yield dut.room):
            self.waits += 1
            yield
        yield dut.write_values.eq(values)
        for i, byte in enumerate(data):
            while self.prng.random() < gap:
                yield
            at = base + (position//BLOCK*BLOCK*hd + i*BLOCK + position % BLOCK if values else position*hd + i)
            self.bytes[self.bases[values]*UNIT_BYTES + at] = byte
            yield dut.write_valid.eq(1)
            yield dut.write_address.eq(at)
            yield dut.write_data.eq(byte)
            self.complete = False
            yield
            self.given += 1
            yield dut.write_valid.eq(0)
        at = self.bases[2 + values]*UNIT_BYTES + 2*(sbase + position)
        self.bytes.update({at: scale & 255, at + 1: scale >> 8})
        yield dut.write_scale_valid.eq(1)
        yield dut.write_scale_address.eq(sbase + position)
        yield dut.write_scale.eq(scale)
        yield
        self.given   += 2
        self.complete = True
        yield dut.write_scale_valid.eq(0)

    def layer(self, n, hd, context, position, base=0, sbase=0, gap=0.0):
        """Generator: n heads of keys, then n of values, random."""
        for values in (0, 1):
            for h in range(n):
                yield from self.write(values, base + h*context*hd, sbase + h*context, position,
                    [self.prng.randrange(256) for _ in range(hd)], self.prng.randrange(1 << 16), gap)


@passive
def watch(dut, memory, heads):
    """Idle means that all that was given is taken; and the queue never overflows."""
    while True:
        if (yield dut.bytes.sink.valid):
            assert (yield dut.bytes.sink.ready), "the queue overflows"
        if (yield dut.idle):
            assert memory.taken == heads.given, f"idle with {heads.given - memory.taken} bytes on their way"
        yield


def until_idle(dut, memory, timeout=3000):
    """Generator: flush, and wait until all has been taken and written."""
    yield dut.flush.eq(1)
    yield
    for _ in range(timeout):
        if (yield dut.idle):
            break
        yield
    assert (yield dut.idle), "never idle"
    yield from memory.settle()
    yield dut.flush.eq(0)


def setup(dut, bases=BASES):
    for signal, value in zip(dut.base, bases):
        yield signal.eq(value)
    for _ in range(5):
        yield


@pytest.mark.parametrize("width, ready, latency, gap", ((16, 0.7, (1, 6), 0), (64, 1, (1, 1), 0), (64, 0.3, (3, 30), 0.3),
    (128, 0.8, (1, 12), 0), (128, 1, (40, 40), 0.1), (256, 0.5, (1, 9), 0)))
def test_contents(width, ready, latency, gap, tmp_path):
    """Layers of heads of 32 and of 64: every byte of memory, and how many commands it took: a word a command, a key's bytes
    together, each byte of a value on its own, and a scale."""
    bench, dut, port = make(width)
    prng   = random.Random(width + int(10*ready))
    memory = Memory(dut, port, prng, ready, latency)
    heads  = Heads(dut, prng)
    def main():
        yield from setup(dut)
        for n, hd, position, base in ((2, 32, 0, 0), (1, 64, 37, 8192), (2, 64, 31, 0)):
            before = len(memory.commands)
            yield from heads.layer(n, hd, 64, position, base, base//hd, gap)
            yield from until_idle(dut, memory)
            assert memory.bytes == heads.bytes
            assert len(memory.commands) - before == n*(hd*8//width + 1) + n*(hd + 1)
    run_block(bench, [main(), memory.run(), watch(dut, memory, heads)], bench.ios, tmp_path)


@pytest.mark.parametrize("width", (16, 128))
def test_last_addresses(width, tmp_path):
    """A cache in the last bytes of 4 GB, and far behind its base: no address is cut short."""
    bench, dut, port = make(width)
    prng   = random.Random(width)
    memory = Memory(dut, port, prng, 1, (2, 5))
    heads  = Heads(dut, prng, FAR)
    def main():
        yield from setup(dut, FAR)
        last = 300000*UNIT_BYTES - 64*32      # Of the keys: their region ends with DRAM.
        for values, base, sbase, position in ((0, last, 0, 63), (0, 0, 0, 0), (1, (1 << 30) - 2*64*32, (1 << 24) - 128, 63), (1, 0, 0, 0)):
            yield from heads.write(values, base, sbase, position, [prng.randrange(256) for _ in range(32)], prng.randrange(1 << 16))
        yield from until_idle(dut, memory)
        assert memory.bytes == heads.bytes
        assert max(heads.bytes) == (1 << 32) - 1
    run_block(bench, [main(), memory.run(), watch(dut, memory, heads)], bench.ios, tmp_path)


@pytest.mark.parametrize("width", (64, 128))
def test_room(width, tmp_path):
    """Heads of max_head_dim back to back, and a controller that only takes writes while there is no room: each finds its place."""
    bench, dut, port = make(width, 64)
    prng, going = random.Random(7), [True]
    memory = Memory(dut, port, prng, lambda clock: going[0], (2, 9))
    heads  = Heads(dut, prng)
    @passive
    def stop():
        while True:
            going[0] = (yield dut.flush) or (heads.complete and not (yield dut.room))
            yield
    def main():
        yield from setup(dut)
        yield from heads.layer(4, 64, 64, 5)
        assert heads.waits
        yield from until_idle(dut, memory)
        assert memory.bytes == heads.bytes
    run_block(bench, [main(), stop(), memory.run(), watch(dut, memory, heads)], bench.ios, tmp_path)


def test_flush(tmp_path):
    """A head waits until it is complete; its last word, which the next head might add to, until there is a flush."""
    bench, dut, port = make(128)
    prng    = random.Random(3)
    memory  = Memory(dut, port, prng, 1, (2, 2))
    heads   = Heads(dut, prng)
    flushed = []
    @passive
    def hold():
        while True:
            assert not (yield port.cmd.valid) or heads.complete or flushed, "a head that is not complete is written"
            yield
    def main():
        yield from setup(dut)
        assert (yield dut.idle)
        for values in (0, 1):
            before = len(memory.commands)
            yield from heads.write(values, 0, 0, 9, list(range(7, 39)), 0x1234, 0.2)
            for _ in range(100):
                yield
                assert not (yield dut.idle), "idle with a word that waits"
            assert len(memory.commands) - before == (32 if values else 2)
            yield from until_idle(dut, memory)
            assert len(memory.commands) - before == (33 if values else 3)
            assert memory.bytes == heads.bytes
            yield
        # Two heads: the word that is left of the first stays until the second is complete, too.
        for position in (1, 2):
            yield from heads.write(0, 4096, 0, position, list(range(32)), 0x4321, 0.3)
            for _ in range(60):
                yield
        yield from until_idle(dut, memory)
        # What comes while flush is high goes at once.
        flushed.append(1)
        yield dut.flush.eq(1)
        yield from heads.write(0, 2048, 64, 1, list(range(32)), 0xFFFF, 0.9)
        yield from until_idle(dut, memory)
        assert memory.bytes == heads.bytes
    run_block(bench, [main(), memory.run(), watch(dut, memory, heads), hold()], bench.ios, tmp_path)
