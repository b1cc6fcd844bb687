# SPDX-License-Identifier: BSD-2-Clause
"""The integer sampler: bit-exact twin of the firmware's (firmware/sampler.c), so that a seed gives one text everywhere.

Candidates come as the hardware's top-k gives them: logit descending, token id ascending among equals. All arithmetic is on
integers: logits in Q16, weights 2**-u by `accel.numerics.exp2_neg`, and xorshift64* (Vigna, arXiv 1402.6246) seeded by one
step of splitmix64. One random number is drawn per sampled token, none when greedy.
"""

from dataclasses import dataclass
import math

import numpy as np

from ..accel.config import TOPK_MAX, check
from ..accel.numerics import exp2_neg

GREEDY              = 0xFFFFFFFF   # inv_temperature that means: take the first candidate.
INV_TEMPERATURE_MAX = 1 << 26
U_MAX               = 2**31 - 1
SEED_OF_ZERO        = 0x9E3779B97F4A7C15
_M64                = 2**64 - 1


@dataclass(frozen=True)
class SamplerParams:
    """How to choose a token.

    temperature: 0 (greedy) to 100. top_k: candidates considered, 1 to 64 (0: 64).
    top_p: smallest set of candidates whose probabilities reach this, 0 to 1. seed: 64 bits.
    """
    temperature: float = 0.0
    top_k:       int   = 0
    top_p:       float = 1.0
    seed:        int   = 0

    def __post_init__(self):
        check(0 <= self.temperature <= 100, f"temperature is {self.temperature}, must be 0 to 100")
        check(0 <= self.top_k <= TOPK_MAX, f"top-k is {self.top_k}, must be 0 (for {TOPK_MAX}) to {TOPK_MAX}")
        check(0 <= self.top_p <= 1, f"top-p is {self.top_p}, must be 0 to 1")
        check(0 <= self.seed <= _M64, f"seed is {self.seed}, must be 0 to 2**64 - 1")

    @property
    def inv_temperature(self):
        """log2(e)/temperature in Q16 as uint32, or GREEDY."""
        if self.temperature == 0:
            return GREEDY
        return min(round(min(math.log2(math.e)/self.temperature, 2.0**20)*65536), INV_TEMPERATURE_MAX)

    @property
    def top_p_q16(self):
        """top_p in Q16, 0 to 65,536."""
        return round(self.top_p*65536)

    def candidates(self, vocab):
        """Candidates asked of the top-k for a vocabulary of `vocab`."""
        return min(self.top_k or TOPK_MAX, TOPK_MAX, vocab)


def top_candidates(logits, n):
    """(ids, logits) of the n largest, largest first, of equals the lower id first: logits fp32 (vocab,)."""
    logits = np.asarray(logits, np.float32)
    if n < len(logits):   # All that can be among the first n, equals at the border included, then sort these few.
        few = np.flatnonzero(logits >= np.partition(logits, -n)[-n])
    else:
        few = np.arange(len(logits))
    few = few[np.argsort(-logits[few].astype(np.float64), kind="stable")[:n]]
    return few, logits[few]


def logit_fixed(logits):
    """fp32 logits in Q16: truncated toward zero, saturated at +-(2**31 - 1), int64."""
    scaled = np.trunc(np.asarray(logits, np.float32).astype(np.float64)*65536)
    return np.clip(scaled, -U_MAX, U_MAX).astype(np.int64)


class Rng:
    """xorshift64* over a splitmix64-scrambled seed."""

    def __init__(self, seed):
        z          = (seed + SEED_OF_ZERO) & _M64
        z          = ((z ^ z >> 30)*0xBF58476D1CE4E5B9) & _M64
        z          = ((z ^ z >> 27)*0x94D049BB133111EB) & _M64
        self.state = (z ^ z >> 31) or SEED_OF_ZERO

    def next(self):
        """The next 32 random bits."""
        x  = self.state
        x ^= x >> 12
        x ^= x << 25 & _M64
        x ^= x >> 27
        self.state = x
        return (x*0x2545F4914F6CDD1D & _M64) >> 32


class Sampler:
    """Chooses tokens with `params`; the RNG starts anew with each object."""

    def __init__(self, params):
        self.params = params
        self.rng    = Rng(params.seed)

    def weights(self, logits):
        """Integer weights of candidates (fp32 logits, largest first), cut by top-p: list of int."""
        fixed = [int(l) for l in logit_fixed(logits)]
        inv   = self.params.inv_temperature
        u     = [min((fixed[0] - l)*inv >> 16, U_MAX) for l in fixed]
        w     = [int(x) for x in exp2_neg(np.array(u, np.int64))]
        limit = self.params.top_p_q16*sum(w)
        total = 0
        for i, x in enumerate(w):
            total += x
            if total << 16 >= limit:
                return w[:i + 1]
        return w

    def choose(self, ids, logits):
        """Token of the candidates `ids` with their fp32 `logits`, largest first."""
        if self.params.inv_temperature == GREEDY:
            return int(ids[0])
        w         = self.weights(logits)
        threshold = self.rng.next()*sum(w) >> 32
        total     = 0
        for token, x in zip(ids, w):
            total += x
            if total > threshold:
                return int(token)
        raise AssertionError("the threshold is below the sum of the weights")

    def pick(self, logits):
        """Token from all logits, fp32 (vocab,)."""
        n = 1 if self.params.inv_temperature == GREEDY else self.params.candidates(len(logits))
        return self.choose(*top_candidates(logits, n))
