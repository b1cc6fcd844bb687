# SPDX-License-Identifier: BSD-2-Clause
"""The process that renders chat templates: a template comes with a model, so what it does is bounded from outside.

One JSON object a line comes in, one goes out (host/template.py is the other end). A request has `source` (Jinja2), `names`
(the special tokens' variables), `messages` and `generate`; its answer `runs`, a list of [the template wrote it, text], or `error`,
one line. A request without messages only compiles: its answer is
`unset`, names of the variables that the template asks for and nobody gives.

The environment is what `apply_chat_template` of transformers gives a template (jinja2's immutable sandbox, its tojson,
generation blocks, loop controls, raise_exception, strftime_now), with strings that know who wrote them (`Text`).

Limits: SECONDS of processor time a request (the system then ends this process), MEMORY bytes of address space, no
file, no further process, `template_text.MOST` characters of a string and of the whole text.
"""

import datetime
import functools
import importlib
import json
import re
import resource
import signal
import sys
import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, SecurityError
from jinja2.utils import Cycler, Joiner, Namespace

from ..accel.config import check
from .template_text import Text, all_own, check_size, concat, formatted, like, mask, own, text

SECONDS = 2
MEMORY  = 512 << 20
CODECS  = ("ascii", "latin_1", "unicode_escape", "raw_unicode_escape", "utf_8", "utf_16", "utf_32", "idna")
GIVEN   = {"messages", "tools", "documents", "add_generation_prompt"}
NEEDLE  = "4710174"   # To look for in what a template makes of three of it. The same from both ends, and in capitals.
# What has attributes to see.
OPEN    = (str, int, float, bytes, dict, list, tuple, range, LoopContext, Macro, Namespace, Cycler, Joiner)


class _Compiler(CodeGenerator):
    """What stands in the template itself becomes Text of its own."""

    def visit_Const(self, node, frame):
        """A constant in an expression."""
        value = node.as_const(frame.eval_ctx)
        self.write(f"environment.own({value!r})" if isinstance(value, str) else repr(value))

    def visit_TemplateData(self, node, frame):
        """Text outside of blocks."""
        self.write(f"environment.own({node.data!r})")

    def visit_Concat(self, node, frame):
        """The operator `~`."""
        self.write("concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")

    def enter_frame(self, frame):
        """Begin a scope; what it takes from outside is a variable that somebody has to set."""
        super().enter_frame(frame)
        self.environment.loads |= {name for action, name in frame.symbols.loads.values() if action == "resolve"}

    def _output_child_to_const(self, node, frame, finalize):
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible   # Nothing is computed while compiling: with str in place of Text, it would be without limits.
        return super()._output_child_to_const(node, frame, finalize)

    def _output_const_repr(self, group):
        return f"environment.own({''.join(group)!r})"


class _Generation(Extension):
    """{% generation %}...{% endgeneration %}: what is between (transformers marks it for training)."""
    tags = {"generation"}

    def parse(self, parser):
        """The block, with a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(["name:endgeneration"], drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """namespace(), whose attributes begin with a letter."""

    def __init__(*args, **attributes):   # `self` may be an attribute.
        for name in dict(*args[1:], **attributes):
            _check_attribute(name)
        Namespace.__init__(*args, **attributes)

    def __setitem__(self, name, value):
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name):
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no attribute {name!r}")


def _raise(message):
    raise jinja2.exceptions.TemplateError(str(message))


def _strftime_now(form):
    return datetime.datetime.now().strftime(form)


_OWN = "\x7f"   # A character that JSON writes as it is.


def _json_mask(value, ascii):
    """`value` with each string of it replaced by one as long in JSON: _OWN for each character that is the template's."""
    if isinstance(value, Text):
        if 0 < sum(mask(value)) < len(value):
            return "".join(_json_mask(c, ascii) for c in value)
        return (_OWN if all_own(value) else "0")*(len(json.dumps(value, ensure_ascii=ascii)) - 2)
    if isinstance(value, dict):
        return {k: _json_mask(v, ascii) for k, v in value.items()}
    return [_json_mask(v, ascii) for v in value] if isinstance(value, (list, tuple)) else value


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """json.dumps: Text."""
    check_size(indent if isinstance(indent, int) else 0)
    dumps = lambda v: json.dumps(v, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    whole = dumps(value)
    return Text(whole, bytes(c == _OWN for c in dumps(_json_mask(value, ensure_ascii))))


def _indent(s, width=4, first=False, blank=False):
    """jinja2's filter, whose line ends are no Text."""
    by    = text(width) if isinstance(width, str) else own(" ")*width
    lines = (text(str(s)) + own("\n")).splitlines()
    made  = own("\n").join([*lines[:1], *(by + line if line or blank else line for line in lines[1:])])
    return by + made if first else made


@jinja2.pass_eval_context
def _join(context, value, d="", attribute=None):
    """jinja2's filter, whose own separator knows no Text."""
    return FILTERS["join"](context, value, text(d) if type(d) is str else d, attribute)


def _title(s):
    """jinja2's filter."""
    return like(text(str(s)), FILTERS["title"](s))


class Environment(ImmutableSandboxedEnvironment):
    """The sandbox that a template runs in."""
    code_generator_class = _Compiler
    concat               = staticmethod(concat)
    own                  = staticmethod(own)

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, cache_size=0,
            extensions=[_Generation, "jinja2.ext.loopcontrols"])
        self.filters |= dict(tojson=_tojson, indent=_indent, join=_join, title=_title)
        self.globals |= dict(raise_exception=_raise, strftime_now=_strftime_now, namespace=_Namespace,
            dict=lambda *items, **more: dict(*items, **more))
        self.loads = set()   # Names that a template compiled here looks for.

    def is_safe_attribute(self, obj, attr, value):
        """The attributes of what a template has, and of nothing that leads further."""
        return isinstance(obj, OPEN) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value):
        """str.format and str.format_map, which look into objects: by this sandbox's rules."""
        if not isinstance(getattr(value, "__self__", None), Text):
            return super().wrap_str_format(value)
        form, name, formatter = value.__self__, value.__name__, SandboxedFormatter(self)
        if name == "format":
            return lambda *args, **kwargs: formatted(formatter, form, args, kwargs)
        return (lambda values: formatted(formatter, form, (), values)) if name == "format_map" else None


def _names(node):
    """Variables in `node` as (name, "load", "store" or "param"), in the order of the text; what is assigned comes behind its value."""
    if isinstance(node, nodes.Name):
        yield node.name, node.ctx
    parts = list(node.iter_child_nodes())
    if isinstance(node, nodes.Assign):
        parts.reverse()
    for part in parts:
        yield from _names(part)


class Template:
    """A compiled template. unset: names that it looks for and nobody gives; not those that it has set itself, in some branch,
    before."""

    def __init__(self, source, names):
        environment    = Environment()
        self._template = environment.from_string(source)
        self._names    = {name: own(value) for name, value in names.items()}
        first          = dict(reversed(list(_names(environment.parse(source)))))
        asked          = {name for name in environment.loads if first.get(name) != "store"}
        self.unset     = sorted(asked - GIVEN - names.keys() - environment.globals.keys())

    def _render(self, messages, generate=True, as_parts=False):
        content  = lambda c: [dict(type=own("text"), text=Text(c))] if as_parts else Text(c)
        messages = [dict(role=own(m["role"]), content=content(m["content"])) for m in messages]
        given    = dict(messages=messages, tools=None, documents=None, add_generation_prompt=generate)
        return self._template.render(self._names | given)

    def _shows(self, *messages, as_parts=False):
        """Whether the NEEDLE in messages (role, content) is to be seen; None if there is an error."""
        try:
            made = self._render([dict(role=r, content=c) for r, c in messages], as_parts=as_parts)
            return NEEDLE in made and "'type': 'text'" not in made   # Not the list itself, printed.
        except Exception:   # noqa: BLE001  It will come again for the user to see.
            return None

    @functools.cached_property
    def _as_parts(self):
        """A message's content goes in as a list of parts, since as a string it is left out; ValueError if either way."""
        shown = self._shows(("user", NEEDLE*3))
        parts = not shown and bool(self._shows(("user", NEEDLE*3), as_parts=True))
        check(parts or shown is not False, "it leaves the message out")
        return parts

    @functools.cached_property
    def _hides_system(self):
        return self._shows(("system", NEEDLE*3), ("user", "a"), as_parts=self._as_parts) is False

    def render(self, messages, generate):
        """Text of `messages`. ValueError if the template would leave some of it out in silence."""
        check(messages[0]["role"] != "system" or not self._hides_system, "it has no place for a system message")
        return self._render(messages, generate, self._as_parts)


class Worker:
    """Answers requests; the template of the last one stays compiled."""

    def __init__(self):
        self._key, self._template = None, None

    def answer(self, request):
        """Answer to `request`, or an exception: whatever the template raises."""
        key = request["source"], request["names"]
        if self._key != key:
            self._key, self._template = None, None
            self._template = Template(*key)
            self._key      = key
        if "messages" not in request:
            return dict(unset=self._template.unset)
        return dict(runs=runs(self._template.render(request["messages"], request["generate"])))


def runs(made):
    """The Text `made` in pieces: (it is the template's, str)."""
    return [(found[0][0], made[slice(*found.span())]) for found in re.finditer(b"\0+|\1+", mask(made))]


def _bounded():
    """Give this process what it may use, for good."""
    for module in ("textwrap", "pprint", "html.entities", "jinja2.constants", "jinja2.debug", *(f"encodings.{e}" for e in CODECS)):
        importlib.import_module(module)   # Else loaded when a template wants them, and then no file can be opened.
    for what, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_NOFILE, 0)):
        resource.setrlimit(what, (limit, limit))


def one_line(e):
    """What the exception `e` says."""
    if isinstance(e, MemoryError):
        return "it needs too much memory"
    said = f"line {e.lineno}: {e.message}" if isinstance(e, jinja2.TemplateSyntaxError) else str(e)
    return " ".join(said.split())[:200] or type(e).__name__


def main():
    """Answer the requests of standard input until it ends."""
    worker = Worker()
    _bounded()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)   # Then the system ends this process.
        try:
            reply = worker.answer(request)
        except Exception as e:   # noqa: BLE001  Anything can come out of a template.
            reply = dict(error=one_line(e))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
