# SPDX-License-Identifier: BSD-2-Clause
"""A board (or anything that speaks its protocol) on a serial line or TCP socket."""

import struct

from ...accel.config import DEBUG_REGIONS, DEBUG_REGION_WORDS, CoreConfig, check
from ...accel.image import HEADER, SECTION, write_image
from ...firmware import constants as c
from ..protocol import BAUDRATE, TRIES, Client, open_port, sane
from ..sampler import SamplerParams
from .base import ABORT, LENGTH, STOP, Device, DeviceError, Result, Timings

_REASONS = {c.REASON_STOP: STOP, c.REASON_LENGTH: LENGTH, c.REASON_ABORT: ABORT}


def image_crc(image):
    """CRC-32 that the image's header states: it covers those of the sections, so it tells images apart."""
    n_sections = HEADER.unpack_from(image)[4]
    return struct.unpack_from("<I", image, HEADER.size + n_sections*SECTION.size)[0]


class SerialDevice(Device):
    """The device at `url`, as pyserial's serial_for_url takes it.

    baudrate: of a serial line. timeout: seconds of silence after which a request counts as lost. client: an open
    protocol.Client instead of `url`.
    """

    def __init__(self, url, baudrate=BAUDRATE, timeout=2.0, client=None):
        self.name     = url
        self.client   = client or Client(open_port(url, baudrate), timeout)
        self.counters = None   # The core's counters of the last pass.
        try:
            self.hello = self.client.hello()
        except BaseException:
            self.client.close()
            raise

    def load(self, model, on_progress=None):
        """Take `model`; what the device already has is not sent again. on_progress(bytes, total) while it is sent.

        After a reset the device has looked at the header alone: DRAM may hold what the boot put there, or half of an upload over another
        model. So it is compared first, as when an upload goes on."""
        self.hello = self.client.hello()
        self.core_config().check_model(model.config)
        image      = write_image(model)
        room       = self.hello.main_ram_bytes - self.hello.image_offset
        check(len(image) <= room, f"image has {len(image)} bytes, the device has room for {room}")
        if self.hello.image_error or self.hello.image_crc != image_crc(image) or not self.hello.sections_checked:
            try:
                self.client.load(image, on_progress, self.core_config().beat_bytes)
            except DeviceError:
                self._resynchronise()
                raise
        self._attach(model)

    def _attach(self, model):
        """Use the image that is on the device, which is that of `model`."""
        self.client.reset()
        self.hello = self.client.hello()
        if self.hello.image_error:
            raise DeviceError("device: " + c.error_text(self.hello.image_error, self.hello.image_value, self.hello.image_limit))
        self._check_model(model)
        self.model, self.context, self.position = model, self.hello.context, self.hello.position

    def core_config(self):
        """CoreConfig with what the device says of its core; the rest is the default."""
        return CoreConfig(**{name: getattr(self.hello, name) for name in c.CORE_FIELDS})

    def _check_model(self, model):
        """DeviceError unless the model that the device tells of has the dimensions of `model`."""
        for name in c.MODEL_FIELDS:
            got, want = getattr(self.hello, name), getattr(model.config, name.removeprefix("model_"))
            if got != want:
                raise DeviceError(f"the device says that its model's {name} is {got}, it was given {want}")
        sane("HELLO", self.hello, context=1 <= self.hello.context <= model.config.context, stream_bytes=self.hello.stream_bytes > 0)

    def reset(self, keep=0):
        self.client.reset(keep)
        self.position = keep

    def generate(self, tokens, params, max_tokens, stop_ids=(), on_token=None, on_progress=None, recent=()):
        self.check_request(tokens, max_tokens, stop_ids)
        tokens, fed, cycles = list(tokens), 0, 0
        stop_ids = [i for i in stop_ids if 0 <= i < self.model.config.vocab]   # Others are never sampled.
        progress = on_progress and (lambda done, _, *layers: on_progress(fed + done, len(tokens), *layers))
        try:
            while len(tokens) - fed > c.TOKENS_MAX:
                done    = self.client.prefill(self.position, tokens[fed:fed + c.TOKENS_MAX], progress)
                fed    += done.n_prompt
                cycles += done.prompt_cycles
                self.position = done.position
                if done.reason == c.REASON_ABORT:
                    return self._result(done, [], fed, cycles)
            recent    = [*recent, *tokens[:fed]][-params.window:] if params.window else []
            done, out = self.client.generate(self.position, tokens[fed:], params, max_tokens, stop_ids, on_token, progress, recent)
        except (SystemExit, GeneratorExit):   # The client has sent ABORT, and nobody goes on here.
            raise
        except BaseException:
            self._resynchronise()
            raise
        self.position = done.position
        return self._result(done, [t.id for t in out], fed + done.n_prompt, cycles + done.prompt_cycles)

    def _result(self, done, tokens, n_prompt, prompt_cycles):
        self.counters = done.counters
        clock, decoded = self.hello.clock_hz, max(0, len(tokens) - 1)
        mbu = None
        if decoded and done.decode_cycles:
            mbu = decoded*self.hello.stream_bytes/(done.decode_cycles*self.hello.port_bytes)
        return Result(tokens, _REASONS[done.reason], Timings(n_prompt, prompt_cycles/clock, decoded,
            done.decode_cycles/clock, prompt_cycles, done.decode_cycles, mbu, done.pass_cycles))

    def _resynchronise(self):
        """After an error: have the device stop, and learn where it stands, if it still answers."""
        try:
            self.hello    = self.client.stop()
            self.position = self.hello.position
        except DeviceError:
            pass

    def baseline(self, token, position=0):
        """Decode one token by plain C on the device's own CPU: protocol's BASELINE_FIELDS (cycles, setup_cycles, token)."""
        return self.client.baseline(token, position)

    def probe(self, token, position, layers, topk=0):
        """One pass at any position, of the first `layers` layers: protocol.Client.probe. The session is cut to `position`."""
        done          = self.client.probe(token, position, layers, topk)
        self.position = min(self.position, position)
        return done

    def scan(self, n_bytes, offset=0, in_image=True):
        """See Device."""
        done = self.client.scan(c.SCAN_IMAGE if in_image else c.SCAN_MAIN_RAM, offset, n_bytes)
        if len(done.signature) != self.hello.lanes//8:
            raise DeviceError(f"the device's signature has {len(done.signature)} words, {self.hello.lanes} lanes give {self.hello.lanes//8}")
        return done

    def fill(self, offset, n_bytes, pattern, seed, compare=False):
        """Have the CPU write a pattern to main_ram behind the image, or compare: protocol.Client.fill. Writing forgets the session."""
        if not compare:
            self.position = 0
        return self.client.fill(offset, n_bytes, pattern, seed, compare)

    def known_answer(self, tokens, n):
        """[(id, fp32 bits of its logit)] of `n` greedy tokens after `tokens`, from an empty context; sets `counters`."""
        for _ in range(TRIES):
            self.client.reset()
            done, out     = self.client.generate(0, list(tokens), SamplerParams(), n)
            self.position = done.position
            if None not in [t.logit for t in out]:
                break
        else:   # Tokens are had again after damage on the line, logits are not.
            raise DeviceError("logits were lost on the way from the device, again and again")
        self.counters = done.counters
        return [(t.id, t.logit) for t in out]

    def peek(self, region, word, n):
        """`n` words (uint32) of region `region` (accel.config.DEBUG_REGIONS) of the core's debug window, from word `word` on."""
        return self.client.peek(c.REGION_DEBUG, 4*(DEBUG_REGIONS.index(region)*DEBUG_REGION_WORDS + word), n)

    def close(self):
        self.client.close()
