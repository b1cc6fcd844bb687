# SPDX-License-Identifier: BSD-2-Clause
"""What the command line says and to whom: answers and reports to standard output, notes to standard error, and one filter for all
text that is not ours (names in model files, templates' errors, devices' strings, what a model says).

Nothing of such text may act on the terminal or change how a line reads: control characters (C0, DEL, C1), line and paragraph
separators, bidirectional and other format characters, lone surrogates. The joiners stay, which scripts and emoji need, and the few
format characters that are visible signs. Text that goes on (`plain`) loses them, a line (`line`) shows them as escapes, JSON has its
own escapes. Only model text and JSON that goes to no terminal is left as it is.

A standard stream that was closed before we started is opened so that whatever uses it fails; what cannot be written to standard
output is an OSError that names it; where notes cannot go, nobody is told.
"""

import argparse
import contextlib
import difflib
import json
import os
import re
import sys
import unicodedata

LINE_MAX = 2000   # Characters of a line that are shown.

_ACTING  = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"
_SIGNS   = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"   # Format characters with a shape.
_STREAMS = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_RDWR))


def _acts(c):
    return not c.isprintable() and unicodedata.category(c) in _ACTING and c not in _JOINERS and c not in _SIGNS


def plain(text):
    """`text` without what acts on a terminal; its ends of lines and tabs stay."""
    return text if text.isprintable() else "".join(c for c in text if c in "\n\t" or not _acts(c))


def line(text):
    """`text` in one line of at most LINE_MAX characters, what acts on a terminal as an escape."""
    if len(text) > LINE_MAX:
        text = f"{text[:LINE_MAX]}... ({len(text)} characters)"
    return text if text.isprintable() else "".join(c.encode("unicode_escape").decode() if _acts(c) else c for c in text)


def utf8(text, what):
    """`text` (`what`, for the message) that came from outside, or ValueError if its bytes were not UTF-8."""
    bad = re.search("[\ud800-\udfff]", text)
    if bad:
        code = ord(bad.group())
        name = f"byte {code - 0xDC00:#04x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
        raise ValueError(f"{what} is not UTF-8: {name} at character {bad.start()}")
    return text


def nearest(word, known):
    """", did you mean X?" with what of `known` is nearest to `word`, or "" if nothing is near."""
    near = [k for k in known if word and (k.startswith(word) or word.startswith(k))] or difflib.get_close_matches(word, known, 1)
    return f", did you mean {near[0]}?" if near else ""


# Standard streams ---------------------------------------------------------------------------------

def open_streams():
    """Make the three streams usable: closed ones fail when used (standard error: takes all), text of any encoding comes in and goes
    out."""
    for name, mode, flags in _STREAMS:
        if getattr(sys, name) is None:   # The lowest free number is the closed stream's own: no other file gets it.
            setattr(sys, name, open(os.open(os.devnull, flags), mode, encoding="utf-8"))
        with contextlib.suppress(AttributeError):   # (Not a stream of the system's.)
            getattr(sys, name).reconfigure(errors="surrogateescape" if name == "stdin" else "backslashreplace")


def _drop(stream):
    """Have `stream` take everything from now on, what it still holds included: it has failed once."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()


def tell(text):
    """Text of ours to standard error at once."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)


def note(text):
    """One line on standard error."""
    tell(line(text) + "\n")


def _out(text):
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as e:
        _drop(sys.stdout)
        e.filename = "standard output"
        raise


def write(text):
    """Model text to standard output at once."""
    _out(plain(text) if sys.stdout.isatty() else text)


def say(text):
    """One line of a report on standard output."""
    _out(line(text) + "\n")


def say_json(value):
    """`value` as one line of JSON on standard output."""
    unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    text    = json.dumps(value, ensure_ascii=not unicode)
    if not text.isprintable():
        text = "".join(json.dumps(c)[1:-1] if _acts(c) else c for c in text)
    _out(text + "\n")


def finish():
    """Write what standard output still holds."""
    _out("")


def read_bytes():
    """All of standard input."""
    with named_input():
        return sys.stdin.buffer.read()


@contextlib.contextmanager
def named_input():
    """Have an OSError inside name standard input."""
    try:
        yield
    except OSError as e:
        e.filename = "standard input"
        raise


class Parser(argparse.ArgumentParser):
    """argparse, with wrong usage told in one line."""

    def error(self, message):
        """Leave with status 2."""
        note(f"{self.prog}: {message} ({self.prog} --help explains)")
        self.exit(2)
