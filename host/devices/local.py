# SPDX-License-Identifier: BSD-2-Clause
"""A device in this process: the generate loop over any decoder object, shared by `reference` and `float`."""

import time

from ...accel.config import BLOCK, check
from ..sampler import Sampler
from .base import ABORT, LENGTH, STOP, Device, Result, Timings, first_interrupt

CHUNK  = 128       # Prompt tokens per forward pass: bounds the memory of attention, and Ctrl-C waits for one at most (64: 16 % more time).
KV_MAX = 1 << 34   # Bytes of keys and values; memory is taken only as positions are used.


class LocalDevice(Device):
    """Subclasses set `name` and give `_decoder(model)`: an object with forward(tokens, logits), `position` and
    `context`."""

    def __init__(self):
        self.decoder = None

    def load(self, model, on_progress=None):
        """See Device."""
        c    = model.config
        size = 2*4*c.n_layers*c.n_kv_heads*c.context*c.head_blocks*BLOCK
        check(size <= KV_MAX, f"keys and values of {c.context} positions take {size} bytes, at most {KV_MAX} are used here")
        self.model   = model
        self.decoder = self._decoder(model)
        self.decoder.forward([0])   # What the first pass imports and compiles takes no time of an answer, and Ctrl-C ends the program.
        self.decoder.position = 0

    def reset(self, keep=0):
        """See Device."""
        check(0 <= keep <= self.position, f"{keep} positions are to be kept, there are {self.position}")
        self.decoder.position = keep

    @property
    def position(self):
        """Positions in use."""
        return self.decoder.position if self.decoder else 0

    @property
    def context(self):
        """Positions the KV cache holds."""
        return self.decoder.context if self.decoder else 0

    def generate(self, tokens, params, max_tokens, stop_ids=(), on_token=None, on_progress=None, recent=()):
        """See Device."""
        self.check_request(tokens, max_tokens, stop_ids)
        result, start = Result(timings=Timings(len(tokens))), time.perf_counter()
        sampler, before = Sampler(params, [*recent, *tokens]), self.position
        try:
            with first_interrupt() as interrupted:
                for i in range(0, len(tokens), CHUNK):
                    chunk  = tokens[i:i + CHUNK]
                    logits = self.decoder.forward(chunk, "last" if i + CHUNK >= len(tokens) else None)
                    if on_progress:
                        on_progress(i + len(chunk), len(tokens))
                    if interrupted():
                        raise KeyboardInterrupt
                result.timings.prompt_seconds = time.perf_counter() - start
                while True:
                    token = sampler.pick(logits)
                    result.tokens.append(token)
                    if on_token and on_token(token) or interrupted():
                        result.finish_reason = ABORT
                        break
                    if token in stop_ids:
                        result.finish_reason = STOP
                        break
                    if len(result.tokens) == max_tokens or self.position == self.context:
                        result.finish_reason = LENGTH
                        break
                    logits = self.decoder.forward([token])
                    if on_progress:
                        on_progress(len(tokens) + len(result.tokens), len(tokens))
        except KeyboardInterrupt:
            result.finish_reason = ABORT
            if not result.tokens:
                result.timings = Timings(self.position - before, time.perf_counter() - start)
        if result.tokens:
            result.timings.decode_tokens  = len(result.tokens) - 1
            result.timings.decode_seconds = time.perf_counter() - start - result.timings.prompt_seconds
        return result
