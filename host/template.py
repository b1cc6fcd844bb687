# SPDX-License-Identifier: BSD-2-Clause
"""Chat templates (Jinja2, as Hugging Face and GGUF carry them), rendered in a sandbox so that what users write stays text.

A control token's name inside a message ("<|im_end|>") must not become that token. Before rendering, the first character of
each such occurrence is replaced by a private-use one of plane 16 (that plane is dropped from messages); after the rendered
text was split at the names that are left, which are the template's own, the character is put back (`ChatTemplate.restore`)
and the pieces between are encoded as text. The same is done where a message begins with the end of a name or ends with the
beginning of one, so that the template's text cannot complete it. Trimming and searching in templates work as ever.

A template comes with the model and is only as trusted as the model: it runs in jinja2's immutable sandbox, repetition is
bounded, and errors are ValueError.
"""

import datetime

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..accel.config import check
from .tokenizer import control_pattern

DEFAULT = ("{% for m in messages %}{{ m.role | capitalize }}: {{ m.content | trim }}\n{% endfor %}"
           "{% if add_generation_prompt %}Assistant:{% endif %}")   # For models that bring no template.
ROLES    = ("system", "user", "assistant")
LONGEST  = 1 << 18    # Characters of a template.
REPEAT   = 1 << 20    # Characters or items that a repetition in a template may make.
_HIDDEN  = 0x100000   # Plane 16, for private use: one character there for each character that occurs in control names.
_HIDABLE = 0xFFFE


# What a template can raise when it runs.
_FAILURES = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError,
    MemoryError)


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox, with bounded `*` and without `**`: a template must not fill the memory."""
    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context, operator, left, right):
        """Called by the sandbox for intercepted operators."""
        sizes = [len(x) for x in (left, right) if isinstance(x, (str, list, tuple))]
        times = [x for x in (left, right) if isinstance(x, int)]
        if operator == "**" or (sizes and times and sizes[0]*times[0] > REPEAT):
            raise jinja2.exceptions.SecurityError("power or huge repetition in a chat template")
        return super().call_binop(context, operator, left, right)


def _raise(message):
    raise jinja2.exceptions.TemplateError(str(message))


class ChatTemplate:
    """`source` (Jinja2; empty for the plain default) with the control tokens of `tokenizer`."""

    def __init__(self, source, tokenizer):
        check(len(source) <= LONGEST, f"chat template has {len(source)} characters, at most {LONGEST} are read")
        self.tokenizer = tokenizer
        self.names     = list(tokenizer.control)
        self._pattern  = control_pattern(self.names)
        letters        = sorted(set("".join(self.names)))[:_HIDABLE]
        self._hide     = {c: chr(_HIDDEN + i) for i, c in enumerate(letters)}
        self._show     = {ord(h): c for c, h in self._hide.items()}
        environment    = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.globals |= dict(raise_exception=_raise, strftime_now=lambda f: datetime.datetime.now().strftime(f))
        try:
            self._template = environment.from_string(source or DEFAULT)
        except (jinja2.TemplateError, RecursionError) as e:
            raise ValueError(f"chat template of the model cannot be used: {_one_line(e)}") from None

    def protect(self, content):
        """`content` with every control name made harmless."""
        content = "".join(c for c in content if ord(c) < _HIDDEN)
        if self._pattern is None:
            return content
        hide    = lambda at: content[:at] + self._hide.get(content[at], content[at]) + content[at + 1:]
        content = self._pattern.sub(lambda m: self._hide[m[0][0]] + m[0][1:], content)
        for text in (content.strip(), content):   # Templates like to trim.
            at, end = content.find(text), content.find(text) + len(text)
            for name in self.names:
                for n in range(min(len(name) - 1, len(text)), 0, -1):
                    if text.endswith(name[:n]):
                        content = hide(end - n)
                    if text.startswith(name[-n:]):
                        content = hide(at)
        return content

    def restore(self, text):
        """`text` with the hidden characters put back."""
        return text.translate(self._show)

    def render(self, messages, generate=True):
        """Protected text of `messages` ([{"role", "content"}]), with the opening of the answer if `generate`."""
        for m in messages:
            check(m["role"] in ROLES, f"role is {m['role']!r}, must be one of {', '.join(ROLES)}")
        t     = self.tokenizer
        names = {n: t.pieces[i] for n, i in (("bos_token", t.bos), ("eos_token", t.eos))}
        safe  = [m | dict(content=self.protect(m["content"])) for m in messages]
        try:
            return self._template.render(messages=safe, add_generation_prompt=generate, tools=None, **names)
        except _FAILURES as e:
            raise ValueError(f"chat template of the model failed: {_one_line(e)}") from None

    def encode(self, text, at_start=True):
        """Ids of rendered (protected) text, without BOS."""
        return self.tokenizer.encode_prompt(text, self.restore, at_start)


def _one_line(e):
    return " ".join(str(e).split())[:200] or type(e).__name__
