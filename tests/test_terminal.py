# SPDX-License-Identifier: BSD-2-Clause
"""The command line as a user has it: in a pseudo-terminal, with Ctrl-C and Ctrl-Z, killed, and with standard streams that are closed
or full."""

import contextlib
import fcntl
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import termios
import time

import pexpect
import pytest

from litellama.soc import cache
from test_cli import model_file   # noqa: F401

ROOT   = Path(__file__).resolve().parent.parent
STORY  = "Tell me a very long story about a fox"
SAID   = "Once upon a time"   # In the answer, not in the question.
LONG   = "Tell me a story. " * 60   # Hundreds of tokens: seconds on every device.
END    = r"(stop|length)\]"
PLAIN  = "import sys; sys.modules['prompt_toolkit'] = None; from litellama.host.cli import main; sys.exit(main())"
SHELL  = ["bash", "--norc", "--noprofile", "-i"]


def environment(folder, **more):
    """os.environ for a terminal, with `folder` for temporary files. Prompt_toolkit asks no terminal where its cursor is."""
    return dict(os.environ, TERM="xterm", TMPDIR=str(folder), PROMPT_TOOLKIT_NO_CPR="1", PS1="$ ", **more)


def command(*argv, editing=True):
    """Command line of `litellama`, without prompt_toolkit if not `editing`."""
    return [sys.executable, *(["-m", "litellama.host"] if editing else ["-c", PLAIN]), *argv]


def stat(pid):
    """(state, CPU seconds) of a process; ("X", 0) if it is gone, zombies included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return ("X" if fields[0] == "Z" else fields[0]), (int(fields[11]) + int(fields[12]))/os.sysconf("SC_CLK_TCK")


def children(pid, name=""):
    """Processes whose parent is `pid`, those called `name` alone if it is given."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(p) for p in found if not name or Path(f"/proc/{p}/comm").read_text().strip() == name]


def wait_for(condition, seconds=240):
    """What `condition` gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


class Chat:
    """`litellama chat` in a pseudo-terminal. worker: the process that computes, the simulator's or its own."""

    def __init__(self, folder, device, editing=True, argv=("chat", "--tokens", "400")):
        argv          = command(*argv, "--device", device, editing=editing)
        self.terminal = pexpect.spawn(argv[0], argv[1:], env=environment(folder), encoding="utf-8", timeout=240, dimensions=(24, 400))
        self.editing, self.folder, self.pid = editing, folder, self.terminal.pid
        if "chat" in argv:
            self.expect(r"Ctrl-C: stop the answer")
            self.ready()
        self.worker = children(self.pid, "Vsim")[0] if device == "sim" and "chat" in argv else self.pid

    def expect(self, pattern):
        """Wait for `pattern`; the match."""
        self.terminal.expect(pattern)
        return self.terminal.match

    def ready(self):
        """Wait until a line can be typed."""
        if self.editing:   # The editor reads keys, Ctrl-C among them.
            wait_for(lambda: not termios.tcgetattr(self.terminal.child_fd)[3] & termios.ISIG)
        else:
            self.expect("> ")

    def begin(self, line):
        """Send `line` and wait until it is computed on."""
        before = stat(self.worker)[1]
        self.terminal.send(line + "\r")
        if self.editing:   # The editor computes, too.
            wait_for(lambda: termios.tcgetattr(self.terminal.child_fd)[3] & termios.ISIG)
            before = stat(self.worker)[1]
        wait_for(lambda: stat(self.worker)[1] > before + 0.1)

    def ask(self, line):
        """A whole turn."""
        self.terminal.send(line + "\r")
        self.expect(END)
        self.ready()

    def close(self):
        """Leave; nothing stays behind."""
        self.terminal.send("/quit\r")
        self.expect(pexpect.EOF)
        self.terminal.close()
        assert self.terminal.exitstatus == 0
        assert self.nothing_left()

    def nothing_left(self):
        """Wait until the worker is gone; there must be no temporary file."""
        wait_for(lambda: stat(self.worker)[0] == "X")
        return not list(Path(self.folder).iterdir())


@pytest.fixture(scope="module")
def built():
    """The simulator is in the cache."""
    subprocess.run(command("run", "x", "--tokens", "1"), check=True, capture_output=True, timeout=1800)


@pytest.fixture
def chat(tmp_path, built):
    """Function: a Chat that does not outlive the test."""
    with contextlib.ExitStack() as stack:
        def begin(*args, **options):
            c = Chat(tmp_path, *args, **options)
            stack.callback(c.terminal.close, force=True)
            return c
        yield begin


# Keys ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("device, editing", (("sim", True), ("reference", False)))
def test_ctrl_c(chat, device, editing):
    """In an answer, in a long prompt, at the chat's own prompt, twice at once: what was begun ends, the next question is answered."""
    c = chat(device, editing)
    c.begin(STORY)
    c.expect(SAID)
    c.terminal.sendintr()
    n = int(c.expect(r"\[\d+ prompt tokens in [\d.e-]+ s, (\d+) tokens, .*abort\]").group(1))
    assert 0 < n < 100
    c.ready()
    c.ask("Hello!")
    for _ in range(5):
        c.begin(LONG)
        c.terminal.sendintr()
        fed, seconds, sampled = c.expect(r"\[(\d+) prompt tokens in ([\d.e-]+) s, (\d+) tokens, .*\]").groups()
        c.ready()
        if sampled == "0" and int(fed) < 290:   # Of at least 5*60.
            break
        c.terminal.send("/clear\r")   # The machine had no time for us.
        c.expect("a new conversation")
        c.ready()
    else:
        pytest.fail("the prompt was never interrupted")
    assert float(seconds) > 0
    c.terminal.send("typed")
    c.terminal.sendintr()
    c.terminal.send("/help\r")   # Else it were a message, "typed/help".
    c.expect("leave   Ctrl-C: stop the answer")
    c.ready()
    c.begin(LONG)
    c.terminal.sendintr()
    c.terminal.sendintr()
    c.expect(r"abort\]|\^C.*\r\n")
    c.ready()
    c.ask("Hello!")
    c.close()


@pytest.mark.parametrize("device", ("sim", "reference"))
def test_ctrl_c_ends_a_run(chat, device):
    """What was said so far, its statistics, status 130."""
    c = chat(device, argv=("run", "--chat", STORY, "--tokens", "400"))
    c.expect(SAID)
    c.terminal.sendintr()
    c.expect(r"\d+ tokens, .*abort\]")
    c.expect(pexpect.EOF)
    c.terminal.close()
    assert c.terminal.exitstatus == 130 and not list(Path(c.folder).iterdir())


def test_ctrl_c_ends_the_start(chat):
    """While the model is loaded: one empty line, status 130."""
    c = chat("sim", argv=("run", STORY))
    c.worker = wait_for(lambda: children(c.pid, "Vsim"))[0]
    c.terminal.sendintr()
    c.expect(pexpect.EOF)
    c.terminal.close()
    assert c.terminal.exitstatus == 130 and "Traceback" not in c.terminal.before and c.nothing_left()


@pytest.mark.parametrize("script", (False, True))
def test_ctrl_c_ends_the_imports(tmp_path, script):
    """No traceback, whether it starts as `python -m` or by the script that setup.py asks for."""
    argv = command("run", STORY, "--device", "reference")
    if script:
        module, function = re.search(r'"litellama = ([\w.]+):(\w+)"', (ROOT/"setup.py").read_text()).groups()
        argv[1:3] = ["-c", f"import sys; from {module} import {function}; sys.exit({function}())"]
    t = pexpect.spawn(argv[0], argv[1:], env=environment(tmp_path), encoding="utf-8", timeout=240)
    wait_for(lambda: "numpy" in Path(f"/proc/{t.pid}/maps").read_text())
    t.sendintr()
    t.expect(pexpect.EOF)
    t.close()
    assert "Traceback" not in t.before and 130 in (t.exitstatus, 128 + (t.signalstatus or 0))


@pytest.mark.parametrize("device", ("sim", "reference"))
def test_ctrl_z_and_fg(tmp_path, built, device):
    """In an answer and at the prompt: chat and simulator stand still, and go on; a simulator that paused pauses."""
    t = pexpect.spawn(SHELL[0], SHELL[1:], env=environment(tmp_path), encoding="utf-8", timeout=240, dimensions=(24, 400))
    try:
        t.expect(r"\$ ")
        tokens = "30" if device == "sim" else "400"   # Seconds, for us to come in between.
        t.sendline(" ".join(command("chat", "--tokens", tokens, "--device", device)))
        t.expect("Ctrl-C: stop the answer")
        chat  = wait_for(lambda: children(t.pid))[0]
        all_  = [chat, *children(chat, "Vsim")]
        typed = lambda: not termios.tcgetattr(t.child_fd)[3] & termios.ISIG
        wait_for(typed)
        t.send(STORY + "\r")
        t.expect(SAID)
        wait_for(lambda: not typed())
        t.send("\x1a")
        t.expect("Stopped")
        wait_for(lambda: [stat(pid)[0] for pid in all_] == ["T"]*len(all_))
        t.sendline("fg")
        t.expect(END)
        wait_for(typed)
        t.send("\x1a")
        t.expect("Stopped")
        wait_for(lambda: [stat(pid)[0] for pid in all_] == ["T"]*len(all_))
        t.sendline("fg")
        wait_for(typed)
        if device == "sim":
            before = stat(all_[1])[1]
            time.sleep(0.5)
            assert stat(all_[1])[1] < before + 0.3
        t.send("Hello!\r")
        t.expect(END)
        wait_for(typed)
        t.send("/quit\r")
        t.expect(r"\$ ")
    finally:
        t.close(force=True)


# Ends ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("end", ("KILL", "TERM", "closed"))
@pytest.mark.parametrize("answering", (True, False))
def test_nothing_outlives_the_chat(chat, end, answering):
    """However it ends, in an answer or while it waits: no simulator, no file."""
    c = chat("sim")
    if answering:
        c.begin(STORY)
    if end == "closed":
        c.terminal.close(force=False)
    else:
        os.kill(c.pid, getattr(signal, f"SIG{end}"))
    assert c.nothing_left()


def test_sigterm_leaves_the_terminal_as_it_was(chat):
    """The editor's modes are undone."""
    c = chat("float")
    lines = lambda: termios.tcgetattr(c.terminal.child_fd)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert not lines()
    os.kill(c.pid, signal.SIGTERM)
    c.nothing_left()
    assert lines() == termios.ICANON | termios.ECHO | termios.ISIG


BUILD = """
from litellama.host import cli
from litellama.soc import cache, sim
with cli._ended_by_signals():
    cache.cached("x", "1", lambda folder: sim._run(["sh", "-c", "sleep 1000 & echo $$ $! > pids.new; mv pids.new pids; wait"], folder/"log",
        "it", cwd=folder))
"""


@pytest.mark.parametrize("end", ("Ctrl-C", "TERM", "HUP", "KILL"))
def test_a_build_that_is_ended(tmp_path, monkeypatch, end):
    """Its compilers end and the cache holds no half of anything. Killed: nobody builds there while its compilers are at work. The next
    one builds."""
    monkeypatch.setenv("LITELLAMA_CACHE", str(tmp_path))
    folder   = tmp_path/"x-1"
    terminal = pexpect.spawn(sys.executable, ["-c", BUILD], timeout=240)
    wait_for((folder/"pids").exists)
    make, compiler = map(int, (folder/"pids").read_text().split())
    if end == "Ctrl-C":
        terminal.sendintr()
    else:
        os.kill(terminal.pid, getattr(signal, f"SIG{end}"))
    terminal.wait()
    if end == "KILL":
        with open(tmp_path/"x-1.lock") as f, pytest.raises(BlockingIOError):
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.killpg(make, signal.SIGKILL)
    else:
        assert not folder.exists()
    wait_for(lambda: stat(compiler)[0] == "X", 30)
    assert cache.cached("x", "1", lambda folder: (folder/"built").touch()) == folder and (folder/"built").exists()


# Streams ------------------------------------------------------------------------------------------

ANSWER = ("run", "word1", "--tokens", "4", "--device", "float")


@pytest.mark.parametrize("argv, redirection, status, message", (
    (ANSWER, ">&-", 1, "standard output: Bad file descriptor"), ((*ANSWER, "--json"), ">&-", 1, "standard output: Bad file descriptor"),
    (ANSWER, ">/dev/full", 1, "standard output: No space left"), ((*ANSWER, "--json"), ">/dev/full", 1, "standard output: No space left"),
    (("inspect", "MODEL"), ">/dev/full", 1, "standard output: No space left"), (("--help",), ">/dev/full", 1, "standard output: No space"),
    (("doctor",), ">&-", 1, "standard output: Bad file descriptor"), (("build", "--help"), ">/dev/full", 1, "standard output: No space"),
    (("chat", "--device", "float"), "<&-", 1, "standard input: Bad file descriptor"),
    (("score", "-", "--device", "float"), "<&-", 1, "standard input: Bad file descriptor"),
    (ANSWER, "2>&-", 0, ""), (ANSWER, "2>/dev/full", 0, ""), (ANSWER, "<&-", 0, "tokens/s"), (ANSWER, "<&- >&- 2>&-", 1, "")))
def test_closed_and_full_streams(model_file, tmp_path, argv, redirection, status, message):
    """One line that names the stream, or where nobody can be told the status alone."""
    argv = [model_file if a == "MODEL" else a for a in argv]
    argv += ["--model", model_file] if argv[0] in ("run", "chat", "score") else []
    done = subprocess.run(["bash", "-c", f'exec "$@" {redirection}', "bash", *command(*argv)], capture_output=True, text=True,
        timeout=240, env=environment(tmp_path), stdin=subprocess.DEVNULL)
    assert done.returncode == status and message in done.stderr and done.stderr.count("\n") == bool(message), done.stderr
    assert bool(done.stdout) == (status == 0)
    assert "Traceback" not in done.stderr


def test_lines_that_are_not_utf8(model_file, tmp_path):
    """One is refused, the next is answered; the same of a prompt, whose bytes no tokenizer would get."""
    run = lambda argv, data=b"": subprocess.run([*command(*argv, "--model", model_file, "--device", "float", "--tokens", "3")], input=data,
        capture_output=True, timeout=240, env=environment(tmp_path, LC_ALL="C.UTF-8"))
    done = run(["chat"], b"caf\xe9\nword1\n")
    assert done.returncode == 0 and b"the line is not UTF-8: byte 0xe9 at character 3" in done.stderr and done.stderr.count(b"tokens/s") == 1
    done = run(["run", b"caf\xe9"])
    assert done.returncode == 1 and done.stderr == b"litellama: the prompt is not UTF-8: byte 0xe9 at character 3\n"


@pytest.mark.parametrize("more", (dict(COLUMNS="1"), dict(TERM="dumb"), dict(PYTHONIOENCODING="ascii")))
def test_odd_environments(model_file, tmp_path, more):
    """Help in a narrow window, no terminal codes for a dumb terminal, text in an encoding that lacks its characters."""
    env  = dict(environment(tmp_path), **more)
    text = pexpect.run(" ".join(command("run", "--help")), env=env, timeout=240)
    assert b"PROMPT" in text and b"Traceback" not in text
    text = pexpect.run(" ".join(command("run", "é", "--tokens", "3", "--device", "float", "--model", model_file)), env=env, timeout=240)
    assert b"tokens/s" in text and b"Traceback" not in text and (b"\x1b" not in text or "TERM" not in more)
