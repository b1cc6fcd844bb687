# SPDX-License-Identifier: BSD-2-Clause
"""The sampler at its borders, by hand: a weight is 65,536 times the share of the best candidate's probability."""

import math

import pytest

from litellama.host.sampler import Sampler, SamplerParams

HALF = round(math.log(2)*65536)   # Logits this far apart, in Q16: half as probable.


def weights(fixed, **params):
    """Weights at temperature 1."""
    return Sampler(SamplerParams(temperature=1.0, **params)).weights(fixed)


def test_top_p_of_1_keeps_the_least_probable():
    """16 halvings: a weight of 1 in 65,537."""
    assert weights([0, -16*HALF], top_p=1.0) == [65536, 1]


@pytest.mark.parametrize("top_p, n", [(0.0, 1), (0.25, 1), (0.5, 2), (0.5 + 2**-16, 3), (0.75, 3), (0.75 + 2**-16, 4), (1.0, 4)])
def test_top_p_keeps_until_it_is_reached(top_p, n):
    """Four equals: each has a quarter, and a sum that equals top-p is enough."""
    assert weights([5, 5, 5, 5], top_p=top_p) == [65536]*n


@pytest.mark.parametrize("min_p, n", [(0.0, 3), (0.25 - 2**-16, 3), (0.25, 3), (0.25 + 2**-16, 2), (0.5, 2), (0.5 + 2**-16, 1), (1.0, 1)])
def test_min_p_keeps_what_has_just_its_share(min_p, n):
    got = weights([7, 7 - HALF, 7 - 2*HALF], min_p=min_p)
    assert got == [65536, 32768, 16384][:n]


def test_both_at_once_look_at_all_candidates():
    """Of 65,536 + 32,768 + 16,384 the first two are 0.857: top-p of 0.8 wants both, min-p of 0.6 the first alone."""
    fixed = [0, -HALF, -2*HALF]
    assert weights(fixed, top_p=0.8) == [65536, 32768] and weights(fixed, top_p=0.8, min_p=0.6) == [65536]
    assert weights(fixed, top_p=0.57) == [65536] and weights(fixed, top_p=0.58) == [65536, 32768]


def test_what_is_not_given_is_greedy_and_cuts_nothing():
    assert SamplerParams() == SamplerParams(temperature=0.0, top_k=0, top_p=1.0, seed=0, min_p=0.0, repeat_penalty=1.0, repeat_last_n=64)
