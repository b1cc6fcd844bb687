# SPDX-License-Identifier: BSD-2-Clause
"""The serial device end to end: host, protocol and the compiled firmware over TCP, against the reference device."""

import signal
import threading

import numpy as np
import pytest

from firmware_host import IMAGE_OFFSET, Firmware, Port, serve
from litellama.accel.config import ModelConfig
from litellama.accel.image import write_image
from litellama.firmware import constants as c
from litellama.host import protocol
from litellama.host.devices.base import ABORT, DeviceError
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.serial import SerialDevice
from litellama.host.random_model import odd_configs, random_model
from litellama.host.sampler import SamplerParams

MODEL  = random_model(ModelConfig(64, 96, 2, 4, 2, 16, 300, 64), layers="q4_1")
GREEDY = SamplerParams()


@pytest.mark.parametrize("params", [GREEDY, SamplerParams(0.8, 40, 0.95, 99)])
@pytest.mark.parametrize("which", range(3))
def test_serial_device_equals_the_reference(which, params):
    _, config, tied = odd_configs()[which]
    model     = random_model(config, layers="q4_0", classifier="q8_0", tied=tied)
    reference = ReferenceDevice()
    reference.load(model)
    with serve(Firmware(model)) as url, SerialDevice(url) as device:
        device.load(model)
        for turn in ([1, 5, 9, 300], [17, 3]):
            want, seen = reference.generate(turn, params, 16, [7]), []
            got = device.generate(turn, params, 16, [7], seen.append)
            assert got.tokens == want.tokens == seen and got.finish_reason == want.finish_reason
            assert device.position == reference.position
            assert got.timings.decode_cycles > 0 and 0 < got.timings.mbu and got.timings.tokens_per_second > 0
        device.reset()
        assert device.position == 0


def test_image_is_sent_only_if_it_is_not_there():
    firmware, other = Firmware(), random_model(ModelConfig(64, 96, 2, 4, 2, 16, 300, 64), layers="q4_1", seed=1)
    with serve(firmware) as url, SerialDevice(url) as device:
        firmware.model, seen = MODEL, []
        device.load(MODEL, lambda done, total: seen.append(done))
        assert len(seen) > 1
        assert device.generate([1, 2], GREEDY, 1).finish_reason == "length"
        seen.clear()
        device.load(MODEL, lambda done, total: seen.append(done))
        assert seen == [] and device.position == 0
        device.load(other, lambda done, total: seen.append(done))
        assert len(seen) > 1
        with pytest.raises(ValueError, match="built for at most 1024"):
            device.load(random_model(ModelConfig(1056, 96, 1, 1, 1, 16, 300, 64)))


def test_interrupted_upload_goes_on_where_it_ended(monkeypatch):
    """What came before the line broke is not sent again; a chunk that is half there, or damaged, is."""
    monkeypatch.setattr(protocol, "CHUNK", 4096)
    image, sent, limit = write_image(MODEL), [], [3*4096 + 2000]
    request = protocol.Client.request

    def counted(client, type, payload=b"", handle=None):
        if type == c.LOAD:
            if sum(sent) >= limit[0]:
                raise DeviceError("the line is broken")
            sent.append(len(payload) - 4)
        return request(client, type, payload, handle)
    monkeypatch.setattr(protocol.Client, "request", counted)
    firmware = Firmware()
    firmware.model = MODEL
    with serve(firmware) as url, SerialDevice(url) as device:
        with pytest.raises(DeviceError, match="line is broken"):
            device.load(MODEL)
        firmware.put_image(b"\x55", offset=4096 + 7)
        before, limit[0] = sum(sent), 1 << 30
        sent.clear()
        device.load(MODEL)
        assert before > 3*4096 and sum(sent) == len(image) - 2*4096
        assert device.generate([1, 2], GREEDY, 2).finish_reason == "length"


def test_half_an_upload_is_found_after_a_reset(monkeypatch):
    """A model of the same shape was there, the upload of another broke off, and the board was reset: its header looks whole."""
    first, second = (random_model(ModelConfig(64, 96, 2, 4, 2, 16, 300, 64), layers="q4_1", seed=seed) for seed in (0, 1))
    image, sent   = write_image(second), []
    request       = protocol.Client.request

    def breaks(client, type, payload=b"", handle=None):
        if type == c.LOAD:
            sent.append(len(payload) - 4)
            if len(sent) > 3:
                raise DeviceError("the line is broken")
        return request(client, type, payload, handle)
    firmware = Firmware(first)
    firmware.model = second
    with serve(firmware) as url, SerialDevice(url) as device:
        monkeypatch.setattr(protocol.Client, "request", breaks)
        with pytest.raises(DeviceError, match="line is broken"):
            device.load(second)
        monkeypatch.setattr(protocol.Client, "request", request)
        firmware.lib.server_init()
        assert not device.client.hello().image_error
        device.load(second)
        assert firmware.ram[IMAGE_OFFSET:IMAGE_OFFSET + len(image)].tobytes() == image


@pytest.mark.parametrize("n", [1, c.TOKENS_MAX - 1, c.TOKENS_MAX, c.TOKENS_MAX + 1, 2*c.TOKENS_MAX, 2*c.TOKENS_MAX + 1])
@pytest.mark.parametrize("window", [0, 64])
def test_a_prompt_of_exactly_a_frame(n, window):
    """Whatever its length: fed once, in order, the last piece not empty, with what the penalty looks at before it."""
    from test_line import Fast
    model  = random_model(ModelConfig(32, 64, 1, 2, 1, 16, 300, 600), layers="q8_0")
    params = SamplerParams(repeat_penalty=1.5, repeat_last_n=window) if window else GREEDY
    tokens = [(7*i + 3) % 300 for i in range(n)]
    with SerialDevice("board", client=protocol.Client(Port(firmware := Fast(model)), timeout=30)) as device:
        device.load(model)
        sent    = []
        request = device.client.request
        device.client.request = lambda type, payload=b"", handle=None: sent.append((type, payload)) or request(type, payload, handle)
        got     = device.generate(tokens, params, 3, recent=[299, 298, 297])
        assert [p[:2] for p in firmware.passes[:n]] == list(zip(tokens, range(n))) and [p[2] > 0 for p in firmware.passes[:n]] == [False]*(n - 1) + [True]
        assert got.timings.prompt_tokens == n and device.position == n + 2 == device.client.hello().position and len(got.tokens) == 3
        cycles = 100_000*(n + 2)   # (A pass of the stub.)
        assert cycles <= got.timings.prompt_cycles + got.timings.decode_cycles < cycles + 2000*(n + 2)
    sent   = [s for s in sent if s[0] in (c.PREFILL, c.GENERATE)]
    pieces = [min(c.TOKENS_MAX, n - at) for at in range(0, n, c.TOKENS_MAX)]
    assert [type for type, _ in sent] == [c.PREFILL]*(len(pieces) - 1) + [c.GENERATE]
    head   = dict(zip(c.GENERATE_FIELDS, np.frombuffer(sent[-1][1], "<u4")))
    recent = np.frombuffer(sent[-1][1], "<u4")[len(c.GENERATE_FIELDS):][:head["n_recent"]].tolist()
    before = n - pieces[-1]
    assert head["n_tokens"] == pieces[-1] and head["position"] == before
    assert recent == ([299, 298, 297] + tokens[:before])[-window:] if window else recent == []


def test_a_prompt_in_pieces_that_is_aborted_says_what_was_fed():
    from test_line import Fast
    model    = random_model(ModelConfig(32, 64, 1, 2, 1, 16, 300, 600), layers="q8_0")
    firmware = Fast(model)
    firmware.after_pass = lambda f: len(f.passes) == c.TOKENS_MAX + 5 and f.send(protocol.encode(c.ABORT, 0))
    with SerialDevice("board", client=protocol.Client(Port(firmware), timeout=30)) as device:
        device.load(model)
        got = device.generate([1]*(3*c.TOKENS_MAX), GREEDY, 3)
        assert (got.tokens, got.finish_reason, got.timings.prompt_tokens) == ([], ABORT, c.TOKENS_MAX + 5)
        assert device.position == c.TOKENS_MAX + 5 == device.client.hello().position and got.timings.prompt_cycles > 100_000*c.TOKENS_MAX


def test_long_prompts_span_frames():
    model     = random_model(ModelConfig(32, 64, 1, 2, 1, 16, 300, 600), layers="q8_0")
    reference = ReferenceDevice()
    reference.load(model)
    tokens    = [int(t) for t in np.random.default_rng(3).integers(0, 300, 2*c.TOKENS_MAX + 5)]
    with serve(Firmware(model)) as url, SerialDevice(url) as device:
        device.load(model)
        progress = []
        got = device.generate(tokens, GREEDY, 3, on_progress=lambda done, total, *_: progress.append((done, total)))
        assert got.tokens == reference.generate(tokens, GREEDY, 3).tokens
        assert got.timings.prompt_tokens == len(tokens) and device.position == len(tokens) + 2
        assert progress == sorted(progress) and progress and progress[-1][1] == len(tokens)
        with pytest.raises(ValueError, match="it holds 600"):
            device.generate([1]*300, GREEDY, 1)


@pytest.mark.parametrize("how", ["return", "raise", "signal"])
def test_abort_leaves_the_device_as_the_reference(how):
    signal.signal(signal.SIGINT, signal.default_int_handler)   # A shell's background jobs begin with it ignored.
    reference = ReferenceDevice()
    reference.load(MODEL)
    def stop_at(n, how):
        seen = []
        def on_token(token):
            seen.append(token)
            if len(seen) == n:
                if how == "raise":
                    raise KeyboardInterrupt
                if how == "signal":
                    signal.raise_signal(signal.SIGINT)
                return how == "return"
        return on_token
    want = reference.generate([1, 2], GREEDY, 40, on_token=stop_at(4, "return"))
    with serve(Firmware(MODEL)) as url, SerialDevice(url) as device:
        device.load(MODEL)
        got = device.generate([1, 2], GREEDY, 40, on_token=stop_at(4, how))
        assert got.finish_reason == ABORT
        assert 4 <= len(got.tokens) < 40 and got.tokens[:4] == want.tokens
        assert device.position == 2 + len(got.tokens) - 1
        if how != "signal":
            assert got.tokens == want.tokens
            assert device.generate([got.tokens[-1], 9], GREEDY, 5).tokens == reference.generate([want.tokens[-1], 9], GREEDY, 5).tokens
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_generate_works_outside_the_main_thread():
    with serve(Firmware(MODEL)) as url, SerialDevice(url) as device:
        device.load(MODEL)
        out    = []
        thread = threading.Thread(target=lambda: out.append(device.generate([1], GREEDY, 3).tokens))
        thread.start()
        thread.join(20)
        assert len(out[0]) == 3
