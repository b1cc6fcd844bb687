# SPDX-License-Identifier: BSD-2-Clause
"""A native DRAM port of half the width, for DRAMs whose ports are wider than the core takes (KC705: 64 bits at 1:4, 512 bits)."""

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import stream
from litedram.common import LiteDRAMNativePort

OUTSTANDING = 32   # Reads and writes whose data has not come or gone yet.


class LlamaHalfPort(LiteXModule):
    """`port`: a native port of half the width of `wide`, for the mode that `wide` was made for.

    LiteDRAM's own converter takes a wide word for each narrow one. Here two reads in a row of the halves of one word, low half first,
    are one: linear reads get a narrow word a clock from half as many wide ones. Each write is a masked write of a wide word.
    What is read must be taken when it comes, as from any native port. Latency: two clocks more than that of `wide`.
    """
    def __init__(self, wide):
        width     = wide.data_width//2
        self.port = port = LiteDRAMNativePort(wide.mode, address_width=wide.address_width + 1, data_width=width)

        # # #

        high = port.cmd.addr[0]
        self.comb += [wide.cmd.addr.eq(port.cmd.addr[1:]), wide.cmd.we.eq(port.cmd.we)]

        if wide.mode == "write":
            # Which half a write is for, in the order of their data.
            self.halves = halves = stream.SyncFIFO([("high", 1)], OUTSTANDING)
            half        = halves.source
            self.comb += [
                wide.cmd.valid.eq(port.cmd.valid & halves.sink.ready),
                port.cmd.ready.eq(wide.cmd.ready & halves.sink.ready),
                halves.sink.valid.eq(wide.cmd.valid & wide.cmd.ready),
                halves.sink.high.eq(high),
                wide.wdata.valid.eq(port.wdata.valid & half.valid),
                wide.wdata.data.eq(Replicate(port.wdata.data, 2)),
                wide.wdata.we.eq(Mux(half.high, Cat(Replicate(0, width//8), port.wdata.we), port.wdata.we)),
                port.wdata.ready.eq(wide.wdata.ready & half.valid),
                half.ready.eq(wide.wdata.valid & wide.wdata.ready),
            ]
            return

        # Reads: the high half of the word that was asked for last is not asked for again.
        self.reads = reads = stream.SyncFIFO([("high", 1), ("again", 1)], OUTSTANDING, buffered=True)
        self.words = words = stream.SyncFIFO([("data", 2*width)], OUTSTANDING, buffered=True)
        low_only, last = Signal(), Signal(wide.address_width)   # The last one was the low half of word `last`.
        again, taken   = Signal(), Signal()
        self.comb += [
            again.eq(high & low_only & (last == port.cmd.addr[1:])),
            wide.cmd.valid.eq(port.cmd.valid & reads.sink.ready & ~again),
            port.cmd.ready.eq(reads.sink.ready & (again | wide.cmd.ready)),
            taken.eq(port.cmd.valid & port.cmd.ready),
            reads.sink.valid.eq(taken),
            reads.sink.high.eq(high),
            reads.sink.again.eq(again),
        ]
        self.sync += If(taken, low_only.eq(~high), last.eq(port.cmd.addr[1:]))

        # Words to halves; the word before stays for its high half.
        held = Signal(width)
        read = reads.source
        self.comb += [
            words.sink.valid.eq(wide.rdata.valid),
            words.sink.data.eq(wide.rdata.data),
            wide.rdata.ready.eq(1),
            port.rdata.valid.eq(read.valid & (read.again | words.source.valid)),
            port.rdata.data.eq(Mux(read.again, held, Mux(read.high, words.source.data[width:], words.source.data[:width]))),
            read.ready.eq(port.rdata.valid),
            words.source.ready.eq(read.valid & ~read.again),
        ]
        self.sync += If(words.source.valid & words.source.ready, held.eq(words.source.data[width:]))
