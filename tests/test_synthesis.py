# SPDX-License-Identifier: BSD-2-Clause
"""The default core fits its budgets on ECP5, and its memories are what they are meant to be (synthesis only)."""

import pytest

from litellama.accel.config import CoreConfig
from litellama.soc import synthesis

# What it takes, as a ratchet: lower a budget when the core gets smaller. The goal is 20,000 LUTs and 64 multipliers.
BUDGET = dict(luts=19_600, ffs=17_900, dp16kd=117, mult18x18d=49, dpr16x4=240)


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


def test_fault_is_found(core, monkeypatch):
    """A memory that is not what was intended is reported."""
    wanted = synthesis.intended_memories(CoreConfig())
    monkeypatch.setattr(synthesis, "intended_memories", lambda config: {**wanted, "llama_x": 3, "llama_topk_list": 1})
    faults = synthesis.resources(CoreConfig()).faults
    assert faults == ["llama_x is 2 DP16KD, intended 3", "llama_topk_list is 0 DP16KD, intended 1"]
