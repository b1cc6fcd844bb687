# SPDX-License-Identifier: BSD-2-Clause
"""Stop strings: text that ends an answer and is not part of it."""

from ..accel.config import check


class StopText:
    """Passes text on until it contains one of `stops` (strings of at least one character, taken literally).

    What might be the beginning of a stop string is held back until it is clear. found: one was found. Of two that are complete
    at the same time the one that begins first counts.
    """

    def __init__(self, stops):
        for stop in stops:
            check(stop, "a stop string is empty, it must have at least one character")
        self.stops, self.held, self.found = tuple(stops), "", False

    def feed(self, text):
        """What of the text so far can be shown now and was not yet; once a stop string was found, nothing more."""
        if self.found:
            return ""
        text   = self.held + text
        places = [at for at in map(text.find, self.stops) if at >= 0]
        if places:
            self.found, self.held = True, ""
            return text[:min(places)]
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self.held = text[len(text) - keep:]
        return text[:len(text) - keep]

    def flush(self):
        """What was held back, at the end of the text."""
        text, self.held = self.held, ""
        return text
