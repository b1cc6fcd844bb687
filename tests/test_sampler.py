# SPDX-License-Identifier: BSD-2-Clause
"""The integer sampler: its arithmetic against the specification written out, its distribution against softmax."""

import math

import numpy as np
import pytest

from litellama.firmware.constants import GREEDY, INV_TEMPERATURE_MAX, REPEAT_PENALTY_MAX
from litellama.host.sampler import Rng, Sampler, SamplerParams, logit_fixed, top_candidates


def test_rng_is_xorshift64star_over_splitmix64():
    assert Rng(0).state == 0xE220A8397B1DCDAF   # splitmix64's published first output.
    rng, state = Rng(12345), Rng(12345).state
    for _ in range(100):
        state ^= state >> 12
        state  = (state ^ state << 25) % 2**64
        state ^= state >> 27
        assert rng.next() == (state*0x2545F4914F6CDD1D % 2**64) >> 32


def test_parameters_to_integers():
    assert SamplerParams(0.0).inv_temperature == GREEDY
    assert SamplerParams(1.0).inv_temperature == round(math.log2(math.e)*65536) == 94548
    assert SamplerParams(0.8).inv_temperature == 118186
    assert SamplerParams(1e-9).inv_temperature == SamplerParams(1e-300).inv_temperature == INV_TEMPERATURE_MAX
    assert [SamplerParams(top_p=p).top_p_q16 for p in (0, 0.5, 0.9, 1)] == [0, 32768, 58982, 65536]
    assert [SamplerParams(min_p=p).min_p_q16 for p in (0, 0.05, 1)] == [0, 3277, 65536]
    assert [SamplerParams(repeat_penalty=p).repeat_penalty_q16 for p in (1, 1.1, 10)] == [65536, 72090, REPEAT_PENALTY_MAX]
    assert [SamplerParams(1.0, k).candidates(512) for k in (0, 1, 40, 64)] == [64, 1, 40, 64]
    assert SamplerParams(1.0).candidates(10) == 10
    assert SamplerParams().candidates(512) == SamplerParams(repeat_last_n=9).candidates(512) == 1
    assert SamplerParams(repeat_penalty=1.1).candidates(512) == 64 and SamplerParams(repeat_penalty=1.1, top_k=5).candidates(9) == 5
    assert SamplerParams(repeat_penalty=1.1, repeat_last_n=0).candidates(512) == 1


@pytest.mark.parametrize("wrong", [dict(temperature=-1), dict(temperature=math.nan), dict(top_k=65), dict(top_k=-1),
    dict(top_p=1.5), dict(seed=-1), dict(seed=2**64), dict(min_p=-0.1),
    dict(min_p=1.1), dict(min_p=math.nan), dict(repeat_penalty=0.9), dict(repeat_penalty=10.1), dict(repeat_penalty=math.nan),
    dict(repeat_last_n=-1), dict(repeat_last_n=65)])
def test_parameters_out_of_range(wrong):
    with pytest.raises(ValueError, match="must be"):
        SamplerParams(**wrong)


def test_logits_in_fixed_point():
    x = np.array([1.5, -1.5, 1e-6, -1e-6, 1e30, -1e30, 3.0000153], np.float32)
    assert logit_fixed(x).tolist() == [98304, -98304, 0, 0, 2**31 - 1, -2**31 + 1, 196609]


def test_candidates_are_in_order_and_ties_go_to_the_lower_id():
    rng = np.random.default_rng(1)
    for _ in range(50):
        logits = rng.integers(-5, 5, 300).astype(np.float32)
        n      = int(rng.integers(1, 301))
        want   = sorted(range(300), key=lambda i: (-logits[i], i))[:n]
        ids, values = top_candidates(logits, n)
        assert ids.tolist() == want and values.tolist() == logits[want].tolist()


def test_weights_and_top_p():
    s = Sampler(SamplerParams(temperature=math.log2(math.e), seed=1))   # Each weight is 2**-(difference of logits).
    assert s.params.inv_temperature == 65536
    assert s.weights([l << 16 for l in (3, 2, 1, 3 - 40)]) == [65536, 32768, 16384]   # The last is 0: cut.
    def kept(p):
        params = SamplerParams(temperature=math.log2(math.e), top_p=p)
        return len(Sampler(params).weights([3 << 16, 2 << 16, 1 << 16]))
    assert [kept(p) for p in (0.0, 0.5, 4/7, 0.58, 0.857, 0.858, 1.0)] == [1, 1, 1, 2, 2, 3, 3]


def test_borders_between_candidates():
    """Two equal candidates share the range of the random number at exactly half."""
    s = Sampler(SamplerParams(1.0))
    for r, token in ((0, 4), (2**31 - 1, 4), (2**31, 9), (2**32 - 1, 9)):
        s.rng.next = lambda: r
        assert s.choose([4, 9], np.zeros(2, np.float32)) == token


def test_greedy_draws_nothing():
    s = Sampler(SamplerParams(seed=5))
    before = s.rng.state
    assert s.pick(np.array([1, 7, 7, 3], np.float32)) == 1
    assert s.rng.state == before


def test_extreme_logits():
    params = SamplerParams(temperature=1e-5, seed=3)
    assert Sampler(params).pick(np.array([-3e38, 3e38, 0], np.float32)) == 1
    assert Sampler(SamplerParams(100.0, seed=1)).pick(np.zeros(1, np.float32)) == 0


def test_distribution_is_that_of_softmax():
    logits = np.array([2.0, 1.0, 0.5, 0.0, -1.0], np.float32)
    s      = Sampler(SamplerParams(temperature=0.7, seed=42))
    counts = np.bincount([s.pick(logits) for _ in range(20000)], minlength=5)/20000
    p      = np.exp(logits/0.7)
    assert np.abs(counts - p/p.sum()).max() < 0.01


def test_published_sequence():
    """The firmware's test has the same vector: seed, options and logits give these tokens."""
    logits = (np.arange(100)*37 % 101).astype(np.float32)/8
    s      = Sampler(SamplerParams(temperature=0.8, top_k=40, top_p=0.95, seed=2024))
    assert [s.pick(logits) for _ in range(16)] == PUBLISHED


PUBLISHED = [int(t) for t in "90 8 27 60 90 49 79 8 30 35 49 68 57 68 19 60".split()]
