# SPDX-License-Identifier: BSD-2-Clause
"""A session: one model on one device, its tokens so far, and for chat its messages. Only new tokens go to the device.

`tokens` is everything said, by either side; the device holds its first `device.position` of these. A chat turn appends what
the template adds after the last answer (its end-of-turn token included, once) and the new message. Where the text of the
conversation is not what the device holds (a template that changes earlier text, an answer that a stop string ended, turns
that were dropped), the device forgets from the first token that differs, and is fed from there.

A full context: either the answer ends with "length" and a message that does not fit is refused, or (`shift`) the oldest
turns, each a message and its answer, are dropped, the system prompt never. As few are dropped as leave room for the answer,
at most a quarter of the context: the rest is fed anew, so it should not happen in each turn.
"""

from dataclasses import dataclass, field, replace
import functools
import time

from ..accel.config import check
from .devices.base import LENGTH, STOP, Timings
from .stoptext import StopText
from .template import ChatTemplate
from .tokenizer import Tokenizer


@dataclass
class Reply:
    """What one request gave. token_ids: as sampled, a final stop id and those of a stop string included; text: without
    either.

    prompt_token_ids: fed before the first one. finish_reason: "stop", "length" or "abort". timings: devices.base.Timings.
    wall_seconds: duration of the whole request here, where a simulator's own time is another. turns_dropped: the oldest ones,
    to make room in the context.
    """
    text:             str     = ""
    token_ids:        list    = field(default_factory=list)
    prompt_token_ids: list    = field(default_factory=list)
    finish_reason:    str     = "length"
    timings:          Timings = field(default_factory=Timings)
    wall_seconds:     float   = 0.0
    turns_dropped:    int     = 0


class _Answer:
    """The `text` of an answer under way, up to a stop string. after: the token before it."""

    def __init__(self, tokenizer, after, stop, on_text):
        self.stop_ids, self.text = tokenizer.stop, ""
        self._decoder, self._filter, self._on_text = tokenizer.decoder(after), StopText(stop), on_text

    @property
    def stopped(self):
        """A stop string was found."""
        return self._filter.found

    def _show(self, text):
        self.text += text
        if text and self._on_text:
            self._on_text(text)

    def feed(self, token):
        """Take a sampled token; True if its text completes a stop string."""
        if token not in self.stop_ids:
            self._show(self._filter.feed(self._decoder.feed(token)))
        return self.stopped

    def end(self):
        """Nothing more comes."""
        self._show(self._filter.feed(self._decoder.flush()))
        self._show(self._filter.flush())


class Session:
    """`device` with `model` (accel.image.Model) loaded; system: first message of each conversation, or None.

    on_load(bytes, total) is called while the model is sent. Of a request: on_text(text) is called as the answer comes,
    on_progress as in Device.generate; `stop` are stop strings (stoptext.StopText).
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
        return ChatTemplate(self.model.template, self.tokenizer, self.model.meta.get("special_tokens"))

    def clear(self):
        """Forget everything said."""
        self.device.reset()
        self._forget()

    @property
    def stop_ids(self):
        """Token ids that end an answer."""
        return self.tokenizer.stop

    def complete(self, prompt, params, max_tokens, on_text=None, on_progress=None, stop=()):
        """Continue the text `prompt` (empty: from BOS alone), forgetting what was before: a Reply."""
        t = self.tokenizer
        self.clear()
        ids = self._with_bos(t.encode(prompt)) or [t.bos]
        check(len(ids) <= self.device.context, f"the prompt has {len(ids)} tokens, the context holds {self.device.context}: shorten it")
        return self._generate(ids, params, max_tokens, stop, on_text, on_progress)

    def ask(self, content, params, max_tokens, on_text=None, on_progress=None, stop=(), shift=False):
        """One turn of chat: a Reply. If it fails before anything was sampled, the message is not part of the
        conversation. shift: drop the oldest turns where the context is too small."""
        messages  = [*self.messages, dict(role="user", content=content)]
        context   = self.device.context
        room      = min(max_tokens, context//4)
        n_before  = len(messages)
        text, ids = self._prompt(messages)
        if shift and len(ids) > context:
            messages, text, ids = self._shortened(messages, room)
        if len(ids) > context:
            alone = len(self._shortened(messages, context)[2])
            check(alone <= context, f"the message alone has {alone} tokens with what the template adds, the context holds {context}: "
                "shorten it, or send it in parts")
            raise ValueError(f"the conversation has {len(ids)} tokens, {alone} of them with this message, the context holds {context}: "
                "/clear starts a new one, --context-shift drops the oldest turns")

        def go_on(sampled):
            nonlocal messages, text
            shorter, new_text, ids = self._shortened(messages, room + len(sampled))
            if len(ids) + len(sampled) > context:
                return None
            messages, text = shorter, new_text
            return ids

        reply = self._generate(ids, params, max_tokens, stop, on_text, on_progress, go_on if shift else None)
        reply.turns_dropped = (n_before - len(messages))//2
        if reply.token_ids:
            answer        = reply.text.strip()
            self.messages = [*messages, dict(role="assistant", content=answer)]
            self._text    = text + self.template.protect(answer)
        return reply

    def _with_bos(self, ids):
        t = self.tokenizer
        return [t.bos, *ids] if t.add_bos and ids[:1] != [t.bos] else ids

    def _prompt(self, messages):
        """(protected text, ids) of `messages`; the ids go on from the session's tokens where the text does."""
        text = self.template.render(messages)
        if not self._text or not text.startswith(self._text):
            return text, self._with_bos(self.template.encode(text))
        new = self.template.encode(text[len(self._text):], self.tokens[-1])
        if new[:1] == self.tokens[-1:] and new[0] in self.stop_ids:
            new = new[1:]   # The answer ended with it.
        return text, self.tokens + new

    def _shortened(self, messages, room):
        """(messages, text, ids) without the oldest turns: until `room` positions are left, or only the last message is."""
        first = int(messages[0]["role"] == "system")
        while True:
            text = self.template.render(messages)
            ids  = self._with_bos(self.template.encode(text))
            if len(ids) + room <= self.device.context or len(messages) <= first + 1:
                return messages, text, ids
            messages = messages[:first] + messages[first + 2:]

    def _rewind(self, ids):
        """Have the device forget what is not the beginning of `ids`; positions that it holds of them, not all."""
        held = self.tokens[:self.device.position]
        same = next((i for i, (a, b) in enumerate(zip(held, ids)) if a != b), min(len(held), len(ids) - 1))
        if same < self.device.position:
            self.device.reset(same)
        return same

    def _generate(self, ids, params, max_tokens, stop, on_text, on_progress, go_on=None):
        """Answer to the context `ids`. go_on(sampled): ids to go on from when the context is full, or None."""
        start, answer, reply = time.perf_counter(), _Answer(self.tokenizer, ids[-1], stop, on_text), Reply()
        sampled, self._text  = reply.token_ids, ""   # Until it is known that all went well.
        while True:
            whole  = ids + sampled
            at     = self._rewind(whole)
            feed   = whole[at:]
            recent = whole[max(0, at - params.window):at]
            self.tokens = whole[:at]   # What the device holds for certain, should it fail.
            # Not the same random numbers again where an answer goes on.
            again  = replace(params, seed=(params.seed + len(sampled)) % 2**64)
            result = self.device.generate(feed, again, max_tokens - len(sampled), self.stop_ids, answer.feed, on_progress, recent)
            reply.timings = reply.timings + result.timings if sampled else result.timings
            reply.prompt_token_ids = reply.prompt_token_ids or (feed if result.tokens else whole[at:self.device.position])   # (Interrupted.)
            sampled += result.tokens
            full     = result.finish_reason == LENGTH and len(sampled) < max_tokens
            if not (full and go_on and (more := go_on(sampled))):
                break
            ids = more
        answer.end()
        self.tokens = ids + sampled if sampled else ids[:self.device.position]   # Interrupted in the prompt: what there is of it.
        if answer.stopped:
            self._forget_stop(len(ids), answer.text)
        reply.text, reply.finish_reason = answer.text, STOP if answer.stopped else result.finish_reason
        reply.wall_seconds = time.perf_counter() - start
        return reply

    def _forget_stop(self, start, text):
        """Of the answer from token `start` on, which a stop string ended, keep its `text` alone in the conversation."""
        n = len(self.tokens)
        while not text.startswith(said := self.tokenizer.decode(self.tokens[start:n], self.tokens[start - 1])):
            n -= 1
        rest = self.tokenizer.encode(text[len(said):], self.tokens[n - 1])
        if self.device.position > n:
            self.device.reset(n)
        self.tokens = self.tokens[:n] + rest
