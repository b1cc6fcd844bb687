# SPDX-License-Identifier: BSD-2-Clause
"""The chat's view: reads lines, shows answers as they come. On a terminal with history and line editing (prompt_toolkit),
else plain."""

import sys

HELP  = "/clear: start a new conversation   /help: this   /quit or Ctrl-D: leave   Ctrl-C: stop the answer"
QUIT  = ("/quit", "/exit", "/bye")


def _reader():
    """Function that gives the next line, or None at the end of the input."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        try:
            from prompt_toolkit import PromptSession
            from prompt_toolkit.history import InMemoryHistory
        except ImportError:
            return _plain("> ")
        prompt = PromptSession(history=InMemoryHistory())
        def read():
            while True:
                try:
                    return prompt.prompt("> ")
                except KeyboardInterrupt:
                    continue   # Drops the line, not the chat.
                except EOFError:
                    return None
        return read
    return _plain("> " if sys.stdin.isatty() else "")


def _plain(mark):
    def read():
        if mark:
            print(mark, end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            return None
        return line.rstrip("\n") if line else None
    return read


def repl(session, answer):
    """Read, answer(line), repeat, until the end of the input or /quit; returns the exit status 0.

    What goes wrong in one turn (context full, device lost) is said in a line, and the chat goes on.
    """
    from .cli import note, write
    read = _reader()
    if sys.stdin.isatty():
        note(f"{session.model.meta.get('name') or 'model'} on {session.device.name}. {HELP}")
    while (line := read()) is not None:
        line = line.strip()
        if not line:
            continue
        if line in QUIT:
            break
        if line == "/clear":
            session.clear()
            note("a new conversation")
        elif line == "/help":
            note(HELP)
        elif line.startswith("/") and " " not in line:
            note(f"there is no command {line}. {HELP}")
        else:
            try:
                answer(line)
            except ValueError as e:
                note(f"litellama: {' '.join(str(e).split())}")
            except KeyboardInterrupt:   # Between two tokens, where the device does not catch it.
                write("\n")
    return 0
