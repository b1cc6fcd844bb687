# SPDX-License-Identifier: BSD-2-Clause
"""The memories of keys and values and the one module that owns them: the whole cache on chip, or a tile of one in DRAM."""

from migen import *
from migen.fhdl.specials import READ_FIRST

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import BLOCK, LIMITS, check
from .numerics import FP16_ONE
from .unpack import weights_layout

CONTEXT_BITS     = bits_for(LIMITS["context"])
HEAD_BLOCKS_BITS = bits_for(LIMITS["head_dim"]//BLOCK)
BLOCK_COUNT_BITS = bits_for(LIMITS["context"]*LIMITS["head_dim"]//BLOCK)
ADDRESS_BITS     = 30   # Of a byte of the keys, or of the values, of a whole cache.
SCALE_BITS       = 24   # Of a scale of the keys, or of the values, of a whole cache.
FIFO_BEATS       = 8    # Covers the four clocks from issuing a read to getting its place back, twice.


# What a beat that streams in from DRAM is.
FILL_KEY_SCALES, FILL_VALUE_SCALES, FILL_KEYS, FILL_VALUES = range(4)


def add_write_signals(module, address_bits=ADDRESS_BITS, scale_bits=SCALE_BITS):
    """Give `module` the signals by which new keys and values are written, a byte and a scale a clock: write_values (of values,
    else of keys), write_valid, write_address, write_data, write_scale_valid, write_scale_address, write_scale."""
    for name, bits in (("values", 1), ("valid", 1), ("address", address_bits), ("data", 8), ("scale_valid", 1),
            ("scale_address", scale_bits), ("scale", 16)):
        setattr(module, f"write_{name}", Signal(bits, name=f"write_{name}"))


class LlamaKVRam(LiteXModule):
    """One memory of keys or of values: int8 bytes, and one fp16 scale per position of each head.

    True dual port. Port A reads whole beats, and scales, with data one clock after the address (register it before logic).
    Port B writes parts of `written` and `written_scales`: single bytes and scales in their places, or whole beats and pairs of
    scales that stream in (`fill`). While it does not, it reads for the debug window: the 32-bit word debug_index of the bytes,
    or that scale, two clocks later. A byte must not be written in the clock in which its beat is read.

    beat_bytes: bytes of a beat, 4, 8, 16, 32. depth_bytes: capacity. n_scales: scales. name: of the memories, "llama_...".
    """
    def __init__(self, beat_bytes, depth_bytes, n_scales, name):
        check(beat_bytes in (4, 8, 16, 32), f"beat_bytes is {beat_bytes}, must be 4, 8, 16 or 32")
        n_beats = depth_bytes//beat_bytes

        # Port A.
        self.beat_address  = Signal(max=n_beats)
        self.beat_data     = Signal(8*beat_bytes)
        self.scale_address = Signal(max=n_scales)
        self.scale_enable  = Signal(reset=1)
        self.scale_data    = Signal(16)
        # Port B.
        self.written             = Signal(8*beat_bytes)
        self.written_scales      = Signal(32)
        self.write_valid         = Signal()
        self.write_address       = Signal(max=depth_bytes)
        self.write_scale_valid   = Signal()
        self.write_scale_address = Signal(max=n_scales)
        self.fill_valid          = Signal()
        self.fill_address        = Signal(max=n_beats)
        self.fill_scale_valid    = Signal()
        self.fill_scale_address  = Signal(max=n_scales//2)   # Of a pair.
        self.debug_index         = Signal(max=max(depth_bytes//4, n_scales))
        self.debug_data          = Signal(32)
        self.debug_scale         = Signal(16)

        # # #

        # Bytes.
        memory  = Memory(8*beat_bytes, n_beats, name=name)
        a       = memory.get_port(mode=READ_FIRST)
        b       = memory.get_port(write_capable=True, we_granularity=8, mode=READ_FIRST)
        in_beat = log2_int(beat_bytes)
        self.specials += memory, a, b
        self.comb += [
            a.adr.eq(self.beat_address),
            self.beat_data.eq(a.dat_r),
            b.adr.eq(self.debug_index[in_beat - 2:]),
            b.dat_w.eq(self.written),
            If(self.fill_valid, b.adr.eq(self.fill_address), b.we.eq(2**beat_bytes - 1)),
            If(self.write_valid,
                b.adr.eq(self.write_address[in_beat:]),
                [b.we[i].eq(self.write_address[:in_beat] == i) for i in range(beat_bytes)],
            ),
        ]

        # Scales, two to a word.
        scales  = Memory(32, n_scales//2, name=name + "_scales")
        scale_a = scales.get_port(has_re=True, mode=READ_FIRST)
        scale_b = scales.get_port(write_capable=True, we_granularity=16, mode=READ_FIRST)
        upper   = Signal()
        self.specials += scales, scale_a, scale_b
        self.comb += [
            scale_a.adr.eq(self.scale_address[1:]), scale_a.re.eq(self.scale_enable),
            self.scale_data.eq(Mux(upper, scale_a.dat_r[16:], scale_a.dat_r[:16])),
            scale_b.adr.eq(self.debug_index[1:]), scale_b.dat_w.eq(self.written_scales),
            If(self.fill_scale_valid, scale_b.adr.eq(self.fill_scale_address), scale_b.we.eq(3)),
            If(self.write_scale_valid,
                scale_b.adr.eq(self.write_scale_address[1:]), scale_b.we.eq(Mux(self.write_scale_address[0], 2, 1))),
        ]
        self.sync += If(self.scale_enable, upper.eq(self.scale_address[0]))

        # Debug: a 32-bit word of the beat, a scale of the pair.
        word, scale = Signal(max=max(2, beat_bytes//4)), Signal()
        if beat_bytes > 4:
            self.sync += word.eq(self.debug_index[:in_beat - 2])
        self.sync += [
            scale.eq(self.debug_index[0]),
            Case(word, {i: self.debug_data.eq(b.dat_r[32*i:32*(i + 1)]) for i in range(beat_bytes//4)}),
            self.debug_scale.eq(Mux(scale, scale_b.dat_r[16:], scale_b.dat_r[:16])),
        ]


class LlamaKVOwner(LiteXModule):
    """Owns keys and values: the only module that touches their memories.

    Layout of a cache, on chip and in DRAM alike, for a head of hd = head_blocks*32 bytes whose region starts at byte `base` and
    at scale `sbase`: byte i of the key of position t is at base + t*hd + i; of its value, in tiles of 32 positions that are
    transposed, at base + (t//32)*hd*32 + i*32 + t%32; both scales at sbase + t. So both are read as one linear run.

    On chip (`streamed` low) the memories hold all layers and heads. In DRAM (`streamed`) they are the tile that the cache
    streams through: `fill` brings, per read job, the scales of the keys, those of the values (these two from their memories'
    start on), the keys, the values, each with `last` on its last beat; keys and values run round their memories, and a
    read job waits for the beats it needs. scales_free: pulse when the scales of a head are no longer needed; those of the
    next wait for it. restart: pulse before a pass; empties the tile.

    Read job: start with base, sbase, row_blocks (blocks of a key), and a clock later with read_values and n_blocks (of the whole
    run); all are stable from then until done.
    `source` then carries the beats of an 8-bit matrix as LlamaUnpack would, `last` on its last beat:
    - keys: a row of row_blocks blocks per position, d = the position's scale;
    - values: per tile hd rows of one block, d = 1.0: their scales are in the probabilities (LlamaSoftmax). Bytes beyond
      the last position are whatever is stored; the probabilities there are zero.
    done: one-cycle pulse when the last beat has been taken. Latency: 5 clocks from start to the first beat. Interval: 1
    clock, also from row to row.

    Writes (add_write_signals, by LlamaKVQuantise, on chip only).
    conflict: a beat or scale is written in the clock in which the job reads it; never happens, because the controller reads
    after the quantiser's done, and a tile's beat is read after it came. LlamaSoftmax reads the value scales by value_scale_*
    (data one clock after the address).
    Debug window, while nothing is written: two clocks after debug_index the word of keys, values (32 bits), the key scale and
    the value scale (16 bits) of that number.
    """
    def __init__(self, config):
        beat_bytes  = config.beat_bytes
        n_beats     = config.kv_bytes//beat_bytes
        self.keys   = keys   = LlamaKVRam(beat_bytes, config.kv_bytes, config.kv_scales, "llama_keys")
        self.values = values = LlamaKVRam(beat_bytes, config.kv_bytes, config.kv_scales, "llama_values")

        # Read job.
        self.start       = Signal()
        self.done        = Signal()
        self.busy        = Signal()
        self.read_values = Signal()
        self.base        = Signal(max=config.kv_bytes)
        self.sbase       = Signal(max=config.kv_scales)
        self.row_blocks  = Signal(HEAD_BLOCKS_BITS)
        self.n_blocks    = Signal(BLOCK_COUNT_BITS)
        self.source      = source = stream.Endpoint(weights_layout(config.lanes))

        # Tile.
        self.streamed    = Signal()
        self.restart     = Signal()
        self.scales_free = Signal()
        self.fill        = fill = stream.Endpoint([("data", 8*beat_bytes), ("kind", 2)])

        # Writes.
        add_write_signals(self, bits_for(config.kv_bytes - 1), bits_for(config.kv_scales - 1))
        self.conflict            = Signal()

        # Value scales, debug window.
        self.value_scale_address = values.scale_address
        self.value_scale_enable  = values.scale_enable
        self.value_scale_data    = values.scale_data
        self.debug_index         = Signal(max=max(config.kv_bytes//4, config.kv_scales))
        self.debug_keys          = keys.debug_data
        self.debug_values        = values.debug_data
        self.debug_key_scales    = keys.debug_scale
        self.debug_value_scales  = values.debug_scale

        # # #

        # Beats that stream in; those of scales pair by pair. `held`: the scales in the memories are still needed.
        in_beat    = log2_int(beat_bytes)
        held       = Signal()
        scale_pair = Signal.like(keys.fill_scale_address)
        pair_last  = Signal()   # Of its beat.
        issue      = Signal()
        filled, room, there = [], [], []   # Of keys, of values: a beat is stored; one more can be; there is one to read.
        for ram, chosen, kind in ((keys, ~self.read_values, FILL_KEYS), (values, self.read_values, FILL_VALUES)):
            level = Signal(max=n_beats + 1)
            into  = Signal(max=n_beats)
            stored, taken = Signal(), Signal()
            self.comb += [
                stored.eq(fill.valid & fill.ready & (fill.kind == kind)),
                taken.eq(issue & chosen & self.streamed),
                ram.fill_valid.eq(stored), ram.fill_address.eq(into), ram.fill_scale_address.eq(scale_pair),
            ]
            self.sync += [
                level.eq(level + stored - taken), into.eq(into + stored),
                If(self.restart, level.eq(0), into.eq(0)),
            ]
            filled.append(stored)
            room.append(level != n_beats)
            there.append(level != 0)
        scale_fill = Signal()
        pairs      = [fill.data[32*i:32*(i + 1)] for i in range(beat_bytes//4)]
        pair       = scale_pair[:log2_int(len(pairs))] if len(pairs) > 1 else Constant(0)
        self.comb += [
            pair_last.eq(pair == len(pairs) - 1),
            scale_fill.eq((fill.kind == FILL_KEY_SCALES) | (fill.kind == FILL_VALUE_SCALES)),
            fill.ready.eq(Array([~held & pair_last]*2 + room)[fill.kind]),
            keys.fill_scale_valid.eq(fill.valid & ~held & (fill.kind == FILL_KEY_SCALES)),
            values.fill_scale_valid.eq(fill.valid & ~held & (fill.kind == FILL_VALUE_SCALES)),
        ]
        self.sync += [
            If(fill.valid & scale_fill & ~held,
                scale_pair.eq(scale_pair + 1),
                If(fill.last & pair_last, scale_pair.eq(0), held.eq(fill.kind == FILL_VALUE_SCALES)),
            ),
            If(self.scales_free | self.restart, held.eq(0)),
            If(self.restart, scale_pair.eq(0)),
        ]

        # Addresses, one beat a clock while its result has a place in the FIFO.
        block_beats = BLOCK//beat_bytes
        load        = Signal()   # Parameters are stable, so one clock after start they are right.
        reading     = Signal()
        space       = Signal(max=FIFO_BEATS + 1, reset=FIFO_BEATS)
        beat        = Signal(max=max(2, block_beats))
        left        = Signal(BLOCK_COUNT_BITS)
        block       = Signal(HEAD_BLOCKS_BITS)
        scale       = Signal.like(keys.scale_address)
        block_last  = Signal()
        row_last    = Signal()
        last        = Signal()
        taken       = Signal()
        self.comb += [
            issue.eq(reading & (space != 0) & (~self.streamed | Mux(self.read_values, there[1], there[0]))),
            block_last.eq(beat == block_beats - 1),
            row_last.eq(block_last & (block == 0)),
            last.eq(block_last & (left == 0)),
            keys.scale_address.eq(scale),
        ]
        self.sync += [
            load.eq(self.start),
            If(load,
                reading.eq(1), beat.eq(0), block.eq(self.row_blocks - 1), left.eq(self.n_blocks - 1),
                scale.eq(Mux(self.streamed, 0, self.sbase)),
            ).Elif(issue,
                beat.eq(beat + 1 if block_beats > 1 else 0),
                If(block_last, block.eq(block - 1), left.eq(left - 1)),
                If(row_last, block.eq(self.row_blocks - 1), scale.eq(scale + 1)),
                If(last, reading.eq(0)),
            ),
            space.eq(space + taken - issue),
        ]
        for ram, chosen in ((keys, ~self.read_values), (values, self.read_values)):
            self.sync += [
                If(self.restart, ram.beat_address.eq(0)
                ).Elif(load & chosen & ~self.streamed, ram.beat_address.eq(self.base[in_beat:])
                ).Elif(issue & chosen, ram.beat_address.eq(ram.beat_address + 1)),
            ]

        # Beats: out of the memory, then registered, then buffered.
        self.fifo   = fifo   = stream.SyncFIFO([("q", 8*beat_bytes), ("d", 16), ("block_last", 1)], FIFO_BEATS)
        out         = fifo.sink
        issued, issued_block_last, issued_last = Signal(), Signal(), Signal()
        self.sync += [
            issued.eq(issue), issued_block_last.eq(block_last), issued_last.eq(last),
            out.valid.eq(issued), out.block_last.eq(issued_block_last), out.last.eq(issued_last),
            out.q.eq(Mux(self.read_values, values.beat_data, keys.beat_data)),
            out.d.eq(Mux(self.read_values, FP16_ONE, keys.scale_data)),
        ]
        self.comb += [fifo.source.connect(source), taken.eq(source.valid & source.ready)]

        # Job.
        self.sync += [
            self.done.eq(taken & source.last),
            If(self.start, self.busy.eq(1)).Elif(taken & source.last, self.busy.eq(0)),
        ]

        # Writes. What streams in and what is quantised here never mix: one choice for both memories.
        written, written_scales = Signal(8*beat_bytes), Signal(32)
        self.comb += [
            written.eq(Mux(self.streamed, fill.data, Replicate(self.write_data, beat_bytes))),
            written_scales.eq(Mux(self.streamed, Array(pairs)[pair], Replicate(self.write_scale, 2))),
        ]
        for ram, chosen in ((keys, ~self.write_values), (values, self.write_values)):
            self.comb += [
                ram.write_valid.eq(self.write_valid & chosen),
                ram.write_address.eq(self.write_address),
                ram.write_scale_valid.eq(self.write_scale_valid & chosen),
                ram.write_scale_address.eq(self.write_scale_address),
                ram.written.eq(written), ram.written_scales.eq(written_scales),
                ram.debug_index.eq(self.debug_index),
            ]
        met = lambda ram, chosen, stored: issue & chosen & (
            (ram.write_valid & (ram.write_address[in_beat:] == ram.beat_address)) | (stored & (ram.fill_address == ram.beat_address)))
        self.comb += self.conflict.eq(met(keys, ~self.read_values, filled[0]) | met(values, self.read_values, filled[1]) |
            (issue & ~self.read_values & keys.write_scale_valid & (keys.write_scale_address == scale)))
