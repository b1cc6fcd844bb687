# SPDX-License-Identifier: BSD-2-Clause
"""Runs what may loop, panic or eat memory (a hostile file's regular expressions in the `tokenizers` library, which neither Ctrl-C
nor a signal handler of Python can interrupt) in a child process, with limits. Errors are ValueError in one line."""

import faulthandler
import json
import os
import resource
import signal

ROOM = 1 << 30   # Bytes that a child may take besides what it has of its parent.


def call(function, *arguments):
    """function(*arguments), with what the library raises (Exception itself, or a panic, which is not even that) as ValueError."""
    try:
        return function(*arguments)
    except (KeyboardInterrupt, MemoryError, SystemExit):
        raise
    except BaseException as e:
        raise ValueError(" ".join(str(e).split())[:200] or type(e).__name__) from None


def run(function, seconds):
    """What `function()` returns (JSON), from a child that has `seconds` of CPU time."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _child(function, seconds, writer)
    os.close(writer)
    try:
        with open(reader, "rb") as f:
            data = f.read()
    finally:   # Ctrl-C while it works.
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        status = os.waitpid(child, 0)[1]
    if not data:
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)
        raise ValueError(f"it takes more than {seconds} s" if late else "it takes too much memory, or ends the process")
    ok, value = json.loads(data)
    if not ok:
        raise ValueError(value)
    return value


def _child(function, seconds, writer):
    """Never returns."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)   # A panic prints there.
        faulthandler.disable()   # It may have a file of its own.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        with open("/proc/self/statm", encoding="ascii") as f:
            pages = int(f.read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages*resource.getpagesize() + ROOM,)*2)
        try:
            answer = [True, call(function)]
        except ValueError as e:
            answer = [False, str(e)]
        with open(writer, "wb") as f:
            f.write(json.dumps(answer).encode())
    finally:
        os._exit(0)
