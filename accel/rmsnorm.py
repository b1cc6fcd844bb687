# SPDX-License-Identifier: BSD-2-Clause
"""RMSNorm of the residual stream."""

from migen import *
from migen.fhdl.specials import READ_FIRST
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import BLOCK
from .fp import LlamaFPAdd, LlamaFPMul, delay
from .function import FUNCTION_LAYOUT, FUNCTION_RESULT_LAYOUT
from .numerics import PARTIALS, RSQRT
from .readout import ELEMENT_LAYOUT, LlamaReadOut
from .vector import DEST_ACT, DEST_SCALAR, DEST_X, P_E, P_ZERO, VPU_LAYOUT, VPU_RESULT_LAYOUT


class LlamaSumOfSquares(LiteXModule):
    """fp32 sum of squares of a vector of a multiple of 8 elements (numerics.sum_of_squares), one element a clock.

    clear: pulse before a vector's elements. valid, data: elements. finish: pulse after the last element, at any distance;
    then done: pulse with the `sum`. The additions of 8 interleaved partial sums overlap, as the adder's latency is below
    8; at the end the same adder adds them up as a tree (i + i+4, i + i+2, 0 + 1).

    Latency: about 50 clocks from the last element, if `finish` comes with it, to done.
    """
    def __init__(self):
        self.clear  = Signal()
        self.valid  = Signal()
        self.data   = Signal(32)
        self.finish = Signal()
        self.done   = Signal()
        self.sum    = Signal(32)

        # # #

        self.mul = mul = LlamaFPMul()
        self.add = add = LlamaFPAdd()
        assert add.latency < PARTIALS, "a partial sum must be back before its next addition"
        squared  = delay(self, self.valid, mul.latency, reset_less=False)
        self.comb += [mul.a.eq(self.data), mul.b.eq(self.data)]

        # Partial sums: LUT RAM, read as an operand, written with the sum. In the first round they count as zero.
        partials = Memory(32, PARTIALS, name="partial_sums")
        write    = partials.get_port(write_capable=True, mode=READ_FIRST)
        read     = partials.get_port(async_read=True)
        self.specials += partials, write, read
        into, out     = Signal(max=PARTIALS), Signal(max=PARTIALS)   # Partial sum of the addition that begins, that ends.
        first_round   = Signal()
        adding, tree  = Signal(), Signal()
        next_level    = Signal()
        added         = delay(self, adding, add.latency, reset_less=False)
        upper         = Signal(32)
        self.comb    += [
            add.a.eq(Mux(tree, upper, mul.p)), add.b.eq(read.dat_r & Replicate(~first_round, 32)),
            write.adr.eq(out), write.dat_w.eq(add.s), write.we.eq(added),
        ]
        self.sync += [
            If(added, out.eq(out + 1)),
            If(adding, into.eq(into + 1), If(into == PARTIALS - 1, first_round.eq(0))),
            If(next_level, into.eq(0), out.eq(0)),
            If(self.clear, into.eq(0), out.eq(0), first_round.eq(1)),
        ]

        # Elements under way.
        pending    = Signal(max=mul.latency + add.latency + 2)
        self.sync += pending.eq(pending + self.valid - (added & ~tree))

        # Tree: of each pair the upper one is read first and waits in `upper`.
        half     = Signal(max=PARTIALS)
        self.fsm = fsm = FSM(reset_state="COLLECT")
        fsm.act("COLLECT",
            adding.eq(squared),
            NextValue(half, PARTIALS//2),
            If(self.finish, NextState("DRAIN")))
        fsm.act("DRAIN",
            adding.eq(squared),
            If(pending == 0, next_level.eq(1), NextState("READ_UPPER")))
        fsm.act("READ_UPPER", tree.eq(1),
            NextState("ADD"))
        fsm.act("ADD", tree.eq(1),
            adding.eq(1),
            If(into == half - 1, NextState("WAIT_LEVEL")).Else(NextState("READ_UPPER")))
        fsm.act("WAIT_LEVEL", tree.eq(1),
            If(added & (out == half - 1),
                next_level.eq(1), NextValue(half, half >> 1), NextValue(self.sum, add.s),
                If(half == 1, NextState("DONE")).Else(NextState("READ_UPPER"))))
        fsm.act("DONE", self.done.eq(1), NextState("COLLECT"))
        self.comb += read.adr.eq(Mux(fsm.ongoing("READ_UPPER"), into + half, into))
        self.sync += If(fsm.ongoing("READ_UPPER"), upper.eq(read.dat_r))


class LlamaRMSNorm(LiteXModule):
    """x/sqrt(mean(x*x) + eps)*weight of the residual vector (numerics.rmsnorm), to DEST_ACT.

    x: the LlamaXMemory. The sum of squares is formed while x is stored: `result` are the VPU's results, those for DEST_X
    count, from x.clear on. start: one pulse after x.done; dim_blocks (blocks of 32 elements), inv_dim, eps (fp32) are stable
    until done. `vector` carries the weights, as many as x has elements, `last` on the last. done: pulse when the last
    element has come out of the VPU.

    Latency: 81 clocks from start to the first operation: rest of the sum, mean + eps, root. Interval: 1 element a clock.
    Source: Zhang and Sennrich, arXiv 1910.07467.
    """
    def __init__(self, x):
        self.result          = result   = stream.Endpoint(VPU_RESULT_LAYOUT)
        self.vector          = vector   = stream.Endpoint(ELEMENT_LAYOUT)
        self.vpu             = vpu      = stream.Endpoint(VPU_LAYOUT)
        self.function        = function = stream.Endpoint(FUNCTION_LAYOUT)
        self.function_result = stream.Endpoint(FUNCTION_RESULT_LAYOUT)

        self.start      = Signal()
        self.done       = Signal()
        self.dim_blocks = Signal(bits_for(x.max_dim//BLOCK))
        self.inv_dim    = Signal(32)
        self.eps        = Signal(32)

        # # #

        # Sum of squares, as x is stored.
        self.squares = squares = LlamaSumOfSquares()
        self.comb += squares.clear.eq(x.clear)
        self.sync += [squares.valid.eq(result.valid & (result.dest == DEST_X)), squares.data.eq(result.data)]

        # x again: the first words wait at the read-out until the root is there.
        self.readout = readout = LlamaReadOut(32, x.max_dim)
        self.comb += [
            x.norm_adr.eq(readout.adr), x.norm_re.eq(readout.re), readout.data.eq(x.data),
            readout.count.eq(Cat(Replicate(0, 5), self.dim_blocks)),
        ]

        # eps + sum/dim, then x*root*weight. (Handshakes stay outside the FSM's process: Icarus would loop on their glitches.)
        self.fsm    = fsm = FSM(reset_state="IDLE")
        root        = Signal(32)
        mean, scale = fsm.ongoing("MEAN"), fsm.ongoing("SCALE")
        taken       = Signal()
        self.comb  += [
            vpu.valid.eq(mean | (scale & readout.source.valid & vector.valid)),
            vpu.a.eq(readout.source.data), vpu.b.eq(root), vpu.chain.eq(scale),
            vpu.c.eq(squares.sum), vpu.d.eq(Mux(scale, vector.data, self.inv_dim)),
            vpu.e.eq(self.eps), vpu.p_sel.eq(Mux(scale, P_ZERO, P_E)),
            vpu.dest.eq(Mux(scale, DEST_ACT, DEST_SCALAR)), vpu.last.eq(scale & vector.last),
            taken.eq(vpu.valid & vpu.ready),
            readout.source.ready.eq(scale & taken), vector.ready.eq(scale & taken),
            function.valid.eq(fsm.ongoing("ROOT")), function.func.eq(RSQRT), function.x.eq(root),
            x.norm_select.eq(~fsm.ongoing("IDLE")),
        ]
        fsm.act("IDLE",
            If(self.start, squares.finish.eq(1), readout.start.eq(1), NextState("SUM")))
        fsm.act("SUM",
            If(squares.done, NextState("MEAN")))
        fsm.act("MEAN",
            If(taken, NextState("WAIT_MEAN")))
        fsm.act("WAIT_MEAN",
            NextValue(root, result.data),
            If(result.valid & (result.dest == DEST_SCALAR), NextState("ROOT")))
        fsm.act("ROOT",
            If(function.ready, NextState("WAIT_ROOT")))
        fsm.act("WAIT_ROOT",
            NextValue(root, self.function_result.y),
            If(self.function_result.valid, NextState("SCALE")))
        fsm.act("SCALE",
            If(taken & vector.last, NextState("WAIT_LAST")))
        fsm.act("WAIT_LAST",
            If(result.valid & (result.dest == DEST_ACT) & result.last, self.done.eq(1), NextState("IDLE")))
