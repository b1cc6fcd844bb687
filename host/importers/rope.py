# SPDX-License-Identifier: BSD-2-Clause
"""RoPE scaling as models state it, turned into what a table can hold: a divisor for each frequency, and a factor on all
cosines and sines. (GGUF calls kinds none, linear, yarn; Hugging Face default (none), linear, llama3, yarn. GGUF has llama3's divisors
as a tensor.) Errors are ValueError.

Sources: linear: Chen et al., arXiv 2306.15595. llama3: Meta's llama-models, apply_scaling. yarn: Peng et al., arXiv 2309.00071,
with the rounding of the correction range that transformers and llama.cpp have.
"""

from dataclasses import dataclass
import math

import numpy as np

from ...accel.config import check
from ...accel.image import rope_table

KINDS = ("none", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Scaling:
    """kind: one of KINDS. factor: times the original context. original: positions trained before scaling. low, high: llama3's
    frequency factors. beta_fast, beta_slow: yarn's rotations within `original`, the limits of its ramp; truncate: to whole pairs.
    attention: factor on cosines and sines; unless given 0.1*ln(factor) + 1 with yarn, else 1."""
    kind:      str   = "none"
    factor:    float = 1.0
    original:  int   = 0
    low:       float = 1.0
    high:      float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention: float = None
    truncate:  bool  = True

    def __post_init__(self):
        check(self.kind in KINDS, f"RoPE scaling {self.kind[:40]!r} is not supported, only {', '.join(KINDS)} are")
        check(0 < self.factor < 1e6, f"RoPE scaling factor is {self.factor}, must be between 0 and 1e6")
        check(self.kind not in ("llama3", "yarn") or 1 <= self.original <= 1 << 24,
            f"RoPE scaling {self.kind} starts from {self.original} positions, must be 1 to {1 << 24}")
        check(0 < self.low < self.high < 1e6, f"RoPE frequency factors are {self.low} and {self.high}, must rise")
        check(0 < self.beta_slow <= self.beta_fast < 1e6,
            f"RoPE yarn betas are {self.beta_slow} and {self.beta_fast}, must not fall")
        check(self.attention is None or 0 < self.attention < 1e3,
            f"RoPE attention factor is {self.attention}, must be between 0 and 1000")

    def divisors(self, head_dim, base):
        """Divisors of the frequencies base**(-2i/head_dim): float64 (head_dim/2,)."""
        return {"linear": self._linear, "llama3": self._llama3, "yarn": self._yarn}.get(self.kind, self._none)(head_dim, base)

    def _none(self, head_dim, base):
        return np.ones(head_dim//2)

    def _linear(self, head_dim, base):
        return np.full(head_dim//2, self.factor)

    def _llama3(self, head_dim, base):
        """Long waves are scaled, short ones are not, between them the share of rotations within `original` decides."""
        turns = self.original*base**(-np.arange(0, head_dim, 2)/head_dim)/(2*math.pi)
        share = np.clip((turns - self.low)/(self.high - self.low), 0, 1)
        return 1/((1 - share)/self.factor + share)

    def _yarn(self, head_dim, base):
        """As llama3, but the ramp is over the index of the pair."""
        pair  = lambda turns: head_dim*math.log(self.original/(turns*2*math.pi))/(2*math.log(base))
        start, end = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            start, end = math.floor(start), math.ceil(end)
        start, end = max(start, 0), min(end, head_dim - 1)
        check(start <= end, f"RoPE yarn's ramp is from pair {start:g} to {end:g}: {self.original} original positions do not suit "
            f"base {base:g}")
        share = 1 - np.clip((np.arange(head_dim//2) - start)/max(end - start, 0.001), 0, 1)
        return 1/((1 - share)/self.factor + share)

    @property
    def magnitude(self):
        """Factor on cosines and sines."""
        if self.attention is not None:
            return self.attention
        return yarn_magnitude(self.factor) if self.kind == "yarn" else 1.0


def yarn_magnitude(factor, scale=1.0):
    """Yarn's factor on cosines and sines; scale: mscale of some models."""
    return 0.1*scale*math.log(max(factor, 1.0)) + 1


def scaled_table(config, scaling, more=None):
    """RoPE table of ModelConfig `config` under `scaling`; more: further divisors (head_dim/2,)."""
    check(1 < config.rope_base < 1e12, f"RoPE base is {config.rope_base}, must be between 1 and 1e12")
    divisors = scaling.divisors(config.head_dim, config.rope_base)
    if more is not None:
        check(np.isfinite(more).all() and (more > 0).all(), "RoPE scaling factors must be positive")
        divisors = divisors*more
    table = rope_table(config.head_dim, config.context, config.rope_base, None if (divisors == 1).all() else divisors)
    table[:, :config.head_dim//2] *= np.float32(scaling.magnitude)
    return table
