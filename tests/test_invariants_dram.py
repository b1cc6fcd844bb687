# SPDX-License-Identifier: BSD-2-Clause
"""The invariants with keys and values in DRAM and query heads in sets that share a stream: the monitor of test_invariants.py
inside a core of three columns."""

import functools

import numpy as np
import pytest

from litellama.accel import image
from litellama.accel.config import BLOCK, CoreConfig, ModelConfig, ceil_div
from litellama.accel.controller import ERROR_STREAM
from litellama.host.random_model import random_model

from core_bench import Core
from core_monitor import blocks, check_starts_and_dones, monitor, seen, watch_text

# The tile holds 32 positions of a head of one block, 16 of one of two.
CONFIG = CoreConfig(columns=3, max_dim=64, max_hidden=128, max_heads_dim=128, max_head_dim=64, max_context=64, kv_bytes=1024,
    kv_scales=64, max_topk=16, fifo_bytes=2048)
MODELS = {
    "pairs":  (ModelConfig(64, 96, 2, 4, 2, 32, 70, 64), image.Q4_0, image.Q8_0),    # Sets smaller than the columns.
    "four":   (ModelConfig(64, 64, 2, 4, 1, 32, 40, 64), image.Q4_1, image.Q8_0),    # A set of three and one of one.
    "wide":   (ModelConfig(32, 64, 2, 2, 1, 48, 33, 64), image.Q8_0, image.Q4_0),    # Heads of two blocks.
}
LENGTH = 35


def core_of(name, **port):
    """A fresh simulated core of that model, its cache in DRAM."""
    config, layers, head = MODELS[name]
    core = Core(CONFIG, random_model(config, layers, head, seed=3), in_dram=True, monitor=monitor, **port)
    core.set("dims_topk", CONFIG.max_topk)
    return core


@functools.cache
def text_of(name):
    """What the monitor saw after each pass of a text, with random stalls of both ports."""
    return watch_text(core_of(name, stall_256=40), LENGTH)


@pytest.mark.parametrize("name", MODELS)
def test_starts_and_dones(name):
    """1: each block's done is one pulse per start, after all of its work on all columns."""
    last = text_of(name)[-1]
    check_starts_and_dones(last)
    assert not last["fault_stages"]


@pytest.mark.parametrize("name", MODELS)
def test_reads_follow_writes(name):
    """3: the DRAM is only asked for a layer's cache after it has taken all of this position's; the tile sees no conflict."""
    last = text_of(name)[-1]
    assert not last["fault_asked"], "a read of the cache overtakes a write"
    assert not last["fault_unready"] and not last["fault_conflict"] and not last["fault_place"]


@pytest.mark.parametrize("name", MODELS)
def test_loops_end_at_the_position(name):
    """4: scores and exponentials are those of positions 0 to pos, and no beat comes from behind the position's block."""
    c = MODELS[name][0]
    for position, got in enumerate(text_of(name)):
        want = c.n_layers*c.n_heads*(position + 1)
        assert (got["pass_scores"], got["pass_exp2"]) == (want, want), f"position {position}"
        sets, beats = streams(c), BLOCK//CONFIG.beat_bytes
        assert got["pass_keys_filled"] == sets*(position + 1)*c.head_blocks*beats
        assert got["pass_values_filled"] == sets*ceil_div(position + 1, BLOCK)*BLOCK*c.head_blocks*beats
        for kind in ("key_scales", "value_scales"):   # Two bytes each, in whole units of 32 bytes.
            assert got[f"pass_{kind}_filled"] == sets*ceil_div(position + 1, 16)*beats


def streams(c):
    """How often a pass streams keys, and values: once per set of query heads of each KV head."""
    return c.n_layers*c.n_kv_heads*ceil_div(c.group, CONFIG.columns)


@pytest.mark.parametrize("name", MODELS)
def test_once_per_kv_head(name):
    """5: each key and value is computed, stored and taken by the DRAM once; each KV head's are streamed once per set of
    columns, and its sets follow each other."""
    c    = MODELS[name][0]
    size = c.n_layers*c.n_kv_heads*c.head_blocks*BLOCK
    for got in text_of(name):
        assert got["pass_computed"] == got["pass_bytes"] == 2*size
        assert got["pass_scales"] == 2*c.n_layers*c.n_kv_heads
        assert got["pass_taken"] == 2*size + 4*c.n_layers*c.n_kv_heads
        for kind in ("keys", "values", "dram_keys", "dram_values", "dram_key_scales", "dram_value_scales"):
            assert got[f"pass_{kind}_read"] == streams(c), kind
            assert got[f"pass_{kind}_heads"] == c.n_layers*c.n_kv_heads, kind


def test_reset_and_failed_pass():
    """6: one pulse of token_ready ends a pass that fails behind attention, and one that is reset at any time; no write is lost
    or left over, and the next pass keeps the invariants."""
    core, passes = core_of("four", stall_256=40), 1
    core.step(1, 0)
    vocab = core.get("dims_vocab")
    core.set("dims_vocab", vocab + 1)
    core.step(3, 1)
    passes += 1
    assert core.get("error") == ERROR_STREAM
    core.set("dims_vocab", vocab)
    for clocks in range(150, 2400, 225):
        for name, value in dict(token=3, position=1, want_logits=1, start=1).items():
            core.set(name, value)
        core.lib.core_steps(core.core, 1)
        core.set("start", 0)
        core.lib.core_steps(core.core, clocks)
        assert core.get("busy")
        core.set("reset", 1)
        core.lib.core_steps(core.core, 1)
        core.set("reset", 0)
        core.lib.core_steps(core.core, 2000)
        assert not core.get("busy")
        core.step(3, 1)
        assert core.get("error") == 0
        passes += 2
        got = seen(core)
        assert (got["passes"], got["token_ready_clocks"], got["pass_token_ready"]) == (passes, passes, 1)
        faults = [n for n, v in got.items() if n.startswith("fault_") and v]
        assert not faults and not blocks(got["open"]), f"{faults} after a reset in clock {clocks}"
        assert got["pass_taken"] == 2*MODELS["four"][0].n_layers*(BLOCK + 2)
