# SPDX-License-Identifier: BSD-2-Clause
"""The engine of everything that streams: rows of quantised blocks times activation vectors."""

from functools import reduce
from operator import add

from migen import Array, Cat, If, Memory, Mux, READ_FIRST, Record, Signal, bits_for, log2_int

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .bfp import EXP_BITS, MANT_BITS, SUM_BITS, of_column
from .config import BLOCK, check
from .fp import LlamaFixedToFP, delay
from .image import Q4_1, Q8_0
from .lanes import DOT_BITS, SCALE_BITS, LlamaDot, LlamaQuants, LlamaScale
from .numerics import GUARD
from .unpack import weights_layout

RESULTS  = 32                                            # Results that may be on their way or waiting.
ACC_BITS = DOT_BITS - 1 + SCALE_BITS - 1 + GUARD + 12    # 1,024 blocks of two terms, signed: 58.


class _Factor(LiteXModule):
    """fp16 scale to signed mantissa and `gap`, how far its exponent is below the accumulator's reference. Latency 1.

    reach: the reference + 25, the exponent field that would have no gap.
    """
    def __init__(self, scale, reach):
        self.mantissa = Signal((SCALE_BITS, True))
        self.gap      = Signal(6)

        # # #

        field     = scale[10:15]
        magnitude = Signal(SCALE_BITS - 1)
        self.comb += magnitude.eq(Cat(scale[:10], field != 0))
        self.sync += [
            If(scale[15], self.mantissa.eq(0 - magnitude)).Else(self.mantissa.eq(magnitude)),
            self.gap.eq(reach - Mux(field == 0, 1, field)),
        ]


class LlamaMatVec(LiteXModule):
    """Matrix times `columns` activation vectors: fp32 rows, bit for bit numerics.matvec.

    start: pulse while `ready_for_start`, samples the job's parameters: rows, blocks (per row), turns, type, exponent (the
    accumulator's reference), base (first block of the vectors in the activation memory) and column_blocks (blocks from one
    column's vector to the next's), emax (of each column's vector), n_columns (results per row), by_column, kind (passed on).
    ready_for_start comes back when all weight beats of the job were taken, while its last rows are still on their way. done:
    pulse when the job's last result was taken.

    turns: a matrix that comes in vertical strips, as values do, tile by tile: `rows` rows of `blocks` blocks, then the same
    rows' next `blocks` blocks, and so on, `turns` times. Their sums wait in a memory of `turn_rows` rows from turn to turn;
    such a job has 8 rows or more. by_column: results leave column by column instead of row by row.

    sink:   weight beats (unpack.weights_layout), one a clock.
    source: fp32 rows in order, the columns of a row one after the other (by_column: all rows of column 0, then all of column
    1 ..); `last` on the last of the job.
    The array never stalls; a row's last beat is only taken when there is room for its results. A row may be one beat long:
    rows then leave as fast as beats come, as long as the consumer takes n_columns results per row.

    Columns after the first only count in jobs of 8 bits without a minimum (Q8_0): keys and values.

    64 lanes are two ways of 32, with scales of their own, for the two blocks of a `pair` (unpack.weights_layout); its job has
    n_columns 1, rows of an even number of blocks and an even base.

    Data flow: quants to integers, products, adder tree; sum of a block's beats; times d (the block's activation sum times
    m); aligned; sum over the row's blocks; rounded to fp32.
    Latency from a row's last beat to its first result: 17 + log2(lanes) clocks (22 with 32 lanes). Interval 1.
    """
    def __init__(self, lanes, columns, activations, turn_rows=BLOCK):
        check((lanes, columns) == (activations.lanes, activations.columns), f"{lanes} lanes and {columns} columns, the "
            f"activation memory has {activations.lanes} and {activations.columns}")
        self.sink   = sink   = stream.Endpoint(weights_layout(lanes))
        self.source = source = stream.Endpoint([("data", 32), ("kind", 4), ("column", 3)])

        self.start           = Signal()
        self.ready_for_start = Signal()
        self.done            = Signal()
        self.rows            = Signal(19)
        self.blocks          = Signal(11)
        self.turns           = Signal(13, reset=1)
        self.type            = Signal(2)
        self.exponent        = Signal((6, True))
        self.base            = Signal(bits_for(activations.depth_blocks - 1))
        self.column_blocks   = Signal(4)
        self.emax            = [Signal(EXP_BITS) for _ in range(columns)]
        self.n_columns       = Signal(bits_for(columns), reset=columns)
        self.by_column       = Signal()
        self.kind            = Signal(4)

        # # #

        ways = max(1, lanes//BLOCK)
        read = Record(activations.read.layout)
        self.comb += read.connect(activations.read)

        # Job, as sampled at start; `reach` see _Factor.
        running   = Signal()
        rows      = Signal(len(self.rows))     # Less 1.
        blocks    = Signal(len(self.blocks))   # Less 1.
        type      = Signal(2)
        emax      = Signal(EXP_BITS*columns)
        reach     = Signal(6)
        n_columns = Signal(len(self.n_columns))
        by_column = Signal()
        draining  = Signal()                   # A job by columns has its other columns still to come.
        kind      = Signal(4)
        started   = Signal()
        self.sync += [
            started.eq(self.start),
            If(self.start,
                rows.eq(self.rows - 1),
                blocks.eq(self.blocks - 1),
                type.eq(self.type),
                emax.eq(Cat(*self.emax)),
                reach.eq(self.exponent[:6] + 25),
                n_columns.eq(self.n_columns),
                by_column.eq(self.by_column),
                draining.eq(self.by_column & (self.n_columns != 1)),
                kind.eq(self.kind),
            )
        ]

        # Place in the job: half of a word (8-bit quants), block of the row, row and turn (these count down); word and block of
        # each column's vector, and where its row begins.
        half       = Signal()
        first_beat, first_block = Signal(reset=1), Signal(reset=1)
        block_left = Signal(len(blocks))
        row_left   = Signal(len(self.rows))
        turn_left  = Signal(len(self.turns))
        later      = Signal()                  # This is not the first turn.
        hold       = Signal()                  # This is not the last turn.
        pair       = Signal()                  # This beat holds two blocks.
        step       = Cat(~pair, pair)          # Blocks of a beat, where it is the last of its block.
        take, row_end, turn_end, may_end = Signal(), Signal(), Signal(), Signal()
        self.comb += [
            hold.eq(turn_left != 0),
            pair.eq(sink.pair if ways > 1 else 0),
            row_end.eq(sink.block_last & (block_left == pair)),
            turn_end.eq(row_end & (row_left == 0)),
            sink.ready.eq(running & (may_end | ~row_end)),
            take.eq(sink.valid & sink.ready),
        ]
        self.sync += [
            If(take,
                half.eq((type == Q8_0) & ~half & (ways == 1)),
                first_beat.eq(sink.block_last),
                If(sink.block_last,
                    block_left.eq(block_left - step),
                    first_block.eq(row_end),
                ),
                If(row_end,
                    block_left.eq(blocks),
                    row_left.eq(row_left - 1),
                    If(row_left == 0,
                        row_left.eq(rows), turn_left.eq(turn_left - 1), later.eq(1),
                        If(~hold, running.eq(0)),
                    ),
                ),
            ),
            If(self.start,
                running.eq(1),
                block_left.eq(self.blocks - 1),
                row_left.eq(self.rows - 1),
                turn_left.eq(self.turns - 1),
                later.eq(0),
            ),
        ]
        for c in range(columns):
            to_word, to_block = (of_column(read, name, c) for name in ("word", "block"))
            words             = log2_int(max(1, BLOCK//lanes if c == 0 else 2*BLOCK//lanes))   # Of a block, as a power of 2.
            word, block, base, first = (Signal(n) for n in (len(to_word), *[len(to_block)]*3))
            self.comb += [
                to_word.eq(block[1:] if c == 0 and ways > 1 else word),
                to_block.eq(block),
                first.eq(self.base + sum(self.column_blocks << i for i in range(3) if c >> i & 1)),
            ]
            self.sync += [
                If(take,
                    If((type != Q8_0) | half if c == 0 else 1, word.eq(word + 1)),
                    If(sink.block_last, block.eq(block + step)),
                    If(turn_end, base.eq(block + step)).Elif(row_end, word.eq(base << words), block.eq(base)),
                ),
                If(self.start, word.eq(first << words), block.eq(first), base.eq(first)),
            ]

        # What each stage knows of its beat.
        layout = [("valid", 1), ("first_beat", 1), ("last_beat", 1), ("first_block", 1), ("row", 1), ("turn", 1), ("job", 1),
            ("later", 1), ("hold", 1), ("by_column", 1)]
        stages = [Record(layout)]
        def stage(n):
            """Record of the beat that is n registers behind the sink."""
            while len(stages) <= n:
                stages.append(Record(layout))
                self.sync += stages[-1].eq(stages[-2])
            return stages[n]
        self.comb += [
            stages[0].valid.eq(take),
            stages[0].first_beat.eq(first_beat),
            stages[0].last_beat.eq(sink.block_last),
            stages[0].first_block.eq(first_block),
            stages[0].row.eq(row_end),
            stages[0].turn.eq(turn_end),
            stages[0].job.eq(turn_end & ~hold),
            stages[0].later.eq(later),
            stages[0].hold.eq(hold),
            stages[0].by_column.eq(by_column),
        ]

        # 1: beat registered, block RAM read. 2: weights, scale factors, activations. Of a block, only what comes with its
        # last beat counts. The job's parameters cannot change before its last beat has left stage 1.
        self.quants = quants = LlamaQuants(lanes)
        factors = []                           # Of each way: d, m.
        for way in range(ways):
            scales = sink.d[16*way:16*way + 16], sink.m[16*way:16*way + 16]
            there  = (type == Q4_1) & (pair if way else 1)
            d, m   = _Factor(delay(self, scales[0], 1), reach), _Factor(delay(self, Mux(there, scales[1], 0), 1), reach)
            self.submodules += d, m
            factors.append((d, m))
        self.comb += [
            quants.q.eq(delay(self, sink.q, 1)),
            quants.type.eq(type),
            quants.upper.eq(delay(self, half, 1)),
            quants.pair.eq(delay(self, pair, 1)),
        ]
        sums, emax_2 = (delay(self, s, 1) for s in (read.sum, emax))

        accs, sums_read, sums_written = [], [], []
        for c in range(columns):
            terms     = []
            mant, exp = (delay(self, of_column(read, name, c), 1) for name in ("mant", "exp"))
            for way in range(ways if c == 0 else 1):
                # Dot product of a beat, summed over the beats of its block. (Columns after the first: of bytes, so half as many.)
                n       = lanes//ways if c == 0 else lanes//2
                weights = quants.weights[way*n:(way + 1)*n] if c == 0 else quants.bytes
                dot     = LlamaDot(n, weights, mant[way*n*MANT_BITS:(way + 1)*n*MANT_BITS], latency=1 + log2_int(lanes//ways))
                self.submodules += dot
                at_dot = 2 + dot.latency
                so_far = Signal((DOT_BITS, True))
                p      = Signal((DOT_BITS, True))
                self.comb += If(~stage(at_dot).first_beat, so_far.eq(p))
                self.sync += If(stage(at_dot).valid, p.eq(so_far + dot.sum))
                at_p = at_dot + 1

                # Alignment: how far scale and block exponent are below the reference, 63 for all that is further.
                distance = Signal(EXP_BITS)
                self.sync += distance.eq(emax_2[c*EXP_BITS:(c + 1)*EXP_BITS] - exp[way*EXP_BITS:(way + 1)*EXP_BITS])
                d, m = factors[way]
                for factor, value in ((d, p), (m, sums[way*SUM_BITS:(way + 1)*SUM_BITS]))[:2 if c == 0 else 1]:
                    scale = LlamaScale(DOT_BITS if factor is d else SUM_BITS)
                    self.submodules += scale
                    total = Signal(EXP_BITS + 1)
                    shift = Signal(6)
                    self.comb += total.eq(distance + delay(self, factor.gap, 1))
                    self.sync += If(total[6:] != 0, shift.eq(63)).Else(shift.eq(total[:6]))
                    self.comb += [
                        scale.value.eq(value if factor is d else delay(self, value, at_p - 2)),
                        scale.mantissa.eq(delay(self, factor.mantissa, at_p - 2)),
                        scale.shift.eq(delay(self, shift, at_p - 4)),
                    ]
                    terms.append(scale.term)
            # Sum of d's and m's term, and of both ways.
            at_sum = at_p + LlamaScale.latency + 1
            totals = [Signal((len(terms[0]) + 1, True)) for _ in terms[::2]]
            self.sync += [t.eq(reduce(add, terms[2*i:2*i + 2])) for i, t in enumerate(totals)]
            term   = totals[0]
            if ways > 1:
                at_sum += 1
                term    = Signal((len(totals[0]) + 1, True))
                self.sync += term.eq(reduce(add, totals))

            # Sum of the row, and of its parts in the turns before.
            memory  = Memory(ACC_BITS, turn_rows, name="llama_row_sums")
            read_p  = memory.get_port(mode=READ_FIRST)
            write_p = memory.get_port(write_capable=True, mode=READ_FIRST)
            self.specials += memory, read_p, write_p
            before  = Signal((ACC_BITS, True))
            row_sum = Signal((ACC_BITS, True))
            acc     = Signal((ACC_BITS, True))
            self.sync += before.eq(read_p.dat_r)
            self.comb += [
                If(~stage(at_sum).first_block, row_sum.eq(acc)).Elif(stage(at_sum).later, row_sum.eq(before)),
                write_p.dat_w.eq(acc),
            ]
            self.sync += If(stage(at_sum).valid & stage(at_sum).last_beat, acc.eq(row_sum + term))
            accs.append(acc)
            sums_read.append((read_p.adr, before))
            sums_written.append((write_p.adr, write_p.we))
        asked, ended = stage(at_sum - 2), stage(at_sum + 1)

        # What a job's results need to know of it waits here until its last result.
        self.jobs = jobs = stream.SyncFIFO([("kind", 4), ("n_columns", len(n_columns)), ("exponent", columns*12)], 8)
        bias = Signal(12)
        self.comb += [
            bias.eq(reach - (25 + 141 + GUARD)),
            jobs.sink.valid.eq(started),
            jobs.sink.kind.eq(kind),
            jobs.sink.n_columns.eq(n_columns),
            *[jobs.sink.exponent[12*c:12*(c + 1)].eq(bias + emax[EXP_BITS*c:EXP_BITS*(c + 1)]) for c in range(columns)],
            self.ready_for_start.eq(~running & ~started & ~draining & jobs.sink.ready),
        ]

        # Rows whose sums are read, and written; or, at the end of a job by columns, read again: `drained` two clocks later.
        read_row, write_row = Signal(max=turn_rows), Signal(max=turn_rows)
        drain, drain_next   = Signal(), Signal()
        drain_column        = Signal(max=max(2, columns))
        drain_final         = Signal()
        n = jobs.source.n_columns
        self.comb += [
            [adr.eq(read_row) for adr, _ in sums_read],
            [adr.eq(write_row) for adr, _ in sums_written],
            [we.eq(ended.valid & ended.row & (ended.hold | ended.by_column)) for _, we in sums_written],
            drain_final.eq((read_row == rows[:len(read_row)]) & (drain_column == n - 1)),
        ]
        self.sync += [
            If(asked.valid & asked.row, If(asked.turn, read_row.eq(0)).Else(read_row.eq(read_row + 1))),
            If(ended.valid & ended.row, If(ended.turn, write_row.eq(0)).Else(write_row.eq(write_row + 1))),
            If(ended.valid & ended.job & ended.by_column & (n != 1), drain.eq(1), drain_column.eq(1)),
            If(drain_next,
                If(read_row == rows[:len(read_row)], read_row.eq(0), drain_column.eq(drain_column + 1)).Else(
                    read_row.eq(read_row + 1)),
                If(drain_final, drain.eq(0)),
            ),
        ]
        drained, drained_last = Signal(), Signal()
        drained_column        = delay(self, drain_column, 2)
        self.comb += [
            drained.eq(delay(self, drain_next, 2, reset_less=False)),
            drained_last.eq(delay(self, drain_final, 2)),
        ]

        # Columns of a finished row one after the other: the first as it ends, the others held.
        self.fp  = fp = LlamaFixedToFP(ACC_BITS)
        column   = Signal(max(1, bits_for(columns - 1)))
        held     = [Signal((ACC_BITS, True)) for _ in accs[1:]]
        held_job = Signal()
        row_out  = Signal()
        spread   = Signal()   # This row has other columns to come now.
        out      = Signal()
        chosen   = Signal(len(column))
        final    = Signal()
        self.comb += [
            row_out.eq(ended.valid & ended.row & ~ended.hold),
            spread.eq(~ended.by_column & (n != 1)),
            out.eq(row_out | (column != 0) | drained),
            chosen.eq(Mux(drained, drained_column, column)),
            final.eq((row_out & ended.job & (n == 1)) | ((column != 0) & (column == n - 1) & held_job) |
                (drained & drained_last)),
            jobs.source.ready.eq(final),
            fp.value.eq(Mux(drained, Array([b for _, b in sums_read])[chosen], Array([accs[0], *held])[chosen])),
            fp.exponent.eq(Array([jobs.source.exponent[12*c:12*(c + 1)] for c in range(columns)])[chosen]),
        ]
        self.sync += [
            If(row_out & spread, column.eq(1)).Elif(column == n - 1, column.eq(0)).Elif(column != 0, column.eq(column + 1)),
            If(row_out, held_job.eq(ended.job), *[h.eq(acc) for h, acc in zip(held, accs[1:])]),
            If(drained & drained_last, draining.eq(0)),
        ]

        # Results wait for their consumer. `free` counts what is not taken by a result here or on its way; rows end no faster
        # than their columns leave.
        self.results = results = stream.SyncFIFO(source.description, RESULTS)
        free    = Signal(bits_for(RESULTS), reset=RESULTS)
        spacing = Signal(len(column))
        self.comb += [
            results.sink.valid.eq(delay(self, out, fp.latency, reset_less=False)),
            results.sink.data.eq(fp.y),
            results.sink.kind.eq(delay(self, jobs.source.kind, fp.latency)),
            results.sink.column.eq(delay(self, chosen, fp.latency)),
            results.sink.last.eq(delay(self, final, fp.latency)),
            results.source.connect(source),
            self.done.eq(source.valid & source.ready & source.last),
            may_end.eq((free >= n_columns) & (spacing == 0)),
        ]
        ends, leaves = Signal(), Signal()
        self.comb += [
            ends.eq(take & row_end & ~hold),
            leaves.eq(source.valid & source.ready),
            drain_next.eq(drain & (free != 0)),
        ]
        self.sync += [
            free.eq(free - Mux(ends, Mux(by_column, 1, n_columns), 0) - drain_next + leaves),
            If(ends & ~by_column, spacing.eq(n_columns - 1)).Elif(spacing != 0, spacing.eq(spacing - 1)),
        ]
