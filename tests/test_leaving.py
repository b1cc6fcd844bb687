# SPDX-License-Identifier: BSD-2-Clause
"""Every way out of a request: the device is free for the next client at once, and holds what it says it holds."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from firmware_host import PASS as PASS_TYPE, Port, serve
from litellama.firmware import constants as c
from litellama.host.devices.base import DeviceError
from litellama.host.devices.serial import SerialDevice
from litellama.host.protocol import Client, FrameReader, Refused, encode, words
from litellama.host.sampler import SamplerParams
from test_firmware import IMAGE, MODEL
from test_line import Fast, answers, fast, fast_tokens, generate_payload

GREEDY = SamplerParams()
PASS   = 0.02   # Seconds of a pass: an answer of 1,500 tokens takes half a minute.


def client_process(url, how):
    """A process that begins an answer or a prompt at `url` and says so on its standard output as it comes."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(f"""
        from litellama.host.protocol import Client, open_port
        from litellama.host.sampler import SamplerParams
        client = Client(open_port({url!r}))
        say    = lambda *_: print("runs", flush=True)
        {how}
    """)], stdout=subprocess.PIPE)


@pytest.mark.parametrize("how", ["client.generate(0, [1], SamplerParams(), 1500, on_token=say)",
    "client.prefill(0, [1]*150, on_progress=say)"])
def test_after_a_killed_client_the_next_one_is_served_at_once(how):
    firmware = fast(2048)
    firmware.lib.stub_pace(2, c.PROGRESS_CYCLES)
    with serve(firmware, 5*PASS) as url:
        child = client_process(url, how)
        assert child.stdout.readline() == b"runs\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        device = SerialDevice(url)
        begun  = len(firmware.passes)
        assert device.hello.position == begun < 140   # Most of its request was left.
        device.client.reset()
        assert [t.id for t in device.client.generate(0, [1], GREEDY, 4)[1]] == fast_tokens(1, 4)
        device.close()
    assert len(firmware.passes) == begun + 4


def passes_at_rest(firmware, seconds):
    """Number of the passes that have run, once none has come for so long."""
    last = -1
    while last != len(firmware.passes):
        last = len(firmware.passes)
        time.sleep(seconds)
    return last


class Leave(Exception):
    """Of a callback."""


@pytest.mark.parametrize("leave", [Leave, ValueError, SystemExit, GeneratorExit, KeyboardInterrupt, DeviceError])
@pytest.mark.parametrize("where", ["token", "progress", "prompt"])
def test_an_exception_in_a_callback_aborts_the_request(leave, where):
    firmware, model, n = Fast(MODEL, pace=(2, c.PROGRESS_CYCLES)), MODEL, 0
    def out(*_):
        nonlocal n
        n += 1
        if n == 3:   # A second KeyboardInterrupt, of another progress, would be another matter.
            raise leave("out")
    with serve(firmware, PASS) as url, SerialDevice(url) as device:
        device.load(model)
        options = dict(on_token=out) if where == "token" else dict(on_progress=out)
        tokens  = [1]*50 if where == "prompt" else [1]
        if leave is KeyboardInterrupt:   # No error.
            assert device.generate(tokens, GREEDY, 14 if where == "prompt" else 60, **options).finish_reason == "abort"
        else:
            with pytest.raises(leave):
                device.generate(tokens, GREEDY, 14 if where == "prompt" else 60, **options)
        if leave in (SystemExit, GeneratorExit):
            assert passes_at_rest(firmware, 0.2) < 40   # Though nobody comes.
        with SerialDevice(url, client=device.client) as other:   # Another program; or this one goes on:
            held = other.hello.position
            assert held < 40
            if leave not in (SystemExit, GeneratorExit):
                assert device.position == held
            other.load(model)
            assert other.generate([1], GREEDY, 3).tokens == fast_tokens(1, 3)


def test_the_second_interrupt_ends_the_wait_and_the_device():
    """The second comes while a callback runs: it is not taken for a first one."""
    firmware, n = Fast(MODEL), 0
    def twice(token):
        nonlocal n
        n += 1
        signal.raise_signal(signal.SIGINT)
        if n == 1:
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with serve(firmware, PASS) as url, SerialDevice(url) as device:
        device.load(MODEL)
        result = device.generate([1], GREEDY, 60, on_token=twice)   # It ended the callback, and with it the answer.
        assert result.finish_reason == "abort" and n == 1
        n = 5
        def late(token):
            signal.raise_signal(signal.SIGINT)
            time.sleep(2*PASS)
            raise KeyboardInterrupt
        device.reset()
        assert device.generate([1], GREEDY, 60, on_token=late).finish_reason == "abort"
        device.reset()
        def thrice(*_):
            raise KeyboardInterrupt
        device.client.poll = None
        with pytest.raises(KeyboardInterrupt):
            def handle(frame):
                raise KeyboardInterrupt
            device.client.request(c.GENERATE, generate_payload(max_tokens=60), handle)
        assert device.client.hello().position < 40
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_runs_is_answered_during_a_pass():
    """Of a pass of eight ticks BUSY and ABORT are answered at the first, not at its end; of PROBE and SCAN alike."""
    for type, payload in ((c.GENERATE, generate_payload(max_tokens=50)), (c.PROBE, words(1, 0, 2, 0)), (c.SCAN, words(0, 0, 64))):
        firmware, early = Fast(MODEL, pace=(8, c.TICK_CYCLES)), []
        run = firmware._run_pass
        def at_its_end(*args):
            early.extend((f.type, f.sequence) for f in FrameReader().feed(firmware.receive()) if f.type != c.PROGRESS)
            return run(*args)
        firmware._pass = PASS_TYPE(at_its_end)
        firmware.lib.stub_setup(firmware.ram.ctypes.data, len(firmware.ram), firmware._limits, firmware._pass, 0)
        firmware.lib.stub_pace(8, c.TICK_CYCLES)
        firmware.lib.server_init()
        for deep in (0, 1):
            early.clear()
            firmware.lib.stub_sleeps(deep)
            firmware.send(encode(c.RESET, 6, words(0)))
            answers(firmware)
            firmware.send(encode(type, 7, payload) + encode(c.HELLO, 8) + encode(c.ABORT, 9))
            got = answers(firmware)
            assert early == [(c.ERROR, 8), (c.ABORT | c.ANSWER, 9)], (type, deep)
            assert (got[-1].type, got[-1].sequence) == (type | c.ANSWER, 7)
    assert len(firmware.passes) == 0


def test_long_requests_of_the_cpu_alone_are_aborted():
    """VERIFY of all contents, FILL both ways, the preparation of BASELINE."""
    firmware = Fast(MODEL)
    behind   = -(-(0x1000 + len(IMAGE))//4096)*4096
    ended    = c.ERRORS["ABORTED"][0]
    for type, payload in ((c.FILL, words(behind, 1 << 20, c.PATTERN_MIXED, 1, 0)), (c.FILL, words(behind, 1 << 20, c.PATTERN_MIXED, 1, 1)),
            (c.BASELINE, words(1, 0)), (c.VERIFY, words(1))):
        firmware.send(encode(type, 7, payload))
        firmware.lib.stub_interrupts()
        firmware.send(encode(c.ABORT, 9))
        firmware.lib.stub_interrupts()
        got = answers(firmware)
        assert [(f.type, f.sequence) for f in got if f.type != c.PROGRESS] == [(c.ABORT | c.ANSWER, 9), (c.ERROR, 7)], type
        assert got[-1].payload == words(ended, type, 0)
    client = Client(Port(firmware), timeout=30)
    assert client.hello().image_error == ended
    with pytest.raises(Refused, match="request 9 was aborted"):
        client.prefill(0, [1])
    client.verify(True)
    firmware.model = MODEL
    assert client.prefill(0, [1]).position == 1 and client.baseline(1).memory_bytes > 0
    assert client.fill(behind, 4096, c.PATTERN_MIXED, 1).n_wrong == 0


def test_a_core_that_hangs_is_noticed_where_wfi_sleeps():
    """Nothing but timer0 wakes the CPU; the pass is given up at its deadline and a tick, as where wfi is a nop."""
    for deep in (0, 1):
        firmware = Fast(MODEL, pace=(1, 1000))
        firmware.lib.stub_sleeps(deep)
        client   = Client(Port(firmware), timeout=30)
        allowed  = (1 << 24) + 8*client.hello().stream_bytes
        firmware.error = -1
        start    = client.stats().cycles
        with pytest.raises(Refused, match="did not finish position 0"):
            client.prefill(0, [1])
        took = client.stats().cycles - start
        assert allowed < took < allowed + 2*c.TICK_CYCLES + 4*(1 << 20), deep   # (The line's own time.)
        firmware.error = 0
        assert client.prefill(0, [1]).position == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_command_line_ends_its_answer(number, tmp_path):
    (tmp_path/"model.img").write_bytes(IMAGE)
    firmware = Fast(MODEL)
    with serve(firmware, 0.1) as url:
        child = subprocess.Popen([sys.executable, "-m", "litellama.host", "run", "x", "--model", tmp_path/"model.img", "--device", url,
            "--tokens", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(firmware.passes) < 4:
            assert child.poll() is None
            time.sleep(0.02)
        child.send_signal(number)
        assert child.wait(60) == 128 + number
        last = passes_at_rest(firmware, 0.5)   # Nobody asks it to stop any more.
        assert last < 45
        with SerialDevice(url) as device:
            assert device.hello.position == last


def test_ctrl_c_during_an_upload(tmp_path):
    """The program ends in a line, and the next one's upload and answer are right."""
    held, go = threading.Event(), threading.Event()
    class Slow(Fast):
        def poll(self):
            if not held.is_set() and any(self.ram[0x1000 + len(IMAGE)//2:][:64]):   # In the middle of the image, at a request not answered yet.
                held.set()
                go.wait(60)
            return super().poll()
    (tmp_path/"model.img").write_bytes(IMAGE)
    firmware = Slow()
    with serve(firmware) as url:
        child = subprocess.Popen([sys.executable, "-m", "litellama.host", "run", "x", "--model", tmp_path/"model.img", "--device", url],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert held.wait(60)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
        go.set()
        assert child.returncode == 130 and not out and err == b"\n"
        with SerialDevice(url) as device:
            assert device.hello.image_error
            device.load(MODEL)
            assert device.generate([1], GREEDY, 3).tokens == fast_tokens(1, 3)
    assert bytes(firmware.ram[0x1000:0x1000 + len(IMAGE)]) == IMAGE
