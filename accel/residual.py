# SPDX-License-Identifier: BSD-2-Clause
"""The residual stream x, and what is added to it."""

from migen import *
from migen.fhdl.specials import READ_FIRST

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .readout import FP32_ONE, ROW_LAYOUT
from .vector import DEST_X, P_E, VPU_LAYOUT, VPU_RESULT_LAYOUT


class LlamaXMemory(LiteXModule):
    """Residual vector x of one position: max_dim fp32 words.

    clear: pulse before a vector's results come; then the VPU's results for DEST_X are stored in order from word 0. done: pulse
    when the one with `last` is being stored. One reader at a time, with `data` one clock after the address:
    - LlamaRMSNorm by norm_adr and norm_re, while norm_select;
    - LlamaResidual by residual_adr and residual_re, from clear to done; it has read a word before it is written;
    - else the debug window: debug_index, debug_data two clocks later.
    """
    def __init__(self, max_dim):
        self.max_dim      = max_dim
        self.result       = result = stream.Endpoint(VPU_RESULT_LAYOUT)
        self.clear        = Signal()
        self.done         = Signal()
        self.norm_select  = Signal()
        self.norm_adr     = Signal(max=max_dim)
        self.norm_re      = Signal()
        self.residual_adr = Signal(max=max_dim)
        self.residual_re  = Signal()
        self.data         = Signal(32)
        self.debug_index  = Signal(max=max_dim)
        self.debug_data   = Signal(32)

        # # #

        memory = Memory(32, max_dim, name="llama_x")
        write  = memory.get_port(write_capable=True, mode=READ_FIRST)
        read   = memory.get_port(has_re=True, mode=READ_FIRST)
        self.specials += memory, write, read

        # Results in, registered once.
        address = Signal(max=max_dim)
        busy    = Signal()
        self.sync += [
            write.we.eq(result.valid & (result.dest == DEST_X)), write.dat_w.eq(result.data),
            self.done.eq(result.valid & (result.dest == DEST_X) & result.last),
            If(self.clear, address.eq(0)).Elif(write.we, address.eq(address + 1)),
            If(self.clear, busy.eq(1)).Elif(self.done, busy.eq(0)),
        ]
        self.comb += write.adr.eq(address)

        # Words out.
        self.comb += [
            If(self.norm_select,
                read.adr.eq(self.norm_adr), read.re.eq(self.norm_re),
            ).Elif(busy,
                read.adr.eq(self.residual_adr), read.re.eq(self.residual_re),
            ).Else(
                read.adr.eq(self.debug_index), read.re.eq(1),
            ),
            self.data.eq(read.dat_r),
        ]
        self.sync += self.debug_data.eq(read.dat_r)


class LlamaResidual(LiteXModule):
    """x + rows of wo or w2: one VPU operation per row, x[i] + row*1.0 (numerics.fadd), to DEST_X.

    x: the LlamaXMemory, whose `clear` restarts this stage too. sink: all rows of a matrix, in order.

    Latency: 2 clocks from row to operation. Interval: 1 clock.
    """
    def __init__(self, x):
        self.sink = sink = stream.Endpoint(ROW_LAYOUT)
        self.vpu  = vpu  = stream.Endpoint(VPU_LAYOUT)

        # # #

        # The row waits one clock for the memory and one for the register behind it.
        index    = Signal(max=x.max_dim)
        read     = Signal()
        row, row_last, row_column = Signal(32), Signal(), Signal(3)
        advance  = Signal()
        self.comb += [
            advance.eq(~vpu.valid | vpu.ready),
            sink.ready.eq(advance),
            x.residual_adr.eq(index),
            x.residual_re.eq(advance),
        ]
        self.sync += [
            If(advance,
                read.eq(sink.valid), row.eq(sink.data), row_last.eq(sink.last), row_column.eq(sink.column),
                vpu.valid.eq(read), vpu.e.eq(x.data), vpu.c.eq(row), vpu.last.eq(row_last), vpu.column.eq(row_column),
            ),
            If(sink.valid & advance, index.eq(index + 1)),
            If(x.clear, index.eq(0)),
        ]
        self.comb += [vpu.p_sel.eq(P_E), vpu.d.eq(FP32_ONE), vpu.dest.eq(DEST_X)]
