# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's protocol (firmware/README.md): frames, and a client that talks over anything pyserial opens.

A UART has no flow control: the client sends one request at a time and waits for its answer; only ABORT may come in between.
A request is sent again, under the same sequence number, when no answer comes. A device that has served a PREFILL or GENERATE already
answers it a second time, and does not run it again.
"""

from collections import namedtuple
import contextlib
import random
import struct
import time
from types import SimpleNamespace
import zlib

from ..accel.config import UNIT_BYTES, check
from ..firmware import constants as c
from .devices.base import DeviceError, first_interrupt

Frame = namedtuple("Frame", "type sequence payload")

BAUDRATE = 115200    # LiteX's.
TRIES    = 50        # Of one request over a line that damages it or its answer again and again.
CHUNK    = 1 << 16   # Bytes of an image that are looked for on the device before they are sent.

_HEADER = struct.Struct("<4B2H")


class Refused(DeviceError):
    """The firmware refused a request: error `number` with `value` and `limit`."""

    def __init__(self, number, value, limit):
        super().__init__("device: " + c.error_text(number, value, limit))
        self.number, self.value, self.limit = number, value, limit


def encode(type, sequence, payload=b""):
    """bytes of a frame; payload is bytes of at most PAYLOAD_MAX."""
    assert len(payload) <= c.PAYLOAD_MAX
    body = _HEADER.pack(c.SYNC0, c.SYNC1, type, sequence, len(payload), len(payload) ^ 0xFFFF) + payload
    return body + struct.pack("<I", zlib.crc32(body[2:]))


def words(*values):
    """bytes of 32-bit words."""
    return struct.pack(f"<{len(values)}I", *values)


def _sized(payload, n, rest=False):
    """`payload`; DeviceError unless it has n bytes, with `rest` at least so many."""
    if len(payload) < n or (len(payload) > n and not rest):
        raise DeviceError(f"device sent {len(payload)} bytes where {n} were expected: is its firmware of this version?")
    return payload


def _words(payload, n=None):
    """List of a payload's words; DeviceError unless these are n (None: any number)."""
    n = len(payload)//4 if n is None else n
    return list(struct.unpack(f"<{n}I", _sized(payload, 4*n)))


def sane(name, answer, **conditions):
    """DeviceError that names the first field of `answer`, to request `name`, whose condition does not hold: the frame was whole, so it
    is the other end that is wrong."""
    for field, good in conditions.items():
        if not good:
            raise DeviceError(f"the device's answer to {name} makes no sense: its {field} is {getattr(answer, field)}")


def unpack(fields, payload, rest=False):
    """Namespace of a payload's words by their names; of a pair x_low, x_high also their 64 bits as x. rest: bytes may follow, `rest`
    of the result."""
    n = 4*len(fields)
    _sized(payload, n, rest)
    out = SimpleNamespace(**dict(zip(fields, struct.unpack_from(f"<{len(fields)}I", payload))), rest=payload[n:])
    for name in fields:
        if name.endswith("_low"):
            setattr(out, name[:-4], getattr(out, name) | getattr(out, name[:-4] + "_high") << 32)
    if "counter_0" in fields:
        out.counters = [getattr(out, f"counter_{i}") for i in range(c.N_COUNTERS)]
    return out


class FrameReader:
    """Finds frames in a stream of bytes, whatever is between them.

    dropped: bytes that belonged to no frame. bad: frames whose CRC-32 was wrong.
    """

    def __init__(self):
        self.buffer, self.dropped, self.bad = bytearray(), 0, 0

    def wanted(self):
        """Bytes to read next: as many as complete the frame that has begun."""
        if len(self.buffer) < c.HEADER_BYTES:
            return c.HEADER_BYTES - len(self.buffer)
        return c.HEADER_BYTES + _HEADER.unpack_from(self.buffer)[4] + c.CRC_BYTES - len(self.buffer)

    def _plausible(self, at):
        head = self.buffer[at:at + c.HEADER_BYTES]
        if not bytes((c.SYNC0, c.SYNC1)).startswith(head[:2]):
            return False
        if len(head) < c.HEADER_BYTES:
            return True
        *_, length, complement = _HEADER.unpack(head)
        return length <= c.PAYLOAD_MAX and length ^ complement == 0xFFFF

    def _resynchronise(self, n):
        while n < len(self.buffer) and not self._plausible(n):
            n += 1
        self.dropped += n
        del self.buffer[:n]

    def feed(self, data):
        """Add bytes; the whole frames that are now there, as a list."""
        self.buffer += data
        frames = []
        while self.buffer:
            if not self._plausible(0):
                self._resynchronise(1)
                continue
            if len(self.buffer) < c.HEADER_BYTES or self.wanted() > 0:
                break
            _, _, type, sequence, length, _ = _HEADER.unpack_from(self.buffer)
            end = c.HEADER_BYTES + length
            if zlib.crc32(self.buffer[2:end]) == struct.unpack_from("<I", self.buffer, end)[0]:
                frames.append(Frame(type, sequence, bytes(self.buffer[c.HEADER_BYTES:end])))
                del self.buffer[:end + c.CRC_BYTES]
            else:
                self.bad += 1
                self._resynchronise(1)
        return frames


def open_port(url, baudrate=BAUDRATE):
    """Port that pyserial opens (`/dev/ttyUSB1`, `socket://127.0.0.1:1234`). DeviceError if it cannot."""
    import serial
    check(baudrate > 0, f"--baudrate is {baudrate}, must be at least 1")
    try:
        port = serial.serial_for_url(url, baudrate=baudrate, timeout=0.05)
    except (serial.SerialException, ValueError, OSError, OverflowError) as error:
        raise DeviceError(f"cannot open {url} at {baudrate} baud: {error}. Is it a serial device or socket://HOST:PORT, and free?") from None
    with contextlib.suppress(AttributeError, ValueError, OSError):   # Not all can.
        port.set_low_latency_mode(True)   # Of USB adapters: they hold an answer back for 16 ms otherwise, longer than a fast request takes.
    return port


def _is(error, *names):
    """Whether a Refused has one of the numbers of these names."""
    return error.number in [c.ERRORS[name][0] for name in names]


class Client:
    """Requests and answers.

    port: an open pyserial port (or its like: read, write, close, timeout). timeout: seconds of silence after which a
    request counts as lost. retries: how often it is then sent again in a row with nothing heard; what was heard, if only damaged, gives
    it TRIES. alive: function that tells whether the other end still runs, or None.

    Whatever ends a request early (an exception in a callback, a signal) has the device abort it.
    """

    def __init__(self, port, timeout=2.0, retries=2, alive=None):
        self.port, self.timeout, self.retries, self.alive = port, timeout, retries, alive
        self.reader, self.heard, self.obeyed, self.poll, self.vocab = FrameReader(), 0, False, None, None
        self.sequence = random.randrange(255)   # So that what an earlier client asked for is not taken for ours.

    def close(self):
        """Close the port."""
        self.port.close()

    # Frames -----------------------------------------------------------------------------------------

    def _number(self):
        """Sequence number of a new request."""
        self.sequence = self.sequence % 255 + 1   # Never 0.
        return self.sequence

    def _write(self, type, sequence, payload=b""):
        try:
            self.port.write(encode(type, sequence, payload))
        except OSError as error:
            raise DeviceError(f"connection to the device is lost: {error}") from None

    def _read(self):
        """Frames that have come within the port's own short timeout."""
        try:
            frames = self.reader.feed(self.port.read(max(1, self.reader.wanted())))
        except OSError as error:
            raise DeviceError(f"connection to the device is lost: {error}") from None
        self.heard += len(frames)
        return frames

    def _frames(self, sequence):
        """Frames of request `sequence` as they come; ends after `timeout` seconds without any, and with none under way."""
        last = time.monotonic()
        while time.monotonic() - last < self.timeout:
            before = len(self.reader.buffer)
            frames = self._read()
            if len(self.reader.buffer) > before:
                last = time.monotonic()
            for frame in frames:
                if frame.sequence == sequence:
                    last = time.monotonic()
                    yield frame
                elif frame.type == c.ABORT | c.ANSWER:
                    self.obeyed = True
            if self.poll is not None:
                self.poll()
            if self.alive is not None and not self.alive():
                raise DeviceError("the simulator has ended unexpectedly")

    def _exchange(self, type, sequence, payload, handle):
        """Send a request once: its answer's payload, or None if none came. handle(frame): TOKEN and PROGRESS frames.
        Refused if it was refused. (On a line that echoes the request itself comes back: neither.)"""
        self.obeyed = False   # An ABORT before this was for nothing.
        self._write(type, sequence, payload)
        for frame in self._frames(sequence):
            if frame.type == type | c.ANSWER:
                return frame.payload
            if frame.type == c.ERROR:
                e       = unpack(c.ERROR_FIELDS, frame.payload)
                refused = Refused(e.number, e.value, e.limit)
                if _is(refused, "FRAME_CRC", "FRAME_TIMEOUT"):
                    return None   # Not served: as good as lost.
                raise refused
            if handle is not None and frame.type in (c.TOKEN, c.PROGRESS):
                handle(frame)
        return None

    def _try(self, type, payload, handle):
        """`request`, but for BUSY."""
        sequence, silent = self._number(), 0
        try:
            for _ in range(TRIES):
                before = self.heard, self.reader.bad
                answer = self._exchange(type, sequence, payload, handle)
                if answer is not None:
                    return answer
                silent = silent + 1 if before == (self.heard, self.reader.bad) else 0
                if silent > self.retries:
                    break
            raise DeviceError(f"no answer to {c.REQUEST_NAMES[type - 1]} within {self.timeout:g} s: is the device running LiteLlama's "
                "firmware, at this baud rate?")
        except Refused:
            raise
        except BaseException:
            with contextlib.suppress(DeviceError):
                self._write(c.ABORT, self._number())   # Whatever it was: the device is not to go on with it.
            raise

    def request(self, type, payload=b"", handle=None):
        """Answer's payload. It is sent again, under the same number, when no answer comes: PREFILL and GENERATE run once all the same, what
        others do twice is as if done once. What else the device may be at (for a client that is gone, say) is aborted. DeviceError
        if no answer comes, Refused."""
        for _ in range(TRIES):
            try:
                return self._try(type, payload, handle)
            except Refused as error:
                if not _is(error, "BUSY"):
                    raise
                self.stop()
        raise DeviceError("the device is busy whenever it is asked for something")

    # Requests ---------------------------------------------------------------------------------------

    def hello(self):
        """HELLO_FIELDS by name, and `name` of the model. Aborts what the device is at."""
        return self._hello(self.request(c.HELLO))

    def _hello(self, payload):
        answer = unpack(c.HELLO_FIELDS, payload, rest=True)
        if answer.protocol != c.PROTOCOL_VERSION:
            raise DeviceError(f"device speaks protocol {answer.protocol}, this program {c.PROTOCOL_VERSION}: update its firmware")
        sane("HELLO", answer, clock_hz=answer.clock_hz > 0, port_bytes=answer.port_bytes > 0,
            position=answer.image_error or answer.position <= answer.context, image_offset=answer.image_offset < answer.main_ram_bytes)
        answer.name = answer.rest.decode("utf-8", "replace")
        self.vocab  = answer.vocab
        return answer

    def stop(self):
        """Abort what runs, if anything: HELLO_FIELDS, once the device is idle."""
        end = time.monotonic() + 5*self.timeout   # A pass is not broken off; none takes so long.
        while time.monotonic() < end:
            try:
                self._try(c.ABORT, b"", None)
                return self._hello(self._try(c.HELLO, b"", None))
            except Refused as error:
                if not _is(error, "BUSY"):
                    raise
            time.sleep(0.02)
        raise DeviceError("the device does not stop what it is at")

    def reset(self, position=0):
        """Forget all positions from `position` on."""
        self.request(c.RESET, words(position))

    def prefill(self, position, tokens, on_progress=None):
        """Feed up to TOKENS_MAX tokens at `position`: DONE_FIELDS. on_progress(*PROGRESS_FIELDS) now and then.
        KeyboardInterrupt aborts: see `reason`."""
        return self._run(c.PREFILL, position, words(position, len(tokens), *tokens), len(tokens), 0, None, on_progress)[0]

    def generate(self, position, tokens, params, max_tokens, stop_ids=(), on_token=None, on_progress=None, recent=()):
        """Feed up to TOKENS_MAX tokens at `position`, then sample with `params` (sampler.SamplerParams): (DONE_FIELDS, list
        of TOKEN_FIELDS). recent: up to REPEAT_LAST_MAX tokens before these. on_token(id) returning True aborts, as does
        KeyboardInterrupt; no token after that is in the list."""
        head = words(position, max_tokens, params.inv_temperature, params.top_k, params.top_p_q16, params.min_p_q16,
            params.repeat_penalty_q16, params.repeat_last_n, params.seed & 0xFFFFFFFF, params.seed >> 32, len(stop_ids),
            len(recent), len(tokens))
        return self._run(c.GENERATE, position, head + words(*stop_ids, *recent, *tokens), len(tokens), max_tokens, on_token,
            on_progress)

    def _run(self, type, position, payload, n_fed, max_tokens, on_token, on_progress):
        tokens, asked = [], None   # asked: when ABORT was sent last.

        def abort():
            nonlocal asked
            if asked is None or not self.obeyed and time.monotonic() - asked > self.timeout/4:   # It may have been lost.
                asked = time.monotonic()
                self._write(c.ABORT, self._number())

        def deliver(token):
            if asked is not None:
                return
            if self.vocab and token.id >= self.vocab:
                raise DeviceError(f"device sampled token {token.id}, its vocabulary has {self.vocab}")
            tokens.append(token)
            if on_token is not None and on_token(token.id):
                abort()

        def handle(frame):
            try:
                if frame.type == c.TOKEN:
                    token = unpack(c.TOKEN_FIELDS, frame.payload)
                    if token.index == len(tokens):   # Else one before it was lost: all are asked for again at the end.
                        deliver(token)
                elif on_progress is not None:
                    p = unpack(c.PROGRESS_FIELDS, frame.payload)
                    on_progress(p.done, p.total, p.layer, p.layers)
            except KeyboardInterrupt:
                if asked is not None:
                    raise
                abort()

        def poll():
            if asked is not None or interrupted():
                abort()

        try:
            with first_interrupt() as interrupted:
                self.poll = poll
                done = unpack(c.DONE_FIELDS, self.request(type, payload, handle))
        finally:
            self.poll = None
        sampled = max(0, done.n_tokens - 1)
        sane(c.REQUEST_NAMES[type - 1], done, reason=done.reason in c.REASONS, n_prompt=done.n_prompt <= n_fed,
            n_tokens=len(tokens) <= done.n_tokens <= max_tokens,
            position=done.position - position - done.n_prompt in (sampled, done.n_tokens))
        if asked is None and done.n_tokens > len(tokens):
            for id in self.recall(len(tokens), done.n_tokens):
                deliver(SimpleNamespace(index=len(tokens), id=id, logit=None, cycles=None))
        return done if asked is None else self._cut(done, position, tokens), tokens

    def _cut(self, done, position, tokens):
        """An aborted run ends with the tokens that were known when it was aborted: the device forgets what it did since."""
        done.reason = c.REASON_ABORT
        if done.n_tokens:
            done.n_tokens, done.decode_cycles = len(tokens), sum(t.cycles or 0 for t in tokens[1:])
            done.pass_cycles = None   # Not known of a part.
            end = position + done.n_prompt + max(0, len(tokens) - 1)
            if done.position > end:
                self.reset(end)
                done.position = end
        return done

    def stats(self):
        """STATS_FIELDS by name; `counters` is the list of the core's counters of the last pass."""
        return unpack(c.STATS_FIELDS, self.request(c.STATS))

    def recall(self, first, end):
        """Tokens `first` to `end` - 1 of the last GENERATE, a list of ids. DeviceError if the device has not kept so many."""
        ids = []
        while first + len(ids) < end:
            answer = unpack(("n",), self.request(c.RECALL, words(first + len(ids))), rest=True)
            part   = _words(answer.rest)
            if not part or answer.n < end:
                raise DeviceError(f"{end - first - len(ids)} tokens were lost on the way from the device")
            ids += part
        return ids[:end - first]

    def peek(self, region, offset, n):
        """`n` words (any number) from byte `offset` of REGION_MAIN_RAM or REGION_DEBUG."""
        out = []
        while len(out) < n:
            part = min(n - len(out), c.PEEK_WORDS)
            out += _words(self.request(c.PEEK, words(region, offset + 4*len(out), part)), part)
        return out

    def load(self, image, on_progress=None, beat_bytes=None):
        """Write `image` (bytes) where the device keeps it, and have it checked, contents included. on_progress(bytes, total).

        beat_bytes: of the device's core (CoreConfig). Then what its DRAM has already, of an earlier try or of a model that begins
        alike, is not sent again: each CHUNK is asked for by its signature first (SCAN).
        """
        for start in range(0, len(image), CHUNK):
            part = image[start:start + CHUNK]
            if not (beat_bytes and self._has(part, start, beat_bytes)):
                self._load_chunk(part, start, len(image), on_progress)
            elif on_progress is not None:
                on_progress(start + len(part), len(image))
        self.verify(contents=True)

    def _load_chunk(self, part, start, total, on_progress):
        step = c.PAYLOAD_MAX - 4
        for offset in range(0, len(part), step):
            self.request(c.LOAD, words(start + offset) + part[offset:offset + step])
            if on_progress is not None:
                on_progress(start + min(offset + step, len(part)), total)

    def _has(self, part, start, beat_bytes):
        """Whether the device's DRAM has `part` at byte `start` of the image."""
        from ..accel.scan import signature   # (Takes Migen with it.)
        if len(part) % UNIT_BYTES:
            return False
        return self.scan(c.SCAN_IMAGE, start, len(part)).signature == signature(part, beat_bytes).tolist()

    def verify(self, contents=False):
        """Have the image checked and taken into use; with `contents` every byte of it. Refused if something is wrong."""
        self.request(c.VERIFY, words(int(contents)))

    def probe(self, token, position, layers, topk=0):
        """One pass of `token` at any position, of the first `layers` layers; with `topk` (and all layers) the classifier, too:
        PROBE_FIELDS. Cuts the session to that position."""
        return unpack(c.PROBE_FIELDS, self.request(c.PROBE, words(token, position, layers, topk)))

    def scan(self, place, offset, n_bytes):
        """Have the core read `n_bytes` bytes of DRAM from byte `offset` on, which counts from SCAN_MAIN_RAM or SCAN_IMAGE, all in multiples
        of 32: SCAN_FIELDS, and `signature`, a list of words (accel.scan.signature)."""
        answer           = unpack(c.SCAN_FIELDS, self.request(c.SCAN, words(place, offset, n_bytes)), rest=True)
        answer.signature = _words(answer.rest)
        return answer

    def fill(self, offset, n_bytes, pattern, seed, compare=False):
        """Have the CPU write a PATTERN_* of `seed` to main_ram, behind the image, or compare what is there with it: FILL_FIELDS."""
        return unpack(c.FILL_FIELDS, self.request(c.FILL, words(offset, n_bytes, pattern, seed, int(compare))))

    def baseline(self, token, position=0):
        """Decode one token by plain C on the device's CPU: BASELINE_FIELDS."""
        return unpack(c.BASELINE_FIELDS, self.request(c.BASELINE, words(token, position)))
