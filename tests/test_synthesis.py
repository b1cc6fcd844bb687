# SPDX-License-Identifier: BSD-2-Clause
"""The default core and the smallest one fit their budgets on ECP5, and their memories are what they are meant to be (synthesis only)."""

import re

import pytest

from litellama.accel.config import CoreConfig
from litellama.soc import synthesis
from litellama.soc.boards import get_board

# What it takes, as a ratchet: lower a budget when the core gets smaller. The goal is 20,000 LUTs and 64 multipliers.
BUDGET = dict(luts=18_300, ffs=17_500, dp16kd=117, mult18x18d=49, dpr16x4=244)


@pytest.fixture(scope="module")
def core():
    """Resources of the default core."""
    return synthesis.resources(CoreConfig())


def test_memories_are_as_intended(core):
    """Keys and values are true dual ports, every large memory is in block RAM, none in flip-flops."""
    assert core.faults == []


@pytest.mark.parametrize("name", BUDGET)
def test_budget(core, name):
    """No resource is above its budget."""
    assert getattr(core, name) <= BUDGET[name], f"{name}: {getattr(core, name)}"


# The LFE5U-25F's: what the SoC leaves of 24,288 LUTs, 56 block RAMs, 28 multipliers.
SMALLEST = dict(luts=15_400, ffs=12_600, dp16kd=39, mult18x18d=25, dpr16x4=245)


def test_smallest_core():
    """The core of the smallest board is within its budget, with its memories where they should be."""
    core = synthesis.resources(CoreConfig(**get_board("gsd_orangecrab").fit("25F").core))
    assert core.faults == []
    assert {name: getattr(core, name) for name, budget in SMALLEST.items() if getattr(core, name) > budget} == {}


def test_second_core_of_a_process_is_the_same_text():
    """What is cached by its Verilog is found again, whatever was described before in the same process."""
    first, second = (synthesis.emit(CoreConfig(lanes=8)) for _ in range(2))
    plain = lambda files: {name: re.sub(r"//.*", "", text) for name, text in files.items()}
    assert plain(first) == plain(second)


def test_fault_is_found(core, monkeypatch):
    """A memory that is not what was intended is reported."""
    wanted = synthesis.intended_memories(CoreConfig())
    monkeypatch.setattr(synthesis, "intended_memories", lambda config: {**wanted, "llama_x": 3, "llama_topk_list": 1})
    faults = synthesis.resources(CoreConfig()).faults
    assert faults == ["llama_x is 2 DP16KD, intended 3", "llama_topk_list is 0 DP16KD, intended 1"]
