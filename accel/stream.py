# SPDX-License-Identifier: BSD-2-Clause
"""The weight stream's source: linear reads from DRAM over one or more native ports, delivered in order as beats."""

from functools import reduce
from operator import or_

from migen import Array, If, Signal, bits_for, log2_int

from litex.gen import LiteXModule
from litex.soc.interconnect import stream
from litedram.frontend.dma import LiteDRAMDMAReader

from .config import UNIT_BYTES, check
from .flush import FlushInserter

CHUNK_UNITS = 2048//UNIT_BYTES   # Units that one port reads in a row: a DRAM page of a 16-bit chip.
COMMANDS    = 4                  # Commands that wait.
SEGMENTS    = 4                  # Parts of commands that wait at each port.


class _PortReader(LiteXModule):
    """Reads segments of up to CHUNK_UNITS units through one native port into a buffer of `buffer_bytes`, without gaps.

    A read is only issued when its word can be stored: that is LiteDRAMDMAReader's reservation, and its FIFO is the buffer.
    clear: level; drops waiting segments, ends the running one, and lets out (and drops) what is outstanding. pending: level.
    """
    def __init__(self, port, buffer_bytes):
        port_bytes   = port.data_width//8
        self.sink    = sink   = stream.Endpoint([("address", 27), ("units", bits_for(CHUNK_UNITS))])
        self.source  = source = stream.Endpoint([("data", port.data_width)])
        self.clear   = Signal()
        self.pending = Signal()

        # # #

        shift = log2_int(UNIT_BYTES//port_bytes)
        depth = max(16, buffer_bytes//port_bytes)

        # Segments to word addresses; the next segment's first word follows the last one's at once. A word that is offered
        # to the port stays offered. (The port's `ready` comes out of all bank machines: a register keeps it out of our logic.)
        self.segments = segments = stream.SyncFIFO(sink.description, SEGMENTS)
        self.dma      = dma      = LiteDRAMDMAReader(port, fifo_depth=depth, fifo_buffered=True)
        self.cut      = cut      = stream.PipeReady([("address", port.address_width)])
        active, load, issued     = Signal(), Signal(), Signal()
        address = Signal(port.address_width)
        left    = Signal(len(sink.units) + shift)
        self.comb += [
            sink.connect(segments.sink),
            cut.sink.valid.eq(active),
            cut.sink.address.eq(address),
            cut.source.connect(dma.sink),
            issued.eq(active & cut.sink.ready),
            load.eq(~active | (issued & (left == 0))),
            segments.source.ready.eq(load),
        ]
        self.sync += [
            If(load,
                active.eq(segments.source.valid & ~self.clear),
                address.eq(segments.source.address << shift),
                left.eq((segments.source.units << shift) - 1),
            ).Elif(issued,
                address.eq(address + 1),
                left.eq(left - 1),
            ),
            If(self.clear, left.eq(0)),
        ]

        # Words: one register between block RAM and logic.
        self.buffer = buffer = FlushInserter()(stream.Buffer(source.description))
        words       = Signal(max=depth + 3)   # Issued, and not in the register yet.
        self.comb += [
            dma.source.connect(buffer.sink),
            buffer.source.connect(source),
            buffer.reset.eq(self.clear),
            self.pending.eq(segments.source.valid | active | (words != 0) | source.valid),
        ]
        self.sync += words.eq(words + issued - (dma.source.valid & dma.source.ready))


class LlamaStreamReader(LiteXModule):
    """Linear reads from DRAM as one stream of beats of `beat_bytes`, read ahead as far as buffers go.

    ports: 1, 2 or 4 native ports of one width, 2 to 32 bytes: chunks of 2 KB, aligned to 2 KB of address, alternate over
    them, so that a port opens the next bank while another one reads. fifo_bytes: prefetch buffer of all ports together (at
    least 16 words each).

    sink:   commands: `units` units of 32 bytes from unit `address` on. Their beats follow each other in order; reads of the
            next command are issued while beats of the one before still wait. COMMANDS queue up.
    source: beats. At most one word of a port, and one beat, a clock.
    flush:  pulse or level; drops all that is queued, outstanding or buffered. No command is taken until that is done.
    idle:   nothing is queued, outstanding or buffered.
    beat, no_data, no_room: a beat is taken; it is wanted but not there; it is there but not wanted (for counters).
    """
    def __init__(self, ports, beat_bytes, fifo_bytes=8192):
        check(len(ports) in (1, 2, 4), f"{len(ports)} ports, must be 1, 2 or 4")
        width = ports[0].data_width
        check(width in (16, 32, 64, 128, 256), f"port width is {width} bits, must be 16, 32, 64, 128 or 256")
        check(all(p.data_width == width for p in ports), "ports differ in width")
        self.sink    = sink   = stream.Endpoint([("address", 27), ("units", 27)])
        self.source  = source = stream.Endpoint([("data", beat_bytes*8)])
        self.flush   = Signal()
        self.idle    = Signal()
        self.beat    = Signal()
        self.no_data = Signal()
        self.no_room = Signal()

        # # #

        clear, flushing = Signal(), Signal()
        self.comb += clear.eq(self.flush | flushing)
        self.sync += If(self.flush, flushing.eq(1)).Elif(self.idle, flushing.eq(0))

        def clearable(module):
            """`module`, reset while flushing."""
            module = FlushInserter()(module)
            self.comb += module.reset.eq(clear)
            return module

        # Commands to segments that end at chunk borders: two clocks each, one to measure and one to hand over.
        self.commands = commands = clearable(stream.SyncFIFO(sink.description, COMMANDS))
        address, left = Signal(27), Signal(27)
        room          = Signal(bits_for(CHUNK_UNITS))
        units         = Signal(bits_for(CHUNK_UNITS))
        ready, push   = Signal(), Signal()
        chunk_bits    = log2_int(CHUNK_UNITS)
        self.comb += [
            sink.connect(commands.sink, omit={"valid", "ready"}),
            commands.sink.valid.eq(sink.valid & ~clear),
            sink.ready.eq(commands.sink.ready & ~clear),
            commands.source.ready.eq(left == 0),
            room.eq(CHUNK_UNITS - address[:chunk_bits]),
        ]
        self.sync += [
            If(left == 0,
                If(commands.source.valid, address.eq(commands.source.address), left.eq(commands.source.units)),
            ).Elif(~ready,
                ready.eq(1),
                If(left < room, units.eq(left)).Else(units.eq(room)),
            ).Elif(push,
                ready.eq(0),
                address.eq(address + units),
                left.eq(left - units),
            ),
            If(clear, left.eq(0), ready.eq(0)),
        ]

        # Segments to their ports, and the order they are in.
        port_bits  = max(1, log2_int(len(ports)))
        self.order = order = clearable(stream.SyncFIFO([("port", port_bits), ("units", len(units))], 2*SEGMENTS*len(ports)))
        readers    = []
        target     = Signal(port_bits)
        for i, port in enumerate(ports):
            reader = _PortReader(port, fifo_bytes//len(ports))
            self.add_module(f"port{i}", reader)
            self.comb += [
                reader.clear.eq(clear),
                reader.sink.valid.eq(push & (target == i)),
                reader.sink.address.eq(address),
                reader.sink.units.eq(units),
            ]
            readers.append(reader)
        self.comb += [
            target.eq(address[chunk_bits:chunk_bits + port_bits] if len(ports) > 1 else 0),
            push.eq(ready & order.sink.ready & Array([r.sink.ready for r in readers])[target]),
            order.sink.valid.eq(push),
            order.sink.port.eq(target),
            order.sink.units.eq(units),
        ]

        # Words in that order.
        self.converter = converter = clearable(stream.Converter(width, beat_bytes*8))
        self.out       = out       = clearable(stream.Buffer(source.description))
        shift, now     = log2_int(UNIT_BYTES*8//width), order.source
        word, last     = Signal(len(units) + shift), Signal(len(units) + shift)
        moved          = Signal()
        self.comb += [
            converter.sink.valid.eq(now.valid & Array([r.source.valid for r in readers])[now.port]),
            converter.sink.data.eq(Array([r.source.data for r in readers])[now.port]),
            *[r.source.ready.eq(now.valid & (now.port == i) & converter.sink.ready) for i, r in enumerate(readers)],
            moved.eq(converter.sink.valid & converter.sink.ready),
            last.eq((now.units << shift) - 1),
            now.ready.eq(moved & (word == last)),
            converter.source.connect(out.sink, omit={"valid_token_count"}),
            out.source.connect(source),
        ]
        self.sync += [
            If(moved, word.eq(word + 1)),
            If(now.ready | clear, word.eq(0)),
        ]

        self.comb += [
            self.idle.eq(~reduce(or_, [commands.source.valid, left != 0, now.valid, source.valid,
                *[r.pending for r in readers]])),
            self.beat.eq(source.valid & source.ready),
            self.no_data.eq(source.ready & ~source.valid),
            self.no_room.eq(source.valid & ~source.ready),
        ]
