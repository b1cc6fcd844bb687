# SPDX-License-Identifier: BSD-2-Clause
"""A session: one model on one device, its tokens so far, and for chat its messages. Only new tokens go to the device.

`tokens` is everything said, by either side; the device holds its first `device.position` of these. A chat turn appends what
the template adds after the last answer (its end-of-turn token included, once) and the new message. Where a template
changes earlier text, the device starts again from position 0.
"""

from dataclasses import dataclass, field
import functools
import time

from ..accel.config import check
from .devices.base import Timings
from .template import ChatTemplate
from .tokenizer import Tokenizer


@dataclass
class Reply:
    """What one request gave. token_ids: as sampled, a final stop id included; text: without it.

    prompt_token_ids: fed before the first one. finish_reason: "stop", "length" or "abort". timings: devices.base.Timings.
    wall_seconds: duration of the whole request here, where a simulator's own time is another.
    """
    text:             str     = ""
    token_ids:        list    = field(default_factory=list)
    prompt_token_ids: list    = field(default_factory=list)
    finish_reason:    str     = "length"
    timings:          Timings = field(default_factory=Timings)
    wall_seconds:     float   = 0.0


class Session:
    """`device` with `model` (accel.image.Model) loaded; system: first message of each conversation, or None.

    on_load(bytes, total) is called while the model is sent, on_prompt(done, total) while a prompt is fed, on_text(text) as
    the answer comes.
    """

    def __init__(self, device, model, system=None, on_load=None):
        self.device, self.model, self.system = device, model, system
        self.tokenizer = Tokenizer.from_bytes(model.tokenizer)
        device.load(model, on_load)
        self._forget()

    def _forget(self):
        self.tokens   = []
        self.messages = [dict(role="system", content=self.system)] if self.system else []
        self._text    = ""   # Protected text of the conversation, up to the end of the last answer.

    @functools.cached_property
    def template(self):
        """ChatTemplate of the model; ValueError if it cannot be used, which plain completion does not mind."""
        return ChatTemplate(self.model.template, self.tokenizer)

    def clear(self):
        """Forget everything said."""
        self.device.reset()
        self._forget()

    @property
    def stop_ids(self):
        """Token ids that end an answer."""
        return self.tokenizer.stop

    def complete(self, prompt, params, max_tokens, on_text=None, on_prompt=None):
        """Continue the text `prompt` (empty: from BOS alone), forgetting what was before: a Reply."""
        t = self.tokenizer
        self.clear()
        return self._generate(self._with_bos(t.encode(prompt)) or [t.bos], params, max_tokens, on_text, on_prompt)

    def ask(self, content, params, max_tokens, on_text=None, on_prompt=None):
        """One turn of chat: a Reply. If it fails before anything was sampled, the message is not part of the
        conversation."""
        messages = [*self.messages, dict(role="user", content=content)]
        text     = self.template.render(messages)
        if self._text and text.startswith(self._text):
            new = self.template.encode(text[len(self._text):], self.tokenizer.is_control(self.tokens[-1]))
            if new[:1] == self.tokens[-1:] and new[0] in self.stop_ids:
                new = new[1:]   # The answer ended with it.
        else:
            new = self._restart(self._with_bos(self.template.encode(text)))
        total = len(self.tokens) + len(new)
        check(total <= self.device.context, f"the conversation has {total} tokens, the context holds {self.device.context}: "
            "/clear starts a new one")
        reply = self._generate(new, params, max_tokens, on_text, on_prompt)
        if reply.token_ids:
            answer        = reply.text.strip()
            self.messages = [*messages, dict(role="assistant", content=answer)]
            self._text    = text + self.template.protect(answer)
        else:
            self._text = ""   # Whatever the device holds now is compared anew.
        return reply

    def _with_bos(self, ids):
        t = self.tokenizer
        return [t.bos, *ids] if t.add_bos and ids[:1] != [t.bos] else ids

    def _restart(self, ids):
        """Make `ids` the session's tokens as far as the device holds them; what is left to feed."""
        held = self.tokens[:self.device.position]
        lost = len(held) < self.device.position   # It fed tokens that never reached us.
        if lost or ids[:len(held)] != held or len(ids) == len(held):
            self.device.reset()
            held = []
        self.tokens, self._text = held, ""
        return ids[len(held):]

    def _generate(self, new, params, max_tokens, on_text, on_prompt):
        at      = self.device.position
        before  = len(self.tokens)
        self.tokens = self.tokens + new
        feed    = self.tokens[at:]
        decoder = self.tokenizer.decoder(feed[-1])
        parts   = []
        def show(text):
            parts.append(text)
            if text and on_text:
                on_text(text)
        def on_token(token):
            show("" if token in self.stop_ids else decoder.feed(token))
        start = time.perf_counter()
        try:
            result = self.device.generate(feed, params, max_tokens, self.stop_ids, on_token, on_prompt)
        except ValueError:
            self.tokens = self.tokens[:max(before, self.device.position)]
            self._text  = ""
            raise
        show(decoder.flush())
        self.tokens += result.tokens
        if not result.tokens:   # Interrupted in the prompt: only what the device has counts.
            self.tokens = self.tokens[:self.device.position]
        seconds = time.perf_counter() - start
        return Reply("".join(parts), result.tokens, feed, result.finish_reason, result.timings, seconds)
