# SPDX-License-Identifier: BSD-2-Clause
"""The protocol: framing on both sides, every request and its refusals, damage on the line."""

import os
import pty
import random
import struct

import pytest

from firmware_host import IMAGE_OFFSET, Firmware, Port
from litellama.accel.config import CoreConfig, ModelConfig
from litellama.accel.image import write_image
from litellama.firmware import constants as c
from litellama.host.devices import open_device
from litellama.host.devices.base import DeviceError
from litellama.host.devices.serial import SerialDevice
from litellama.host.protocol import Client, Frame, FrameReader, Refused, encode, open_port, unpack, words
from litellama.host.random_model import random_model
from litellama.host.sampler import SamplerParams

MODEL  = random_model(ModelConfig(64, 96, 2, 4, 2, 16, 300, 64), layers="q4_1")
GREEDY = SamplerParams()


def answers(firmware):
    """Frames that the firmware has sent once it has served everything."""
    while firmware.poll():
        pass
    reader = FrameReader()
    frames = reader.feed(firmware.receive())
    assert reader.dropped == 0 and not reader.buffer
    return frames


def refusals(firmware):
    return [struct.unpack("<3I", f.payload) for f in answers(firmware) if f.type == c.ERROR]


# Framing --------------------------------------------------------------------------------------------

def noise(rng, n):
    """Bytes that look much like beginnings of frames."""
    return bytes(rng.choice([c.SYNC0, c.SYNC1, 0, 0xFF, rng.randrange(256)]) for _ in range(n))


def test_frames_are_found_between_garbage_in_any_pieces():
    rng = random.Random(1)
    for _ in range(200):
        want, data = [], noise(rng, rng.randrange(40))
        for i in range(rng.randrange(1, 6)):
            payload = noise(rng, rng.choice([0, 4, 50, c.PAYLOAD_MAX]))
            want.append(Frame(rng.randrange(256), rng.randrange(256), payload))
            data += encode(*want[-1]) + noise(rng, rng.choice([0, 0, 1, 30]))
        reader, got = FrameReader(), []
        while data:
            n = rng.randrange(1, 200)
            got, data = got + reader.feed(data[:n]), data[n:]
        got += reader.feed(bytes(2*c.PAYLOAD_MAX))   # Ends a frame that a piece of noise has begun.
        assert got == want


def test_firmware_finds_requests_between_garbage():
    rng, firmware = random.Random(2), Firmware(MODEL)
    for i in range(200):
        firmware.send(noise(rng, rng.randrange(60)) + encode(c.STATS, i % 256) + noise(rng, rng.randrange(5)))
        firmware.poll()
        firmware.send(bytes(2000))
        got = answers(firmware)
        assert [f.sequence for f in got if f.type == c.STATS | c.ANSWER] == [i % 256]


def test_a_damaged_request_is_refused_and_the_next_one_served():
    firmware, good = Firmware(MODEL), encode(c.PEEK, 9, words(0, 0, 4))
    for i in range(8, len(good)):
        for bit in (0, 7):
            bad     = bytearray(good)
            bad[i] ^= 1 << bit
            firmware.send(bytes(bad) + encode(c.HELLO, 10))
            got = answers(firmware)
            assert [(f.type, f.sequence) for f in got] == [(c.ERROR, 9), (c.HELLO | c.ANSWER, 10)]
            assert struct.unpack("<I", got[0].payload[:4])[0] == c.ERRORS["FRAME_CRC"][0]


def test_half_a_frame_is_given_up_after_a_while():
    firmware, good = Firmware(MODEL), encode(c.PEEK, 9, words(0, 0, 4))
    for n in range(1, len(good)):
        firmware.send(good[:n])
        assert answers(firmware) == []
        firmware.lib.stub_advance(100_000_000//c.FRAME_TIMEOUTS)
        expected = [(c.ERRORS["FRAME_TIMEOUT"][0], n, len(good))] if n >= c.HEADER_BYTES else []
        assert refusals(firmware) == expected
        firmware.send(encode(c.HELLO, 3))
        assert [f.sequence for f in answers(firmware)] == [3]


def test_slow_bytes_are_no_timeout():
    firmware = Firmware(MODEL)
    for byte in encode(c.PEEK, 9, words(0, 0, 4)):
        firmware.send(bytes([byte]))
        firmware.poll()
        firmware.lib.stub_advance(1_000_000)
    assert [f.type for f in answers(firmware)] == [c.PEEK | c.ANSWER]


def test_a_request_from_before_the_start_is_served():
    firmware = Firmware(MODEL, early=encode(c.HELLO, 1))
    assert [f.sequence for f in answers(firmware)] == [1]


@pytest.mark.parametrize("stall", [0, 7, 1000])
def test_a_slow_line_loses_nothing(stall):
    firmware = Firmware(MODEL, tx_stall_cycles=stall)
    for i in range(20):
        firmware.send(encode(c.PEEK, i, words(0, 0x1000, c.PEEK_WORDS)))
        firmware.poll()
    for _ in range(c.RING_BYTES//16 + 1):   # The FIFO's bytes at each interrupt.
        firmware.lib.stub_advance(100_000_000)
        firmware.lib.stub_interrupts()
    got = answers(firmware)
    assert [f.sequence for f in got] == list(range(20))
    assert all(f.payload == write_image(MODEL)[:4*c.PEEK_WORDS] for f in got)


# Requests -------------------------------------------------------------------------------------------

def generate_payload(position=0, max_tokens=1, inv=c.GREEDY, top_k=0, top_p=65536, min_p=0, penalty=65536, last_n=0, stop=(),
        recent=(), tokens=(1,), n_stop=None, n_recent=None, n_tokens=None):
    return words(position, max_tokens, inv, top_k, top_p, min_p, penalty, last_n, 0, 0, len(stop) if n_stop is None else n_stop,
        len(recent) if n_recent is None else n_recent, len(tokens) if n_tokens is None else n_tokens, *stop, *recent, *tokens)


BEHIND = IMAGE_OFFSET + len(write_image(MODEL))

BAD_REQUESTS = [
    (0,          b"",                                        "REQUEST",    0, c.FILL),
    (99,         b"",                                        "REQUEST",    99, c.FILL),
    (c.RESET,    b"",                                        "LENGTH",     0, 4),
    (c.RESET,    words(1),                                   "POSITION",   1, 0),
    (c.PREFILL,  words(0),                                   "LENGTH",     4, 8),
    (c.PREFILL,  words(0, 2, 1),                             "LENGTH",     12, 16),
    (c.PREFILL,  words(0, 0),                                "N_TOKENS",   0, c.TOKENS_MAX),
    (c.PREFILL,  words(0, 0xFFFFFFFF),                       "N_TOKENS",   0xFFFFFFFF, c.TOKENS_MAX),
    (c.PREFILL,  words(3, 1, 1),                             "POSITION",   3, 0),
    (c.PREFILL,  words(0, 65, *[1]*65),                      "CONTEXT",    65, 64),
    (c.PREFILL,  words(0, 2, 1, 300),                        "TOKEN",      300, 300),
    (c.GENERATE, b"\0"*20,                                   "LENGTH",     20, 52),
    (c.GENERATE, generate_payload(n_stop=17),                "N_STOP",     17, c.STOP_MAX),
    (c.GENERATE, generate_payload(n_tokens=2),               "LENGTH",     56, 60),
    (c.GENERATE, generate_payload(n_tokens=1 << 30),         "N_TOKENS",   1 << 30, c.TOKENS_MAX),
    (c.GENERATE, generate_payload(max_tokens=0),             "MAX_TOKENS", 0, 1),
    (c.GENERATE, generate_payload(position=1),               "POSITION",   1, 0),
    (c.GENERATE, generate_payload(top_k=65),                 "TOP_K",      65, 64),
    (c.GENERATE, generate_payload(top_p=65537),              "TOP_P",      65537, 65536),
    (c.GENERATE, generate_payload(inv=(1 << 26) + 1),        "TEMPERATURE", (1 << 26) + 1, 1 << 26),
    (c.GENERATE, generate_payload(min_p=65537),              "MIN_P",      65537, 65536),
    (c.GENERATE, generate_payload(penalty=0),                "REPEAT_PENALTY", 0, 10 << 16),
    (c.GENERATE, generate_payload(penalty=65535, last_n=64), "REPEAT_PENALTY", 65535, 10 << 16),
    (c.GENERATE, generate_payload(penalty=(10 << 16) + 1),   "REPEAT_PENALTY", (10 << 16) + 1, 10 << 16),
    (c.GENERATE, generate_payload(last_n=65),                "REPEAT_LAST_N", 65, c.REPEAT_LAST_MAX),
    (c.GENERATE, generate_payload(n_recent=65),              "N_RECENT",   65, c.REPEAT_LAST_MAX),
    (c.GENERATE, generate_payload(n_recent=1),               "LENGTH",     56, 60),
    (c.GENERATE, generate_payload(tokens=(0xFFFFFFFF,)),     "TOKEN",      0xFFFFFFFF, 300),
    (c.PEEK,     words(0, 0),                                "LENGTH",     8, 12),
    (c.PEEK,     words(2, 0, 1),                             "REGION",     2, 1),
    (c.PEEK,     words(0, 0, 0),                             "PEEK",       0, c.PEEK_WORDS),
    (c.PEEK,     words(0, 0, c.PEEK_WORDS + 1),              "PEEK",       c.PEEK_WORDS + 1, c.PEEK_WORDS),
    (c.PEEK,     words(0, (1 << 24) - 4, 2),                 "ADDRESS",    (1 << 24) - 4, 1 << 24),
    (c.PEEK,     words(0, 0xFFFFFFFC, 1),                    "ADDRESS",    0xFFFFFFFC, 1 << 24),
    (c.PEEK,     words(0, 2, 1),                             "ADDRESS",    2, 1 << 24),
    (c.PEEK,     words(1, 1024, 1),                          "ADDRESS",    1024, 1024),
    (c.LOAD,     b"ab",                                      "LENGTH",     2, 4),
    (c.LOAD,     words((1 << 24) - 0x1000) + b"a",           "LOAD",       (1 << 24) - 0x1000, (1 << 24) - 0x1000),
    (c.LOAD,     words(0xFFFFFFFF) + b"a",                   "LOAD",       0xFFFFFFFF, (1 << 24) - 0x1000),
    (c.VERIFY,   b"",                                        "LENGTH",     0, 4),
    (c.BASELINE, words(1),                                   "LENGTH",     4, 8),
    (c.SCAN,     words(0, 0),                                "LENGTH",     8, 12),
    (c.SCAN,     words(2, 0, 32),                            "SCAN_FROM",  2, 1),
    (c.SCAN,     words(0, 1 << 24, 32),                      "SCAN_OFFSET", 1 << 24, 1 << 24),
    (c.SCAN,     words(0, 0xFFFFFFE0, 64),                   "SCAN_OFFSET", 0xFFFFFFE0, 1 << 24),
    (c.SCAN,     words(1, (1 << 24) - 0x1000, 32),           "SCAN_OFFSET", 1 << 24, 1 << 24),
    (c.SCAN,     words(0, 64, 0),                            "SCAN_BYTES", 0, (1 << 24) - 64),
    (c.SCAN,     words(0, 64, (1 << 24) - 32),               "SCAN_BYTES", (1 << 24) - 32, (1 << 24) - 64),
    (c.SCAN,     words(1, 32, (1 << 24) - 0x1000),           "SCAN_BYTES", (1 << 24) - 0x1000, (1 << 24) - 0x1020),
    (c.SCAN,     words(0, 0, 0xFFFFFFE0),                    "SCAN_BYTES", 0xFFFFFFE0, 1 << 24),
    (c.SCAN,     words(0, 16, 32),                           "SCAN_ALIGN", 16, 32),
    (c.SCAN,     words(1, 32, 48),                           "SCAN_ALIGN", 0x1000 + 80, 32),
    (c.FILL,     words(0, 0),                                "LENGTH",     8, 20),
    (c.FILL,     words(0x1000, 32, 0, 0, 0),                 "FILL_OFFSET", 0x1000, BEHIND),
    (c.FILL,     words(BEHIND - 32, 32, 0, 0, 1),            "FILL_OFFSET", BEHIND - 32, BEHIND),
    (c.FILL,     words(1 << 24, 32, 0, 0, 0),                "FILL_OFFSET", 1 << 24, BEHIND),
    (c.FILL,     words((1 << 24) - 64, 96, 0, 0, 0),         "FILL_BYTES", 96, 64),
    (c.FILL,     words((1 << 24) - 64, 0, 0, 0, 0),          "FILL_BYTES", 0, 64),
    (c.FILL,     words((1 << 24) - 64, 40, 0, 0, 0),         "FILL_ALIGN", (1 << 24) - 24, 32),
    (c.FILL,     words((1 << 24) - 64, 64, 3, 0, 0),         "PATTERN",    3, 2),
]


@pytest.mark.parametrize("type,payload,name,value,limit", BAD_REQUESTS, ids=[f"{i}-{b[2]}" for i, b in enumerate(BAD_REQUESTS)])
def test_bad_requests_are_refused_by_number_value_and_limit(type, payload, name, value, limit):
    firmware = Firmware(MODEL)
    firmware.send(encode(type, 5, payload))
    frames = answers(firmware)
    assert [(f.type, f.sequence) for f in frames] == [(c.ERROR, 5)]
    assert struct.unpack("<3I", frames[0].payload) == (c.ERRORS[name][0], value, limit)
    assert str(value) in c.error_text(c.ERRORS[name][0], value, limit) or "{value:" in c.ERRORS[name][1]
    assert firmware.passes == []


def test_top_k_beyond_the_core_is_refused():
    firmware = Firmware(MODEL, config=CoreConfig(max_topk=16))
    firmware.send(encode(c.GENERATE, 1, generate_payload(inv=65536)))   # 0 asks for 64.
    assert refusals(firmware) == [(c.ERRORS["TOP_K"][0], 0, 16)]
    firmware.send(encode(c.GENERATE, 1, generate_payload(inv=65536, top_k=16)))
    assert refusals(firmware) == []


def test_every_error_has_one_number_and_one_line():
    numbers = [n for n, _ in c.ERRORS.values()]
    assert len(set(numbers)) == len(numbers) and all(0 < n < 256 for n in numbers)
    for number in numbers:
        text = c.error_text(number, 7, 5)
        assert "\n" not in text and "{" not in text


def test_requests_during_a_run_are_refused_and_abort_is_obeyed():
    firmware = Firmware(MODEL)
    def after_pass(f):
        if len(f.passes) == 4:
            f.send(encode(c.HELLO, 50) + encode(99, 51))
        if len(f.passes) == 6:
            f.send(encode(c.ABORT, 52))
    firmware.after_pass = after_pass
    firmware.send(encode(c.GENERATE, 7, generate_payload(max_tokens=50, tokens=(1, 2))))
    got    = answers(firmware)
    others = [f for f in got if f.sequence != 7]
    assert [(f.type, f.sequence) for f in others] == [(c.ERROR, 50), (c.ERROR, 51), (c.ABORT | c.ANSWER, 52)]
    assert struct.unpack("<3I", others[0].payload) == (c.ERRORS["BUSY"][0], c.HELLO, c.GENERATE)
    assert len(firmware.passes) == 6
    done = [f for f in got if f.type == c.GENERATE | c.ANSWER]
    assert len(done) == 1 and struct.unpack_from("<4I", done[0].payload) == (c.REASON_ABORT, 6, 2, 4)
    assert unpack(c.DONE_FIELDS, done[0].payload).pass_cycles == 2 + 3 + 4   # (By position; the pass that was aborted led to no token.)


def test_abort_during_the_prompt_and_while_idle():
    firmware = Firmware(MODEL, after_pass=lambda f: len(f.passes) == 3 and f.send(encode(c.ABORT, 52)))
    firmware.send(encode(c.PREFILL, 7, words(0, 9, *range(9))))
    done = [f for f in answers(firmware) if f.type == c.PREFILL | c.ANSWER]
    assert struct.unpack_from("<4I", done[0].payload) == (c.REASON_ABORT, 3, 3, 0)
    firmware.send(encode(c.ABORT, 53))
    assert [(f.type, f.sequence) for f in answers(firmware)] == [(c.ABORT | c.ANSWER, 53)]
    firmware.send(encode(c.GENERATE, 54, generate_payload(position=3)))   # The old abort is forgotten.
    assert struct.unpack_from("<2I", answers(firmware)[-1].payload) == (c.REASON_LENGTH, 4)


def test_peek_reads_memory_and_debug_window():
    firmware, image = Firmware(MODEL), write_image(MODEL)
    client = Client(Port(firmware), timeout=30)
    assert struct.pack("<300I", *client.peek(c.REGION_MAIN_RAM, 0x1000, 300)) == image[:1200]
    assert client.peek(c.REGION_DEBUG, 8, 2) == [0xD0000002, 0xD0000003]


def test_load_takes_the_old_image_out_of_use():
    firmware = Firmware(MODEL)
    client   = Client(Port(firmware), timeout=30)
    client.request(c.LOAD, words(4096) + b"\xff")
    assert client.hello().image_error == c.ERRORS["UNVERIFIED"][0]
    with pytest.raises(Refused, match="not verified"):
        client.prefill(0, [1])
    with pytest.raises(Refused):
        client.verify()
    seen = []
    client.load(write_image(MODEL), lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(write_image(MODEL))
    hello = client.hello()
    assert hello.image_error == 0 and hello.sections_checked == 1 and hello.name == "random 0"


# Client on a bad line -------------------------------------------------------------------------------

class Damage:
    """Flips a bit in every n-th byte or drops it."""

    def __init__(self, n, seed, drop=False):
        self.n, self.rng, self.drop = n, random.Random(seed), drop

    def __call__(self, data):
        out = bytearray()
        for byte in data:
            if self.rng.randrange(self.n) == 0:
                if self.drop:
                    continue
                byte ^= 1 << self.rng.randrange(8)
            out.append(byte)
        return bytes(out)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_requests_survive_a_bad_line(seed, drop):
    firmware = Firmware(MODEL)
    client   = Client(Port(firmware, Damage(2000, seed, drop), Damage(300, seed + 9, drop)), timeout=0.05, retries=30)
    for _ in range(30):
        assert client.hello().dim == 64
        assert client.peek(c.REGION_DEBUG, 0, 20) == [0xD0000000 + i for i in range(20)]
    client.load(write_image(MODEL))
    assert client.hello().image_error == 0


@pytest.mark.parametrize("lost", range(8))
def test_lost_token_frames_are_asked_for_again(lost):
    firmware, count = Firmware(MODEL), 0
    def to_host(data):
        nonlocal count
        out = b""
        for frame in FrameReader().feed(data):
            if frame.type == c.TOKEN:
                count += 1
                if count - 1 in (lost, lost + 3):
                    continue
            out += encode(*frame)
        return out
    client = Client(Port(firmware, to_host=to_host), timeout=30)
    seen   = []
    done, tokens = client.generate(0, [1], GREEDY, 10, on_token=seen.append)
    clean  = Client(Port(Firmware(MODEL)), timeout=30).generate(0, [1], GREEDY, 10)[1]
    assert [t.id for t in tokens] == [t.id for t in clean] == seen and done.n_tokens == 10


def test_an_abort_at_a_token_that_was_asked_for_again_rewinds():
    lost    = lambda data: b"".join(encode(*f) for f in FrameReader().feed(data) if f.type != c.TOKEN)
    client  = Client(Port(Firmware(MODEL), to_host=lost), timeout=30)
    clean   = Client(Port(Firmware(MODEL)), timeout=30).generate(0, [1, 2], GREEDY, 10)[1]
    seen    = []
    done, tokens = client.generate(0, [1, 2], GREEDY, 10, on_token=lambda t: seen.append(t) or len(seen) == 4)
    assert [t.id for t in tokens] == seen == [t.id for t in clean[:4]]
    assert (done.reason, done.position, client.hello().position) == (c.REASON_ABORT, 5, 5)


def test_a_lost_request_is_repeated_but_never_run_twice():
    firmware, calls = Firmware(MODEL), []
    def to_device(data):
        calls.append(data)
        return b"" if len(calls) == 1 else data
    client = Client(Port(firmware, to_device), timeout=0.05)
    assert client.prefill(0, [1, 2]).position == 2 and len(firmware.passes) == 2
    lost = [c.PREFILL | c.ANSWER]*2
    def to_host(data):
        return b"".join(encode(*f) for f in FrameReader().feed(data) if f.type not in lost or lost.remove(f.type))
    client = Client(Port(firmware, to_host=to_host), timeout=0.05)
    done   = client.prefill(2, [3])
    assert not lost and len(firmware.passes) == 3 and (done.position, done.n_prompt, done.reason) == (3, 1, c.REASON_LENGTH)


def test_silence_is_one_line_that_says_what_to_do():
    class Silent:
        def write(self, data): pass
        def read(self, n): return b""
        def close(self): pass
    with pytest.raises(DeviceError, match="no answer to HELLO within 0.01 s"):
        SerialDevice("x", client=Client(Silent(), timeout=0.01))
    with pytest.raises(DeviceError, match="the simulator has ended"):
        Client(Silent(), timeout=1, alive=lambda: False).hello()
    with pytest.raises(DeviceError, match="cannot open /nonexistent at 115200 baud"):
        open_port("/nonexistent")


def test_baud_rate():
    """It is the line's; what a line cannot have is told, and devices that have none refuse it."""
    master, slave = pty.openpty()
    try:
        with open_port(os.ttyname(slave), 921600) as port:
            assert port.baudrate == 921600
        for rate, message in ((0, "must be at least 1"), (10**12, "cannot open .* at 1000000000000 baud")):
            with pytest.raises(ValueError, match=message):
                open_port(os.ttyname(slave), rate)
    finally:
        os.close(master)
        os.close(slave)
    with pytest.raises(ValueError, match="--baudrate is 9600, but device sim is no serial line"):
        open_device("sim", 9600)
