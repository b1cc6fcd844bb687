# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's protocol (firmware/README.md): frames, and a client that talks over anything pyserial opens.

A UART has no flow control: the client sends one request at a time and waits for its answer; only ABORT may come in between.
Requests that change nothing, or nothing twice, are sent again when no answer comes; PREFILL and GENERATE carry the position
that they are for, so that they are sent again only after the device has told that it is still there.
"""

from collections import namedtuple
import contextlib
import signal
import struct
import threading
import time
from types import SimpleNamespace
import zlib

from ..accel.config import UNIT_BYTES, check
from ..firmware import constants as c
from .devices.base import DeviceError

Frame = namedtuple("Frame", "type sequence payload")

BAUDRATE = 115200    # LiteX's.
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


def unpack(fields, payload):
    """Namespace of a payload's words by their names; of a pair x_low, x_high also their 64 bits as x. `rest`: bytes
    behind."""
    n = 4*len(fields)
    if len(payload) < n:
        raise DeviceError(f"device sent {len(payload)} bytes where {n} were expected: is its firmware of this version?")
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


@contextlib.contextmanager
def _sigint(action):
    """While inside, the first SIGINT (Ctrl-C) interrupts nothing, so that no byte is lost; the function that this gives,
    called now and then, does action() once it has come. The second raises KeyboardInterrupt. Outside the main thread: no
    effect."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield None
        return
    seen = False

    def note(number, frame):
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: seen and action()
    finally:
        signal.signal(signal.SIGINT, before)


class Client:
    """Requests and answers.

    port: an open pyserial port (or its like: read, write, close, timeout). timeout: seconds of silence after which a
    request counts as lost. retries: how often it is then sent again where that is safe. alive: function that tells whether
    the other end still runs, or None.
    """

    def __init__(self, port, timeout=2.0, retries=2, alive=None):
        self.port, self.timeout, self.retries, self.alive = port, timeout, retries, alive
        self.reader, self.sequence, self.poll = FrameReader(), 0, None

    def close(self):
        """Close the port."""
        self.port.close()

    # Frames -----------------------------------------------------------------------------------------

    def _write(self, type, payload=b""):
        self.sequence = self.sequence % 255 + 1   # Never 0.
        try:
            self.port.write(encode(type, self.sequence, payload))
        except OSError as error:
            raise DeviceError(f"connection to the device is lost: {error}") from None
        return self.sequence

    def _read(self):
        """Frames that have come within the port's own short timeout."""
        try:
            return self.reader.feed(self.port.read(max(1, self.reader.wanted())))
        except OSError as error:
            raise DeviceError(f"connection to the device is lost: {error}") from None

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
            if self.poll is not None:
                self.poll()
            if self.alive is not None and not self.alive():
                raise DeviceError("the simulator has ended unexpectedly")

    def _exchange(self, type, payload, handle):
        """Send a request once: its answer's payload, or None if none came. handle(frame): TOKEN and PROGRESS frames.
        Refused if it was refused."""
        sequence = self._write(type, payload)
        for frame in self._frames(sequence):
            if frame.type == type | c.ANSWER:
                return frame.payload
            if frame.type == c.ERROR:
                refused = Refused(*struct.unpack("<3I", frame.payload[:12]))
                if refused.number in (c.ERRORS["FRAME_CRC"][0], c.ERRORS["FRAME_TIMEOUT"][0]):
                    return None   # Not served: as good as lost.
                raise refused
            if handle is not None:
                handle(frame)
        return None

    def request(self, type, payload=b"", handle=None):
        """Answer's payload to a request that may be sent again. DeviceError if none comes."""
        for _ in range(1 + self.retries):
            answer = self._exchange(type, payload, handle)
            if answer is not None:
                return answer
        raise DeviceError(f"no answer to {c.REQUEST_NAMES[type - 1]} within {self.timeout:g} s: is the device running LiteLlama's "
            "firmware, at this baud rate?")

    # Requests ---------------------------------------------------------------------------------------

    def hello(self):
        """HELLO_FIELDS by name, and `name` of the model."""
        answer = unpack(c.HELLO_FIELDS, self.request(c.HELLO))
        if answer.protocol != c.PROTOCOL_VERSION:
            raise DeviceError(f"device speaks protocol {answer.protocol}, this program {c.PROTOCOL_VERSION}: update its firmware")
        answer.name = answer.rest.decode("utf-8", "replace")
        return answer

    def reset(self, position=0):
        """Forget all positions from `position` on."""
        self.request(c.RESET, words(position))

    def _run(self, type, position, payload, handle):
        """DONE_FIELDS of a PREFILL or GENERATE for `position`."""
        for _ in range(1 + self.retries):
            answer = self._exchange(type, payload, handle)
            if answer is not None:
                return unpack(c.DONE_FIELDS, answer)
            self.stop()
            if self.hello().position != position:
                break
        raise DeviceError("the device's answer was lost; what it has computed is kept, try again")

    def prefill(self, position, tokens, on_progress=None):
        """Feed up to TOKENS_MAX tokens at `position`: DONE_FIELDS. on_progress(*PROGRESS_FIELDS) now and then.
        KeyboardInterrupt aborts: see `reason`."""
        return self._interruptible(c.PREFILL, position, words(position, len(tokens), *tokens), None, on_progress)[0]

    def generate(self, position, tokens, params, max_tokens, stop_ids=(), on_token=None, on_progress=None, recent=()):
        """Feed up to TOKENS_MAX tokens at `position`, then sample with `params` (sampler.SamplerParams): (DONE_FIELDS, list
        of TOKEN_FIELDS). recent: up to REPEAT_LAST_MAX tokens before these. on_token(id) returning True aborts, as does
        KeyboardInterrupt; no token after that is in the list."""
        head = words(position, max_tokens, params.inv_temperature, params.top_k, params.top_p_q16, params.min_p_q16,
            params.repeat_penalty_q16, params.repeat_last_n, params.seed & 0xFFFFFFFF, params.seed >> 32, len(stop_ids),
            len(recent), len(tokens))
        return self._interruptible(c.GENERATE, position, head + words(*stop_ids, *recent, *tokens), on_token, on_progress)

    def _interruptible(self, type, position, payload, on_token, on_progress):
        tokens, aborted = [], False

        def abort():
            nonlocal aborted
            if not aborted:
                aborted = True
                self._write(c.ABORT)

        def deliver(token):
            if not aborted:
                tokens.append(token)
                if on_token is not None and on_token(token.id):
                    abort()

        def handle(frame):
            try:
                if frame.type == c.TOKEN:
                    token = unpack(c.TOKEN_FIELDS, frame.payload)
                    if token.index == len(tokens):   # Else one before it was lost: all are asked for again at the end.
                        deliver(token)
                elif frame.type == c.PROGRESS and on_progress is not None:
                    p = unpack(c.PROGRESS_FIELDS, frame.payload)
                    on_progress(p.done, p.total, p.layer, p.layers)
            except KeyboardInterrupt:
                abort()

        try:
            with _sigint(abort) as self.poll:
                done = self._run(type, position, payload, handle)
        finally:
            self.poll = None
        if not aborted and done.n_tokens > len(tokens):
            lost = self.recall()
            if lost.n != done.n_tokens or lost.first > len(tokens):
                raise DeviceError(f"{done.n_tokens - len(tokens)} tokens were lost on the way from the device")
            for id in lost.ids[len(tokens) - lost.first:]:
                deliver(SimpleNamespace(index=len(tokens), id=id, logit=None, cycles=None))
        return self._cut(done, position, tokens) if aborted else done, tokens

    def _cut(self, done, position, tokens):
        """An aborted run ends with the tokens that were known when it was aborted: the device forgets what it did since."""
        done.reason = c.REASON_ABORT
        if tokens:
            done.n_tokens, done.decode_cycles = len(tokens), sum(t.cycles or 0 for t in tokens[1:])
            done.pass_cycles = None   # Not known of a part.
            end = position + done.n_prompt + len(tokens) - 1
            if done.position > end:
                self.reset(end)
                done.position = end
        return done

    def stop(self):
        """Abort what runs, if anything, and return when the device is idle again."""
        self.request(c.ABORT)
        for _ in range(1 + self.retries):
            try:
                return self.hello()
            except Refused as error:
                if error.number != c.ERRORS["BUSY"][0]:
                    raise
        raise DeviceError("the device does not stop")

    def stats(self):
        """STATS_FIELDS by name; `counters` is the list of the core's counters of the last pass."""
        return unpack(c.STATS_FIELDS, self.request(c.STATS))

    def recall(self):
        """Tokens of the last GENERATE: n of them, ids of the last ones, from index `first`."""
        n, *ids = struct.iter_unpack("<I", self.request(c.RECALL))
        ids     = [i for i, in ids]
        return SimpleNamespace(n=n[0], ids=ids, first=n[0] - len(ids))

    def peek(self, region, offset, n):
        """`n` words (any number) from byte `offset` of REGION_MAIN_RAM or REGION_DEBUG."""
        out = []
        while len(out) < n:
            part = min(n - len(out), c.PEEK_WORDS)
            data = self.request(c.PEEK, words(region, offset + 4*len(out), part))
            out += struct.unpack(f"<{part}I", data)
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
        answer           = unpack(c.SCAN_FIELDS, self.request(c.SCAN, words(place, offset, n_bytes)))
        answer.signature = list(struct.unpack(f"<{len(answer.rest)//4}I", answer.rest))
        return answer

    def fill(self, offset, n_bytes, pattern, seed, compare=False):
        """Have the CPU write a PATTERN_* of `seed` to main_ram, behind the image, or compare what is there with it: FILL_FIELDS."""
        return unpack(c.FILL_FIELDS, self.request(c.FILL, words(offset, n_bytes, pattern, seed, int(compare))))

    def baseline(self, token, position=0):
        """Decode one token by plain C on the device's CPU: BASELINE_FIELDS."""
        return unpack(c.BASELINE_FIELDS, self.request(c.BASELINE, words(token, position)))
