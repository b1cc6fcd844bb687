# SPDX-License-Identifier: BSD-2-Clause
"""The chat's view: reads lines, shows answers as they come. On a terminal with history and line editing (prompt_toolkit),
else plain."""

import sys

from .console import named_input, nearest, note, tell, utf8

HELP     = "/clear: start a new conversation   /help: this   /quit or Ctrl-D: leave   Ctrl-C: stop the answer   //: a message that begins with /"
QUIT     = ("/quit", "/exit", "/bye")
COMMANDS = ("/clear", "/help", *QUIT)


def _reader():
    """Function that gives the next line, or None at the end of the input."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        try:
            from prompt_toolkit import PromptSession
            from prompt_toolkit.history import InMemoryHistory
        except ImportError:
            return _plain("> ")
        prompt = PromptSession(history=InMemoryHistory(), enable_suspend=True)   # (Ctrl-Z.)
        def read():
            try:
                return prompt.prompt("> ", handle_sigint=False)   # (It would lose a Ctrl-C that comes right after the line.)
            except EOFError:
                return None
        return read
    return _plain("> " if sys.stdin.isatty() else "")


def _plain(mark):
    def read():
        if mark:
            tell(mark)
        try:
            with named_input():
                line = sys.stdin.readline()
        except KeyboardInterrupt:
            if mark:
                raise
            return None   # Nobody is there who could go on.
        return line.rstrip("\n") if line else None
    return read


def _command(session, line):
    """Do what a line that begins with / asks for; True if that is to leave."""
    name, *rest = line.split(maxsplit=1)
    if name not in COMMANDS:
        note(f"there is no command {name}{nearest(name, COMMANDS)} {HELP}")
    elif rest:
        note(f"{name} stands alone, nothing was done. {HELP}")
    elif name in QUIT:
        return True
    elif name == "/clear":
        session.clear()
        note("a new conversation")
    else:
        note(HELP)
    return False


def _turn(session, line, answer):
    """Do what `line` asks for; True if that is to leave."""
    utf8(line, "the line")
    if line.startswith("/") and not line.startswith("//"):
        return _command(session, line)
    if line:
        answer(line.removeprefix("/"))
    return False


def repl(session, answer):
    """Read, answer(line), repeat, until the end of the input or /quit; returns the exit status 0.

    What goes wrong in one turn (context full, device lost) is said in a line, and the chat goes on. So it does after Ctrl-C, which
    drops what is being typed or, where the device does not catch it, the turn.
    """
    read = _reader()
    if sys.stdin.isatty():
        note(f"{session.model.meta.get('name') or 'model'} on {session.device.name}. {HELP}")
    while True:
        try:
            line = read()
            if line is None or _turn(session, line.strip(), answer):
                return 0
        except ValueError as e:
            note(f"litellama: {' '.join(str(e).split())}")
        except KeyboardInterrupt:
            tell("\n")
