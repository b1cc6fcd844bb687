# SPDX-License-Identifier: BSD-2-Clause
"""New keys and values on their way to a cache in DRAM."""

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import UNIT_BYTES
from .kv import add_write_signals

WORDS = 64   # Words whose commands the controller may take before it wants their data: more than it can, so that block RAM holds them.


class LlamaKVWriter(LiteXModule):
    """Writes what LlamaKVQuantise gives out (write_*, see there) to DRAM through `port`, a native LiteDRAM write port.

    base: of keys, values, key scales and value scales, in units of 32 bytes: the same layout as on chip behind each
    (LlamaKVOwner). Bytes of one word of the port become one masked write, so a key takes few; a value's bytes lie in as many
    words as it has. They are kept until the head is complete (its scale comes last): the DRAM turns from reading to writing
    once a head.

    room: another head can be taken whole. flush: nothing more is on its way for now, all may go. idle: all has been taken by the
    controller; what is read from then on is new, because the controller keeps the order of commands to a bank.
    Latency: a head's hd words take hd clocks or more after its scale. Interval: one write a clock.
    """
    def __init__(self, config, port):
        self.base  = [Signal(27) for _ in range(4)]
        self.room  = Signal()
        self.flush = Signal()
        self.idle  = Signal()

        add_write_signals(self)

        # # #

        # Byte addresses. A byte is in both halves of `data`, so that its lane finds it.
        depth      = 2*config.max_head_dim + 8
        self.bytes = fifo = stream.SyncFIFO([("address", 32), ("data", 16), ("scale", 1)], depth, buffered=True)
        base       = Signal(27)
        offset     = Signal(32)
        self.comb += [
            base.eq(Array(self.base)[Cat(self.write_values, self.write_scale_valid)]),
            If(self.write_scale_valid, offset.eq(self.write_scale_address << 1)).Else(offset.eq(self.write_address)),
            self.room.eq(fifo.level < depth - config.max_head_dim - 4),
        ]
        self.sync += [
            fifo.sink.valid.eq(self.write_valid | self.write_scale_valid),
            fifo.sink.address.eq(Cat(Replicate(0, log2_int(UNIT_BYTES)), base) + offset),
            fifo.sink.scale.eq(self.write_scale_valid),
            fifo.sink.data.eq(Mux(self.write_scale_valid, self.write_scale, Replicate(self.write_data, 2))),
        ]

        # Bytes to words: `word` gathers those of one address.
        port_bytes = port.data_width//8
        low        = log2_int(port_bytes)
        word       = Record([("valid", 1), ("address", port.address_width), ("data", port.data_width), ("we", port_bytes)])
        self.entry = buffer = stream.Buffer(fifo.source.description)   # Block RAM, register, logic.
        entry      = buffer.source
        pair       = entry.address[1:low] if low > 1 else Constant(0)
        same, move = Signal(), Signal()
        take, mask = Signal(), Signal(port_bytes)
        draining   = Signal()
        full, room = Signal(), Signal()   # The word is whole; there is a place for it.
        self.comb += [
            fifo.source.connect(buffer.sink),
            same.eq(word.address == entry.address[low:]),
            full.eq(word.valid & Mux(entry.valid, draining & ~same, self.flush)),
            move.eq(full & room),
            take.eq(entry.valid & draining & (~word.valid | same | move)),
            entry.ready.eq(take),
            [mask[i].eq((pair == i >> 1) & (entry.scale | (entry.address[0] == (i & 1)))) for i in range(port_bytes)],
        ]
        self.sync += [
            If(move, word.valid.eq(0), word.we.eq(0)),
            If(take,
                word.valid.eq(1), word.address.eq(entry.address[low:]),
                word.we.eq(mask | Mux(move, 0, word.we)),
                [If(mask[i], word.data[8*i:8*i + 8].eq(entry.data[8*(i & 1):8*(i & 1) + 8])) for i in range(port_bytes)],
            ),
            If((fifo.sink.valid & fifo.sink.scale) | self.flush, draining.eq(1)).Elif(~entry.valid & (fifo.level == 0), draining.eq(0)),
        ]

        # Words into block RAM and a register behind it, commands two registers long: when the controller takes one, its data is
        # there. (`we` goes along for tests to watch. The port's `ready` comes out of all bank machines: `cut` keeps it out of here.)
        pipe       = [("address", port.address_width), ("we", port_bytes)]
        self.data  = data   = stream.SyncFIFO([("data", port.data_width), ("we", port_bytes)], WORDS, buffered=True)
        self.ahead = ahead  = stream.PipeValid(data.source.description)
        self.cut   = cut    = stream.PipeReady(pipe)
        self.early = early  = stream.PipeValid(pipe)
        self.commands = commands = stream.PipeValid(pipe)
        self.comb += [
            room.eq(data.sink.ready & cut.sink.ready),
            cut.sink.valid.eq(full & data.sink.ready), cut.sink.address.eq(word.address), cut.sink.we.eq(word.we),
            cut.source.connect(early.sink),
            data.sink.valid.eq(move), data.sink.data.eq(word.data), data.sink.we.eq(word.we),
            early.source.connect(commands.sink),
            port.cmd.valid.eq(commands.source.valid), port.cmd.we.eq(1), port.cmd.addr.eq(commands.source.address),
            commands.source.ready.eq(port.cmd.ready),
            data.source.connect(ahead.sink),
            ahead.source.connect(port.wdata),
            self.idle.eq(~(self.write_valid | self.write_scale_valid | fifo.sink.valid | entry.valid | word.valid |
                cut.source.valid | early.source.valid | commands.source.valid | (fifo.level != 0))),
        ]
