# SPDX-License-Identifier: BSD-2-Clause
"""What every device offers to a session: load a model, feed tokens, get sampled tokens back.

A device holds one model and one KV cache. `position` is the number of tokens whose keys and values are in that cache; it
only grows, except by `reset`. One `generate` feeds the given tokens at the next positions, samples a token from the last one's
logits, reports it, feeds it, samples the next, and so on. The last token sampled is reported but NOT fed: after n tokens
`position` is `before + len(tokens) + n - 1`, and the caller starts its next `tokens` with that last one if it wants it in
the cache. So a session's device tokens are always a prefix of the session's own list, and only the rest is sent.
"""

from abc import ABC, abstractmethod
import contextlib
from dataclasses import dataclass, field, fields
import signal
import threading

from ...accel.config import check
from ...firmware.constants import STOP_MAX

STOP, LENGTH, ABORT = "stop", "length", "abort"   # Finish reasons.
MAX_TOKENS = 2**32 - 1   # Of one answer: a word of the protocol.


class DeviceError(ValueError):
    """The device cannot do what was asked, or does not answer as agreed: one line for the user."""


@contextlib.contextmanager
def first_interrupt():
    """While inside, the first SIGINT (Ctrl-C) interrupts nothing, so that no byte is lost and no import or computation is left half
    done; the function that this gives tells whether it has come. The second raises KeyboardInterrupt. Outside the main thread: no
    effect."""
    seen = False

    def note(number, frame):
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True

    here   = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None
    before = signal.signal(signal.SIGINT, note) if here else None
    try:
        yield lambda: seen
    finally:
        if here:
            signal.signal(signal.SIGINT, before)


@dataclass
class Timings:
    """Duration of one generate.

    prompt_tokens:  tokens fed before the first was sampled (or before the prompt was interrupted). prompt_seconds, prompt_cycles: time of these.
    decode_tokens:  tokens sampled after the first (each is one more pass). decode_seconds, decode_cycles: time of these.
    Seconds are the device's own: cycles by its clock on gateware, wall time elsewhere. Cycles are None without gateware.
    pass_cycles: those of decode_cycles in which a pass ran; the rest is the firmware's. None where unknown.
    mbu: share of the DRAM's peak bandwidth that the weight stream used while decoding, 0 to 1; None without gateware.
    """
    prompt_tokens:  int   = 0
    prompt_seconds: float = 0.0
    decode_tokens:  int   = 0
    decode_seconds: float = 0.0
    prompt_cycles:  int   = None
    decode_cycles:  int   = None
    mbu:            float = None
    pass_cycles:    int   = None

    def __add__(self, other):
        """Of two generates, the second of which went on where the first one ended."""
        both = lambda name: None if None in (a := (getattr(self, name), getattr(other, name))) else sum(a)
        sums = {f.name: both(f.name) for f in fields(self) if f.name != "mbu"}
        used = [(t.mbu, t.decode_cycles) for t in (self, other) if t.mbu is not None]   # mbu is a share of cycles.
        return Timings(**sums, mbu=sum(m*n for m, n in used)/sum(n for _, n in used) if used else None)

    @property
    def tokens_per_second(self):
        """Tokens a second while decoding; of the whole call where only one token was sampled; 0 where unknown."""
        if self.decode_tokens:
            return self.decode_tokens/self.decode_seconds if self.decode_seconds else 0.0
        return 1/self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def decode_cycles_per_token(self):
        """Cycles of one decoding pass, or None."""
        if self.decode_cycles is None or not self.decode_tokens:
            return None
        return self.decode_cycles/self.decode_tokens

    def as_dict(self):
        """The object `timings` of `--json`."""
        d = dict(prompt_cycles=self.prompt_cycles, decode_cycles_per_token=self.decode_cycles_per_token,
            tokens_per_second=self.tokens_per_second)
        return d if self.mbu is None else d | dict(mbu=self.mbu)


@dataclass
class Result:
    """Outcome of one generate: `tokens` sampled (a stop id that ended it is the last), `finish_reason` and `timings`.

    finish_reason: "stop" (a stop id was sampled), "length" (max_tokens reached or context full), "abort" (interrupted).
    """
    tokens:        list    = field(default_factory=list)
    finish_reason: str     = LENGTH
    timings:       Timings = field(default_factory=Timings)


class Device(ABC):
    """A decoder with a KV cache, somewhere. Errors are DeviceError or ValueError.

    name:     what `--device` called it.
    model:    the accel.image.Model that was loaded, or None.
    context:  positions its KV cache holds for that model (at most the model's own context).
    position: positions in use.
    """
    name     = "device"
    model    = None
    context  = 0
    position = 0

    @abstractmethod
    def load(self, model, on_progress=None):
        """Take `model` (accel.image.Model) and reset. ValueError, naming the limit, before anything is sent if it does
        not fit. on_progress(bytes, total) may be called while it is sent."""

    @abstractmethod
    def reset(self, keep=0):
        """Forget all positions from `keep` on, 0 to `position`."""

    @abstractmethod
    def generate(self, tokens, params, max_tokens, stop_ids=(), on_token=None, on_progress=None, recent=()):
        """Feed `tokens` (at least one), then sample up to `max_tokens` with `params` (sampler.SamplerParams): a Result.

        The sampler's RNG is seeded anew by every call. A full context ends with "length": the first sampled token needs no
        position of its own, each further one does. stop_ids: token ids that end the generation, at most STOP_MAX. on_token(id)
        is called for each sampled token as soon as it is known, stop ids included; if it returns True, the generation is
        aborted, and `position` is as if nothing had been computed since. KeyboardInterrupt aborts too: it is caught here, the
        device stays usable and its `position` is right; the Result has what was sampled until then.

        on_progress(fed, total, layer=0, layers=0) may be called now and then: tokens fed of the `total` that are in `tokens`
        (sampled ones count on from there), and where the device tells, the layer of `layers` that the next one is at.
        recent: the tokens before `tokens`, oldest first, as many as params.window asks for: what the repetition penalty
        looks at besides.
        """

    def scan(self, n_bytes, offset=0, in_image=True):
        """Have the hardware read `n_bytes` bytes of its DRAM from byte `offset` of the image (or of main_ram) on, as fast as its ports
        can: `cycles`, `counters` (accel.counters.COUNTERS) and `signature` (accel.scan.signature). DeviceError where there is none."""
        raise DeviceError(f"device {self.name} has no DRAM to scan: that takes the simulated SoC or a board")

    def check_request(self, tokens, max_tokens, stop_ids=()):
        """ValueError unless `tokens` fit: for implementations to call first."""
        check(self.model is not None, f"device {self.name} has no model loaded")
        check(len(tokens) >= 1, "no tokens to feed: at least one is needed")
        check(1 <= max_tokens <= MAX_TOKENS, f"max_tokens is {max_tokens}, must be 1 to {MAX_TOKENS}")
        check(len(stop_ids) <= STOP_MAX, f"{len(stop_ids)} stop ids, at most {STOP_MAX} are possible")
        bad = [t for t in tokens if not 0 <= t < self.model.config.vocab]
        check(not bad, f"token {bad[0] if bad else 0} is outside the vocabulary of {self.model.config.vocab}")
        check(self.position + len(tokens) <= self.context,
            f"{len(tokens)} more tokens do not fit into the context: it holds {self.context}, {self.position} are in use")

    def close(self):
        """Release what the device holds (connection, process); it cannot be used afterwards."""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
