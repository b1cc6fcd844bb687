# SPDX-License-Identifier: BSD-2-Clause
"""A bad line, a line that echoes, a device that talks nonsense: no error where the tokens can be had, one line where not."""

import random
import struct

import pytest

from firmware_host import SCAN, Firmware, Port, serve
from litellama.accel.config import ModelConfig
from litellama.accel.image import write_image
from litellama.firmware import constants as c
from litellama.host.devices.base import DeviceError
from litellama.host.devices.serial import SerialDevice
from litellama.host.protocol import TRIES, Client, FrameReader, Refused, encode, open_port, unpack, words
from litellama.host.random_model import random_model
from litellama.host.sampler import SamplerParams
from litellama.host.session import Session
from test_cli import chat_model
from test_protocol import answers, generate_payload

MODEL  = random_model(ModelConfig(64, 96, 2, 4, 2, 16, 300, 64), layers="q4_1")
GREEDY = SamplerParams()
DONE   = c.GENERATE | c.ANSWER


def numbers(name):
    return c.ERRORS[name][0]


class Fast(Firmware):
    """A core that takes no time: the token after t at position p is (7*t + p) % 300."""

    def _run_pass(self, token, position, topk):
        if self.error or token == SCAN:
            return self.error
        self.passes.append((token, position, topk))
        for i in range(topk):
            self.lib.stub_candidate(i, (7*token + position + i) % 300, 0x3F800000)
        if self.after_pass is not None:
            self.after_pass(self)
        return 0


# Damage -----------------------------------------------------------------------------------------------

class Damage:
    """What a line does to one byte in `n`: flip a bit of it, lose it, put another in front of it, or send the whole piece twice."""

    def __init__(self, n, seed, kind):
        self.n, self.rng, self.kind, self.count = n, random.Random(seed), kind, 0

    def hits(self):
        hit = self.rng.randrange(self.n) == 0
        self.count += hit
        return hit

    def __call__(self, data):
        if self.kind == "twice":
            frames = FrameReader().feed(data)
            return b"".join(encode(*f)*(1 + self.hits()) for f in frames)
        out = bytearray()
        for byte in data:
            if not self.hits():
                out.append(byte)
            elif self.kind == "flip":
                out.append(byte ^ 1 << self.rng.randrange(8))
            elif self.kind == "insert":
                out += bytes([self.rng.randrange(256), byte])
        return bytes(out)


@pytest.mark.parametrize("kind,n,chats", [("flip", 1000, 200), ("lose", 1000, 40), ("insert", 1000, 40), ("twice", 5, 40)])
def test_chats_over_a_bad_line_show_no_error(kind, n, chats):
    model, params = chat_model(), SamplerParams(0.9, seed=3)
    texts = ["hi", "what is it", "one more", "and so on", "x"]
    def talk(session):
        for text in texts*(chats//len(texts)):
            session.clear()
            yield session.ask(text, params, 12).token_ids
    def run(to_device, to_host):
        firmware = Fast(model)
        port     = Port(firmware, lambda data: line[0](data), lambda data: line[1](data))
        line     = [lambda data: data]*2
        with SerialDevice("board", client=Client(port, timeout=0.02)) as device:
            session = Session(device, model)
            line    = [to_device, to_host]
            out     = list(talk(session)), firmware.passes
            line    = [lambda data: data]*2
        return out
    both = [Damage(n, 1, kind), Damage(n, 2, kind)]
    assert run(*both) == run(*[lambda data: data]*2)
    assert both[0].count > chats//10 and both[1].count > chats//5


@pytest.mark.parametrize("lost", [1, 2, 7])
def test_the_last_frame_can_be_had_again(lost):
    """DONE of an answer, of an aborted one, and the refusal that a run ended with."""
    plain = Client(Port(Firmware(MODEL)), timeout=30).generate(0, [1, 2], GREEDY, 9)[0]
    gone  = []
    def to_host(data):
        return b"".join(encode(*f) for f in FrameReader().feed(data) if f.type not in (DONE, c.ERROR) or len(gone) >= lost or gone.append(f))
    firmware = Firmware(MODEL)
    client   = Client(Port(firmware, to_host=to_host), timeout=0.02, retries=lost + 3)
    done     = client.generate(0, [1, 2], GREEDY, 9)[0]
    assert len(gone) == lost and {f.payload for f in gone} == {gone[0].payload}
    passes   = len(firmware.passes)
    plain.pass_cycles = done.pass_cycles   # (The stub's counters.)
    for name in ("reason", "position", "n_prompt", "n_tokens", "counters"):
        assert getattr(done, name) == getattr(plain, name)
    gone.clear()
    seen = []
    cut  = client.generate(10, [5], GREEDY, 20, on_token=lambda t: seen.append(t) or len(seen) == 3)[0]
    assert (cut.reason, cut.position, cut.n_tokens) == (c.REASON_ABORT, 13, 3) == (c.REASON_ABORT, client.hello().position, len(seen))
    gone.clear()
    client.reset()
    passes, firmware.error = len(firmware.passes), 1
    with pytest.raises(Refused, match="out of step at position 0"):
        client.generate(0, [5], GREEDY, 20)
    assert len(gone) == lost and len(firmware.passes) == passes


def test_an_answer_is_given_again_to_the_same_request_alone():
    firmware = Firmware(MODEL)
    def send(type, sequence, payload):
        firmware.send(encode(type, sequence, payload))
        frame = answers(firmware)[-1]
        return frame.type, frame.payload
    first = send(c.GENERATE, 7, generate_payload(max_tokens=3))
    assert first[0] == DONE and send(c.GENERATE, 7, generate_payload(max_tokens=3)) == first and len(firmware.passes) == 3
    for type, sequence, payload in ((c.HELLO, 8, b""), (c.STATS, 9, b""), (c.PEEK, 10, words(0, 0, 1)), (c.ABORT, 11, b""),
            (c.RECALL, 12, words(0)), (c.GENERATE, 13, generate_payload(max_tokens=3))):   # The last one: refused.
        send(type, sequence, payload)
    assert send(c.GENERATE, 7, generate_payload(max_tokens=3)) == first and len(firmware.passes) == 3
    refused = (c.ERRORS["POSITION"][0], 0, 3)
    for type, sequence, payload in ((c.GENERATE, 6, generate_payload()), (c.PREFILL, 7, words(0, 1, 1))):
        assert struct.unpack("<3I", send(type, sequence, payload)[1]) == refused
    # A client that begins anew may use the same number.
    behind = -(-(0x1000 + len(write_image(MODEL)))//4096)*4096
    for type, payload in ((c.RESET, words(0)), (c.PROBE, words(1, 0, 1, 0)), (c.FILL, words(behind, 32, 0, 0, 0)), (c.VERIFY, words(0))):
        assert send(c.RESET, 1, words(0))[0] == c.RESET | c.ANSWER
        firmware.passes.clear()
        assert send(c.PREFILL, 7, words(0, 2, 4, 5))[0] == c.PREFILL | c.ANSWER and len(firmware.passes) == 2
        assert send(type, 8, payload)[0] == type | c.ANSWER
        firmware.passes.clear()
        assert send(c.PREFILL, 7, words(0, 2, 4, 5))[0] == c.PREFILL | c.ANSWER and len(firmware.passes) == 2, type


def test_a_request_that_comes_twice_while_it_runs_is_served_once():
    frame    = encode(c.GENERATE, 7, generate_payload(max_tokens=6))
    firmware = Firmware(MODEL, after_pass=lambda f: len(f.passes) == 2 and f.send(frame + encode(c.GENERATE, 8, generate_payload())))
    firmware.send(frame)
    got = [(f.type, f.sequence) for f in answers(firmware)]
    assert got.count((DONE, 7)) == 1 and [g for g in got if g[0] == c.ERROR] == [(c.ERROR, 8)] and len(firmware.passes) == 6


def fast_tokens(token, n):
    out = []
    for position in range(n):
        token = (7*token + position) % 300
        out.append(token)
    return out


def fast(context):
    """Port of a Fast one whose context holds so much."""
    from litellama.accel.config import CoreConfig
    model = random_model(ModelConfig(32, 32, 1, 1, 1, 16, 300, context), layers="q8_0")
    return Fast(model, config=CoreConfig(max_context=context, kv_scales=context, kv_bytes=1 << 20))


@pytest.mark.parametrize("n", [255, 256, 600, c.RECALL_TOKENS, c.RECALL_TOKENS + 40])
def test_all_tokens_of_a_long_answer_can_be_had_again(n):
    """The first TOKEN is lost, so that all are asked for at the end; what is not kept is told."""
    firmware = fast(c.RECALL_TOKENS + 64)
    def to_host(data):
        frames = FrameReader().feed(data)
        return b"".join(encode(*f) for f in frames if f.type != c.TOKEN or unpack(c.TOKEN_FIELDS, f.payload).index)
    client = Client(Port(firmware, to_host=to_host), timeout=30)
    if n > c.RECALL_TOKENS:
        with pytest.raises(DeviceError, match=f"{n} tokens were lost on the way"):
            client.generate(0, [1], GREEDY, n)
        assert client.recall(0, c.RECALL_TOKENS) == fast_tokens(1, n)[:c.RECALL_TOKENS]
    else:
        assert [t.id for t in client.generate(0, [1], GREEDY, n)[1]] == fast_tokens(1, n)
    with pytest.raises(Refused, match=f"token {min(n, c.RECALL_TOKENS) + 1} of the last answer was asked for, {min(n, c.RECALL_TOKENS)} are kept"):
        client.request(c.RECALL, words(min(n, c.RECALL_TOKENS) + 1))
    assert len(client.hello().name) > 0   # Nothing was written past them.


def test_abort_that_is_lost_is_sent_again():
    lost, kept = [], []
    def to_device(data):
        if data[2] == c.ABORT and len(lost) < 2:
            lost.append(data)
            return b""
        kept.append(data[2])
        return data
    firmware = fast(2048)
    with serve(firmware, 0.01) as url:
        port   = open_port(url)
        write  = port.write
        port.write = lambda data: write(to_device(data))
        client = Client(port, timeout=0.4, retries=20)
        done, tokens = client.generate(0, [1], GREEDY, 1500, on_token=lambda t: True)
        assert done.reason == c.REASON_ABORT and len(tokens) == 1 and client.hello().position == 1 == done.position
        client.close()
    assert len(lost) == 2 and c.ABORT in kept and len(firmware.passes) < 200


# Echo -------------------------------------------------------------------------------------------------

EVENTS = [(type, sequence) for type in (c.TOKEN, c.PROGRESS, c.ERROR, *(r | c.ANSWER for r in c.REQUESTS), c.ANSWER, 0xC3) for sequence in (0, 9)]


@pytest.mark.parametrize("damaged", [False, True])
def test_frames_of_an_answer_s_type_are_ignored(damaged):
    firmware = Firmware(MODEL)
    for type, sequence in EVENTS:
        frame     = bytearray(encode(type, sequence, words(1, 2, 3)))
        frame[-1] ^= damaged
        firmware.send(bytes(frame))
        assert answers(firmware) == [], type
        firmware.send(bytes(frame[:-2]))
        firmware.poll()
        firmware.lib.stub_advance(1 << 30)   # Given up.
        assert answers(firmware) == [], type
    firmware.send(encode(c.HELLO, 3))
    assert [f.sequence for f in answers(firmware)] == [3]


@pytest.mark.parametrize("n", [1 << 60, 300])
def test_a_line_that_echoes_both_ways_carries_a_chat(n):
    """All that either end sends comes back to it: nothing is said about it, and all is quiet in the end."""
    damage = Damage(1 << 60, 1, "flip")
    class Echo(Port):
        bounced = 0
        def write(self, data):
            self.buffer += damage(data)
            super().write(damage(data))
        def read(self, n=1):
            if not self.buffer:
                self.firmware.poll()
                self.firmware.lib.stub_advance(1 << 20)
                sent = self.firmware.receive()
                self.bounced += len(sent)
                self.firmware.send(damage(sent))
                self.buffer = damage(sent)
            data, self.buffer = self.buffer[:n], self.buffer[n:]
            return data
    model = chat_model()
    with SerialDevice("board", client=Client(Port(Fast(model)), timeout=30)) as device:
        want = Session(device, model).ask("hi", SamplerParams(0.9, seed=2), 12).token_ids
    port  = Echo(Fast(model))
    with SerialDevice("board", client=Client(port, timeout=0.02)) as device:
        session = Session(device, model)
        damage  = Damage(n, 1, "flip")
        for _ in range(20):
            session.clear()
            assert session.ask("hi", SamplerParams(0.9, seed=2), 12).token_ids == want
        damage = Damage(1 << 60, 1, "flip")
        for _ in range(20):
            port.read(1 << 16)
        before = port.bounced
        for _ in range(20):
            port.read(1 << 16)
        assert port.bounced == before


# Nonsense ---------------------------------------------------------------------------------------------

class Liar:
    """A device that answers as `firmware` does, but for the payloads of the answers of type `lie`, which change(payload) makes."""

    def __init__(self, firmware, lie, change):
        self.lie, self.change = lie, change
        self.port = Port(firmware, to_host=self.to_host)

    def to_host(self, data):
        return b"".join(encode(f.type, f.sequence, self.change(f.payload) if f.type == self.lie else f.payload)
            for f in FrameReader().feed(data))


def drive(device, model):
    """Everything that a host asks of a device."""
    device.load(model)
    device.generate([1, 2, 3], GREEDY, 4, on_progress=lambda *p: None)
    device.known_answer([1], 2)
    device.probe(1, 0, 1)
    device.scan(64)
    device.peek("x", 0, 200)
    device.client.stats()
    device.baseline(1)
    device.fill((1 << 24) - 64, 64, c.PATTERN_MIXED, 1)


@pytest.mark.parametrize("lie", [c.HELLO, c.RESET, c.PREFILL, c.GENERATE, c.STATS, c.PEEK, c.LOAD, c.VERIFY, c.BASELINE, c.RECALL, c.PROBE,
    c.SCAN, c.FILL, "TOKEN", "ERROR", "PROGRESS"])
def test_a_whole_frame_of_wrong_content_is_one_line(lie):
    """Shorter, longer, all ones, all zeros, and random words one at a time: an answer, or one line."""
    rng     = random.Random(str(lie))
    type    = getattr(c, lie) if isinstance(lie, str) else lie | c.ANSWER
    changes = [lambda p: b"", lambda p: p[:-1], lambda p: p[:len(p)//8*4], lambda p: p + b"x", lambda p: p + bytes(4), lambda p: b"\xff"*len(p),
        lambda p: bytes(len(p))]
    for _ in range(40):
        at, value = rng.random(), rng.choice([0, 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
        changes.append(lambda p, at=at, value=value: p[:(i := int(at*len(p))//4*4)] + words(value) + p[i + 4:])
    firmware, refused = Fast(MODEL, pace=(4, c.PROGRESS_CYCLES)), 0
    for change in changes:
        try:
            with SerialDevice("board", client=Client(Liar(firmware, type, change).port, timeout=0.02, retries=0)) as device:
                drive(device, MODEL)
        except ValueError as error:
            assert str(error).count("\n") == 0
            refused += 1
    assert refused >= 4 or lie in (c.RESET, c.LOAD, c.VERIFY, c.PREFILL, c.RECALL, "ERROR")   # (Nothing in it, or not in use here.)


@pytest.mark.parametrize("answer", [b"", b"\1", words(0), words(9), words(2**32 - 1, 1), words(4) + b"xy"])
def test_wrong_recalled_tokens_are_one_line(answer):
    def to_host(data):
        return b"".join(encode(f.type, f.sequence, answer if f.type == c.RECALL | c.ANSWER else f.payload) for f in FrameReader().feed(data)
            if f.type != c.TOKEN)
    client = Client(Port(Fast(MODEL), to_host=to_host), timeout=30)
    client.hello()
    if len(answer) == 8:
        assert [t.id for t in client.generate(0, [1], GREEDY, 5)[1]] == [1]*5   # Nothing is wrong with it.
        return
    with pytest.raises(DeviceError) as error:
        client.generate(0, [1], GREEDY, 5)
    assert "\n" not in str(error.value)


def test_a_device_that_is_always_busy_is_left():
    busy = lambda data: b"".join(encode(f.type, f.sequence, f.payload) if f.type in (c.HELLO | c.ANSWER, c.ABORT | c.ANSWER) else
        encode(c.ERROR, f.sequence, words(numbers("BUSY"), 2, 4)) for f in FrameReader().feed(data))
    client = Client(Port(Firmware(MODEL), to_host=busy), timeout=30)
    with pytest.raises(DeviceError, match="busy whenever"):
        client.reset()
    assert client.sequence != 0 and TRIES > 10
