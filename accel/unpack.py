# SPDX-License-Identifier: BSD-2-Clause
"""The weight stream's parser: beats to matrix headers, fp32 vectors, and weight beats with their scales."""

from migen import Cat, If, Mux, Signal, bits_for
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import BLOCK, GROUP_BLOCKS, UNIT_BYTES, check
from .image import F32, MATRIX_MAGIC, Q4_1, Q8_0

# What follows in the stream when `accept` is pulsed.
JOB_MATRIX, JOB_VECTOR, JOB_ROW = range(3)

VECTOR_UNITS = BLOCK*4//UNIT_BYTES   # Units of 32 fp32 elements.


def weights_layout(lanes):
    """One beat of weights: `lanes` nibbles or lanes/2 bytes, scale d and minimum m (fp16) of its block, end of block.

    64 lanes take two blocks of 4 bits at once (`pair`: of the first in the lower half of q, d and m), or one of either kind.
    """
    if lanes <= BLOCK:
        return [("q", lanes*4), ("d", 16), ("m", 16), ("block_last", 1)]
    return [("q", lanes*4), ("d", 32), ("m", 32), ("block_last", 1), ("pair", 1)]


class _Scales(LiteXModule):
    """Queue of fp16 scales: taken in by beats (`beats` of them wait), given out one by one, or with 64 lanes also two by two
    (`pair`); `depth` of them wait."""
    def __init__(self, lanes, beats, depth):
        width       = 16 if lanes <= BLOCK else 32
        # (Few beats wait in registers: distributed RAM is 16 deep at least, 192 LUTs of ECP5 for 128 bits.)
        layout      = [("data", lanes*4)]
        waiting     = [stream.SyncFIFO(layout, beats)] if beats > 4 else [stream.PipeValid(layout) for _ in range(beats)]
        self.submodules += waiting
        self.single = single = stream.Converter(lanes*4, width)
        self.queue  = queue  = stream.SyncFIFO([("data", width)], depth*16//width, buffered=True)
        self.sink   = waiting[0].sink
        self.source = queue.source
        self.pair   = Signal()

        # # #

        self.comb += [
            *[a.source.connect(b.sink) for a, b in zip(waiting, [*waiting[1:], single])],
            single.source.connect(queue.sink, omit={"valid_token_count"}),
        ]
        if lanes > BLOCK:   # (A group has an even number: pairs and single ones do not get out of step.)
            self.source = source = stream.Endpoint([("data", width)])
            second      = Signal()
            self.comb += [
                queue.source.connect(source, omit={"data", "ready"}),
                source.data.eq(Mux(second, queue.source.data[16:], queue.source.data)),
                queue.source.ready.eq(source.ready & (self.pair | second)),
            ]
            self.sync += If(source.valid & source.ready & ~self.pair, second.eq(~second))


class LlamaUnpack(LiteXModule):
    """Parses the weight stream (accel/README.md, "Image"; image.pack_matrix is the inverse).

    The next header is parsed as soon as the last beat of the matrix before it was taken in, while `expect_header` is high;
    its fields are stable while `header_valid`. When what came is no header, `bad_magic` and `header_valid` are high and stay
    so, whatever comes, until the block is reset.

    accept: pulse that starts a job: JOB_MATRIX, what the header describes (while header_valid); JOB_VECTOR, blocks*32
    fp32 elements without header (`vector_blocks`); JOB_ROW, raw groups of `row_type` of which `row_skip` blocks are
    dropped, `row_blocks` delivered and the rest of the last group dropped. Job inputs are sampled with `accept`.
    vector:  elements of a JOB_VECTOR or an F32 matrix. `last` on the last. At most one a clock.
    weights: beats of all other jobs. `last` on the very last. At most one a clock.
    done:    pulse when an element or beat with `last` was taken.

    Scales are queued one by one beside a queue of `quant_beats` beats of quants, both ahead of the lanes. So when the lanes
    have waited they catch up at one beat of quants a clock, faster than a stream that also brings scales; one that keeps
    them waiting costs nothing. Beats of dropped blocks are not stored; each such block takes one clock of the output.
    With 64 lanes two blocks of 4 bits leave at once (`pair`) where rows have an even number of blocks, else one: such a matrix
    runs at half the speed. Latency from the first beat of quants to the first weight beat: 3 clocks.
    """
    def __init__(self, lanes, quant_beats=512):
        check(lanes in (8, 16, 32, 64), f"lanes is {lanes}, must be 8, 16, 32 or 64")
        beat_bytes = lanes//2
        self.sink    = sink    = stream.Endpoint([("data", beat_bytes*8)])
        self.vector  = vector  = stream.Endpoint([("data", 32)])
        self.weights = weights = stream.Endpoint(weights_layout(lanes))

        self.expect_header = Signal()
        self.header_valid  = Signal()
        self.bad_magic     = Signal()
        self.type          = Signal(2)
        self.exponent      = Signal((6, True))
        self.kind          = Signal(4)
        self.layer         = Signal(8)
        self.rows          = Signal(19)
        self.blocks        = Signal(11)
        self.piece         = Signal(27)

        self.accept        = Signal()
        self.job           = Signal(2)
        self.vector_blocks = Signal(len(self.blocks))
        self.row_type      = Signal(2)
        self.row_skip      = Signal(bits_for(GROUP_BLOCKS - 1))
        self.row_blocks    = Signal(len(self.blocks))
        self.done          = Signal()

        # # #

        unit_beats  = UNIT_BYTES//beat_bytes   # Beats of a header, or of 16 scales.
        block_beats = max(1, BLOCK//lanes)     # Beats of a block of 4-bit quants; up to 32 lanes twice that for 8-bit ones.
        two_blocks  = lanes > BLOCK            # A beat holds two blocks of 4-bit quants.

        # Header: its first 16 bytes, shifted in, and the word behind them.
        head  = Signal(128)
        shift = Signal()
        word  = Signal()
        self.sync += [
            If(shift, head.eq(sink.data[:128] if two_blocks else Cat(head, sink.data)[beat_bytes*8:])),
            If(word, self.piece.eq(sink.data[128:160] if two_blocks else sink.data[:32])),
        ]
        self.comb += [
            self.type.eq(head[16:18]),
            self.exponent.eq(head[24:30]),
            self.kind.eq(head[32:36]),
            self.layer.eq(head[48:56]),
            self.rows.eq(head[64:83]),
            self.blocks.eq(head[96:107]),
        ]

        # Queues: quants with what the output must know of them, scales one by one.
        pair_field  = [("pair", 1)] if two_blocks else []
        self.quants = quants = stream.SyncFIFO([("q", lanes*4), ("block_last", 1), ("drop", 1), ("has_m", 1), *pair_field],
            quant_beats, buffered=True)
        n_scales      = quant_beats//block_beats*(1 + two_blocks) + 2*GROUP_BLOCKS
        self.d_scales = d_scales = _Scales(lanes, 2*unit_beats, n_scales)
        self.m_scales = m_scales = _Scales(lanes, 2*unit_beats, n_scales)
        self.elements = elements = stream.Converter(beat_bytes*8, 32)

        # Place in the job: beat of a unit or block, block (or unit of a vector's block) of a group, block of a row, row. All
        # count down to 0.
        beat  = Signal(max=8)
        group = Signal(max=GROUP_BLOCKS)
        block = Signal(len(self.blocks))
        row   = Signal(len(self.rows))
        skip  = Signal(len(self.row_skip))     # Blocks to drop before the first.
        ended = Signal()                       # All blocks are in: what follows in this group is padding.
        width = Signal(len(self.blocks))       # Blocks of a row, less 1.
        form  = Signal(2)                      # Type of this job.
        quant = Signal(max=8)                  # Beats of a block, less 1; or blocks of a beat that leave one by one, less 1.
        final = Signal()                       # This block is the last.
        drop  = Signal()
        ends  = Signal()                       # This beat is the last of a block, or a block.
        pair  = Signal()                       # Blocks of this job are taken two by two, and counted so.
        self.comb += [
            quant.eq(Mux(pair | (form == Q8_0), 0, 1) if two_blocks else Mux(form == Q8_0, 2*block_beats - 1, block_beats - 1)),
            final.eq((block == 0) & (row == 0)),
            drop.eq(ended | (skip != 0)),
            ends.eq(1 if two_blocks else beat == 0),
        ]
        pairs  = self.type[1] & ~self.blocks[0] if two_blocks else 0   # (Types of 4 bits: 2 and 3.)
        blocks = Signal(len(self.blocks))                              # Of the next matrix's rows, so counted, less 1.
        self.comb += blocks.eq((Mux(pairs, self.blocks >> 1, self.blocks) if two_blocks else self.blocks) - 1)
        whole_group = Mux(pair, GROUP_BLOCKS//2 - 1, GROUP_BLOCKS - 1) if two_blocks else GROUP_BLOCKS - 1
        next_beat  = NextValue(beat, beat - 1)
        next_block = [NextValue(block, block - 1), If(block == 0, NextValue(block, width), NextValue(row, row - 1))]
        new_unit   = NextValue(beat, unit_beats - 1)

        self.fsm = fsm = FSM(reset_state="IDLE")
        fsm.act("IDLE",
            new_unit,
            NextValue(ended, 0),
            NextValue(pair, 0),
            If(self.accept,
                NextValue(row, 0),
                If(self.job == JOB_VECTOR,
                    NextValue(block, self.vector_blocks - 1),
                    NextValue(group, VECTOR_UNITS - 1),
                    NextState("VECTOR"),
                ).Else(
                    NextValue(form,  self.row_type),
                    NextValue(skip,  self.row_skip),
                    NextValue(block, self.row_blocks - 1),
                    NextValue(group, GROUP_BLOCKS - 1),
                    NextState("D"),
                ),
            ).Elif(self.expect_header & sink.valid,   # Not before: what comes may have no header.
                NextState("PARSE"),
            ))
        fsm.act("PARSE",
            sink.ready.eq(1),
            If(sink.valid,
                next_beat,
                shift.eq(beat >= unit_beats//2),
                word.eq(beat == max(1, unit_beats//2) - 1),
                If(beat == 0, NextState("CHECK")),
            ))
        fsm.act("CHECK",
            If((head[:16] == MATRIX_MAGIC) & (head[18:24] == 0), NextState("WAIT")).Else(NextState("BAD")))
        fsm.act("BAD",
            self.header_valid.eq(1),
            self.bad_magic.eq(1))
        fsm.act("WAIT",
            self.header_valid.eq(1),
            new_unit,
            NextValue(form,  self.type),
            NextValue(skip,  0),
            NextValue(pair,  pairs),
            NextValue(block, blocks),
            NextValue(width, blocks),
            NextValue(row,   self.rows - 1),
            If(self.type == F32, NextValue(group, VECTOR_UNITS - 1)).Else(
                NextValue(group, Mux(pairs, GROUP_BLOCKS//2 - 1, GROUP_BLOCKS - 1) if two_blocks else GROUP_BLOCKS - 1)),
            If(self.accept,
                If(self.type == F32, NextState("VECTOR")).Else(NextState("D")),
            ))
        fsm.act("D",
            sink.connect(d_scales.sink, keep={"valid", "ready"}),
            If(sink.valid & d_scales.sink.ready,
                next_beat,
                If(beat == 0,
                    If(form == Q4_1, new_unit, NextState("M")).Else(NextValue(beat, quant), NextState("Q")),
                ),
            ))
        fsm.act("M",
            sink.connect(m_scales.sink, keep={"valid", "ready"}),
            If(sink.valid & m_scales.sink.ready,
                next_beat,
                If(beat == 0, NextValue(beat, quant), NextState("Q")),
            ))
        fsm.act("Q",
            quants.sink.valid.eq(sink.valid & (~drop | ends)),
            sink.ready.eq(quants.sink.ready & (beat == 0 if two_blocks else 1)),
            If(sink.valid & quants.sink.ready,
                If(beat == 0, NextValue(beat, quant)).Else(next_beat),
                If(ends,
                    NextValue(group, group - 1),
                    If(skip != 0,
                        NextValue(skip, skip - 1),
                    ).Else(
                        *next_block,
                        If(final, NextValue(ended, 1)),
                    ),
                    If(group == 0,
                        NextValue(group, whole_group),
                        new_unit,
                        NextState("D"),
                        If(ended | final, NextState("IDLE")),   # (Never while skipping: skip is less than a group.)
                    ),
                ),
            ))
        fsm.act("VECTOR",
            sink.connect(elements.sink, keep={"valid", "ready"}),
            If(sink.valid & elements.sink.ready,
                next_beat,
                If(beat == 0,
                    new_unit,
                    NextValue(group, group - 1),
                    If(group == 0,
                        NextValue(group, VECTOR_UNITS - 1),
                        *next_block,
                        If(final, NextState("IDLE")),
                    ),
                ),
            ))
        self.comb += [
            d_scales.sink.data.eq(sink.data),
            m_scales.sink.data.eq(sink.data),
            elements.sink.data.eq(sink.data),
            elements.sink.last.eq(final & (group == 0) & (beat == 0)),
            quants.sink.q.eq(sink.data),
            quants.sink.block_last.eq(ends),
            quants.sink.drop.eq(drop),
            quants.sink.has_m.eq(form == Q4_1),
            quants.sink.last.eq(final & ~drop & ends),
        ]
        if two_blocks:
            self.comb += [
                quants.sink.pair.eq(pair),
                If((quant != 0) & (beat == 0), quants.sink.q.eq(sink.data[lanes*2:])),   # Second of two single blocks.
            ]

        # Join quants and scales; a scale stays for all beats of its block.
        self.vector_buffer  = vector_buffer  = stream.Buffer([("data", 32)])
        self.weights_buffer = weights_buffer = stream.Buffer(weights_layout(lanes))
        q, d, m = quants.source, d_scales.source, m_scales.source
        here    = Signal()
        joined  = weights_buffer.sink
        self.comb += [
            here.eq(q.valid & d.valid & (m.valid | ~q.has_m)),
            joined.valid.eq(here & ~q.drop),
            joined.last.eq(q.last),
            joined.q.eq(q.q),
            joined.d.eq(d.data),
            If(q.has_m, joined.m.eq(m.data)),
            joined.block_last.eq(q.block_last),
            q.ready.eq(here & (q.drop | joined.ready)),
            d.ready.eq(q.ready & q.block_last),
            m.ready.eq(d.ready & q.has_m),
            *([joined.pair.eq(q.pair), d_scales.pair.eq(q.pair), m_scales.pair.eq(q.pair)] if two_blocks else []),
            weights_buffer.source.connect(weights),
            elements.source.connect(vector_buffer.sink, omit={"valid_token_count"}),
            vector_buffer.source.connect(vector),
            self.done.eq((weights.valid & weights.ready & weights.last) | (vector.valid & vector.ready & vector.last)),
        ]
