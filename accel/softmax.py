# SPDX-License-Identifier: BSD-2-Clause
"""Softmax over the positions of one head."""

from migen import *
from migen.fhdl.specials import READ_FIRST
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .embedding import LlamaFP16ToFP
from .fp import LlamaFPToScore, delay
from .function import FUNCTION_LAYOUT, FUNCTION_RESULT_LAYOUT
from .kv import CONTEXT_BITS
from .numerics import EXP2, P_ONE, RECIP
from .readout import ROW_LAYOUT, LlamaReadOut
from .vector import DEST_ACT, DEST_SCORE, KIND_SCORE, P_M1, VPU_LAYOUT, VPU_RESULT_LAYOUT

FIFO_ELEMENTS = 32   # Elements under way in the function table or waiting for the VPU.


class LlamaSoftmax(LiteXModule):
    """Scores to probabilities, and the division of the weighted values by their sum (numerics, Decoder._attention), for up to
    `columns` query heads that share a KV head.

    1. clear: pulse before the scores, with n_columns (heads) stable until done. Rows of KIND_SCORE through `sink`, position by
       position the score of each column, are scaled (VPU, score_scale in units of log2, to DEST_SCORE), made fixed point
       with 16 fraction bits and stored; the maximum of each column is tracked. scores_done: pulse when the row with `last` is
       stored.
    2. start: pulse, with positions (scores to use, from 0 on) and sbase stable until done. Column after column: for each
       position p = 2**(score - maximum), 17 bits, and p times the position's value scale goes to DEST_ACT, to that column,
       `last` on its last. done: pulse when the last has come out of the VPU and 1/sum of all p of each column is known.
    3. Rows of KIND_VALUE are then multiplied by 1/sum of their column, to DEST_ACT, all to column 0. They wait while 2 runs.

    kv: the LlamaKVOwner, for its value scales. Debug window, while idle: debug_index (column*max_context + position),
    debug_data (a score) two clocks later.

    Latency: 18 clocks from start to the first operation of a column, 19 to 30 from its last to the next column or to done.
    Interval: 1 element a clock.
    Source: base-2 softmax with the maximum taken away, as in FlashAttention (Dao et al., arXiv 2205.14135), in two passes.
    """
    def __init__(self, config, kv):
        columns, depth       = config.columns, config.max_context
        self.sink            = sink     = stream.Endpoint(ROW_LAYOUT)
        self.vpu             = vpu      = stream.Endpoint(VPU_LAYOUT)
        self.result          = result   = stream.Endpoint(VPU_RESULT_LAYOUT)
        self.function        = function = stream.Endpoint(FUNCTION_LAYOUT)
        self.function_result = answer   = stream.Endpoint(FUNCTION_RESULT_LAYOUT)

        self.clear       = Signal()
        self.scores_done = Signal()
        self.start       = Signal()
        self.done        = Signal()
        self.n_columns   = Signal(bits_for(columns), reset=1)
        self.positions   = Signal(CONTEXT_BITS)
        self.sbase       = Signal.like(kv.sbase)
        self.score_scale = Signal(32)
        self.debug_index = Signal(max=columns*depth)
        self.debug_data  = Signal(32)

        # # #

        run    = Signal()   # The pass of step 2 ..
        column = Signal(max=max(2, columns))   # .. and its column.

        # 1: scores into their memory, largest into `top`.
        memory = Memory(32, columns*depth, name="llama_scores")
        write  = memory.get_port(write_capable=True, mode=READ_FIRST)
        read   = memory.get_port(has_re=True, mode=READ_FIRST)
        self.specials += memory, write, read
        self.to_score = to_score = LlamaFPToScore()
        scored        = Signal()
        score_last    = Signal()
        tops, empties = [Signal((32, True)) for _ in range(columns)], [Signal(reset=1) for _ in range(columns)]
        top           = Signal((32, True))
        place         = Signal(max=depth)
        scored_column = delay(self, result.column, to_score.latency)[:len(column)]
        self.comb += [
            scored.eq(result.valid & (result.dest == DEST_SCORE)),
            to_score.x.eq(result.data),
            write.we.eq(delay(self, scored, to_score.latency, reset_less=False)), write.dat_w.eq(to_score.s),
            score_last.eq(delay(self, scored & result.last, to_score.latency, reset_less=False)),
            write.adr.eq(place + Array([c*depth for c in range(columns)])[scored_column]),
            top.eq(Array(tops)[column]),
        ]
        self.sync += [
            self.scores_done.eq(score_last),
            If(write.we & (scored_column == self.n_columns - 1), place.eq(place + 1)),
            If(self.clear, place.eq(0)),
        ]
        for c in range(columns):
            self.sync += [
                If(write.we & (scored_column == c),
                    empties[c].eq(0),
                    If(empties[c] | (to_score.s > tops[c]), tops[c].eq(to_score.s)),
                ),
                If(self.clear, empties[c].eq(1)),
            ]

        # 2a: top - score, limited to the table's range, into the function table.
        self.scores = scores = LlamaReadOut(32, columns*depth)
        begin       = Signal()   # The pass of a column begins.
        score       = Signal((32, True))
        below       = Signal((33, True))
        valids      = Signal(2)
        advance     = Signal()
        space       = Signal(max=FIFO_ELEMENTS + 1, reset=FIFO_ELEMENTS)
        u           = Signal(21)
        request     = Signal()
        invert      = Signal()
        total_fp    = Signal(32)
        self.comb += [
            read.adr.eq(Mux(run, scores.adr, self.debug_index)), read.re.eq(~run | scores.re),
            scores.data.eq(read.dat_r), scores.start.eq(begin), scores.count.eq(self.positions),
            scores.base.eq(Array([c*depth for c in range(columns)])[column]),
            score.eq(scores.source.data), scores.source.ready.eq(advance),
            request.eq(valids[1] & (space != 0)),
            advance.eq(~valids[1] | (function.ready & request)),
            function.valid.eq(request | invert),
            function.func.eq(Mux(invert, RECIP, EXP2)), function.u.eq(u), function.x.eq(total_fp),
        ]
        self.sync += [
            self.debug_data.eq(read.dat_r),
            If(advance,
                valids.eq(Cat(scores.source.valid, valids[0])),
                below.eq(top - score),
                u.eq(below[:21] | Replicate(below[21:] != 0, 21)),
            )
        ]

        # 2b: value scales to fp32, in step with what the function table returns.
        self.scales = scales = LlamaReadOut(16, config.kv_scales)
        self.to_fp  = to_fp  = LlamaFP16ToFP()
        scale_valid, scale_last = Signal(2), Signal(2)
        scale_advance           = Signal()
        self.comb += [
            kv.value_scale_address.eq(scales.adr), kv.value_scale_enable.eq(scales.re), scales.data.eq(kv.value_scale_data),
            scales.start.eq(begin), scales.base.eq(self.sbase), scales.count.eq(self.positions),
            scales.source.ready.eq(scale_advance),
            to_fp.enable.eq(scale_advance), to_fp.h.eq(scales.source.data),
        ]
        self.sync += If(scale_advance,
            scale_valid.eq(Cat(scales.source.valid, scale_valid[0])), scale_last.eq(Cat(scales.source.last, scale_last[0])))

        # 2c: p times scale; or a row times score_scale or 1/sum.
        self.fifo = fifo = stream.SyncFIFO([("y", 32)], FIFO_ELEMENTS)
        total     = Signal(max(26, bits_for(P_ONE*depth)))   # Sum of the p.
        inverses  = [Signal(32) for _ in range(columns)]
        taken     = Signal()
        is_score  = Signal()
        self.comb += [
            fifo.sink.valid.eq(answer.valid & run), fifo.sink.y.eq(answer.y),
            is_score.eq(sink.kind == KIND_SCORE),
        ]
        self.sync += space.eq(space - (request & function.ready) + taken)

        # 3: sum of all p to fp32: shifted left until its leading one is on top, then rounded to nearest even.
        width        = len(total)
        exponent     = Signal(8)
        half, sticky = total[width - 25], total[:width - 25] != 0
        round_up     = Signal()
        self.comb += [
            round_up.eq(half & (sticky | total[width - 24])),
            total_fp.eq(Cat(total[width - 24:width - 1], exponent) + round_up),
        ]

        # (Handshakes stay outside the FSM's process: Icarus would loop on their glitches.)
        self.fsm = fsm = FSM(reset_state="ROWS")
        rows     = fsm.ongoing("ROWS")
        out_seen = Signal()   # The pass's last result has come out of the VPU.
        self.comb += [
            run.eq(fsm.ongoing("PASS")), invert.eq(fsm.ongoing("INVERT")),
            vpu.valid.eq(Mux(rows, sink.valid, run & fifo.source.valid & scale_valid[1])),
            sink.ready.eq(rows & vpu.ready),
            vpu.a.eq(Mux(rows, sink.data, fifo.source.y)),
            vpu.b.eq(Mux(rows, Mux(is_score, self.score_scale, Array(inverses)[sink.column[:len(column)]]), to_fp.y)),
            vpu.p_sel.eq(P_M1), vpu.dest.eq(Mux(rows & is_score, DEST_SCORE, DEST_ACT)),
            vpu.last.eq(Mux(rows, sink.last, scale_last[1])),
            vpu.column.eq(Mux(rows, Mux(is_score, sink.column, 0), column)),
            taken.eq(run & vpu.valid & vpu.ready), fifo.source.ready.eq(taken),
            scale_advance.eq(~scale_valid[1] | taken),
        ]
        self.sync += If(run, out_seen.eq(0)).Elif(result.valid & (result.dest == DEST_ACT) & result.last, out_seen.eq(1))
        fsm.act("ROWS",
            NextValue(column, 0),
            If(self.start, NextState("BEGIN")))
        fsm.act("BEGIN",
            begin.eq(1), NextValue(total, 0), NextValue(exponent, 127 + width - 1),
            NextState("PASS"))
        fsm.act("PASS",
            If(answer.valid, NextValue(total, total + answer.p)),
            If(taken & vpu.last, NextState("NORMALISE")))
        fsm.act("NORMALISE",
            If(total[width - 1], NextState("INVERT"))
            .Else(NextValue(total, total << 1), NextValue(exponent, exponent - 1)))
        fsm.act("INVERT",
            If(function.ready, NextState("WAIT_INVERSE")))
        fsm.act("WAIT_INVERSE",
            If(answer.valid,
                [If(column == c, NextValue(inverse, answer.y)) for c, inverse in enumerate(inverses)],
                If(column == self.n_columns - 1, NextState("WAIT_LAST")).Else(NextValue(column, column + 1), NextState("BEGIN")),
            ))
        fsm.act("WAIT_LAST",
            If(out_seen, self.done.eq(1), NextState("ROWS")))
