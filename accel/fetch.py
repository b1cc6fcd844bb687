# SPDX-License-Identifier: BSD-2-Clause
"""What a pass reads from DRAM, in which order, and where each read's beats go."""

from functools import reduce
from operator import or_

from migen import *
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from . import image
from .config import UNIT_BYTES
from .kv import ADDRESS_BITS, BLOCK_COUNT_BITS, FILL_KEYS, FILL_KEY_SCALES, FILL_VALUES, FILL_VALUE_SCALES, SCALE_BITS

WEIGHTS  = 4   # Kind of a read for LlamaUnpack,
SCAN     = 5   # of one for nobody; the others are LlamaKVOwner's FILL_*.
COMMANDS = 8   # Reads that are under way.


class LlamaSerialMultiplier(LiteXModule):
    """a*b by shift and add, one bit of `b` a clock: for addresses that are needed once per token."""

    def __init__(self, a_bits, b_bits):
        self.start, self.idle = Signal(), Signal()
        self.a, self.b, self.p = Signal(a_bits), Signal(b_bits), Signal(a_bits + b_bits)

        # # #

        a, b, left = Signal(a_bits + b_bits), Signal(b_bits), Signal(max=b_bits + 1)
        self.comb += self.idle.eq(left == 0)
        self.sync += [
            If(self.start,
                a.eq(self.a), b.eq(self.b), self.p.eq(0), left.eq(b_bits),
            ).Elif(~self.idle,
                If(b[0], self.p.eq(self.p + a)), a.eq(a << 1), b.eq(b >> 1), left.eq(left - 1),
            )
        ]


class LlamaFetch(LiteXModule):
    """Commands for LlamaStreamReader, as early as they are known, and a switch behind it.

    The order of reads is that of use: RoPE row, embedding row, stream. With the cache on chip the stream is one read. With the
    cache in DRAM (dims.kv_dram) it is cut: after each layer's wq come the layer's keys and values, per KV head and set of
    `columns` query heads the scales of the keys, those of the values, the keys, the values; they are only asked for once
    `kv_stored`, so that this position's are among them. How long the next piece of the stream is, stands in each layer's first
    header (`segment`).

    prepare: pulse at the beginning of a pass with `token`: `prepared` follows. start: pulse when all other inputs are stable:
    want_logits, k_offset (position*head_blocks), v_offset (position//32*head_blocks), position.
    Of the running layer: kv_base, kv_sbase (of its first KV head), last_layer; kv_begin: pulse when quantising its keys
    begins; kv_stored: all are in DRAM; segment: units of the next piece, known by then.
    scan: pulse instead of these two: the stream is read, and nothing else; `scanned` is the pulse after its last beat.
    commands: to the reader. sink: the reader's beats. weights, fill: to LlamaUnpack, to LlamaKVOwner. dropped: a beat of a
    scan is taken. row_skip: blocks of the embedding's first group before the row.
    """
    def __init__(self, config, dims):
        self.commands = commands = stream.Endpoint([("address", 27), ("units", 27)])
        self.sink     = sink     = stream.Endpoint([("data", 8*config.beat_bytes)])
        self.weights  = weights  = stream.Endpoint([("data", 8*config.beat_bytes)])
        self.fill     = fill     = stream.Endpoint([("data", 8*config.beat_bytes), ("kind", 2)])

        self.prepare, self.prepared, self.start = Signal(), Signal(), Signal()
        self.token, self.want_logits = Signal(18), Signal()
        self.position                = Signal(17)
        self.k_offset, self.v_offset = Signal(BLOCK_COUNT_BITS), Signal(BLOCK_COUNT_BITS)
        self.kv_base, self.kv_sbase  = Signal(ADDRESS_BITS), Signal(SCALE_BITS)
        self.kv_begin, self.kv_stored, self.last_layer = Signal(), Signal(), Signal()
        self.segment                 = Signal(27)
        self.row_skip                = Signal(4)
        self.scan, self.scanned, self.dropped = Signal(), Signal(), Signal()

        # # #

        # The embedding's row: product of token and blocks, in groups and a rest; groups to units by the type's group size.
        self.product = product = LlamaSerialMultiplier(18, 10)
        group, row_groups         = Signal(24), Signal(7)
        group_units, row_units    = Signal(27), Signal(27)
        embed_address             = Signal(27)
        self.comb += [
            product.start.eq(self.prepare), product.a.eq(self.token), product.b.eq(dims.dim_blocks),
            self.row_skip.eq(product.p[:4]),
            group.eq(product.p[4:]),
            row_groups.eq((product.p[:4] + dims.dim_blocks + 15) >> 4),
        ]
        # (17 units a group of Q8_0, 9 of Q4_0, 10 of Q4_1.)
        scale = lambda groups, units: units.eq(Mux(dims.embed_type == image.Q8_0, groups << 4, groups << 3) +
            Mux(dims.embed_type == image.Q4_1, groups << 1, groups))
        settled = Signal(3)   # Clocks for what follows the product.
        self.sync += [
            scale(group, group_units), scale(row_groups, row_units),
            embed_address.eq(dims.embed_base + group_units),
            If(self.prepare | ~product.idle, settled.eq(0)).Elif(~self.prepared, settled.eq(settled + 1)),
        ]
        self.comb += self.prepared.eq(settled == 7)

        # Reads of keys and values, from registers: they change once a head.
        base, sbase        = Signal(ADDRESS_BITS), Signal(SCALE_BITS)
        address            = [Signal(27) for _ in range(4)]
        k_units, v_units   = Signal(27), Signal(27)
        scale_units        = Signal(27)
        shift              = log2_int(UNIT_BYTES)
        self.sync += [
            address[FILL_KEY_SCALES].eq(dims.k_scale_base + sbase[shift - 1:]),
            address[FILL_VALUE_SCALES].eq(dims.v_scale_base + sbase[shift - 1:]),
            address[FILL_KEYS].eq(dims.k_base + base[shift:]),
            address[FILL_VALUES].eq(dims.v_base + base[shift:]),
            scale_units.eq(self.position[shift - 1:] + 1),
            k_units.eq(self.k_offset + dims.head_blocks),
            v_units.eq((self.v_offset + dims.head_blocks) << shift),
        ]

        # Commands, each with where its beats go.
        self.order = order = stream.SyncFIFO([("kind", 3), ("units", 27)], COMMANDS)
        kind       = Signal(3)
        wanted, given = Signal(), Signal()
        self.comb += [
            commands.valid.eq(wanted & order.sink.ready), order.sink.valid.eq(wanted & commands.ready),
            order.sink.kind.eq(kind), order.sink.units.eq(commands.units),
            given.eq(wanted & commands.ready & order.sink.ready),
        ]
        at          = Signal(27)                       # End of the stream's pieces so far.
        blocks_left = Signal(len(dims.kv_blocks))      # Of the KV heads from this one on.
        heads_left  = Signal(len(dims.group))          # Query heads of this KV head from this set on.
        last_set    = Signal()
        self.comb  += last_set.eq(heads_left <= config.columns)
        self.fsm    = fsm = FSM(reset_state="IDLE")

        reads       = []   # (Handshakes stay outside the FSM's process: Icarus would loop on their glitches.)

        def read(state, where, units, then, what=WEIGHTS):
            """State that gives one command, then does `then`."""
            reads.append(fsm.ongoing(state))
            fsm.act(state, kind.eq(what), commands.address.eq(where), commands.units.eq(units), If(given, *then))

        scanning = Signal()   # Latched: the stream's one read is a scan.
        self.sync += If(fsm.ongoing("IDLE"), scanning.eq(self.scan))
        fsm.act("IDLE", If(self.start, NextState("ROPE")).Elif(self.scan, NextState("SCAN")))
        fsm.act("SCAN", NextState("WHOLE"))
        read("ROPE", dims.rope_base + (self.k_offset << 2), dims.head_blocks << 2, [NextState("EMBEDDING")])
        read("EMBEDDING", embed_address, row_units,
            [If(dims.kv_dram, NextState("FIRST")).Else(NextState("WHOLE"))])
        read("WHOLE", at, Mux(self.want_logits | scanning, dims.stream_units, dims.layers_units), [NextState("IDLE")],
            Mux(scanning, SCAN, WEIGHTS))
        read("FIRST", at, dims.first_units, [NextState("AWAIT_LAYER")])
        fsm.act("AWAIT_LAYER", If(self.kv_begin, NextState("AWAIT_STORED")))
        fsm.act("AWAIT_STORED",
            NextValue(base, self.kv_base), NextValue(sbase, self.kv_sbase), NextValue(blocks_left, dims.kv_blocks),
            If(self.kv_stored, NextState("NEXT_HEAD")))
        fsm.act("NEXT_HEAD", NextValue(heads_left, dims.group), NextState("SETTLE"))
        fsm.act("SETTLE", NextState("KEY_SCALES"))
        read("KEY_SCALES",   address[FILL_KEY_SCALES],   scale_units, [NextState("VALUE_SCALES")], FILL_KEY_SCALES)
        read("VALUE_SCALES", address[FILL_VALUE_SCALES], scale_units, [NextState("KEYS")],         FILL_VALUE_SCALES)
        read("KEYS",         address[FILL_KEYS],         k_units,     [NextState("VALUES")],       FILL_KEYS)
        read("VALUES",       address[FILL_VALUES],       v_units, [
            NextValue(heads_left, heads_left - config.columns),
            If(~last_set, NextState("KEY_SCALES")).Else(
                NextValue(base, base + dims.kv_stride), NextValue(sbase, sbase + dims.context),
                NextValue(blocks_left, blocks_left - dims.head_blocks),
                If(blocks_left == dims.head_blocks, NextState("PIECE")).Else(NextState("NEXT_HEAD"))),
        ], FILL_VALUES)
        read("PIECE", at, self.segment, [
            If(~self.last_layer, NextState("AWAIT_LAYER")).Elif(self.want_logits, NextState("TAIL")).Else(NextState("IDLE"))])
        read("TAIL", at, dims.stream_units - dims.layers_units, [NextState("IDLE")])

        self.comb += wanted.eq(reduce(or_, reads))
        self.sync += If(fsm.ongoing("EMBEDDING") | fsm.ongoing("SCAN"), at.eq(dims.stream_base)
            ).Elif(given & (kind == WEIGHTS), at.eq(at + commands.units))

        # Switch: what a command's beats are, and how many are left.
        unit_beats = UNIT_BYTES//config.beat_bytes
        left       = Signal(27 + log2_int(unit_beats))
        last       = Signal()                                      # left is 1,
        to_weights, to_fill, to_none = Signal(), Signal(), Signal()   # not 0: registers, because handshakes hang on them.
        moved      = Signal()
        self.comb += [
            weights.valid.eq(sink.valid & to_weights), weights.data.eq(sink.data),
            fill.valid.eq(sink.valid & to_fill), fill.data.eq(sink.data), fill.last.eq(last),
            sink.ready.eq((to_weights & weights.ready) | (to_fill & fill.ready) | to_none),
            moved.eq(sink.valid & sink.ready), self.dropped.eq(sink.valid & to_none),
            order.source.ready.eq(~to_weights & ~to_fill & ~to_none),
        ]
        self.sync += [
            If(moved, left.eq(left - 1), last.eq(left == 2), If(last, to_weights.eq(0), to_fill.eq(0), to_none.eq(0))),
            self.scanned.eq(self.dropped & last),
            If(order.source.valid & order.source.ready,
                fill.kind.eq(order.source.kind), left.eq(order.source.units << log2_int(unit_beats)),
                to_weights.eq(order.source.kind == WEIGHTS), to_none.eq(order.source.kind == SCAN),
                to_fill.eq(~order.source.kind[2]),
                *([last.eq(order.source.units == 1)] if unit_beats == 1 else []),   # (Else the first beat is never the last.)
            ),
        ]
