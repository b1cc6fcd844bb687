# SPDX-License-Identifier: BSD-2-Clause
"""LlamaHalfPort: linear and scattered reads and masked writes through half a word, against a model of a native port."""

import random

from litedram.common import LiteDRAMNativePort
from litedram.frontend.dma import LiteDRAMDMAReader
from litex.gen import LiteXModule
from migen import passive, run_simulation
import pytest

from litellama.soc.half_port import LlamaHalfPort

WIDTH   = 64    # Of the wide port.
WORDS   = 64
LATENCY = 7


class Bench(LiteXModule):
    """The block behind a model of a wide port; for reads, LiteDRAM's reader in front, as in the core, that holds `depth` words."""
    def __init__(self, mode, depth=16):
        self.wide = LiteDRAMNativePort(mode, address_width=10, data_width=WIDTH)
        self.half = LlamaHalfPort(self.wide)
        if mode == "read":
            self.dma = LiteDRAMDMAReader(self.half.port, fifo_depth=depth, fifo_buffered=True)


def memory():
    """Words of the wide port: byte k of all is k modulo 251."""
    return [int.from_bytes(bytes((8*i + k) % 251 for k in range(8)), "little") for i in range(WORDS)]


def narrow(i):
    """Half word i of that."""
    return memory()[i//2] >> WIDTH//2*(i % 2) & (1 << WIDTH//2) - 1


def serve_reads(port, prng, asked, latency=LATENCY):
    """Native port: commands taken now and then, data `latency` clocks later."""
    pipe = [None]*latency
    while True:
        yield port.cmd.ready.eq(prng.random() < 0.8)
        data = pipe.pop(0)
        yield port.rdata.valid.eq(data is not None)
        yield port.rdata.data.eq(data or 0)
        yield
        taken = (yield port.cmd.valid) and (yield port.cmd.ready)
        pipe.append(memory()[(yield port.cmd.addr)] if taken else None)
        if taken:
            asked.append((yield port.cmd.addr))


@passive
def deadline(clocks=6000):
    """Generator: AssertionError where the others do not end by then."""
    for _ in range(clocks):
        yield
    raise AssertionError(f"no end after {clocks} clocks")


def ask(bench, addresses):
    """Generator: read these narrow words, one after the other."""
    for address in addresses:
        yield bench.dma.sink.address.eq(address)
        yield bench.dma.sink.valid.eq(1)
        yield
        while not (yield bench.dma.sink.ready):
            yield
        yield bench.dma.sink.valid.eq(0)


@pytest.mark.parametrize("seed", range(4))
def test_reads(seed):
    """Data in order whatever is read; a linear run asks for each wide word once."""
    prng    = random.Random(seed)
    linear  = list(range(seed, seed + 60))
    jumps   = [prng.randrange(2*WORDS) for _ in range(60)]
    bench, got, asked = Bench("read"), [], []

    def take():
        while len(got) < len(linear + jumps):
            yield bench.dma.source.ready.eq(prng.random() < 0.7)
            yield
            if (yield bench.dma.source.valid) and (yield bench.dma.source.ready):
                got.append((yield bench.dma.source.data))

    run_simulation(bench, [ask(bench, linear + jumps), take(), passive(serve_reads)(bench.wide, prng, asked), deadline()])
    assert got == [narrow(i) for i in linear + jumps]
    words = sorted({i//2 for i in linear})
    assert asked[:len(words)] == words


def test_linear_reads_take_half_as_many_words():
    """A narrow word a clock, a wide word every second."""
    bench, asked = Bench("read"), []
    count        = [0]

    class Always:
        def random(self):
            return 0

    def take():
        yield bench.dma.source.ready.eq(1)
        clocks = n = 0
        while n < 2*WORDS:
            yield
            n      += (yield bench.dma.source.valid)
            clocks += 1
        count[0] = clocks

    run_simulation(bench, [ask(bench, range(2*WORDS)), take(), passive(serve_reads)(bench.wide, Always(), asked), deadline()])
    assert asked == list(range(WORDS)) and count[0] <= 2*WORDS + 25


def serve_in_bursts(port, asked, most):
    """Native port that takes commands as long as they come, then answers all of them, a word a clock, and so on. `most`: how
    many it had taken, at most."""
    due = []
    while True:
        waited, before = 0, -1
        yield port.cmd.ready.eq(1)
        while waited < 12 or not due:         # No more come: all that can be under way is.
            yield
            if (yield port.cmd.valid):
                due.append((yield port.cmd.addr))
                asked.append(due[-1])
            waited = waited + 1 if len(due) == before else 0
            before = len(due)
        most.append(len(due))
        yield port.cmd.ready.eq(0)
        for address in due:
            yield port.rdata.valid.eq(1)
            yield port.rdata.data.eq(memory()[address])
            yield
        yield port.rdata.valid.eq(0)
        due.clear()


@pytest.mark.parametrize("step", (1, 2, 3))
def test_more_reads_than_it_holds(step):
    """A reader deeper than this block's queues, a memory that answers late and all at once: nothing is lost. Both halves of
    each word, or one of each."""
    addresses       = [i*step % (2*WORDS) for i in range(150)]
    bench           = Bench("read", 128)
    got, asked, most = [], [], []

    def take():
        yield bench.dma.source.ready.eq(1)
        while len(got) < len(addresses):
            yield
            if (yield bench.dma.source.valid):
                got.append((yield bench.dma.source.data))

    run_simulation(bench, [ask(bench, addresses), take(), passive(serve_in_bursts)(bench.wide, asked, most), deadline()])
    assert got == [narrow(i) for i in addresses]
    assert max(most) >= (16 if step == 1 else 32), "the queues were never full"


@pytest.mark.parametrize("seed, accept, latency", ((0, 0.6, LATENCY), (1, 0.6, LATENCY), (2, 0.6, LATENCY), (3, 1, 70)))
def test_writes(seed, accept, latency):
    """Masked writes reach their half of the word, in order, when data is taken some clocks after its command; or so late that
    more commands would come than this block can remember."""
    prng   = random.Random(seed)
    writes = [(prng.randrange(2*WORDS), prng.getrandbits(WIDTH//2), prng.getrandbits(WIDTH//16)) for _ in range(80)]
    bench  = Bench("write")
    port, wide   = bench.half.port, bench.wide
    stored, want = memory(), memory()
    for address, data, we in writes:
        for k in range(WIDTH//16):
            if we >> k & 1:
                shift = 8*k + WIDTH//2*(address % 2)
                want[address//2] = want[address//2] & ~(0xff << shift) | (data >> 8*k & 0xff) << shift

    def commands():
        for address, _, _ in writes:
            yield port.cmd.addr.eq(address)
            yield port.cmd.we.eq(1)
            yield port.cmd.valid.eq(1)
            yield
            while not (yield port.cmd.ready):
                yield
            yield port.cmd.valid.eq(0)

    def data():
        for _, value, we in writes:
            yield port.wdata.data.eq(value)
            yield port.wdata.we.eq(we)
            yield port.wdata.valid.eq(1)
            yield
            while not (yield port.wdata.ready):
                yield
        yield port.wdata.valid.eq(0)

    def controller():
        waiting, done, clock = [], 0, 0
        while done < len(writes):
            yield wide.cmd.ready.eq(prng.random() < accept)
            yield wide.wdata.ready.eq(bool(waiting) and waiting[0][0] + latency <= clock)
            yield
            clock += 1
            if (yield wide.wdata.ready):
                assert (yield wide.wdata.valid)
                address = waiting.pop(0)[1]
                value, we = (yield wide.wdata.data), (yield wide.wdata.we)
                for k in range(WIDTH//8):
                    if we >> k & 1:
                        stored[address] = stored[address] & ~(0xff << 8*k) | value & 0xff << 8*k
                done += 1
            if (yield wide.cmd.valid) and (yield wide.cmd.ready):
                waiting.append((clock, (yield wide.cmd.addr)))

    run_simulation(bench, [commands(), data(), controller(), deadline()])
    assert stored == want
