# SPDX-License-Identifier: BSD-2-Clause
"""Command line, session and chat, on the reference device: what goes to stdout and stderr, errors, and which tokens
are fed."""

import io
import json
import math
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from serial.tools import list_ports

from firmware_host import Firmware, serve
from litellama.accel import image
from litellama.accel.config import ModelConfig
from litellama.host import chat, cli
from litellama.host.devices.base import Device, DeviceError, Result, Timings
from litellama.host.devices.float_model import FloatDevice
from litellama.host.devices.local import CHUNK, LocalDevice
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.serial import SerialDevice
from litellama.host.random_model import llama2c_bytes, odd_configs, random_model
from litellama.host.sampler import SamplerParams
from litellama.host.score import score_text
from litellama.host.session import Reply, Session
from litellama.host.tokenizer import Tokenizer

CONFIG   = ModelConfig(64, 96, 2, 2, 1, 32, 400, 96)
TEMPLATE = ("{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] | trim + '</s>' + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}")


def chat_model(**change):
    """A random model with a template."""
    model = random_model(CONFIG, seed=9)
    model.template = change.get("template", TEMPLATE)
    return model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """Image of that model."""
    path = tmp_path_factory.mktemp("cli")/"m.img"
    path.write_bytes(image.write_image(chat_model()))
    return str(path)


@pytest.fixture
def litellama(capsys):
    """Function: run the command line in this process; (status, stdout, stderr)."""
    def call(*argv):
        try:
            status = cli.main([str(a) for a in argv])
        except SystemExit as e:
            status = e.code
        out = capsys.readouterr()
        return status, out.out, out.err
    return call


def run_json(litellama, model, prompt, *options):
    """The object that `run --json` prints on the reference device."""
    return json.loads(litellama("run", prompt, "--model", model, "--device", "reference", "--json", *options)[1])


# Sub-commands -------------------------------------------------------------------------------------

def test_run(litellama, model_file):
    status, out, err = litellama("run", "word3 word5", "--model", model_file, "--device", "reference", "--tokens", 8)
    assert status == 0 and out.endswith("\n") and "tokens/s" in err and "tokens/s" not in out and err.count("\n") == 1


def test_run_json(litellama, model_file):
    status, out, err = litellama("run", "abc", "--model", model_file, "--device", "reference", "--tokens", 12, "--json",
        "--temperature", 0.8, "--top-k", 20, "--top-p", 0.9, "--seed", 7)
    d = json.loads(out)
    assert status == 0 and not err
    assert list(d) == ["text", "token_ids", "prompt_token_ids", "finish_reason", "model", "device", "timings"]
    assert list(d["timings"]) == ["prompt_cycles", "decode_cycles_per_token", "tokens_per_second"]
    assert d["finish_reason"] in ("stop", "length") and d["device"] == "reference" and d["model"] == model_file
    assert d["prompt_token_ids"][0] == 1 and 1 <= len(d["token_ids"]) <= 12
    again = run_json(litellama, model_file, "abc", "--tokens", 12, "--temperature", 0.8, "--top-k", 20, "--top-p", 0.9,
        "--seed", 7)
    assert again["token_ids"] == d["token_ids"]


def test_empty_prompt_starts_from_bos(litellama, model_file):
    d = run_json(litellama, model_file, "", "--tokens", 3)
    assert d["prompt_token_ids"] == [1]


def test_run_chat_uses_the_template(litellama, model_file):
    d = run_json(litellama, model_file, "hi", "--chat", "--tokens", 3)
    t = Tokenizer.from_bytes(chat_model().tokenizer)
    assert d["prompt_token_ids"] == [1, *t.encode("user\nhi"), 2, *t.encode("\n"), 1, *t.encode("assistant\n")]


def test_length_when_the_context_is_full(litellama, model_file):
    d = run_json(litellama, model_file, "a", "--tokens", 500, "--temperature", 1, "--seed", 1)
    assert d["finish_reason"] == "stop" or len(d["prompt_token_ids"]) + len(d["token_ids"]) == CONFIG.context + 1


@pytest.mark.parametrize("argv,status,text", [
    ((), 2, "COMMAND"), (("run",), 2, "PROMPT"), (("jump",), 2, "jump"), (("run", "x", "--tokens", "many"), 2, "--tokens"),
    (("run", "x", "--model", "/nowhere.gguf"), 1, "no such file"), (("run", "x", "--tokens", "0"), 1, "--tokens is 0"),
    (("run", "x", "--top-k", "65"), 1, "top-k is 65"), (("run", "x", "--temperature", "-1"), 1, "temperature is -1"),
    (("run", "x", "--top-p", "2"), 1, "top-p is 2"), (("run", "x", "--seed", "-5"), 1, "seed is -5"),
    (("score", "/nowhere.txt"), 1, "nowhere.txt"), (("inspect", __file__), 1, "this is a text file"),
    (("convert", __file__, "-o", "x"), 1, "this is a text file"), (("run", "x " * 500, "--device", "reference"), 1, "context"),
    (("convert", "MODEL", "-o", "/nowhere/x.img"), 1, "/nowhere/x.img"),
    (("score", os.devnull), 1, "at least 1"), (("score", __file__, "--device", "sim"), 1, "cannot score")])
def test_errors_are_one_line(litellama, model_file, argv, status, text):
    argv = [model_file if a == "MODEL" else a for a in argv]
    argv += ["--model", model_file] if argv[:1] in (["run"], ["score"]) and "--model" not in argv and status == 1 else []
    got, out, err = litellama(*argv)
    assert got == status and text in err and err.count("\n") == 1 and "Traceback" not in err and not out


def test_convert_and_inspect(litellama, tmp_path):
    for name, config, tied in odd_configs():
        checkpoint, tokenizer = llama2c_bytes(config, 1, tied)
        (tmp_path/"m.bin").write_bytes(checkpoint), (tmp_path/"t.bin").write_bytes(tokenizer)
        status, out, err = litellama("convert", tmp_path/"m.bin", "--tokenizer", tmp_path/"t.bin", "--type", "q4_1",
            "-o", tmp_path/"m.img")
        assert status == 0 and not out and "error" in err and "m.img" in err and not list(tmp_path.glob("*.part"))
        status, out, err = litellama("inspect", tmp_path/"m.img")
        assert status == 0 and not err and "q4_1" in out and "CRC-32" in out and ("tied" in out) == tied
        assert f"dim {config.dim}, hidden {config.hidden}" in out


@pytest.mark.parametrize("output,reason", [("folder", "Is a directory"), ("none/m.img", "No such file or directory")])
def test_an_image_that_cannot_be_written(litellama, tmp_path, output, reason):
    """The error names what was asked for, not the file it would have been written to before."""
    (tmp_path/"folder").mkdir()
    output = f"{tmp_path}/{output}"
    status, out, err = litellama("convert", "default", "-o", output)
    assert status == 1 and not out and err.splitlines()[-1] == f"litellama: {output}: {reason}" and \
        os.listdir(tmp_path) == ["folder"]


def test_a_device_file_is_no_model(litellama):
    status, out, err = litellama("inspect", "/dev/zero")
    assert status == 1 and err == "litellama: /dev/zero is no regular file: a model's is read from many places\n"


def test_image_and_source_give_the_same_tokens(litellama, tmp_path):
    checkpoint, tokenizer = llama2c_bytes(odd_configs()[0][1], 5)
    (tmp_path/"m.bin").write_bytes(checkpoint), (tmp_path/"tokenizer.bin").write_bytes(tokenizer)
    litellama("convert", tmp_path/"m.bin", "-o", tmp_path/"m.img")
    a, b = (run_json(litellama, tmp_path/m, "hello", "--tokens", 10) for m in ("m.bin", "m.img"))
    assert a["token_ids"] == b["token_ids"]


def test_score(litellama, model_file, tmp_path):
    (tmp_path/"x.txt").write_text("some words of text, longer than a window " * 8)
    d    = {}
    for device in ("reference", "float"):
        status, out, err = litellama("score", tmp_path/"x.txt", "--model", model_file, "--device", device, "--json")
        d[device] = json.loads(out)
        assert status == 0 and not err
    r, f = d["reference"], d["float"]
    assert r["tokens"] == len(r["logprobs"]) == len(r["token_ids"]) > CONFIG.context
    assert math.isclose(r["nll"], -sum(r["logprobs"]), rel_tol=1e-5)
    assert math.isclose(r["perplexity"], math.exp(r["nll"]/r["tokens"]), rel_tol=1e-6)
    assert abs(r["perplexity"]/f["perplexity"] - 1) < 0.05 and r["perplexity"] != f["perplexity"]
    status, out, _ = litellama("score", tmp_path/"x.txt", "--model", model_file)
    assert out.split()[::2] == ["tokens", "nll", "perplexity"]


def test_score_is_what_single_steps_give():
    model = chat_model()
    s     = score_text(model, "hello there", "float")
    device, got = FloatDevice(), []
    device.load(model)
    for before, token in zip([1, *s.token_ids], s.token_ids):
        p = np.exp((x := device.decoder.forward([before]).astype(np.float64)) - x.max())
        got.append(np.log(p[token]/p.sum()))
    assert np.allclose(got, s.logprobs, atol=1e-4)


# Session ------------------------------------------------------------------------------------------

class ScriptedDevice(Device):
    """Answers with scripted tokens and records what it was fed."""
    name = "scripted"

    def __init__(self, *answers, context=96):
        self.answers, self.fed, self.context, self.position = list(answers), [], context, 0

    def load(self, model, on_progress=None):
        self.model = model

    def reset(self, keep=0):
        self.position = keep
        self.fed.append(f"reset {keep}" if keep else "reset")

    def generate(self, tokens, params, max_tokens, stop_ids=(), on_token=None, on_progress=None, recent=()):
        self.check_request(tokens, max_tokens)
        self.fed.append(list(tokens))
        answer = self.answers.pop(0)
        if answer == "lost":   # It went on, but its answer did not arrive.
            self.position += len(tokens) + 5
            raise DeviceError("lost")
        if answer is None:   # Interrupted half-way through the prompt.
            self.position += len(tokens)//2
            return Result([], "abort", Timings(len(tokens)))
        for t in answer:
            on_token(t)
        self.position += len(tokens) + len(answer) - 1
        return Result(answer, "stop" if answer[-1] in stop_ids else "length", Timings(len(tokens)))


GREEDY = SamplerParams()


def test_only_new_tokens_are_fed():
    model  = chat_model()
    t      = Tokenizer.from_bytes(model.tokenizer)
    yes    = t.encode("yes", after=t.types.index("n"))
    device = ScriptedDevice([*yes, 2], yes, [*yes, 2])
    s      = Session(device, model)
    head   = lambda text: [1, *t.encode(f"user\n{text}"), 2, *t.encode("\n"), 1, *t.encode("assistant\n")]
    assert s.ask("one", GREEDY, 50).text == "yes"
    assert s.ask("two", GREEDY, 50).finish_reason == "length"
    s.ask("three", GREEDY, 50)
    assert device.fed[0] == head("one")
    assert device.fed[1] == [2, *t.encode("\n"), *head("two")]                         # The stop token was not fed yet.
    assert device.fed[2] == [yes[-1], 2, *t.encode("\n"), *head("three")]              # Nor the last one before "length".
    assert device.position == len(s.tokens) - 1
    s.clear()
    assert device.fed[3] == "reset" and not s.tokens


def test_a_template_that_rewrites_history_starts_again_where_it_differs():
    model  = chat_model(template="{{ messages | length }}: {{ messages[-1].content }}")
    device = ScriptedDevice([50, 2], [51, 2])
    s      = Session(device, model)
    s.ask("one", GREEDY, 9), s.ask("two", GREEDY, 9)
    t = Tokenizer.from_bytes(model.tokenizer)
    one, two = t.encode("1: one"), t.encode("3: two")
    assert one[0] == two[0] and one[1] != two[1]   # The space before.
    assert device.fed == [[1, *one], "reset 2", two[1:]]


def test_an_interrupted_prompt_is_not_part_of_the_conversation():
    device = ScriptedDevice([50, 2], None, [51, 2])
    s      = Session(device, chat_model())
    s.ask("one", GREEDY, 9)
    reply = s.ask("two", GREEDY, 9)
    assert reply.finish_reason == "abort" and len(s.messages) == 2
    assert reply.prompt_token_ids == device.fed[-1][:len(device.fed[-1])//2]   # What the device took of it.
    s.ask("three", GREEDY, 9)
    assert [m["content"] for m in s.messages if m["role"] == "user"] == ["one", "three"]
    assert len(s.tokens) == device.position + 1


def test_a_lost_answer_leaves_the_session_usable():
    device = ScriptedDevice([50, 2], "lost", [51, 2])
    s      = Session(device, chat_model())
    s.ask("one", GREEDY, 9)
    with pytest.raises(DeviceError):
        s.ask("two", GREEDY, 9)
    s.ask("two", GREEDY, 9)
    assert device.fed[-2] == f"reset {len(device.fed[0])}" and device.position == len(s.tokens) - 1
    assert device.fed[0] + device.fed[-1] == s.tokens[:-2]   # The answer is encoded from its text.
    assert [m["content"] for m in s.messages if m["role"] == "user"] == ["one", "two"]


def test_full_context_is_told_and_leaves_the_session_usable():
    """What does not fit is told in numbers of tokens, with what helps: another conversation, or a shorter message."""
    device = ScriptedDevice([50, 2], [51, 2], context=40)
    s      = Session(device, chat_model())
    s.ask("a", GREEDY, 9)
    def head(n):
        return 1 + len(s.tokenizer.encode("user\n" + "b"*n)) + 1 + len(s.tokenizer.encode("\n")) + 1 + len(s.tokenizer.encode("assistant\n"))
    alone, whole = head(15), len(s.tokens) + len(s.tokenizer.encode("\n")) + head(15)
    assert alone < 40 < whole
    with pytest.raises(ValueError, match=f"conversation has {whole} tokens, {alone} of them with this message, the context holds 40: /clear"):
        s.ask("b" * 15, GREEDY, 9)
    with pytest.raises(ValueError, match=f"the message alone has {head(60)} tokens .* the context holds 40: shorten it"):
        s.ask("b" * 60, GREEDY, 9)
    assert len(s.messages) == 2
    s.clear()
    s.ask("c", GREEDY, 9)


def test_full_context_after_a_restart_leaves_the_session_usable():
    device = ScriptedDevice([50, 2], [51, 2], context=40)
    other  = "{% if messages[-1].content | length > 30 %}x{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    s      = Session(device, chat_model(template=other))
    s.ask("a", GREEDY, 9)
    with pytest.raises(ValueError, match="shorten it"):
        s.ask("b" * 60, GREEDY, 9)
    assert s.ask("c", GREEDY, 9).token_ids == [51, 2] and len(s.messages) == 4


def test_sessions_on_the_reference_equal_one_long_prompt():
    """Keeping KV between turns changes nothing."""
    model = chat_model()
    s     = Session(ReferenceDevice(), model)
    for text in ("hi", "and"):
        s.ask(text, SamplerParams(0.8, seed=3), 6)
    alone = ReferenceDevice()
    alone.load(model)
    n    = len(s.tokens)
    last = s.ask("more", GREEDY, 6).token_ids
    prompt = s.tokens[:len(s.tokens) - len(last)]
    assert len(prompt) > n and alone.generate(prompt, GREEDY, 6, s.stop_ids).tokens == last


def test_keyboard_interrupt_keeps_the_device_usable():
    device, model = ReferenceDevice(), chat_model()
    device.load(model)
    seen = []
    def interrupt(token):
        seen.append(token)
        if len(seen) == 3:
            raise KeyboardInterrupt
    r = device.generate([1, 5], GREEDY, 20, on_token=interrupt)
    assert r.finish_reason == "abort" and r.tokens == seen and device.position == 2 + 2
    r = device.generate([7], GREEDY, 20, on_token=lambda t: True)
    assert r.finish_reason == "abort" and len(r.tokens) == 1


def test_device_refuses_what_does_not_fit():
    device = ReferenceDevice()
    device.load(chat_model())
    for tokens, n, match in (([], 5, "no tokens"), ([1], 0, "max_tokens"), ([400], 5, "vocabulary"), ([-1], 5, "vocabulary"),
            ([1]*97, 5, "holds 96")):
        with pytest.raises(ValueError, match=match):
            device.generate(tokens, GREEDY, n)
    r = device.generate([1]*96, GREEDY, 5)
    assert len(r.tokens) == 1 and r.finish_reason == "length"


# Chat ---------------------------------------------------------------------------------------------

def test_chat_transcript(litellama, model_file, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("word1\n\n/help\n/nonsense\n/clear\nword2\n/quit\nnot read\n"))
    status, out, err = litellama("chat", "--model", model_file, "--device", "reference", "--tokens", 5)
    assert status == 0 and out.count("\n") >= 2 and "a new conversation" in err and "/nonsense" in err and chat.HELP in err
    assert err.count("tokens/s") == 2


def test_chat_ends_with_its_input_and_survives_errors(litellama, model_file, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 500 + "\nword2"))
    status, out, err = litellama("chat", "--model", model_file, "--device", "float", "--tokens", 5)
    assert status == 0 and "context holds 96: shorten it" in err and err.count("tokens/s") == 1


@pytest.mark.parametrize("line, text", (("/set temperature 0.8", "there is no command /set"), ("/clear now", "/clear stands alone"),
    ("/claer", "did you mean /clear?"), ("  /Help", "did you mean /help?"), ("/", "there is no command /"), ("/quit it", "/quit stands alone"),
    ("/etc/passwd what is it", "there is no command /etc/passwd")))
def test_a_line_with_a_slash_is_a_command(litellama, model_file, monkeypatch, line, text):
    """It never goes to the model, a wrong one is named and does nothing."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{line}\n"))
    status, out, err = litellama("chat", "--model", model_file, "--device", "float", "--tokens", 3)
    assert status == 0 and not out and text in err and chat.HELP in err and err.count("new conversation") == 1 == err.count("\n")


def test_two_slashes_begin_a_message_with_one(monkeypatch):
    asked = []
    monkeypatch.setattr(sys, "stdin", io.StringIO("//clear is a command\n//\n"))
    assert chat.repl(None, asked.append) == 0 and asked == ["/clear is a command", "/"]


def test_an_interrupted_chat_goes_on(monkeypatch, capsys):
    """Ctrl-C where no device catches it: in a turn, and at a plain prompt of a terminal."""
    class Terminal(io.StringIO):
        lines = iter(("one\n", KeyboardInterrupt, "two\n", ""))
        def readline(self):
            line = next(self.lines)
            if line is KeyboardInterrupt:
                raise line
            return line
    stdin = Terminal()
    stdin.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", stdin)
    asked = []
    def answer(line):
        asked.append(line)
        raise KeyboardInterrupt
    s = Session(ScriptedDevice(), chat_model())
    assert chat.repl(s, answer) == 0 and asked == ["one", "two"]


# Wrong names and numbers --------------------------------------------------------------------------

@pytest.mark.parametrize("name, near", (("refrence", "did you mean reference?"), ("simulator", "did you mean sim?"), ("cpu", ""), ("", ""),
    ("/dev/ttyNONE", "")))
def test_a_device_that_is_not_there_is_told_with_those_that_are(litellama, monkeypatch, name, near):
    monkeypatch.setattr(list_ports, "comports", lambda: [])
    status, out, err = litellama("run", "x", "--model", "default", "--device", name)
    assert status == 1 and not out and err.count("\n") == 1 and f"there is no device {name!r}" in err and near in err
    assert "sim, reference, float, socket://HOST:PORT" in err and ("did you mean" in err) == bool(near)


def test_serial_lines_that_are_there_are_told(litellama, monkeypatch):
    monkeypatch.setattr(list_ports, "comports", lambda: [SimpleNamespace(device=d) for d in ("/dev/ttyUSB1", "/dev/ttyACM0")])
    err = litellama("run", "x", "--device", "ttyUSB1")[2]
    assert "did you mean /dev/ttyUSB1? there are" in err and "(here: /dev/ttyACM0, /dev/ttyUSB1)" in err


def test_what_looks_like_a_serial_line_is_opened(litellama, tmp_path):
    (tmp_path/"tty").write_text("")
    for name in (str(tmp_path/"tty"), str(tmp_path), "socket://127.0.0.1:1", "COM99"):
        status, _, err = litellama("run", "x", "--device", name)
        assert status == 1 and err.count("\n") == 1 and f"cannot open {name}" in err


def test_a_model_that_is_not_there_is_told_with_those_that_are(litellama):
    for name, near in (("smolm2", "did you mean smollm2?"), ("defualt", "did you mean default?"), ("nonesuch.gguf", "known models are default")):
        status, _, err = litellama("inspect", name)
        assert status == 1 and f"no such file or model: {name!r}" in err and near in err and err.count("\n") == 1


@pytest.mark.parametrize("option, value", (("--tokens", 2**32), ("--tokens", 10**30), ("--tokens", -1), ("--temperature", "nan"),
    ("--temperature", "inf"), ("--top-p", "nan"), ("--min-p", "nan"), ("--repeat-penalty", "nan"), ("--seed", 2**64), ("--top-k", -1),
    ("--repeat-last-n", 10**20), ("--stop", "")))
def test_numbers_out_of_range(litellama, model_file, option, value):
    status, out, err = litellama("run", "x", "--model", model_file, "--device", "float", option, value)
    assert status == 1 and not out and err.count("\n") == 1 and ("must be" in err or "must have" in err)
    assert "--tokens is" in err or option != "--tokens"


def test_the_longest_answer_that_can_be_asked_for(litellama, model_file):
    """A device takes a word of 32 bits."""
    with serve(Firmware(chat_model())) as url:
        status, out, err = litellama("run", "word1", "--model", model_file, "--device", url, "--tokens", 2**32 - 1)
        assert status == 0 and out and "tokens/s" in err
        with SerialDevice(url, timeout=60) as device:
            device.load(chat_model())
            with pytest.raises(ValueError, match="max_tokens is 4294967296, must be 1 to 4294967295"):
                device.generate([1], SamplerParams(), 2**32)


@pytest.mark.parametrize("name, text", (("doctor", "install the rest"), ("bench", "--shape SHAPE"), ("build", "--board NAME")))
def test_help_of_each_part_explains(litellama, name, text):
    status, out, err = litellama(name, "--help")
    assert not status and not err and text in out and "MISSING" not in out and "found" not in out.replace("was found", "").replace("of it found", "")
    if name != "build":
        status, out, err = litellama(name, "--nonsense")
        assert status == 2 and not out and "--nonsense" in err and err.count("\n") == 1


def test_tokenizer_is_named_wherever_a_model_is_opened(litellama, tmp_path, model_file):
    checkpoint, tokenizer = llama2c_bytes(odd_configs()[0][1], 5)
    (tmp_path/"m.bin").write_bytes(checkpoint), (tmp_path/"t.bin").write_bytes(tokenizer), (tmp_path/"x.txt").write_text("hello you")
    model, named = ("--model", tmp_path/"m.bin"), ("--tokenizer", tmp_path/"t.bin")
    for argv in (("run", "x", "--device", "float", "--tokens", 3, *model), ("score", tmp_path/"x.txt", *model), ("inspect", tmp_path/"m.bin"),
            ("convert", tmp_path/"m.bin", "-o", tmp_path/"m.img")):
        status, _, err = litellama(*argv)
        assert status == 1 and "name it with --tokenizer" in err
        assert litellama(*argv, *named)[0] == 0
    for name in ("chat", "selftest", "boot-files", "bench"):
        assert "--tokenizer FILE" in litellama(name, "--help")[1]
    status, _, err = litellama("run", "x", "--model", model_file, "--device", "float", *named)
    assert status == 1 and "--tokenizer is for llama2.c checkpoints" in err


def test_an_interrupted_prompt_tells_its_tokens_and_time():
    """Those that were fed, and the time that passed."""
    class Slow:
        context, position = 5*CHUNK, 0
        def forward(self, tokens, logits="last"):
            time.sleep(0.05)
            self.position += len(tokens)
            if self.position > 2*CHUNK:
                signal.raise_signal(signal.SIGINT)
            return np.zeros(400, np.float32)
    class SlowDevice(LocalDevice):
        def _decoder(self, model):
            return Slow()
    device = SlowDevice()
    device.load(chat_model())
    r = device.generate([5]*(5*CHUNK), GREEDY, 3)
    assert (r.finish_reason, r.tokens) == ("abort", []) and r.timings.prompt_tokens == device.position == 3*CHUNK
    assert 0.15 <= r.timings.prompt_seconds < 5
    assert cli.statistics(Reply(finish_reason="abort", timings=Timings(7, 0.00035)), GREEDY) == "[7 prompt tokens in 0.00035 s, 0 tokens, abort]"


def test_default_model_answers(litellama):
    status, out, _ = litellama("run", "Hello!", "--chat", "--device", "reference")
    assert status == 0 and len(out.split()) >= 2
    d = json.loads(litellama("run", "Once upon a time", "--device", "reference", "--tokens", 24, "--json")[1])
    assert d["model"] == "default" and " " in d["text"].strip()
