# SPDX-License-Identifier: BSD-2-Clause
"""Activations: fp32 elements to 16-bit block floating point (`LlamaBlockFloat`), and the memories they wait in
(`LlamaActivations`) until the lanes multiply them."""

from functools import reduce
from operator import add

from migen import Array, Cat, Constant, If, Memory, Mux, READ_FIRST, Record, Signal, bits_for, log2_int
from migen.genlib.record import DIR_M_TO_S, DIR_S_TO_M

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import BLOCK, ceil_div, check

MANT_BITS = 16   # Bits of a mantissa, signed.
EXP_BITS  = 8    # Bits of a block's biased exponent.
SUM_BITS  = 21   # Bits of the sum of a block's mantissas, signed.


def write_layout(columns, depth_blocks, step):
    """Write port of LlamaActivations: `step` mantissas of a block at once, then its exponent and sum."""
    fields = [("column", bits_for(columns - 1)), ("block", bits_for(depth_blocks - 1)),
        ("mant_we", 1), ("index", bits_for(BLOCK//step - 1)), ("mant", step*MANT_BITS),
        ("meta_we", 1), ("exp", EXP_BITS), ("sum", SUM_BITS)]
    return [(name, width, DIR_M_TO_S) for name, width in fields]


def read_layout(lanes, columns, depth_blocks, attention_blocks):
    """Read port of LlamaActivations: a word of `lanes` mantissas, and exponent and sum of a block, one clock after their
    addresses. Word address = block*(32/lanes) + word of the block. With 64 lanes the word is that of two blocks, so are
    exponents and sums: first of the block that is addressed, then of the other of its pair (blocks 2n and 2n+1).

    Columns after the first, each with its own addresses (`word1`, `block1` ..), have words of lanes/2 mantissas and no sums.
    """
    ways   = max(1, lanes//BLOCK)
    layout = [("word", bits_for(ceil_div(depth_blocks*BLOCK, lanes) - 1), DIR_M_TO_S), ("block", bits_for(depth_blocks - 1), DIR_M_TO_S),
        ("mant", lanes*MANT_BITS, DIR_S_TO_M), ("exp", ways*EXP_BITS, DIR_S_TO_M), ("sum", ways*SUM_BITS, DIR_S_TO_M)]
    for c in range(1, columns):
        layout += [(f"word{c}", bits_for(2*attention_blocks*BLOCK//lanes - 1), DIR_M_TO_S),
            (f"block{c}", bits_for(attention_blocks - 1), DIR_M_TO_S),
            (f"mant{c}", lanes//2*MANT_BITS, DIR_S_TO_M), (f"exp{c}", EXP_BITS, DIR_S_TO_M)]
    return layout


def of_column(read, name, column):
    """Field `name` of a read port for a column."""
    return getattr(read, f"{name}{column or ''}")


class LlamaActivations(LiteXModule):
    """Activation vectors in block floating point, one memory set per column, block RAM.

    Written by LlamaBlockFloat (`write`: one column at a time, or all of them alike while `broadcast`), read by LlamaMatVec
    (`read`: all columns at once, data one clock later). A block is not read while it is written: the controller starts a
    matrix after the `done` of its vector.

    The first column multiplies every matrix. Those after it only multiply keys and values, of 8 bits and without a minimum, of which
    half as many come in a beat: their words are half as wide, they keep no sums, and only the first `attention_blocks` blocks.

    lanes: mantissas per word. columns: vectors. depth_blocks: blocks of 32 of the first column. attention_blocks: of each column
    after it. step: mantissas written at once, 2, 4 or 8.
    """
    def __init__(self, lanes, columns, depth_blocks, attention_blocks, step=4):
        narrow = lanes//2
        check(2*BLOCK % lanes == 0 and (lanes if columns == 1 else narrow) % step == 0,
            f"lanes is {lanes}, must divide {2*BLOCK} and be a multiple of {step if columns == 1 else 2*step}")
        check(1 <= attention_blocks <= depth_blocks, f"attention_blocks is {attention_blocks}, must be 1 to depth_blocks {depth_blocks}")
        self.lanes, self.columns, self.depth_blocks, self.step = lanes, columns, depth_blocks, step
        self.attention_blocks = attention_blocks
        self.write = write = Record(write_layout(columns, depth_blocks, step))
        self.read  = read  = Record(read_layout(lanes, columns, depth_blocks, attention_blocks))
        self.broadcast     = Signal()

        # # #

        place = Cat(write.index, write.block)
        for c in range(columns):
            width, blocks, ways = (lanes, depth_blocks, max(1, lanes//BLOCK)) if c == 0 else (narrow, attention_blocks, 1)
            info      = [(of_column(read, "exp", c), EXP_BITS), *([(read.sum, SUM_BITS)] if c == 0 else [])]
            meta_bits = sum(bits for _, bits in info)
            parts     = log2_int(width//step)   # Writes per word, as a power of 2.
            other     = log2_int(ways)
            chosen    = self.broadcast | (write.column == c)
            mant = Memory(width*MANT_BITS, ceil_div(blocks*BLOCK, width), name="llama_act_mant" if c == 0 else "llama_act_narrow")
            meta = Memory(ways*meta_bits, ceil_div(blocks, ways), name="llama_act_meta" if c == 0 else "llama_act_exp")
            mant_w = mant.get_port(write_capable=True, we_granularity=step*MANT_BITS if parts else 0, mode=READ_FIRST)
            meta_w = meta.get_port(write_capable=True, we_granularity=meta_bits if ways > 1 else 0, mode=READ_FIRST)
            mant_r = mant.get_port(mode=READ_FIRST)
            meta_r = meta.get_port(mode=READ_FIRST)
            self.specials += mant, meta, mant_w, meta_w, mant_r, meta_r
            self.comb += [
                # Write.
                mant_w.adr.eq(place[parts:]),
                mant_w.dat_w.eq(Cat(*[write.mant]*(width//step))),
                If(write.mant_we & chosen, mant_w.we.eq(1 << place[:parts] if parts else 1)),
                meta_w.adr.eq(write.block[other:]),
                meta_w.dat_w.eq(Cat(*[write.exp, write.sum][:len(info)]*ways)),
                meta_w.we.eq(Mux(write.meta_we & chosen, 1 << write.block[:other] if other else 1, 0)),
                # Read.
                mant_r.adr.eq(of_column(read, "word", c)),
                meta_r.adr.eq(of_column(read, "block", c)[other:]),
            ]
            swap = Signal()   # The block that is wanted is the second of its word.
            if other:
                self.sync += swap.eq(read.block[0])
            for way in range(ways):
                pick = lambda data, width: Mux(swap, data[(way ^ 1)*width:][:width], data[way*width:][:width]) if other else data
                part = width*MANT_BITS//ways
                word = Signal(meta_bits)
                self.comb += [
                    word.eq(pick(meta_r.dat_r, meta_bits)),
                    of_column(read, "mant", c)[way*part:(way + 1)*part].eq(pick(mant_r.dat_r, part)),
                ]
                at = 0
                for field, bits in info:
                    self.comb += field[way*bits:(way + 1)*bits].eq(word[at:at + bits])
                    at        += bits


class _Mantissa(LiteXModule):
    """Mantissa of one element: its 24-bit significand shifted right by 9 + (block exponent - own), halves away from zero.

    Only the upper 16 bits of the significand can matter: 15 and the one that rounds. Latency 4, one a clock.
    """
    latency = 4

    def __init__(self):
        self.element = element = Signal(24)               # fraction[8:23], exponent, sign.
        self.exp     = exp     = Signal(EXP_BITS)         # Of the block.
        self.blank   = blank   = Signal()                 # Element beyond the end of the vector.
        self.mant    = mant    = Signal((MANT_BITS, True))

        # # #

        # Distance to the block's exponent.
        own   = element[15:23]
        delta = Signal(EXP_BITS)
        shift = Signal(4)
        sig   = Signal(16)
        zero  = Signal()
        sign  = Signal(3)
        self.comb += delta.eq(exp - own)
        self.sync += [
            sig.eq(Cat(element[:15], 1)),
            shift.eq(delta[:4]),
            zero.eq(blank | (own == 0) | (delta[4:] != 0)),
            sign.eq(Cat(element[23], sign)),
        ]

        # Shift, round, saturate, sign.
        shifted   = Signal(16)
        magnitude = Signal(16)
        self.sync += [
            shifted.eq(Mux(zero, 0, sig >> shift)),
            magnitude.eq(shifted[1:] + shifted[0]),
            If(shifted == 0xFFFF, magnitude.eq(0x7FFF)),
            If(sign[2], mant.eq(0 - magnitude)).Else(mant.eq(magnitude)),
        ]


class LlamaBlockFloat(LiteXModule):
    """Converts fp32 elements to block floating point as they come (numerics.to_bfp): 16-bit mantissas, rounded half away
    from zero and saturated at +-32,767, one biased exponent per 32, that of the largest element.

    Elements of several columns may interleave in any way. Each column collects its block in one half of a buffer while the
    other half is converted, `step` elements a clock; so one element a clock is taken for ever. The block with a column's
    `last` element may have fewer than 32: zeros complete it. The next `last` of that column may follow 32 clocks later.

    clear: pulse before the first element: addresses start at `base` again, exponents at 0, half-filled blocks are dropped.
    emax:  largest exponent of all columns since `clear`, column_emax that of each: final at `done`.
    done:  pulse after the block with an element marked `last` is stored.
    activations: LlamaActivations that is written; its `step` counts here too.
    Latency from the `last` element to `done`: 32/step + 10 clocks (18 with step 4). Interval 1.
    """
    def __init__(self, lanes, activations):
        check(lanes == activations.lanes, f"lanes is {lanes}, the activation memory has words of {activations.lanes}")
        columns, depth_blocks, step = activations.columns, activations.depth_blocks, activations.step
        self.valid  = Signal()
        self.data   = Signal(32)
        self.column = Signal(3)
        self.last   = Signal()

        self.base        = Signal(bits_for(depth_blocks - 1))
        self.clear       = Signal()
        self.emax        = Signal(EXP_BITS)
        self.column_emax = [Signal(EXP_BITS) for _ in range(columns)]
        self.done        = Signal()

        # # #

        column_bits = bits_for(columns - 1)
        low         = log2_int(step)   # Bits of an element's place in a buffer word.
        parts       = BLOCK//step      # Buffer words per block.

        # Collect: buffer, count, half, largest exponent and block address of each column.
        valid, last = Signal(), Signal()
        data        = Signal(32)
        column      = Signal(column_bits)
        self.sync += [valid.eq(self.valid), data.eq(self.data), column.eq(self.column), last.eq(self.last)]

        counts = Array(Signal(bits_for(BLOCK - 1))        for _ in range(columns))
        halves = Array(Signal()                           for _ in range(columns))
        peaks  = Array(Signal(EXP_BITS)                   for _ in range(columns))
        blocks = Array(Signal(bits_for(depth_blocks - 1)) for _ in range(columns))
        count  = Signal(bits_for(BLOCK - 1))
        half   = Signal()
        known  = Signal(EXP_BITS)
        block  = Signal(bits_for(depth_blocks - 1))
        peak   = Signal(EXP_BITS)
        full   = Signal()
        self.comb += [
            count.eq(counts[column]),
            half.eq(halves[column]),
            known.eq(peaks[column]),
            block.eq(blocks[column]),
            peak.eq(data[23:31]),
            If((count != 0) & (known > data[23:31]), peak.eq(known)),
            full.eq(last | (count == BLOCK - 1)),
        ]
        self.queue = queue = stream.SyncFIFO([("column", column_bits), ("half", 1), ("count", bits_for(BLOCK - 1)),
            ("exp", EXP_BITS), ("block", len(block)), ("end", 1)], max(4, 2*columns))
        request = queue.sink
        self.sync += [
            request.valid.eq(valid & full),
            request.column.eq(column),
            request.half.eq(half),
            request.count.eq(count),
            request.exp.eq(peak),
            request.block.eq(block),
            request.end.eq(last),
            If(valid,
                peaks[column].eq(peak),
                counts[column].eq(count + 1),
                If(full,
                    counts[column].eq(0),
                    halves[column].eq(~half),
                    blocks[column].eq(block + 1),
                ),
            ),
            If(request.valid & (request.exp > self.emax), self.emax.eq(request.exp)),
            If(self.clear,
                self.emax.eq(0),
                [c.eq(0) for c in counts],
                [b.eq(self.base) for b in blocks],
            ),
        ]
        for c, emax in enumerate(self.column_emax):
            self.sync += [
                If(request.valid & (request.column == c) & (request.exp > emax), emax.eq(request.exp)),
                If(self.clear, emax.eq(0)),
            ]

        # Only what a mantissa needs is kept: sign, exponent, 15 bits of fraction.
        buffer   = Memory(24*step, columns*2*parts, name="llama_bfp_buffer")
        buffer_w = buffer.get_port(write_capable=True, we_granularity=24, mode=READ_FIRST)
        buffer_r = buffer.get_port(mode=READ_FIRST)
        self.specials += buffer, buffer_w, buffer_r
        self.comb += [
            buffer_w.adr.eq(Cat(count[low:], half, column)),
            buffer_w.dat_w.eq(Cat(*[data[8:]]*step)),
            If(valid, buffer_w.we.eq(1 << count[:low])),
        ]

        # Convert: a queued block is read in `parts` clocks; the next follows without a gap.
        ready = queue.source
        index = Signal(bits_for(parts - 1))
        self.comb += [
            buffer_r.adr.eq(Cat(index, ready.half, ready.column)),
            ready.ready.eq(index == parts - 1),
        ]
        self.sync += If(ready.valid, index.eq(index + 1))

        # Two clocks to the registered buffer word, then the mantissas, then the sum of `step` of them.
        layout = [("valid", 1), ("index", len(index)), ("column", column_bits), ("block", len(block)), ("exp", EXP_BITS),
            ("count", len(count)), ("stop", 1), ("end", 1)]
        stages = [Record(layout) for _ in range(2 + _Mantissa.latency + 2)]
        self.comb += [
            stages[0].valid.eq(ready.valid),
            stages[0].index.eq(index),
            stages[0].stop.eq(index == parts - 1),
            *[getattr(stages[0], name).eq(getattr(ready, name)) for name in ("column", "block", "exp", "count", "end")],
        ]
        self.sync += [after.eq(before) for before, after in zip(stages, stages[1:])]
        word = Signal(24*step)
        self.sync += word.eq(buffer_r.dat_r)
        mants = []
        for i in range(step):
            mantissa = _Mantissa()
            self.submodules += mantissa
            self.comb += [
                mantissa.element.eq(word[24*i:24*(i + 1)]),
                mantissa.exp.eq(stages[2].exp),
                mantissa.blank.eq(Cat(Constant(i, low), stages[2].index) > stages[2].count),
            ]
            mants.append(mantissa.mant)

        # Store: the mantissas, and with the last of a block its exponent and sum.
        at      = stages[-1]
        partial = Signal((MANT_BITS + log2_int(step), True))
        total   = Signal((SUM_BITS, True))
        sums    = Signal((SUM_BITS, True))
        write   = Record(write_layout(columns, depth_blocks, step))
        self.comb += write.connect(activations.write)
        self.sync += [
            write.mant.eq(Cat(*mants)),
            partial.eq(reduce(add, mants)),
            If(at.valid, total.eq(sums)),
            self.done.eq(at.valid & at.stop & at.end),
        ]
        self.comb += [
            If(at.index == 0, sums.eq(partial)).Else(sums.eq(total + partial)),
            write.column.eq(at.column),
            write.block.eq(at.block),
            write.mant_we.eq(at.valid),
            write.index.eq(at.index),
            write.meta_we.eq(at.valid & at.stop),
            write.exp.eq(at.exp),
            write.sum.eq(sums),
        ]
