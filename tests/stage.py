# SPDX-License-Identifier: BSD-2-Clause
"""Bench for one stage of the core: the stage with the real vector unit and function table, run through gateware.run_block.

LiteX gives registers that are ports, and those inside block RAMs, no initial value, so Icarus starts them as X: the bench's
outputs are combinational copies that show from the fourth clock on.
"""

import itertools

from migen import Cat, If, Signal

from litex.gen import LiteXModule

from gateware import run_block, throttle
from litellama.accel import numerics
from litellama.accel.function import LlamaFunctionArbiter
from litellama.accel.vector import LlamaVPU


def f32_bits(x):
    """List of ints: fp32 bits."""
    return [int(b) for b in numerics.bits(x).reshape(-1)]


class Bench(LiteXModule):
    """Stages that share a vector unit and a function table, as far as they have a `vpu`, `result`, `function` endpoint.

    The first client of the VPU and of the table belongs to the bench: `busy` makes it take them in random clocks.
    inputs, outputs: signals that the test drives, and that Verilog is compared on.
    """
    def __init__(self, stages, inputs, outputs, modules=()):
        self.busy_vpu, self.busy_function = Signal(), Signal()
        for module in (*stages, *modules):
            self.submodules += module
        vpus      = [s.vpu      for s in stages if hasattr(s, "vpu")]
        functions = [s.function for s in stages if hasattr(s, "function")]
        answers   = [s.function_result for s in stages if hasattr(s, "function")]
        self.ios  = [*inputs]
        if vpus:
            self._add_units(vpus, functions, answers, [s for s in (*stages, *modules) if hasattr(s, "result")])
        known      = Signal(4)
        self.sync += known.eq(Cat(1, known))
        for s in outputs:
            shown      = Signal.like(s)
            self.comb += If(known[3], shown.eq(s))
            self.ios.append(shown)

    def _add_units(self, vpus, functions, answers, listeners):
        self.vpu      = vpu      = LlamaVPU(1 + len(vpus))
        self.arbiter  = arbiter  = LlamaFunctionArbiter(1 + len(functions))
        self.comb += [vpu.clients[0].valid.eq(self.busy_vpu), vpu.clients[0].dest.eq(7)]
        self.comb += arbiter.clients[0].valid.eq(self.busy_function)
        self.comb += [op.connect(client) for op, client in zip(vpus, vpu.clients[1:])]
        self.comb += [request.connect(client) for request, client in zip(functions, arbiter.clients[1:])]
        self.comb += [source.connect(answer, omit={"ready"}) for source, answer in zip(arbiter.sources[1:], answers)]
        self.comb += [vpu.source.connect(s.result, omit={"ready"}) for s in listeners]
        self.ios  += [self.busy_vpu, self.busy_function]

    def run(self, main, path, seed=1, load=0.0, function_load=None, extra=()):
        """Run generator `main` to its end, the VPU and the table being taken in a share `load` of the clocks (the table in
        `function_load`, where given; either may be a function of the clock), and `extra` generators beside it.

        Returns [(clock, data, dest, last)] of the VPU's results, the bench's own left out.
        """
        results, running = [], [True]
        source           = self.vpu.source
        def run_main():
            yield from main
            for _ in range(4):
                yield
            running[0] = False
        def watch():
            clock  = 0
            shares = load, load if function_load is None else function_load
            taken  = [share if callable(share) else lambda _, go=throttle(seed + i, share): next(go) for i, share in enumerate(shares)]
            while running[0]:
                yield self.busy_vpu.eq(int(taken[0](clock)))
                yield self.busy_function.eq(int(taken[1](clock)))
                yield
                clock += 1
                assert clock < 5000, "the stage hangs"
                if (yield source.valid) and (yield source.dest) != 7:
                    results.append((clock, (yield source.data), (yield source.dest), (yield source.last)))
        run_block(self, [run_main(), watch(), *extra], self.ios, path)
        return results


def sink_inputs(*endpoints):
    """What a test drives of stream sinks."""
    return list(itertools.chain(*([e.valid, e.last, *e.payload.flatten()] for e in endpoints)))


def items(x, **fields):
    """For gateware.feed: fp32 elements of x as `data`, or under fields' `name`, with other constant fields and `last`."""
    name, bits = fields.pop("name", "data"), f32_bits(x)
    return [{name: b, "last": int(i == len(bits) - 1), **fields} for i, b in enumerate(bits)]


def in_turns(clocks, free=3, offset=0):
    """For Bench.run: taken for `clocks` clocks, then not for `free`, for ever."""
    return lambda clock: (clock + offset) % (clocks + free) < clocks


def pulse(signal):
    """Generator: one clock of 1."""
    yield signal.eq(1)
    yield
    yield signal.eq(0)


def until(signal, timeout=2000):
    """Generator: wait for a 1, return how many clocks it took."""
    for clocks in range(timeout):
        if (yield signal):
            return clocks
        yield
    raise AssertionError("timeout: the signal does not come")
