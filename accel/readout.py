# SPDX-License-Identifier: BSD-2-Clause
"""What the stages of the vector unit share: the layouts of their inputs, and block RAM to stream."""

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

ROW_LAYOUT     = [("data", 32), ("kind", 4), ("column", 3)]   # Rows of LlamaMatVec, fp32; `last` on a job's last.
ELEMENT_LAYOUT = [("data", 32)]                               # fp32 elements of LlamaUnpack's `vector`.

FP32_ONE       = 0x3F800000


class LlamaReadOut(LiteXModule):
    """Read `count` consecutive words of a block RAM, from word `base` on, as a stream.

    adr, re, data: read side of the memory, whose data is valid one clock after an address with `re`; data is registered here.
    start: one-cycle pulse; base and count (at least 1) are taken then. busy: words are still to be read or delivered.

    Latency: 3 clocks from start to the first word. Interval: 1 clock. A stalled `source` stalls the memory through `re`.
    """
    def __init__(self, width, depth):
        self.start  = Signal()
        self.base   = Signal(max=depth)
        self.count  = Signal(max=depth + 1)
        self.busy   = Signal()
        self.adr    = Signal(max=depth)
        self.re     = Signal()
        self.data   = Signal(width)
        self.source = source = stream.Endpoint([("data", width)])

        # # #

        left    = Signal(max=depth + 1)
        reading = Signal()
        read    = Signal()   # The memory's output holds a word.
        last    = Signal()
        self.comb += [
            self.re.eq(~source.valid | source.ready),
            self.busy.eq(reading | read | source.valid),
        ]
        self.sync += [
            If(self.start,
                self.adr.eq(self.base), left.eq(self.count - 1), reading.eq(1),
            ).Elif(reading & self.re,
                self.adr.eq(self.adr + 1), left.eq(left - 1), reading.eq(left != 0),
            ),
            If(self.re,
                read.eq(reading), last.eq(left == 0),
                source.valid.eq(read), source.data.eq(self.data), source.last.eq(last),
            )
        ]
