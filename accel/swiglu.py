# SPDX-License-Identifier: BSD-2-Clause
"""SwiGLU: the feed-forward's gate."""

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .function import FUNCTION_LAYOUT, FUNCTION_RESULT_LAYOUT
from .numerics import SIGMOID
from .readout import ROW_LAYOUT
from .vector import DEST_ACT, P_ZERO, VPU_LAYOUT

PAIRS = 16   # Pairs under way: the function's latency and a few clocks at the pace of two rows a pair.


class LlamaSwiGLU(LiteXModule):
    """a*sigmoid(a)*b of the rows of w13, which alternate a (of w1) and b (of w3), to DEST_ACT (numerics.swiglu).

    sink: an even number of rows. a goes to the function table at once; pair and sigmoid wait for each other in two FIFOs, which
    cannot overflow because only as many pairs are begun as they hold.

    Latency: 15 clocks from a to the pair's operation, or 1 from b where that is later. Interval: 2 clocks per pair.
    Source: Shazeer, arXiv 2002.05202.
    """
    def __init__(self):
        self.sink            = sink     = stream.Endpoint(ROW_LAYOUT)
        self.vpu             = vpu      = stream.Endpoint(VPU_LAYOUT)
        self.function        = function = stream.Endpoint(FUNCTION_LAYOUT)
        self.function_result = sigmoid  = stream.Endpoint(FUNCTION_RESULT_LAYOUT)

        # # #

        # Rows in: a waits for b in a register.
        is_b, a    = Signal(), Signal(32)
        self.space = space = Signal(max=PAIRS + 1, reset=PAIRS)   # Pairs that may still be begun.
        begin, end = Signal(), Signal()
        self.pairs    = pairs    = stream.SyncFIFO([("a", 32), ("b", 32), ("column", 3)], PAIRS)
        self.sigmoids = sigmoids = stream.SyncFIFO([("y", 32)], PAIRS)
        self.comb += [
            function.func.eq(SIGMOID), function.x.eq(sink.data),
            function.valid.eq(sink.valid & ~is_b & (space != 0)),
            begin.eq(function.valid & function.ready),
            sink.ready.eq(is_b | begin),
            pairs.sink.valid.eq(sink.valid & is_b), pairs.sink.last.eq(sink.last),
            pairs.sink.a.eq(a), pairs.sink.b.eq(sink.data), pairs.sink.column.eq(sink.column),
            sigmoids.sink.valid.eq(sigmoid.valid), sigmoids.sink.y.eq(sigmoid.y),
        ]
        self.sync += [
            If(begin, a.eq(sink.data), is_b.eq(1)).Elif(sink.valid & is_b, is_b.eq(0)),
            space.eq(space - begin + end),
        ]

        # a*sigmoid(a)*b.
        self.comb += [
            vpu.valid.eq(pairs.source.valid & sigmoids.source.valid),
            vpu.a.eq(pairs.source.a), vpu.b.eq(sigmoids.source.y), vpu.chain.eq(1), vpu.d.eq(pairs.source.b),
            vpu.p_sel.eq(P_ZERO), vpu.dest.eq(DEST_ACT),
            vpu.last.eq(pairs.source.last), vpu.column.eq(pairs.source.column),
            end.eq(vpu.valid & vpu.ready),
            pairs.source.ready.eq(end), sigmoids.source.ready.eq(end),
        ]
