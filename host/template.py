# SPDX-License-Identifier: BSD-2-Clause
"""Chat templates (Jinja2, as Hugging Face and GGUF carry them): messages to text and to token ids.

What users write stays text: a control token's name inside a message ("<|im_end|>") never becomes that token, whatever the
template does with the message. Only characters that the template itself wrote can (host/template_text.py). In the protected
text that `render` gives, others' characters are hidden where such a name begins in what they wrote, and where what they wrote
begins and ends: behind a pair of surrogates, which no text has. Whatever name is to be seen is then the template's.

A template is untrusted. It is rendered in another process that is given little and is ended when it takes too long
(host/template_worker.py); one such process, started with the first template, serves all. Errors are ValueError, one line.
"""

import atexit
import json
import re
import selectors
import signal
import subprocess
import sys
import threading
import time

from ..accel.config import check

DEFAULT = ("{% for m in messages %}{{ m.role | capitalize }}: {{ m.content | trim }}\n{% endfor %}"
           "{% if add_generation_prompt %}Assistant:{% endif %}")   # For models that bring no template.
ROLES    = ("system", "user", "assistant")
LONGEST  = 1 << 18    # Characters of a template.
PATIENCE = 60         # Seconds until a request is given up; a worker that computes is ended long before.
_PAIR    = re.compile("([\ud800-\udbff])([\udc00-\udfff])")


class _Renderer:
    """The other process, started when it is needed and started again when it was ended."""

    def __init__(self):
        self._process, self._lock = None, threading.Lock()
        atexit.register(self.close)

    def ask(self, request):
        """Answer of the worker to `request`; ValueError if there is none in time."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = subprocess.Popen([sys.executable, "-P", "-m", "litellama.host.template_worker"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    start_new_session=True)   # Ctrl-C in a terminal is not for it.
            try:
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
                return json.loads(self._line())
            except (EOFError, BrokenPipeError):   # It ended, or was.
                raise ValueError("it takes too long" if self._process.wait() == -signal.SIGPROF else
                    "it needs more than a template is given") from None
            except BaseException:   # Interrupted: what it answers would be taken for the answer to the next one.
                self.close()
                raise

    def _line(self):
        """The next line that the worker writes."""
        got, end = bytearray(), time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not got.endswith(b"\n"):
                check(selector.select(max(end - time.monotonic(), 0)), "it takes too long")
                if not (data := self._process.stdout.read1(1 << 20)):
                    raise EOFError
                got += data
        return got

    def close(self):
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_renderer = _Renderer()


def plain(s):
    """`s` as the UTF-8 that it can be written in: with ? for a surrogate."""
    return s.encode("utf-8", "replace").decode()


class ChatTemplate:
    """`source` (Jinja2; empty for the plain default) with the control tokens of `tokenizer`.

    names: the special tokens' variables ({"bos_token": "<s>"}), those that the model's source has; BOS and EOS of the tokenizer
    unless given. unset: variables that the template looks for and nobody sets.
    """

    def __init__(self, source, tokenizer, names=None):
        check(len(source) <= LONGEST, f"chat template has {len(source)} characters, at most {LONGEST} are read")
        self.tokenizer = tokenizer
        if names is None:
            names = {n: tokenizer.pieces[i] for n, i in (("bos_token", tokenizer.bos), ("eos_token", tokenizer.eos))}
        check(isinstance(names, dict) and all(isinstance(v, str) for v in names.values()),
            "the special tokens' names must be an object of strings")
        self._request  = dict(source=source or DEFAULT, names=names)
        self._letters  = sorted(set("".join(tokenizer.control)))
        self._hide     = {c: chr(0xD800 + (i >> 10)) + chr(0xDC00 + (i & 1023)) for i, c in enumerate(self._letters)}
        names          = "|".join(map(re.escape, tokenizer.control))
        self._start    = re.compile(f"(?={names or '(?!)'})")   # Where a name begins, also inside another.
        self.unset     = self._ask("cannot be used")["unset"]

    def _ask(self, failing, **request):
        try:
            reply = _renderer.ask(self._request | request)
            check("error" not in reply, reply.get("error"))
        except ValueError as e:
            raise ValueError(f"chat template of the model {failing}: {e}") from None
        return reply

    def protect(self, content):
        """`content`, which the template did not write, as it stands in protected text."""
        chars = list(plain(content))
        for at in {0, len(chars) - 1, *(found.start() for found in self._start.finditer("".join(chars)))} if chars else ():
            chars[at] = self._hide.get(chars[at], chars[at])
        return "".join(chars)

    def restore(self, text):
        """`text` with the hidden characters put back."""
        return _PAIR.sub(lambda pair: self._letters[(ord(pair[1]) - 0xD800 << 10) + ord(pair[2]) - 0xDC00], text)

    def render(self, messages, generate=True):
        """Protected text of `messages` ([{"role", "content"}]), with the opening of the answer if `generate`."""
        for m in messages:
            check(m["role"] in ROLES, f"role is {m['role']!r}, must be one of {', '.join(ROLES)}")
        safe = [m | dict(content=plain(m["content"])) for m in messages]
        runs = self._ask("failed", messages=safe, generate=generate)["runs"]
        return "".join(plain(text) if own else self.protect(text) for own, text in runs)

    def encode(self, text, after=None):
        """Ids of protected text that follows token `after` (None: nothing), without BOS."""
        return self.tokenizer.encode_prompt(text, self.restore, after)
