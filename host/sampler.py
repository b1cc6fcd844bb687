# SPDX-License-Identifier: BSD-2-Clause
"""The integer sampler: bit-exact twin of the firmware's (firmware/sampler.c), so that a seed gives one text everywhere.

Candidates come as the hardware's top-k gives them: logit descending, token id ascending among equals. All arithmetic is on
integers: logits in Q16, weights 2**-u by `accel.numerics.exp2_neg`, and xorshift64* (Vigna, arXiv 1402.6246) seeded by one
step of splitmix64. One random number is drawn per sampled token, none when greedy.

In order: top-k (the hardware's), repetition penalty, temperature, top-p, min-p. The last two cut the distribution that is
sampled from, the one with temperature, as in the nucleus sampling paper (Holtzman et al., arXiv 1904.09751) and Hugging
Face; llama.cpp cuts before temperature. min-p: Nguyen et al., arXiv 2407.01082. Both look at all candidates of the top-k, so
neither depends on what the other cut.

Repetition penalty (Keskar et al., CTRL, arXiv 1909.05858, as in llama.cpp): a candidate among the last N tokens of the context,
fed or sampled, has its logit divided by the penalty if positive, else multiplied. Exactly, with the penalty P in Q16 and a
logit L in Q16: L*floor(2**48/P) >> 32 if L > 0, else -(min(-L*P >> 16, 2**31 - 1)). Then the candidates are sorted anew, by
logit descending, equals by token id ascending.

Those N tokens come with each request (`recent`, then the request's own): a device remembers none, so that rewinding, a new
session, a prompt in pieces or an abort cannot make it look at others than its twin does.
"""

from collections import deque
from dataclasses import dataclass
import math

import numpy as np

from ..accel.config import TOPK_MAX, check
from ..accel.numerics import exp2_neg
from ..firmware.constants import GREEDY, INV_TEMPERATURE_MAX, REPEAT_LAST_MAX, REPEAT_PENALTY_MAX

U_MAX        = 2**31 - 1
SEED_OF_ZERO = 0x9E3779B97F4A7C15
_M64         = 2**64 - 1
_PENALTY_MAX = REPEAT_PENALTY_MAX >> 16


@dataclass(frozen=True)
class SamplerParams:
    """How to choose a token.

    temperature: 0 (greedy) to 100. top_k: candidates considered, 1 to 64 (0: 64).
    top_p: smallest set of candidates whose probabilities reach this, 0 to 1. seed: 64 bits. min_p: candidates less probable
    than this share of the best one's probability are dropped, 0 (none) to 1. repeat_penalty: 1 (none) to 10, for candidates
    among the last `repeat_last_n` tokens, 0 (none) to 64.
    """
    temperature:    float = 0.0
    top_k:          int   = 0
    top_p:          float = 1.0
    seed:           int   = 0
    min_p:          float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n:  int   = REPEAT_LAST_MAX

    def __post_init__(self):
        check(0 <= self.temperature <= 100, f"temperature is {self.temperature}, must be 0 to 100")
        check(0 <= self.top_k <= TOPK_MAX, f"top-k is {self.top_k}, must be 0 (for {TOPK_MAX}) to {TOPK_MAX}")
        check(0 <= self.top_p <= 1, f"top-p is {self.top_p}, must be 0 to 1")
        check(0 <= self.seed <= _M64, f"seed is {self.seed}, must be 0 to 2**64 - 1")
        check(0 <= self.min_p <= 1, f"min-p is {self.min_p}, must be 0 to 1")
        check(1 <= self.repeat_penalty <= _PENALTY_MAX,
            f"repeat penalty is {self.repeat_penalty}, must be 1 to {_PENALTY_MAX}")
        check(0 <= self.repeat_last_n <= REPEAT_LAST_MAX,
            f"repeat-last-n is {self.repeat_last_n}, must be 0 to {REPEAT_LAST_MAX}")

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

    @property
    def min_p_q16(self):
        """min_p in Q16, 0 to 65,536."""
        return round(self.min_p*65536)

    @property
    def repeat_penalty_q16(self):
        """repeat_penalty in Q16, 65,536 (none) to REPEAT_PENALTY_MAX."""
        return round(self.repeat_penalty*65536)

    @property
    def window(self):
        """Tokens that the penalty looks back at, 0 where there is none."""
        return self.repeat_last_n if self.repeat_penalty_q16 > 65536 else 0

    def candidates(self, vocab):
        """Candidates asked of the top-k for a vocabulary of `vocab`: the first alone is enough when greedy without penalty."""
        return 1 if self.inv_temperature == GREEDY and not self.window else min(self.top_k or TOPK_MAX, TOPK_MAX, vocab)


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
    """Chooses tokens with `params`; the RNG starts anew with each object. recent: tokens of the context, oldest first."""

    def __init__(self, params, recent=()):
        self.params = params
        self.rng    = Rng(params.seed)
        self.recent = deque(recent, params.window)

    def penalised(self, ids, fixed):
        """(ids, logits) after the repetition penalty, best first; logits are ints in Q16."""
        penalty  = self.params.repeat_penalty_q16
        inverse  = 2**48//penalty
        penalise = lambda l: l*inverse >> 32 if l > 0 else -min(-l*penalty >> 16, U_MAX)
        pairs    = [(penalise(l) if i in self.recent else l, i) for i, l in zip(ids, fixed)]
        pairs.sort(key=lambda p: (-p[0], p[1]))
        return [i for _, i in pairs], [l for l, _ in pairs]

    def weights(self, fixed):
        """Integer weights of candidates (logits in Q16, largest first), cut by top-p and min-p: list of int."""
        inv   = self.params.inv_temperature
        u     = [min((fixed[0] - l)*inv >> 16, U_MAX) for l in fixed]
        w     = [int(x) for x in exp2_neg(np.array(u, np.int64))]
        limit = self.params.top_p_q16*sum(w)
        total = 0
        for i, x in enumerate(w):
            if x < self.params.min_p_q16:   # The first one's weight is 65,536.
                return w[:i]
            total += x
            if total << 16 >= limit:
                return w[:i + 1]
        return w

    def choose(self, ids, logits):
        """Token of the candidates `ids` with their fp32 `logits`, largest first; from now on it is a recent one."""
        ids, fixed = [int(i) for i in ids], [int(l) for l in logit_fixed(logits)]
        if self.params.window:
            ids, fixed = self.penalised(ids, fixed)
        token = ids[0] if self.params.inv_temperature == GREEDY else self._draw(ids, self.weights(fixed))
        self.recent.append(token)
        return token

    def _draw(self, ids, weights):
        threshold = self.rng.next()*sum(weights) >> 32
        for token, x in zip(ids, weights):
            threshold -= x
            if threshold < 0:
                return token
        raise AssertionError("the threshold is below the sum of the weights")

    def pick(self, logits):
        """Token from all logits, fp32 (vocab,)."""
        return self.choose(*top_candidates(logits, self.params.candidates(len(logits))))
