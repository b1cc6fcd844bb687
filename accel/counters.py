# SPDX-License-Identifier: BSD-2-Clause
"""Performance counters of a pass."""

from functools import reduce
from operator import or_

from migen import *

from litex.gen import LiteXModule

from .controller import STAGES

STREAM_COUNTERS = ("total", "beats", "no_data", "no_room")
COUNTERS        = STREAM_COUNTERS + STAGES   # Number of a counter is its index here.


class LlamaCounters(LiteXModule):
    """One 32-bit counter per name of COUNTERS, cleared when a pass starts and held after it.

    `events` has one level input per counter. The controller's stages never overlap, so the stage counters add up to `total`;
    beats, no_data (weights are wanted, none have come) and no_room (weights have come, nobody wants them yet) are exclusive too.
    more: other 32-bit values to select, with the numbers behind the counters'.

    As only one stage counts at a time, one counter does: it is added to the stage's word of a memory when the stage ends. So
    stages' values are there three clocks after the last stage, not while one is on; the others' two clocks after any event.
    """

    def __init__(self, more=()):
        self.clear  = Signal()
        self.events = {name: Signal(name=f"count_{name}") for name in COUNTERS}
        self.select = Signal(max=len(COUNTERS) + len(more))
        self.value  = Signal(32)

        # # #

        # (Events are registered once: they come from all over the core.)
        values = []
        for name in STREAM_COUNTERS:
            event, counter = Signal(), Signal(32, name=f"counter_{name}")
            self.sync += [event.eq(self.events[name]),
                If(self.clear, counter.eq(0)).Elif(event, counter.eq(counter + 1))]
            values.append(counter)

        # The stage of this clock and of the one before, its clocks so far, and the sums of those that were left, by number.
        bits       = bits_for(len(COUNTERS) - 1)
        now, last  = Signal(bits), Signal(bits)
        on, was_on = Signal(), Signal()
        clocks     = Signal(32)
        kept       = Signal(2**bits)   # Numbers that have a sum.
        known      = Array(kept[n] for n in range(2**bits))
        sums       = Memory(32, 2**bits, name="llama_stage_clocks")
        read, write = sums.get_port(async_read=True), sums.get_port(write_capable=True, mode=READ_FIRST)
        self.specials += sums, read, write
        same       = Signal()
        self.comb += [
            same.eq(on & was_on & (now == last)),
            read.adr.eq(Mux(was_on, last, self.select[:bits])),
            write.adr.eq(last),
            write.we.eq(was_on & ~same),
            write.dat_w.eq(Mux(known[last], read.dat_r, 0) + clocks),
        ]
        self.sync += [
            now.eq(reduce(or_, [Mux(self.events[name], n, 0) for n, name in enumerate(STAGES, len(STREAM_COUNTERS))])),
            on.eq(reduce(or_, [self.events[name] for name in STAGES])),
            last.eq(now),
            was_on.eq(on),
            If(same, clocks.eq(clocks + 1)).Else(clocks.eq(1)),
            If(write.we, kept.eq(kept | (1 << last))),
            If(self.clear, on.eq(0), was_on.eq(0), kept.eq(0)),
            self.value.eq(Array([*values, *[Mux(known[self.select[:bits]], read.dat_r, 0)]*len(STAGES), *more])[self.select]),
        ]
