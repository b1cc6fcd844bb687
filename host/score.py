# SPDX-License-Identifier: BSD-2-Clause
"""Log-probability of each token of a text given those before it: negative log-likelihood and perplexity of a model.

A text longer than the context is cut into windows of it that do not overlap; each window starts with BOS where the model's
tokenizer adds one, else with the last token of the window before (the very first token then has nothing before it and is
not scored). Natural logarithms throughout.
"""

from dataclasses import dataclass
import math

import numpy as np

from ..accel.config import check
from ..accel.numerics import Decoder
from .devices.float_model import FloatDecoder
from .tokenizer import Tokenizer

CHUNK = 128   # Positions per forward pass: bounds memory at large vocabularies.


@dataclass
class Score:
    """token_ids: the tokens scored. logprobs: natural log of each one's probability. top1: the model's first choice
    there."""
    token_ids: list
    logprobs:  np.ndarray
    top1:      np.ndarray

    @property
    def nll(self):
        """Total negative log-likelihood, nats."""
        return float(-self.logprobs.sum())

    @property
    def perplexity(self):
        """exp(nll per token)."""
        return math.exp(min(self.nll/len(self.token_ids), 700.0))


def log_softmax(logits):
    """Natural log of the softmax over the last axis, float64."""
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def make_decoder(model, device):
    """Decoder of a device name: "reference", "float", or "reference-float-kv" (the twin with its KV in float)."""
    makers = {"reference": lambda: Decoder(model), "float": lambda: FloatDecoder(model),
        "reference-float-kv": lambda: Decoder(model, kv="float")}
    check(device in makers, f"device {device!r} cannot score, possible are reference and float")
    return makers[device]()


def score_tokens(decoder, tokens, first, window=None):
    """Score of `tokens` in windows of `window` positions (the context unless given). first: token that each window starts
    with (BOS), or None for the last token of the window before."""
    window = min(window or decoder.context, decoder.context)
    check(window >= 2, f"the context holds {window} positions, scoring needs at least 2")
    start  = 0 if first is not None else 1
    check(len(tokens) > start, f"the text has {len(tokens)} tokens, at least {start + 1} are needed")
    logprobs, top1 = [], []
    for at in range(start, len(tokens), window):
        targets = np.asarray(tokens[at:at + window])
        feed    = [first if first is not None else tokens[at - 1], *targets[:-1].tolist()]
        decoder.position = 0
        for i in range(0, len(feed), CHUNK):
            logits = decoder.forward(feed[i:i + CHUNK], "all")
            part   = targets[i:i + CHUNK]
            logprobs.append(log_softmax(logits)[np.arange(len(part)), part])
            top1.append(logits.argmax(-1))
    return Score(list(tokens[start:]), np.concatenate(logprobs), np.concatenate(top1))


def score_text(model, text, device="reference"):
    """Score of `text` by `model` (accel.image.Model) on "reference" or "float"."""
    t = Tokenizer.from_bytes(model.tokenizer)
    return score_tokens(make_decoder(model, device), t.encode(text), t.bos if t.add_bos else None)
