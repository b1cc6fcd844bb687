# SPDX-License-Identifier: BSD-2-Clause
"""What a source can say beside its tensors, and what becomes of it: used, refused, told in a note, or of no effect here.

Nothing that llama.cpp or transformers give a meaning to is passed over in silence. The tables of the formats (gguf_keys.py,
huggingface_keys.py) are rows of `Key`; `judge` goes over a source with them, README.md is made of them (`page`), and
tests/test_source_keys.py feeds every row. Errors are ValueError.
"""

from dataclasses import dataclass
from fnmatch import translate
import functools
import re

import numpy as np

from ...accel.config import check

USED, REFUSED, TOLD, NOTHING, SAMPLING = "used", "refused", "told", "no effect", "told as options"
NAMED_MAX = 8   # Unknown keys that a note names.


@dataclass(frozen=True)
class Key:
    """A row. names: separated by spaces, `*` stands for anything; verdict: USED (the importer reads it), REFUSED or TOLD unless the
    value is one of `usual` (or `usual(number, config)` is true), NOTHING (it changes no number here), SAMPLING (a suggested option of
    the command line, see sampling.py). text: about it, for README.md and notes; null, empty lists and lists of usual values are
    usual, too."""
    names:   str
    verdict: str
    text:    str    = ""
    usual:   object = ()

    def matches(self, name):
        """Whether the row is about `name`."""
        return _pattern(self.names).match(name) is not None

    def is_usual(self, value, config):
        """Whether `value` changes nothing for ModelConfig `config`."""
        if value is None or isinstance(value, (list, dict, str)) and not value:
            return True
        if callable(self.usual):
            return isinstance(value, (int, float)) and self.usual(value, config)
        return all(v in self.usual for v in value) if isinstance(value, list) else value in self.usual


@functools.cache
def _pattern(names):
    return re.compile("|".join(translate(name) for name in names.split()))


def plain(value):
    """`value` with NumPy's arrays as lists."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def short(value):
    """`value` for a message: printable, at most 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def find(name, keys):
    """The first row of `keys` about `name`, or None."""
    return next((k for k in keys if k.matches(name)), None)


def judge(values, keys, where, config):
    """Notes (list of str) about `values` {name: value} of a source; `where` names it. ValueError if one is refused."""
    notes, unknown = [], []
    for name, value in values.items():
        key, value = find(name, keys), plain(value)
        if key is None:
            unknown.append(name)
        elif key.verdict == REFUSED:
            check(key.is_usual(value, config), f"{where} says {name[:60]} is {short(value)}, which is not supported"
                + (f": {key.text}" if key.text else ""))
        elif key.verdict == TOLD and not key.is_usual(value, config):
            notes.append(f"{where} says {name[:60]} is {short(value)}, which is not used" + (f": {key.text}" if key.text else ""))
    if unknown:
        more = f" and {len(unknown) - NAMED_MAX} more" if len(unknown) > NAMED_MAX else ""
        notes.append(f"{where} has keys that are not known here and not used: "
            f"{', '.join(repr(n[:60])[1:-1] for n in sorted(unknown)[:NAMED_MAX])}{more}")
    return notes


def page(title, keys):
    """Lines of README.md: the table of `keys`."""
    lines = [f"### {title}", "", "| key | becomes | |", "|---|---|---|"]
    for k in keys:
        usual = f"unless {' or '.join(map(str, k.usual))}" if k.usual and not callable(k.usual) else ""
        names = ", ".join(f"`{n}`" for n in k.names.split())
        lines.append(f"| {names} | {k.verdict} | {'; '.join(filter(None, (usual, k.text)))} |")
    return lines + [""]
