# SPDX-License-Identifier: BSD-2-Clause
"""Progress on stderr: on a terminal a line that is rewritten and wiped, elsewhere now and then a line of a log."""

import os
import sys
import time

from .console import tell

TERMINAL_SECONDS = 0.5    # Without anything shown, until the line appears or is rewritten.
LOG_SECONDS      = 30.0   # From one line of a log to the next.
# Save the cursor, no wrapping, erase to the end of the line; and back. So the line may stand behind unfinished text.
_BEGIN, _END, _WIPE = "\x1b7\x1b[?7l\x1b[K", "\x1b[?7h\x1b8", "\x1b[K"


def duration(seconds):
    """About `seconds`, in words: "40 s", "4 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds/60:.0f} min" if seconds < 5400 else f"{seconds/3600:.1f} h"


class Progress:
    """Progress of one task: what Device.load and Device.generate call. Text on the same terminal goes through `write`.

    what: what is counted. max_tokens: of the answer that follows when all `total` are fed, or None. The time that is left is
    estimated from the wall time of what is done so far, counted in layers where the device tells them.
    """

    def __init__(self, what, max_tokens=None):
        self.what, self.max_tokens = what, max_tokens
        self.terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.start  = self.last = time.monotonic()
        self.origin = self.done = 0   # Units done at self.start, and now.
        self.shown  = self.behind_text = False

    def __call__(self, done, total, layer=0, layers=0):
        """`done` of `total` are done (beyond: tokens of the answer), the next one is at `layer` of `layers`."""
        now  = time.monotonic()
        unit = layers or 1
        if done*unit + layer < self.done:   # Fed anew, after turns were dropped.
            self.start, self.origin = now, done*unit + layer
        self.done = done*unit + layer
        if self.terminal and done == total and not layers:
            self.wipe()
        elif now - self.last >= (TERMINAL_SECONDS if self.terminal else LOG_SECONDS):
            self.last = now
            self._show(self._line(now, done, total, layer, layers))

    def _line(self, now, done, total, layer, layers):
        if done < total or self.max_tokens is None:
            end, about = total, "about"
            text = f"{self.what} {min(done + 1, total) if layers else done} of {total}"
        else:   # The first came with the prompt's last, and the last one is not fed.
            end, about = total + self.max_tokens - 1, "at most"
            text = f"token {min(done - total + 2, self.max_tokens)} of at most {self.max_tokens}"
        if layers:
            text += f", layer {min(layer + 1, layers)} of {layers}"
        left = end*(layers or 1) - self.done
        if self.done > self.origin and left > 0:
            text += f", {about} {duration(left*(now - self.start)/(self.done - self.origin))} left"
        return text

    def _show(self, line):
        if self.terminal:
            self.shown = True
            line = f"{_BEGIN}{'  ' if self.behind_text else ''}{line}{_END}"
        tell(line + ("" if self.terminal else "\n"))

    def wipe(self):
        """Remove the line from the terminal, for text to follow or because all is done."""
        if self.shown:
            self.shown = False
            tell(_WIPE)

    def before(self, write):
        """Function that wipes the line, then calls write(text)."""
        def wiped(text):
            self.wipe()
            self.last, self.behind_text = time.monotonic() if self.terminal else self.last, not text.endswith("\n")
            write(text)
        return wiped
