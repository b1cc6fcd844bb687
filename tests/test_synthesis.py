# SPDX-License-Identifier: BSD-2-Clause
"""The default core and those of boards fit their budgets on ECP5, and their memories are what they are meant to be (synthesis only)."""

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
    """Keys and values are true dual ports, every large memory is in block RAM, none in flip-flops; each product has its multiplier."""
    assert core.faults == []
    assert (core.dp16kd, core.mult18x18d) == (sum(synthesis.intended_memories(CoreConfig()).values()), synthesis.intended_multipliers(CoreConfig()))


@pytest.mark.parametrize("name", BUDGET)
def test_budget(core, name):
    """No resource is above its budget."""
    assert getattr(core, name) <= BUDGET[name], f"{name}: {getattr(core, name)}"


# Cores of boards. The 25F's is what its SoC leaves of 24,288 LUTs, 56 block RAMs, 28 multipliers.
BOARDS = {
    ("lambdaconcept_ecpix5", "85F"):    dict(luts=19_300, ffs=17_100, dp16kd=86, mult18x18d=53, dpr16x4=269),
    ("lattice_versa_ecp5", "LFE5UM5G"): dict(luts=18_500, ffs=15_900, dp16kd=61, mult18x18d=43, dpr16x4=301),
    ("radiona_ulx3s", "LFE5U-85F"):     dict(luts=18_200, ffs=15_600, dp16kd=82, mult18x18d=37, dpr16x4=245),
    ("gsd_orangecrab", "25F"):          dict(luts=15_400, ffs=12_600, dp16kd=39, mult18x18d=25, dpr16x4=245),
}


@pytest.mark.parametrize("name, fpga", BOARDS)
def test_cores_of_boards(name, fpga):
    """Within its budget, with its memories where they should be, and as many multipliers and block RAMs as it is made of."""
    config, budget = CoreConfig(**get_board(name).fit(fpga).core), BOARDS[name, fpga]
    core = synthesis.resources(config)
    assert core.faults == []
    assert {key: getattr(core, key) for key, limit in budget.items() if getattr(core, key) > limit} == {}
    assert (core.dp16kd, core.mult18x18d) == (sum(synthesis.intended_memories(config).values()), synthesis.intended_multipliers(config))


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
    monkeypatch.undo()
    monkeypatch.setattr(synthesis, "intended_multipliers", lambda config: 50)
    assert synthesis.resources(CoreConfig()).faults == ["49 MULT18X18D, intended 50"]
