# SPDX-License-Identifier: BSD-2-Clause
"""Keys and values of all layers and positions on chip, and the one module that owns them."""

from migen import *
from migen.fhdl.specials import READ_FIRST

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import BLOCK, LIMITS, check
from .numerics import FP16_ONE
from .unpack import weights_layout

CONTEXT_BITS     = bits_for(LIMITS["context"])
HEAD_BLOCKS_BITS = bits_for(LIMITS["head_dim"]//BLOCK)
FIFO_BEATS       = 8   # Covers the four clocks from issuing a read to getting its place back, twice.


class LlamaKVRam(LiteXModule):
    """One memory of keys or of values: int8 bytes, and one fp16 scale per position of each head.

    True dual port. Port A reads whole beats, and scales, with data one clock after the address (register it before logic).
    Port B writes single bytes, and scales; while it does not, it reads for the debug window: the 32-bit word debug_index of
    the bytes or of the scales, two clocks later. A byte must not be written in the clock in which its beat is read.

    beat_bytes: bytes of a beat, 4, 8, 16. depth_bytes: capacity. n_scales: scales. name: of the memories, "llama_...".
    """
    def __init__(self, beat_bytes, depth_bytes, n_scales, name):
        check(beat_bytes in (4, 8, 16), f"beat_bytes is {beat_bytes}, must be 4, 8 or 16")
        n_beats = depth_bytes//beat_bytes

        # Port A.
        self.beat_address  = Signal(max=n_beats)
        self.beat_data     = Signal(8*beat_bytes)
        self.scale_address = Signal(max=n_scales)
        self.scale_enable  = Signal(reset=1)
        self.scale_data    = Signal(16)
        # Port B.
        self.write_valid         = Signal()
        self.write_address       = Signal(max=depth_bytes)
        self.write_data          = Signal(8)
        self.write_scale_valid   = Signal()
        self.write_scale_address = Signal(max=n_scales)
        self.write_scale         = Signal(16)
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
            b.adr.eq(Mux(self.write_valid, self.write_address[in_beat:], self.debug_index[in_beat - 2:])),
            b.dat_w.eq(Replicate(self.write_data, beat_bytes)),
            [b.we[i].eq(self.write_valid & (self.write_address[:in_beat] == i)) for i in range(beat_bytes)],
        ]

        # Scales.
        scales  = Memory(16, n_scales, name=name + "_scales")
        scale_a = scales.get_port(has_re=True, mode=READ_FIRST)
        scale_b = scales.get_port(write_capable=True, mode=READ_FIRST)
        self.specials += scales, scale_a, scale_b
        self.comb += [
            scale_a.adr.eq(self.scale_address), scale_a.re.eq(self.scale_enable),
            self.scale_data.eq(scale_a.dat_r),
            scale_b.adr.eq(Mux(self.write_scale_valid, self.write_scale_address, self.debug_index)),
            scale_b.dat_w.eq(self.write_scale), scale_b.we.eq(self.write_scale_valid),
        ]

        # Debug: a 32-bit word of the beat.
        word = Signal(max=max(2, beat_bytes//4))
        if beat_bytes > 4:
            self.sync += word.eq(self.debug_index[:in_beat - 2])
        self.sync += [
            Case(word, {i: self.debug_data.eq(b.dat_r[32*i:32*(i + 1)]) for i in range(beat_bytes//4)}),
            self.debug_scale.eq(scale_b.dat_r),
        ]


class LlamaKVOwner(LiteXModule):
    """Owns keys and values: the only module that touches their memories.

    Layout, for a head of hd = head_blocks*32 bytes whose region starts at byte `base` and at scale `sbase`: byte i of the
    key of position t is at base + t*hd + i; of its value, transposed, at base + i*context + t; both scales at sbase + t.
    `context` and all bases are multiples of 32.

    Read job: start with values, base, sbase, positions, head_blocks, context (stable until done). `source` then carries
    the beats of an 8-bit matrix as LlamaUnpack would, `last` on its last beat:
    - keys: `positions` rows of head_blocks blocks, d = the position's scale;
    - values: hd rows of ceil(positions/32) blocks, d = 1.0: their scales are in the probabilities (LlamaSoftmax). Bytes
      beyond the last position are whatever is stored; the probabilities there are zero.
    done: one-cycle pulse when the last beat has been taken. Latency: 5 clocks from start to the first beat. Interval: 1
    clock, also from row to row.

    Writes (write_*, by LlamaKVQuantise): a byte and a scale a clock, of values where write_values else of keys. conflict:
    a beat or scale is written in the clock in which the job reads it; never happens, because the controller reads after
    the quantiser's done. LlamaSoftmax reads the value scales by value_scale_* (data one clock after the address).
    Debug window, while no writes come: two clocks after debug_index the word of keys, values (32 bits), the key scale and
    the value scale (16 bits) of that number.
    """
    def __init__(self, config):
        beat_bytes  = config.beat_bytes
        self.keys   = keys   = LlamaKVRam(beat_bytes, config.kv_bytes, config.kv_scales, "llama_keys")
        self.values = values = LlamaKVRam(beat_bytes, config.kv_bytes, config.kv_scales, "llama_values")

        # Read job.
        self.start       = Signal()
        self.done        = Signal()
        self.busy        = Signal()
        self.read_values = Signal()
        self.base        = Signal(max=config.kv_bytes)
        self.sbase       = Signal(max=config.kv_scales)
        self.positions   = Signal(CONTEXT_BITS)
        self.head_blocks = Signal(HEAD_BLOCKS_BITS)
        self.context     = Signal(CONTEXT_BITS)
        self.source      = source = stream.Endpoint(weights_layout(config.lanes))

        # Writes.
        self.write_values        = Signal()
        self.write_valid         = Signal()
        self.write_address       = Signal(max=config.kv_bytes)
        self.write_data          = Signal(8)
        self.write_scale_valid   = Signal()
        self.write_scale_address = Signal(max=config.kv_scales)
        self.write_scale         = Signal(16)
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

        # Shape of the job, registered: parameters are stable, so one clock after start it is right.
        block_beats = BLOCK//beat_bytes
        in_beat     = log2_int(beat_bytes)
        rows        = Signal(CONTEXT_BITS)
        row_blocks  = Signal(CONTEXT_BITS)
        stride      = Signal.like(keys.beat_address)   # Beats from one row to the next.
        load        = Signal()
        last_position = Signal(CONTEXT_BITS)
        self.comb += last_position.eq(self.positions - 1)
        self.sync += [
            load.eq(self.start),
            If(self.read_values,
                rows.eq(Cat(Replicate(0, 5), self.head_blocks) - 1),
                row_blocks.eq(last_position[5:]),
                stride.eq(self.context[in_beat:]),
            ).Else(
                rows.eq(last_position),
                row_blocks.eq(self.head_blocks - 1),
                stride.eq(Cat(Replicate(0, 5 - in_beat), self.head_blocks)),
            )
        ]

        # Addresses, one beat a clock while its result has a place in the FIFO.
        reading    = Signal()
        issue      = Signal()
        space      = Signal(max=FIFO_BEATS + 1, reset=FIFO_BEATS)
        beat       = Signal(max=block_beats)
        block      = Signal(CONTEXT_BITS)
        row        = Signal(CONTEXT_BITS)
        address    = Signal.like(keys.beat_address)
        next_row   = Signal.like(keys.beat_address)
        scale      = Signal.like(keys.scale_address)
        block_last = Signal()
        row_last   = Signal()
        last       = Signal()
        taken      = Signal()
        self.comb += [
            issue.eq(reading & (space != 0)),
            block_last.eq(beat == block_beats - 1),
            row_last.eq(block_last & (block == 0)),
            last.eq(row_last & (row == 0)),
            keys.beat_address.eq(address),
            values.beat_address.eq(address),
            keys.scale_address.eq(scale),
        ]
        self.sync += [
            If(load,
                reading.eq(1), beat.eq(0), block.eq(row_blocks), row.eq(rows), scale.eq(self.sbase),
                address.eq(self.base[in_beat:]), next_row.eq(self.base[in_beat:] + stride),
            ).Elif(issue,
                beat.eq(beat + 1), address.eq(address + 1),
                If(block_last, block.eq(block - 1)),
                If(row_last,
                    block.eq(row_blocks), row.eq(row - 1), scale.eq(scale + 1),
                    address.eq(next_row), next_row.eq(next_row + stride),
                ),
                If(last, reading.eq(0)),
            ),
            space.eq(space + taken - issue),
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

        # Writes.
        for ram, chosen in ((keys, ~self.write_values), (values, self.write_values)):
            self.comb += [
                ram.write_valid.eq(self.write_valid & chosen),
                ram.write_address.eq(self.write_address),
                ram.write_data.eq(self.write_data),
                ram.write_scale_valid.eq(self.write_scale_valid & chosen),
                ram.write_scale_address.eq(self.write_scale_address),
                ram.write_scale.eq(self.write_scale),
                ram.debug_index.eq(self.debug_index),
            ]
        self.comb += self.conflict.eq(issue & (self.write_values == self.read_values) & (
            (self.write_valid & (self.write_address[in_beat:] == address)) |
            (self.write_scale_valid & ~self.read_values & (self.write_scale_address == scale))))
