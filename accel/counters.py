# SPDX-License-Identifier: BSD-2-Clause
"""Performance counters of a pass."""

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
    """

    def __init__(self, more=()):
        self.clear  = Signal()
        self.events = {name: Signal(name=f"count_{name}") for name in COUNTERS}
        self.select = Signal(max=len(COUNTERS) + len(more))
        self.value  = Signal(32)

        # # #

        counters = []
        for name in COUNTERS:
            event, counter = Signal(), Signal(32, name=f"counter_{name}")
            # Registered once: events come from all over the core.
            self.sync += [event.eq(self.events[name]),
                If(self.clear, counter.eq(0)).Elif(event, counter.eq(counter + 1))]
            counters.append(counter)
        self.sync += self.value.eq(Array([*counters, *more])[self.select])
