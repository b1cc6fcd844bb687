# SPDX-License-Identifier: BSD-2-Clause
"""DRAM to beats: linear reads over one or more native ports, ahead of their use."""

from migen import *

from litedram.frontend.dma import LiteDRAMDMAReader

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import UNIT_BYTES, check

CHUNK_UNITS    = 64   # Consecutive units that one port reads before the next port's turn: 2 KB, a DRAM row of 16 pins.
UNIT_BITS      = 27
COMMAND_LAYOUT = [("address", UNIT_BITS), ("units", UNIT_BITS)]
COMMANDS       = 4    # Reads that can be queued.


class _Walker(LiteXModule):
    """Turns commands into word addresses, one a clock, in order.

    sink: commands. source: word (address in port words), port (whose turn it is). With `only` it leaves out all chunks but those
    of that port, at one clock per chunk left out.
    """
    def __init__(self, n_ports, words_per_unit, only=None):
        shift       = log2_int(words_per_unit)
        self.sink   = sink   = stream.Endpoint(COMMAND_LAYOUT)
        self.source = source = stream.Endpoint([("word", UNIT_BITS + shift), ("port", max(1, log2_int(n_ports)))])

        # # #

        chunk_words   = CHUNK_UNITS*words_per_unit
        word, left    = Signal(UNIT_BITS + shift), Signal(UNIT_BITS + shift)
        turn          = Signal(max(1, log2_int(n_ports)))
        mine, to_next = Signal(), Signal(max=chunk_words + 1)
        if n_ports > 1:
            self.comb += turn.eq(word[log2_int(chunk_words):])
        self.comb += [
            mine.eq(1 if only is None else turn == only),
            to_next.eq(chunk_words - word[:log2_int(chunk_words)]),
            source.valid.eq((left != 0) & mine), source.word.eq(word), source.port.eq(turn),
            sink.ready.eq(left == 0),
        ]
        self.sync += [
            If(sink.valid & sink.ready,
                word.eq(sink.address << shift), left.eq(sink.units << shift),
            ).Elif(source.valid & source.ready,
                word.eq(word + 1), left.eq(left - 1),
            ).Elif((left != 0) & ~mine,
                word.eq(word + to_next), left.eq(Mux(left > to_next, left - to_next, 0)),
            )
        ]


class LlamaStreamReader(LiteXModule):
    """Reads commands' bytes from DRAM in order and delivers them as beats.

    ports: 1, 2 or 4 native LiteDRAM ports of one width (2 to 32 bytes); with more than one, chunks of 2 KB alternate over them, so
    that one port's row change hides behind another's reads. fifo_bytes: buffer, shared out over the ports; a read is only
    issued when its word has a place there. beat_bytes: width of `source`.

    sink: commands, address and length in units of 32 bytes; COMMANDS of them are queued, and the reads of one are issued while
    the data of those before it is still on its way. source: {data}, bytes in order, the first in the low bits.
    flush: level; drops everything queued and outstanding until `idle` (nothing queued, outstanding or buffered).
    """
    def __init__(self, ports, beat_bytes, fifo_bytes):
        check(len(ports) in (1, 2, 4), f"{len(ports)} DRAM ports, must be 1, 2 or 4")
        width = ports[0].data_width
        check(width//8 in (2, 4, 8, 16, 32), f"DRAM ports are {width} bits wide, must be 16 to 256")
        self.sink   = sink   = stream.Endpoint(COMMAND_LAYOUT)
        self.source = source = stream.Endpoint([("data", 8*beat_bytes)])
        self.flush  = flush  = Signal()
        self.idle   = idle   = Signal()

        # # #

        words_per_unit = UNIT_BYTES*8//width
        depth          = max(16, fifo_bytes*8//width//len(ports))

        # Commands go to every port's walker, and to the one that merges.
        walkers = [_Walker(len(ports), words_per_unit, only=i if len(ports) > 1 else None) for i in range(len(ports))]
        merge   = _Walker(len(ports), words_per_unit)
        queues  = []
        for walker in (*walkers, merge):
            queue  = ResetInserter()(stream.SyncFIFO(COMMAND_LAYOUT, COMMANDS))
            walker = ResetInserter()(walker)
            self.submodules += queue, walker
            self.comb += [queue.reset.eq(flush), walker.reset.eq(flush), queue.source.connect(walker.sink)]
            queues.append(queue)
        everyone = Signal()
        self.comb += everyone.eq(Cat(*[q.sink.ready for q in queues]) == 2**len(queues) - 1)
        self.comb += sink.ready.eq(everyone & ~flush)
        for queue in queues:
            self.comb += [queue.sink.valid.eq(sink.valid & everyone & ~flush),
                queue.sink.address.eq(sink.address), queue.sink.units.eq(sink.units)]

        # Ports: reads ahead as far as the buffer goes.
        dmas, levels = [], []
        for i, (port, walker) in enumerate(zip(ports, walkers)):
            dma   = LiteDRAMDMAReader(port, fifo_depth=depth, fifo_buffered=depth > 32)
            level = Signal(max=depth + 1, name=f"outstanding_{i}")
            issue, taken = Signal(), Signal()
            self.submodules += dma
            self.comb += [
                dma.sink.valid.eq(walker.source.valid & ~flush), dma.sink.address.eq(walker.source.word),
                walker.source.ready.eq(dma.sink.ready & ~flush),
                issue.eq(dma.sink.valid & dma.sink.ready), taken.eq(dma.source.valid & dma.source.ready),
            ]
            self.sync += level.eq(level + issue - taken)
            dmas.append(dma)
            levels.append(level)

        # Merge in order of address, then to beats.
        self.converter = converter = ResetInserter()(stream.Converter(width, 8*beat_bytes))
        word           = Signal(width)
        valid          = Signal()
        self.comb += [
            converter.reset.eq(flush),
            Case(merge.source.port, {i: [word.eq(dma.source.data), valid.eq(dma.source.valid)] for i, dma in enumerate(dmas)}),
            converter.sink.valid.eq(valid & merge.source.valid & ~flush), converter.sink.data.eq(word),
            merge.source.ready.eq(valid & converter.sink.ready & ~flush),
            [dma.source.ready.eq(flush | (merge.source.valid & converter.sink.ready & (merge.source.port == i)))
                for i, dma in enumerate(dmas)],
            source.valid.eq(converter.source.valid), source.data.eq(converter.source.data),
            converter.source.ready.eq(source.ready),
        ]
        self.sync += idle.eq(Cat(*levels) == 0)
