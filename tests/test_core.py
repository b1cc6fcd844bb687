# SPDX-License-Identifier: BSD-2-Clause
"""The whole core, Verilated behind a model of a DRAM port, against the twin: same bits at every stage boundary."""

import ctypes

import numpy as np
import pytest

from litellama.accel import image, numerics
from litellama.accel.config import BLOCK, CoreConfig, ModelConfig
from litellama.accel.controller import STAGES
from litellama.accel.counters import COUNTERS
from litellama.host.random_model import random_model

from core_bench import Core

SMALL  = dict(max_dim=256, max_hidden=512, max_heads_dim=256, max_head_dim=64, max_context=128, kv_bytes=32768,
    kv_scales=1024, fifo_bytes=2048)
SHAPES = {
    "gqa":       (ModelConfig(64, 172, 2, 8, 4, 8, 300, 96), image.Q4_0, image.Q8_0),     # hidden 172, head size 8
    "mqa48":     (ModelConfig(96, 128, 2, 2, 1, 48, 260, 64), image.Q8_0, image.Q8_0),    # head size 48, one KV head
    "one_block": (ModelConfig(32, 32, 1, 1, 1, 32, 512, 64), image.Q4_1, image.Q4_1),     # rows of one block
    "gqa3":      (ModelConfig(96, 160, 2, 6, 2, 32, 260, 96), image.Q4_1, image.Q8_0),    # three heads on a KV head, as SmolLM2
    "mha":       (ModelConfig(128, 320, 3, 4, 4, 32, 515, 128), image.Q4_1, image.Q8_0),  # as many KV heads as heads
}


def check_candidates(core, logits):
    """The candidates are the twin's, in its order, and so are their logits."""
    ids, values = core.topk()
    expected    = numerics.topk(logits, min(64, core.model.config.vocab))
    assert ids == list(expected)
    assert (numerics.bits(values) == numerics.bits(logits[expected])).all()


def compare(config, model, tokens, **port):
    """Feed `tokens`, comparing x, cache and candidates with the twin after every pass."""
    core = Core(config, model, **port)
    twin = numerics.Decoder(model, context=core.context, taps={})
    c    = model.config
    for position, token in enumerate(tokens):
        wanted = position % 3 != 1
        core.step(token, position, logits=wanted)
        logits = twin.forward([token], "last" if wanted else None)
        assert core.get("error") == 0
        x = core.peek("x", 0, c.dim_blocks*BLOCK)
        assert (x == numerics.bits(twin.taps["layer", c.n_layers - 1][0])).all(), f"x differs at position {position}"
        if wanted:
            check_candidates(core, logits)
    for i in range(c.n_layers):
        for h in range(c.n_kv_heads):
            cached   = core.cache(i, h, len(tokens))
            expected = (a[i, h, :len(tokens)] for a in (twin.k, twin.v, twin.k_scale, twin.v_scale))
            assert all((a == b).all() for a, b in zip(cached, expected)), f"cache of layer {i}, head {h} differs"
    return core, twin


@pytest.mark.parametrize("shape", SHAPES)
def test_core_equals_twin(shape):
    """Every position's residual stream, candidates and cache are the twin's, under random stalls of the port."""
    config, layers, head = SHAPES[shape]
    model = random_model(config, layers, head, seed=5)
    rng   = np.random.default_rng(1)
    compare(CoreConfig(**SMALL), model, rng.integers(0, config.vocab, 36).tolist(), latency=25, stall_256=60)


@pytest.mark.parametrize("shape, columns", (("gqa", 1), ("gqa", 2), ("mqa48", 3), ("one_block", 1), ("mha", 2), ("gqa3", 3)))
def test_cache_in_dram(shape, columns):
    """The same bits with keys and values in DRAM behind a tile of two blocks of positions or less, and query heads in sets
    of `columns` that share a stream."""
    config, layers, head = SHAPES[shape]
    model = random_model(config, layers, head, seed=11)
    rng   = np.random.default_rng(2)
    core  = CoreConfig(**{**SMALL, "columns": columns, "kv_bytes": 2048, "kv_scales": 128})
    compare(core, model, rng.integers(0, config.vocab, 36).tolist(), latency=25, stall_256=60, in_dram=True)


@pytest.mark.parametrize("columns", (2, 3))
def test_columns_on_chip(columns):
    """Sets of query heads over a cache on chip, the last set of a group smaller."""
    config, layers, head = SHAPES["gqa3"]
    compare(CoreConfig(**{**SMALL, "columns": columns}), random_model(config, layers, head, seed=12), [5, 9, 2, 7, 1])


@pytest.mark.parametrize("shape, in_dram", (("gqa", False), ("mqa48", False), ("gqa3", True), ("mha", True)))
def test_core_of_64_lanes(shape, in_dram):
    """The same bits from two blocks a clock behind a port of 32 bytes, where rows have an even number of blocks and where not."""
    config, layers, head = SHAPES[shape]
    tile  = dict(kv_bytes=2048, kv_scales=128) if in_dram else {}
    core  = CoreConfig(**{**SMALL, "lanes": 64, "columns": 2, **tile})
    rng   = np.random.default_rng(3)
    compare(core, random_model(config, layers, head, seed=13), rng.integers(0, config.vocab, 36).tolist(), latency=25,
        stall_256=60, in_dram=in_dram)


@pytest.mark.parametrize("lanes", (8, 16))
def test_core_of_fewer_lanes(lanes):
    """The same bits come from narrower arrays."""
    config, layers, head = SHAPES["gqa"]
    compare(CoreConfig(**{**SMALL, "lanes": lanes}), random_model(config, layers, head, seed=6), [5, 9, 2, 7])


def test_counters_add_up():
    """The stage counters sum to the total, and the stream's states never exceed it."""
    config, layers, head = SHAPES["gqa"]
    core, _ = compare(CoreConfig(**SMALL), random_model(config, layers, head, seed=7), [1, 2, 3, 4])
    cycles  = core.step(3, 4)
    counts  = core.counters(COUNTERS)
    assert abs(counts["total"] - cycles) <= 4
    assert sum(counts[s] for s in STAGES) == counts["total"]
    assert counts["beats"] + counts["no_data"] + counts["no_room"] <= counts["total"]
    stream = len(image.pack_stream(core.model)[0])//CoreConfig(**SMALL).beat_bytes
    assert stream <= counts["beats"] <= stream + 200   # The embedding row's groups and the RoPE row on top.


def test_causality():
    """Garbage in the cache behind the current position changes nothing: loops end at it."""
    config, layers, head = SHAPES["gqa"]
    model  = random_model(config, layers, head, seed=8)
    tokens = [3, 1, 4, 1, 5, 9]
    core, _ = compare(CoreConfig(**SMALL), model, tokens)
    # Go back: positions 3 and later now hold keys and values of another text.
    twin = numerics.Decoder(model, context=core.context, taps={})
    twin.forward(tokens[:3])
    core.step(7, 3)
    check_candidates(core, twin.forward([7]))


def test_stream_out_of_step():
    """A damaged matrix header ends the pass with error 1, and after a reset the core decodes again."""
    config, layers, head = SHAPES["gqa"]
    model = random_model(config, layers, head, seed=9)
    core  = Core(CoreConfig(**SMALL), model)
    good  = bytearray(image.write_image(model))
    bad   = bytearray(good)
    start = image.read_header(good).stream_offset + image.MATRIX.size + config.dim_blocks*BLOCK*4
    bad[start] ^= 1
    core.lib.core_load(core.core, bytes(bad), ctypes.c_size_t(len(bad)))
    core.step(1, 0)
    assert core.get("error") == 1
    core.load(bytes(good))
    core.step(1, 0)
    assert core.get("error") == 0
    check_candidates(core, numerics.Decoder(model).forward([1]))


def test_dimension_over_limit():
    """A dimension over its build limit ends the pass with error 2 instead of wrong addresses."""
    config, layers, head = SHAPES["gqa"]
    core = Core(CoreConfig(**SMALL), random_model(config, layers, head, seed=9))
    core.set("dims_hidden_blocks", SMALL["max_hidden"]//BLOCK + 1)
    core.step(1, 0)
    assert core.get("error") == 2
