# SPDX-License-Identifier: BSD-2-Clause
"""LlamaCounters against counting, in Migen and in the emitted Verilog."""

import random

from migen import Signal

from gateware import run_block
from litellama.accel.controller import STAGES
from litellama.accel.counters import COUNTERS, STREAM_COUNTERS, LlamaCounters

MORE = (0xDEADBEEF, 0x12345678)


def test_counts(tmp_path):
    """Three passes: stages of any length, in any order, some of them again, with pauses or none between; cleared before each."""
    prng = random.Random(4)
    dut  = LlamaCounters([Signal(32, reset=value) for value in MORE])
    read = []

    def control():
        for _ in range(3):
            yield dut.clear.eq(1)
            yield
            yield dut.clear.eq(0)
            counts = dict.fromkeys(COUNTERS, 0)
            for _ in range(40):
                stage = prng.choice([*STAGES, None])
                for _ in range(prng.choice((1, 1, 2, 3, 30))):
                    on = {name: int(name == stage or (name in STREAM_COUNTERS and prng.random() < 0.5)) for name in COUNTERS}
                    for name, level in on.items():
                        yield dut.events[name].eq(level)
                        counts[name] += level
                    yield
            for name in COUNTERS:
                yield dut.events[name].eq(0)
            yield
            yield
            got = []
            for i in range(len(COUNTERS) + len(MORE)):
                yield dut.select.eq(i)
                yield
                yield
                got.append((yield dut.value))
            read.append((got, [*counts.values(), *MORE]))
    run_block(dut, [control()], [dut.clear, *dut.events.values(), dut.select, dut.value], tmp_path)
    for got, want in read:
        assert got == want
