# SPDX-License-Identifier: BSD-2-Clause
"""The filter for text that is not ours, and that each outlet of the command line has it."""

import io
import json
import sys
import unicodedata

import pytest

from litellama.accel import image
from litellama.host import cli, console, doctor
from litellama.host.devices.base import DeviceError, Result
from litellama.host.selftest import report
from litellama.soc import build
from test_cli import ScriptedDevice, chat_model, litellama   # noqa: F401

# What acts on a terminal or on the order of a line: controls (ECMA-48's C0 and C1, DEL), separators, bidirectional marks, embeddings,
# overrides and isolates (UAX 9), invisible format characters, tags.
ACTING = {chr(c) for r in ((0, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x180E, 0x180E), (0x200B, 0x200B), (0x200E, 0x200F),
    (0x2028, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xD800, 0xDFFF), (0xE0001, 0xE0001),
    (0xE0020, 0xE007F)) for c in range(r[0], r[1] + 1)}
EVIL   = "a\x1b]0;owned\x07\x9b31m\x7f\u202eb\u2066\u2028c\u200b\x08"
FINE   = "plain é 日本 👩\u200d👧 می\u200cخواهم \u0600 \ue000 ½\u00a0x\u0301"


def harmless(text, lines=None):
    """Nothing of `text` acts but ends of `lines` lines."""
    assert not set(text) & (ACTING - {"\n"}) and lines in (None, text.count("\n"))
    return True


def test_each_character():
    """All that act go or become an escape; all others stay."""
    for code in (*range(0x3000), *range(0xD7F0, 0x12000), *range(0x1F000, 0x1FA00), *range(0xDFFF0, 0xE0200), sys.maxunicode):
        c = chr(code)
        shown, kept = console.line(f"<{c}>"), console.plain(f"<{c}>")
        if c in ACTING:
            assert shown == f"<{c.encode('unicode_escape').decode()}>" and kept == (f"<{c}>" if c in "\n\t" else "<>"), hex(code)
        elif unicodedata.category(c) != "Cf":
            assert shown == kept == f"<{c}>", hex(code)
    assert console.line(FINE) == console.plain(FINE) == FINE
    assert len(console.line("x" * 10**6)) < 2100


def test_model_text_on_a_terminal(monkeypatch):
    out = io.StringIO()
    out.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", out)
    console.write("a\x1b[2Jb\r\n\tc\x9b日😀\u202e")
    assert out.getvalue() == "a[2Jb\n\tc日😀"
    out.isatty = lambda: False
    console.write(EVIL)
    assert out.getvalue().endswith(EVIL)   # A file gets what the model said.


def test_json_is_the_same_value_in_harmless_characters(capsys):
    value = dict(text=EVIL + FINE, name="\U000e0041")
    console.say_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == value and harmless(out, 1) and "日本" in out


@pytest.fixture
def evil_image(tmp_path):
    """Path of an image whose name and template are not nice."""
    model = chat_model(template="{{ raise_exception('" + EVIL.replace("\x00", "") + "') }}")
    model.meta["name"] = EVIL
    (tmp_path/"m.img").write_bytes(image.write_image(model))
    return str(tmp_path/"m.img")


def test_names_and_template_errors(litellama, evil_image, monkeypatch):
    status, out, err = litellama("inspect", evil_image)
    assert status == 0 and not err and harmless(out) and "name        a\\x1b]0;owned\\x07\\x9b31m" in out
    status, out, err = litellama("run", "x", "--chat", "--device", "float", "--model", evil_image)
    assert status == 1 and not out and harmless(err, 1) and "owned" in err
    stdin = io.StringIO("hello\n")
    stdin.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", stdin)
    status, out, err = litellama("chat", "--device", "float", "--model", evil_image)
    assert status == 0 and harmless(err) and err.count("owned") == 2


def test_notes_errors_and_wrong_arguments(litellama, monkeypatch):
    """Of tensors and keys, whoever tells them."""
    def notes(*_):
        return chat_model(), [f"tensor {EVIL}"]
    monkeypatch.setattr(cli, "load_model", notes)
    status, out, err = litellama("run", "word1", "--device", "float", "--tokens", 2)
    assert status == 0 and err.startswith("note: tensor a\\x1b]0;") and harmless(err, 2)
    def wrong(*_):
        raise ValueError(f"key {EVIL}\nis wrong")
    monkeypatch.setattr(cli, "load_model", wrong)
    for argv in (("run", "x", "--device", "float"), ("run", "x", "--device", f"no{EVIL}"), ("run", "x", "--tokens", EVIL), (EVIL,), ("fetch", EVIL),
            ("bench", EVIL), ("doctor", EVIL), ("convert", f"/no/{EVIL}", "-o", "x"), ("score", f"/no/{EVIL}")):
        status, out, err = litellama(*argv)
        assert status in (1, 2) and not out and "owned" in err and harmless(err, 1), argv


def test_devices(litellama, monkeypatch, evil_image, capsys):
    class Evil(ScriptedDevice):
        name = EVIL
        def generate(self, *_, **__):
            raise DeviceError(f"device: {EVIL}")
    monkeypatch.setattr(cli, "open_device", lambda *_: Evil())
    status, out, err = litellama("run", "x", "--model", "default")
    assert status == 1 and "owned" in err and harmless(err, 1)
    report(iter([(EVIL, EVIL)]), False)
    assert harmless(out := capsys.readouterr().out, 2) and "owned" in out


def test_doctor_and_bench(litellama, monkeypatch):
    from litellama.host import bench
    monkeypatch.setattr(doctor, "doctor", lambda *_: [doctor.Check(EVIL, EVIL, EVIL, EVIL), doctor.Check("x", EVIL, "", EVIL)])
    out = litellama("doctor")[1]
    assert out.count("owned") == 4 and harmless(out, 3)
    monkeypatch.setattr(bench, "table", lambda report: [EVIL])
    monkeypatch.setattr(bench, "measure_points", lambda *_: [{}])
    out = litellama("bench", "--shape", "smollm2-135m")[1]
    assert "owned" in out and harmless(out, 1)


def test_faults_of_ours_are_one_line(litellama, monkeypatch):
    def fault(*_):
        raise TypeError(EVIL)
    monkeypatch.setattr(cli, "load_model", fault)
    status, out, err = litellama("inspect", "default")
    monkeypatch.setattr(cli, "_inspect", fault)
    status, out, err = litellama("inspect", "default")
    assert status == 1 and "a fault of this program: TypeError" in err and "test_console.py" in err and harmless(err, 1)
