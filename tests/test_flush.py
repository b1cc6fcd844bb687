# SPDX-License-Identifier: BSD-2-Clause
"""FlushInserter: what decides is reset, data is not, in Migen and in the emitted Verilog."""

from migen import Case, If, Signal
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule

from gateware import run_block
from litellama.accel.flush import FlushInserter


class Inner(LiteXModule):
    """One register of each kind, and a count in an FSM."""
    def __init__(self, data):
        self.copy   = Signal(16)            # Data.
        self.narrow = Signal(4)             # Data, but narrow.
        self.count  = Signal(16)            # Depends on its own value.
        self.asked  = Signal(16)            # A condition asks for it, in another place.
        self.chosen = Signal(16)            # What a Case tells apart.
        self.found  = Signal(2)
        self.most   = Signal(16)            # A condition asks for it, through other signals: the largest so far.
        self.larger = Signal()
        self.later  = Signal(16, reset=5)   # Written by an FSM.
        self.fsm    = fsm = FSM(reset_state="A")

        # # #

        self.sync += [self.copy.eq(data), self.narrow.eq(data), self.count.eq(self.count + 1), self.asked.eq(data), self.chosen.eq(data)]
        self.comb += [If(self.asked == 3, self.found[0].eq(1)), Case(self.chosen, {3: self.found[1].eq(1)})]
        above = Signal(17)
        self.comb += [above.eq(data - self.most), self.larger.eq(above[:16] != 0)]
        self.sync += If(self.larger, self.most.eq(data))
        fsm.act("A", NextValue(self.later, data), NextState("B"))
        fsm.act("B", NextState("A"))


class Outer(LiteXModule):
    """The block that is flushed has the registers in a part of its own."""
    def __init__(self, data):
        self.inner = Inner(data)


def test_kinds(tmp_path):
    """After a flush only wide registers that nothing asks still have what they had."""
    data = Signal(16, reset=7)
    dut  = FlushInserter()(Outer(data))
    r    = dut.inner
    seen = []

    def control():
        yield
        yield
        yield dut.reset.eq(1)
        yield data.eq(9)
        yield
        yield dut.reset.eq(0)
        yield
        for s in (r.copy, r.narrow, r.count, r.asked, r.chosen, r.most, r.fsm.state):
            seen.append((yield s))
    run_block(dut, [control()], [data, dut.reset, r.found, r.count, r.narrow, r.asked, r.chosen, r.most], tmp_path)
    assert seen == [9, 0, 0, 0, 0, 0, 0]
    assert [s.reset_less for s in (r.copy, r.narrow, r.count, r.asked, r.chosen, r.most, r.later)] == [True] + [False]*5 + [True]
