# SPDX-License-Identifier: BSD-2-Clause
"""Progress of slow devices: when the firmware tells it, and what is shown of it on a terminal and in a log."""

import io
import sys

import pytest

from firmware_host import Firmware, Port, serve
from litellama.accel.config import ModelConfig
from litellama.firmware import constants as c
from litellama.host import cli, progress
from litellama.host.devices.serial import SerialDevice
from litellama.host.progress import Progress, duration
from litellama.host.protocol import Client, FrameReader, unpack
from litellama.host.random_model import random_model
from litellama.host.sampler import SamplerParams
from test_cli import ScriptedDevice, chat_model, litellama, model_file   # noqa: F401

LAYERS = 8
MODEL  = random_model(ModelConfig(32, 64, LAYERS, 2, 1, 16, 300, 64), layers="q8_0")
GREEDY = SamplerParams()
SLOW   = (8*1024, 1500)   # A pass of 12.3 million cycles, at the layer of which is looked eight times.
LOOK   = 1024*1500        # Cycles from one look to the next: more than PROGRESS_CYCLES.


# Firmware -----------------------------------------------------------------------------------------------

def told(firmware, tokens, n):
    """PROGRESS payloads of a GENERATE, in order with "token" for each TOKEN."""
    out, reader = [], FrameReader()
    def to_host(data):
        for frame in reader.feed(data):
            if frame.type == c.PROGRESS:
                p = unpack(c.PROGRESS_FIELDS, frame.payload)
                out.append((p.done, p.total, p.layer, p.layers))
            if frame.type == c.TOKEN:
                out.append("token")
        return data
    done, got = Client(Port(firmware, to_host=to_host), timeout=60).generate(0, tokens, GREEDY, n)
    assert done.n_tokens == len(got) == n
    return out


def test_a_slow_pass_tells_its_layers():
    out = told(Firmware(MODEL, pace=SLOW), [1, 2], 3)
    assert [p for p in out if p != "token"] == sorted(p for p in out if p != "token")
    def layers(done):
        return [p[2] for p in out if p != "token" and p[0] == done]
    for done in range(4):   # Two of the prompt, two sampled ones; the last one is not fed.
        assert len(layers(done)) >= LAYERS - 2 and set(layers(done)) <= set(range(LAYERS)) and layers(done) == sorted(set(layers(done)))
    assert all(p[1:] == (2, p[2], LAYERS) for p in out if p != "token")
    assert not [p for p in out if p != "token" and p[0] > 3]
    assert [i for i, p in enumerate(out) if p == "token"][0] > max(i for i, p in enumerate(out) if p != "token" and p[0] == 1)


def test_frames_are_a_million_cycles_apart():
    """Looking ten times as often tells no more often."""
    slow, often = (told(Firmware(MODEL, pace=(pace, 12_288_000//pace)), [1, 2], 3) for pace in (8*1024, 80*1024))
    assert len(slow) <= len(often) <= len(slow) + 8 and len(often) <= 3 + 4*12_288_000//c.PROGRESS_CYCLES


def test_a_fast_model_sends_none():
    assert told(Firmware(MODEL, pace=(1, 1000)), [1, 2, 3, 4], 5) == ["token"]*5
    assert told(Firmware(MODEL, pace=(1, c.PROGRESS_CYCLES//20)), list(range(1, 9)), 5) == ["token"]*5
    assert told(Firmware(MODEL, pace=(900, 1000)), [1], 1) == ["token"]


def test_a_long_prompt_of_fast_passes_is_told_now_and_then():
    out = told(Firmware(MODEL, pace=(1, c.PROGRESS_CYCLES//10)), list(range(1, 60)), 1)
    assert 3 <= len(out) - 1 <= 6 and all(p[1:] == (59, 0, LAYERS) for p in out[:-1])


def test_progress_is_left_out_while_the_uart_is_behind():
    free, busy = (len(told(Firmware(MODEL, pace=SLOW, tx_stall_cycles=stall), [1, 2], 2)) for stall in (0, 2_000_000))
    assert free >= 2 + 3*(LAYERS - 2) and busy <= 2 + 3   # A frame takes longer than a pass.


def test_the_device_passes_it_on_with_pieces_added_up():
    long   = random_model(ModelConfig(32, 64, 2, 2, 1, 16, 300, 256), layers="q8_0")
    tokens = [i % 300 for i in range(c.TOKENS_MAX + 6)]
    seen   = []
    with serve(Firmware(long, pace=(2048, 1000))) as url, SerialDevice(url, timeout=60) as device:
        device.load(long)
        device.generate(tokens, GREEDY, 4, on_progress=lambda *p: seen.append(p))
    assert seen == sorted(seen) and {p[1] for p in seen} == {len(tokens)} and {p[3] for p in seen} == {2}
    assert seen[0][0] < 5 and seen[-1][0] == len(tokens) + 2
    assert any(p[0] >= c.TOKENS_MAX and p[0] < len(tokens) for p in seen)


def test_progress_frames_do_not_disturb_a_host_that_does_not_ask():
    firmware = Firmware(MODEL, pace=SLOW)
    client   = Client(Port(firmware), timeout=60)
    assert client.prefill(0, [1, 2]).position == 2
    assert [t.id for t in client.generate(2, [3], GREEDY, 2)[1]] == [t.id for t in Client(Port(Firmware(MODEL)), timeout=60).generate(
        0, [1, 2, 3], GREEDY, 2)[1]]


# What is shown ------------------------------------------------------------------------------------------

class Clock:
    """time.monotonic that the test moves."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def shown(monkeypatch):
    """Function (terminal): (clock, stderr) that Progress then sees."""
    def begin(terminal):
        clock, err = Clock(), io.StringIO()
        err.isatty = lambda: terminal
        monkeypatch.setattr(progress, "time", clock)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", err)
        return clock, err
    return begin


def new(err):
    """What was written since the last call, without the terminal's codes."""
    text = err.getvalue()
    err.seek(0), err.truncate()
    for code in ("\x1b7", "\x1b8", "\x1b[?7l", "\x1b[?7h", "\x1b[K"):
        text = text.replace(code, "")
    return text


def test_terminal_shows_token_layer_and_time_left(shown):
    clock, err = shown(True)
    p = Progress("prompt token", 20)
    clock.now += 0.4
    p(0, 38, 1, 30)
    assert new(err) == ""
    clock.now += 1.6
    p(0, 38, 10, 30)   # 2 s for 10 layers of 1140.
    assert new(err) == "prompt token 1 of 38, layer 11 of 30, about 4 min left"
    p(0, 38, 11, 30)
    assert new(err) == ""
    clock.now += 12
    p(2, 38, 10, 30)
    assert new(err) == "prompt token 3 of 38, layer 11 of 30, about 4 min left"
    clock.now += 212
    p(38, 38, 0, 30)   # 226 s for 1140 layers; 19 passes more at most.
    assert new(err) == "token 2 of at most 20, layer 1 of 30, at most 2 min left"
    clock.now += 107
    p(56, 38, 0, 30)
    assert new(err) == "token 20 of at most 20, layer 1 of 30, at most 6 s left"


def test_line_stands_behind_the_text_and_is_wiped_before_more(shown, monkeypatch):
    clock, err = shown(True)
    order = []
    err.write = lambda text: order.append(("err", text))
    p     = Progress("prompt token", 20)
    write = p.before(lambda text: order.append(("out", text)))
    clock.now += 1
    p(0, 2, 1, 4)
    write("Once")
    p(2, 2, 0, 4)      # Too soon after the text.
    clock.now += 1
    p(2, 2, 1, 4)
    write(" upon\n")
    clock.now += 1
    p(3, 2, 1, 4)
    p.wipe()
    p.wipe()
    begin, end = "\x1b7\x1b[?7l\x1b[K", "\x1b[?7h\x1b8"
    text = [(where, t) for where, t in order if t]
    assert [(where, t.split(",")[0]) for where, t in text] == [("err", f"{begin}prompt token 1 of 2"), ("err", "\x1b[K"),
        ("out", "Once"), ("err", f"{begin}  token 2 of at most 20"), ("err", "\x1b[K"), ("out", " upon\n"),
        ("err", f"{begin}token 3 of at most 20"), ("err", "\x1b[K")]
    assert all(t.endswith(end) for where, t in text if t.startswith(begin))


def test_a_log_gets_a_line_every_half_minute_of_long_runs(shown):
    clock, err = shown(False)
    p = Progress("prompt token", 8)
    write = p.before(lambda text: None)
    for second in range(1, 101):
        clock.now += 1
        p(second//10, 10, second % 10, 10)
        write("x")
    lines = err.getvalue().splitlines()
    assert lines == ["prompt token 4 of 10, layer 1 of 10, about 70 s left", "prompt token 7 of 10, layer 1 of 10, about 40 s left",
        "prompt token 10 of 10, layer 1 of 10, about 10 s left"]
    p.wipe()
    assert err.getvalue().splitlines() == lines and "\x1b" not in err.getvalue()


def test_a_dumb_terminal_gets_a_log(shown, monkeypatch):
    clock, err = shown(True)
    monkeypatch.setenv("TERM", "dumb")
    p = Progress("prompt token", 8)
    clock.now += 40
    p(1, 10, 0, 10)
    p.wipe()
    assert err.getvalue() == "prompt token 2 of 10, layer 1 of 10, about 6 min left\n"


def test_a_short_run_leaves_no_line_in_a_log(shown):
    clock, err = shown(False)
    p = Progress("prompt token", 8)
    for second in range(29):
        clock.now += 1
        p(0, 10, second, 30)
    assert err.getvalue() == ""


def test_without_layers_the_line_ends_with_the_task(shown):
    clock, err = shown(True)
    p = Progress("model bytes sent")
    clock.now += 3
    p(1000, 4000)
    assert new(err) == "model bytes sent 1000 of 4000, about 9 s left"
    clock.now += 9
    p(4000, 4000)
    assert err.getvalue() == "\x1b[K"


def test_time_starts_anew_where_the_context_is_fed_anew(shown):
    clock, err = shown(True)
    p = Progress("prompt token", 50)
    clock.now += 100
    p(100, 100, 0, 2)
    new(err)
    p(0, 60, 0, 2)
    clock.now += 10
    p(10, 60, 0, 2)
    assert new(err) == "prompt token 11 of 60, layer 1 of 2, about 50 s left"


def test_durations():
    assert [duration(s) for s in (0.4, 89, 90, 5399, 5400, 36000)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h", "10.0 h"]


def test_command_line_never_shows_progress_on_stdout(litellama, model_file, monkeypatch):
    class Slow(ScriptedDevice):
        def generate(self, *args, **options):
            args[5](0, 4, 3, 30)
            return super().generate(*args, **options)
    monkeypatch.setattr(cli, "open_device", lambda name, baudrate: Slow([50, 51, 2]))
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    status, out, err = litellama("run", "x", "--model", model_file, "--tokens", 5)
    assert status == 0 and err.startswith("prompt token 1 of 4, layer 4 of 30, about ") and "layer" not in out and err.count("\n") == 2
