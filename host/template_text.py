# SPDX-License-Identifier: BSD-2-Clause
"""`Text`: a str that knows, of each of its characters, whether the chat template wrote it or somebody else did.

Only what a template wrote itself can become a control token. Every operation of str that a template can reach keeps track of
where characters come from; where that is not possible (or not worth it) the result counts as somebody else's, so that an
operation forgotten here shows as a control token that stays text, never as text that becomes one. `Text` equals, hashes
and prints as the str that it is.

No Text is longer than MOST characters: ValueError.
"""

import re

from ..accel.config import check

MOST = 1 << 24   # Characters of a string that a template makes.
_CONVERSION = re.compile(r"%(?:\((?P<key>[^()]*)\))?(?P<how>[#0\- +]*\d*(?:\.\d*)?[hlL]?[a-zA-Z%])")


def check_size(n):
    """ValueError if a string of `n` characters is too long."""
    check(n <= MOST, f"it makes a string of {n} characters, the limit is {MOST}")


def own(s):
    """Text of `s`, written by the template."""
    return Text(s, b"\1"*len(s))


def text(s):
    """`s` as Text; of somebody else unless it is Text already."""
    return s if isinstance(s, Text) else Text(s)


def concat(parts):
    """Text of the strings `parts`, one after the other."""
    kept, size = [], 0
    for part in parts:
        size += len(part)
        check_size(size)
        kept.append(text(part))
    return Text("".join(kept), b"".join(part._own for part in kept))


def mask(t):
    """Bytes, one for each character of the Text `t`: 1 where it is the template's."""
    return t._own


def all_own(t):
    """True if the template wrote all of the Text `t`."""
    return 0 not in t._own


def like(t, s):
    """`s`, which was made of the Text `t` character by character: as Text."""
    return Text(s, t._own) if len(s) == len(t) else own(s) if all_own(t) else Text(s)


class Text(str):
    """See the module. Templates see the methods of str and no more: the mask has a name that the sandbox keeps from them."""
    __slots__ = ("_own",)

    def __new__(cls, s, mask=None):
        check_size(len(s))
        self      = super().__new__(cls, s)
        self._own = bytes(len(self)) if mask is None else mask
        return self

    def _cut(self, pieces, gap=0):
        """`pieces` of this text in order, `gap` characters between: as Text."""
        made, at = [], 0
        for piece in pieces:
            made.append(self[at:at + len(piece)])
            at += len(piece) + gap
        return made

    def __str__(self):
        return self

    def __format__(self, spec):
        return super().__format__(spec) if spec else self

    def __getitem__(self, key):
        mask = self._own[key]
        return Text(super().__getitem__(key), mask if isinstance(key, slice) else bytes([mask]))

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __add__(self, other):
        if not isinstance(other, str):
            return NotImplemented
        return other.__radd__(self) if hasattr(other, "__html__") else concat([self, other])

    def __radd__(self, other):
        return concat([other, self]) if isinstance(other, str) else NotImplemented

    def __mul__(self, n):
        if not isinstance(n, int):
            return NotImplemented
        check_size(len(self)*n)
        return Text(super().__mul__(n), self._own*n)

    __rmul__ = __mul__

    def __mod__(self, values):
        _check_widths(found["how"] for found in _CONVERSION.finditer(self))
        whole = super().__mod__(values)
        return _if_same(whole, self._converted(values))

    def _converted(self, values):
        """Parts of `self % values`."""
        rest, at = iter(values if isinstance(values, tuple) else [values]), 0
        for found in _CONVERSION.finditer(self):
            yield self[at:found.start()]
            at = found.end()
            if found["how"] == "%":
                yield self[at - 1:at]
                continue
            value = next(rest, "") if found["key"] is None else values[found["key"]]
            yield str(value) if found["how"] == "s" else str.__mod__("%" + found["how"], (value,))
        yield self[at:]

    def join(self, items):
        """str.join."""
        items = list(items)
        for i, item in enumerate(items):
            if not isinstance(item, str):
                raise TypeError(f"sequence item {i}: expected str instance, {type(item).__name__} found")
        return concat(part for i, item in enumerate(items) for part in ((self, item) if i else (item,)))

    def split(self, sep=None, maxsplit=-1):
        """str.split."""
        return self._parts(super().split(sep, maxsplit), sep)

    def rsplit(self, sep=None, maxsplit=-1):
        """str.rsplit."""
        return self._parts(super().rsplit(sep, maxsplit), sep)

    def _parts(self, pieces, sep):
        if sep is not None:
            return self._cut(pieces, len(sep))
        made, at = [], 0
        for piece in pieces:
            at  = self.index(piece, at)
            made.append(self[at:at + len(piece)])
            at += len(piece)
        return made

    def splitlines(self, keepends=False):
        """str.splitlines."""
        lines = self._cut(super().splitlines(True))
        return lines if keepends else [line[:len(bare)] for line, bare in zip(lines, super().splitlines())]

    def partition(self, sep):
        """str.partition."""
        return tuple(self._cut(super().partition(sep)))

    def rpartition(self, sep):
        """str.rpartition."""
        return tuple(self._cut(super().rpartition(sep)))

    def replace(self, old, new, count=-1):
        """str.replace."""
        n = self.count(old) if count < 0 else min(count, self.count(old))
        check_size(len(self) + n*(len(new) - len(old)))
        if old:
            return text(new).join(self.split(old, count)) if n else self
        return concat([*(part for i in range(n) for part in (new, self[i:i + 1])), self[n:]])

    def strip(self, chars=None):
        """str.strip."""
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars=None):
        """str.lstrip."""
        return self[len(self) - len(super().lstrip(chars)):]

    def rstrip(self, chars=None):
        """str.rstrip."""
        return self[:len(super().rstrip(chars))]

    def removeprefix(self, prefix):
        """str.removeprefix."""
        return self[len(prefix):] if self.startswith(prefix) else self

    def removesuffix(self, suffix):
        """str.removesuffix."""
        return self[:len(self) - len(suffix)] if self.endswith(suffix) else self

    def upper(self):
        """str.upper."""
        return like(self, super().upper())

    def lower(self):
        """str.lower."""
        return like(self, super().lower())

    def casefold(self):
        """str.casefold."""
        return like(self, super().casefold())

    def swapcase(self):
        """str.swapcase."""
        return like(self, super().swapcase())

    def title(self):
        """str.title."""
        return like(self, super().title())

    def capitalize(self):
        """str.capitalize."""
        return like(self, super().capitalize())

    def expandtabs(self, tabsize=8):
        """str.expandtabs."""
        check_size(len(self) + self.count("\t")*max(tabsize, 0))
        return like(self, super().expandtabs(tabsize))

    def zfill(self, width):
        """str.zfill."""
        check_size(width)
        return like(self, super().zfill(width))

    def ljust(self, width, fillchar=" "):
        """str.ljust."""
        check_size(width)
        return self + text(fillchar)*(len(super().ljust(width, fillchar)) - len(self))

    def rjust(self, width, fillchar=" "):
        """str.rjust."""
        check_size(width)
        return text(fillchar)*(len(super().rjust(width, fillchar)) - len(self)) + self

    def center(self, width, fillchar=" "):
        """str.center."""
        check_size(width)
        size = len(super().center(width, fillchar)) - len(self)
        left = size//2 + (size & width & 1)   # As CPython shares it out.
        return text(fillchar)*left + self + text(fillchar)*(size - left)


def _check_widths(specs):
    for spec in specs:
        for width in re.findall(r"\d+", spec):
            check_size(int(width[:20]))


def _if_same(whole, parts):
    """Text of `parts` if they make the string `whole`, else `whole` as somebody else's."""
    try:
        made = concat(parts)
    except (TypeError, LookupError, AttributeError):
        return Text(whole)
    return made if made == whole else Text(whole)


def formatted(formatter, template, args, kwargs):
    """`template.format(*args, **kwargs)` by `formatter` (string.Formatter): Text."""
    _check_widths(spec or "" for _, _, spec, _ in formatter.parse(template))
    whole, numbers = formatter.vformat(template, args, kwargs), iter(range(len(args)))
    def parts():
        for literal, name, spec, conversion in formatter.parse(template):
            yield own(literal) if all_own(template) else literal
            if name is not None:
                value = formatter.get_field(re.sub(r"\A(?=[.\[]|\Z)", lambda _: str(next(numbers)), name), args, kwargs)[0]
                yield str(value) if not spec and conversion in (None, "s") else formatter.vformat(
                    "{:" + spec + "}", (formatter.convert_field(value, conversion),), kwargs)
    return _if_same(whole, parts())
