# SPDX-License-Identifier: BSD-2-Clause
"""What one pass, layer or position leaves in the core must not reach the next: a reset at every clock of a pass, values that
shrink and grow from layer to layer, long contexts and their last position. Always against the twin."""

import functools

import numpy as np
import pytest

from litellama.accel import image, numerics
from litellama.accel.config import BLOCK, CoreConfig, ModelConfig
from litellama.host.random_model import random_model

from core_bench import Core

CONFIG = CoreConfig(max_dim=64, max_hidden=64, max_heads_dim=64, max_head_dim=32, max_context=1088, kv_bytes=32768, kv_scales=1088,
    max_topk=8, fifo_bytes=2048, columns=2)


def make(model, in_dram, **port):
    """A fresh core with the model, and the twin."""
    core = Core(CONFIG, model, in_dram=in_dram, **port)
    core.set("dims_topk", CONFIG.max_topk)
    return core, numerics.Decoder(model, context=core.context, taps={})


def result(core):
    """x and candidates of the last pass: (bits, ids, bits)."""
    ids, logits = core.topk()
    return core.peek("x", 0, core.model.config.dim_blocks*BLOCK).tolist(), ids, numerics.bits(logits).tolist()


def expected(twin, token):
    """The same, of the twin's next position."""
    logits = twin.forward([token])
    ids    = numerics.topk(logits, CONFIG.max_topk)
    return numerics.bits(twin.taps["layer", twin.config.n_layers - 1][0]).tolist(), ids.tolist(), numerics.bits(logits[ids]).tolist()


DRAIN = 150   # Clocks a drain takes at most: the reads under way (134 at latency 4), far less than a pass.

# A reset at any time ------------------------------------------------------------------------------

@pytest.mark.parametrize("in_dram, every", ((False, 1), (True, 3)), ids=("chip", "dram"))
def test_reset_at_every_clock(in_dram, every):
    """A pass is reset after any number of clocks, up to its end and just behind; the next pass is the twin's. (With the cache
    in DRAM, whose other stages are the same, after every third.)"""
    model      = random_model(ModelConfig(32, 32, 1, 2, 1, 32, 8, 64), image.Q4_1, image.Q8_0, seed=21)
    core, twin = make(model, in_dram, latency=4)
    core.step(5, 0)
    assert result(core) == expected(twin, 5)
    cycles = core.step(7, 1)
    want   = expected(twin, 3)
    for clocks in range(1, cycles + 4, every):
        core.abort(7, 1, clocks, limit=DRAIN)   # (A reset that is lost would let the pass run to its end.)
        core.step(3, 1)
        assert core.get("error") == 0 and result(core) == want, f"after a reset {clocks} clocks into a pass of {cycles}"


# From layer to layer ------------------------------------------------------------------------------

def scaled(model, factors):
    """The model with the scales of its layers' matrices times 2**factor: factors[kind] has one per layer; norms alike."""
    for kind, powers in factors.items():
        for layer, power in zip(model.layers, powers):
            weight = getattr(layer, kind)
            if isinstance(weight, np.ndarray):
                weight *= np.float32(2.0**power)
            else:
                for s in (weight.d, weight.m):
                    if s is not None:
                        s[:] = (s.view(np.float16)*np.float16(2.0**power)).view(np.uint16)
    return model


@pytest.mark.parametrize("in_dram", (False, True))
@pytest.mark.parametrize("factors", (dict(norm1=(0, 14, 15, 13), wq=(0, -14, -14, -13), wk=(0, -14, -14, -13), wv=(0, -14, -14, -13)),
    dict(wv=(-9, 0, -9, -9), norm1=(-20, 20, -30, 0), norm2=(9, -25, 0, -12)),
    dict(w13=(4, -5, -7, -9), w2=(-8, 4, -9, -4), wo=(-5, 3, -9, -9), wq=(3, -5, -9, 4), wk=(2, -7, 3, -9))), ids=("values", "norms", "rows"))
def test_layers_of_different_size(factors, in_dram):
    """Vectors that are far smaller, or larger, than those of the stage and layer before: no exponent is kept."""
    model      = random_model(ModelConfig(64, 64, 4, 2, 1, 32, 40, 64), image.Q4_1, image.Q8_0, seed=22)
    core, twin = make(scaled(model, factors), in_dram, stall_256=40)
    for position, token in enumerate((7, 3, 30, 12)):
        core.step(token, position)
        assert core.get("error") == 0 and result(core) == expected(twin, token), f"position {position}"


# Long contexts ------------------------------------------------------------------------------------

@functools.cache
def long_model(context):
    """A model of one layer and one KV head with that context."""
    return random_model(ModelConfig(32, 32, 1, 2, 1, 32, 40, context), image.Q4_0, image.Q8_0, seed=23)


def test_positions_of_a_cache_in_dram():
    """Around multiples of 32, past 1,024 and to the last position of the context, over a cache that was written in any way: it
    runs round the tile's memories, which hold 1,024 positions."""
    model      = long_model(CONFIG.max_context)
    core, twin = make(model, True, latency=25, stall_256=20)
    c, rng     = model.config, np.random.default_rng(6)
    for cache in (twin.k, twin.v):
        cache[:] = rng.integers(-127, 128, cache.shape)
    for scales in (twin.k_scale, twin.v_scale):
        scales[:] = rng.integers(0x2000, 0x2800, scales.shape)
    core.store(0, 0, twin.k[0, 0], twin.v[0, 0], twin.k_scale[0, 0], twin.v_scale[0, 0])
    for position in (1087, 0, 30, 31, 32, 33, 62, 63, 64, 511, 512, 991, 992, 1022, 1023, 1024, 1025, 1055, 1056, 1086, 1087):
        token         = int(rng.integers(c.vocab))
        twin.position = position
        core.step(token, position)
        assert core.get("error") == 0 and result(core) == expected(twin, token), f"position {position}"
        for got, want in zip(core.cache(0, 0, CONFIG.max_context), (twin.k, twin.v, twin.k_scale, twin.v_scale)):
            assert (got == want[0, 0]).all(), f"the cache differs after position {position}"
    core.step(1, CONFIG.max_context)
    assert core.get("error") == 2


def test_positions_of_a_cache_on_chip():
    """The same to the last position of the context and of the memories. No pass writes the positions between: they are of
    zeros, as the memories begin, so that a score is right only where each key is found at its own place."""
    model      = long_model(1024)
    core, twin = make(model, False)
    for cache in (twin.k, twin.v, twin.k_scale, twin.v_scale):
        cache[:] = 0
    rng   = np.random.default_rng(8)
    edges = [0, 1, 2, 30, 31, 32, 33, 62, 63, 64, 65, 127, 128, 255, 256, 511, 512, 513, 767, 768, 959, 960, 991, 992, 993]
    for position in sorted({*edges, *rng.integers(0, 1000, 30).tolist(), *range(1016, 1024)}):
        token         = int(rng.integers(model.config.vocab))
        twin.position = position
        core.step(token, position)
        assert core.get("error") == 0 and result(core) == expected(twin, token), f"position {position}"
    for got, want in zip(core.cache(0, 0, 1024), (twin.k, twin.v, twin.k_scale, twin.v_scale)):
        assert (got == want[0, 0]).all()
    core.step(1, 1024)
    assert core.get("error") == 2
