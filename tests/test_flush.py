# SPDX-License-Identifier: BSD-2-Clause
"""FlushInserter: what decides is reset, data is not, in Migen and in the emitted Verilog."""

from types import SimpleNamespace

from migen import Case, ClockDomain, If, Signal, run_simulation
from migen.genlib.fsm import FSM, NextState, NextValue
import numpy as np

from litex.gen import LiteXModule

from gateware import run_block
from litellama.accel.flush import FlushInserter
from litellama.soc import board_soc


class Inner(LiteXModule):
    """One register of each kind, and a count in an FSM."""
    def __init__(self, data):
        self.copy   = Signal(16)            # Data.
        self.narrow = Signal(4)             # Data, but narrow.
        self.count  = Signal(16)            # Depends on its own value.
        self.asked  = Signal(16)            # A condition asks for it, in another place.
        self.chosen = Signal(16)            # What a Case tells apart.
        self.found  = Signal(2)
        self.later  = Signal(16, reset=5)   # Written by an FSM.
        self.fsm    = fsm = FSM(reset_state="A")

        # # #

        self.sync += [self.copy.eq(data), self.narrow.eq(data), self.count.eq(self.count + 1), self.asked.eq(data), self.chosen.eq(data)]
        self.comb += [If(self.asked == 3, self.found[0].eq(1)), Case(self.chosen, {3: self.found[1].eq(1)})]
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
        for s in (r.copy, r.narrow, r.count, r.asked, r.chosen, r.fsm.state):
            seen.append((yield s))
    run_block(dut, [control()], [data, dut.reset, r.found, r.count, r.narrow, r.asked, r.chosen], tmp_path)
    assert seen == [9, 0, 0, 0, 0, 0]
    assert [s.reset_less for s in (r.copy, r.narrow, r.count, r.asked, r.chosen, r.later)] == [True, False, False, False, False, True]


class Soc(LiteXModule):
    """A SoC whose core resets two blocks, and one beside them."""
    def __init__(self):
        self.crg = LiteXModule()
        self.crg.cd_sys = ClockDomain("sys")
        self.clear, self.data = Signal(), Signal(16)
        self.blocks = [FlushInserter()(Outer(self.data)) for _ in range(2)]
        self.beside = Inner(self.data)
        self.submodules += self.blocks
        self.comb += [block.reset.eq(self.clear) for block in self.blocks]
        self.inners = [*(block.inner for block in self.blocks), self.beside]


def test_flush_on_a_wire_of_its_own(monkeypatch):
    """Reset by the core and by the system, at any time: as without the wire, but that data keep what they had. Only the wire resets."""
    wires = []
    monkeypatch.setattr(board_soc, "Instance", lambda cell, i_CLKI, i_CE, o_CLKO: wires.append((i_CLKI, o_CLKO)) or cell)
    seen = []
    for wired in (False, True):
        soc = Soc()
        soc.finalize()
        if wired:
            board_soc.flush_on_global_wire(soc, SimpleNamespace(resets=[block.reset for block in soc.blocks],
                controller=SimpleNamespace(clear_datapath=soc.clear)))
            ((source, net),) = wires
            soc._fragment.specials.remove("DCCA")
            soc._fragment.comb.append(net.eq(source))
            for inner, flushed in zip(soc.inners, (True, True, False)):
                assert [r.reset_less for r in (inner.count, inner.fsm.state, inner.narrow)] == [flushed]*3
        rng, trace = np.random.default_rng(1), []

        def control():
            for _ in range(400):
                yield soc.clear.eq(int(rng.random() < 0.1))
                yield soc.crg.cd_sys.rst.eq(int(rng.random() < 0.1))
                yield soc.data.eq(int(rng.integers(1 << 16)))
                yield
                state = []
                for r in soc.inners:
                    for signal in (r.count, r.narrow, r.asked, r.chosen, r.fsm.state):
                        state.append((yield signal))
                trace.append(state)
        run_simulation(soc, control())
        seen.append(trace)
    assert seen[0] == seen[1] and len({tuple(state) for state in seen[0]}) > 200
