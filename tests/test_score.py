# SPDX-License-Identifier: BSD-2-Clause
"""Scores of texts: which token is given what, in windows and chunks, against sums written out here."""

import math

import numpy as np
import pytest

from litellama.accel.config import ModelConfig
from litellama.host.devices.float_model import FloatDecoder
from litellama.host.random_model import random_model
from litellama.host.score import CHUNK, Score, log_softmax, make_decoder, score_text, score_tokens
from litellama.host.tokenizer import Tokenizer

VOCAB = 23


class Scripted:
    """A decoder whose logits at a position tell the token fed there, the one before it and the position."""

    def __init__(self, context):
        self.context, self.position, self.fed = context, 0, []

    @staticmethod
    def logits(position, token, before):
        """Of one position."""
        return np.random.default_rng([position, token, before]).normal(0, 3, VOCAB).astype(np.float32)

    def forward(self, tokens, which):
        """As Decoder.forward."""
        assert which == "all" and 1 <= len(tokens) <= CHUNK and self.position + len(tokens) <= self.context
        if self.position == 0:
            self.fed.append([])
        self.fed[-1] += list(tokens)
        fed, start     = self.fed[-1], self.position
        self.position += len(tokens)
        return np.array([self.logits(p, fed[p], fed[p - 1] if p else 99) for p in range(start, self.position)])


def by_hand(windows):
    """[(log-probability, first choice)] of windows [(tokens fed, tokens asked for)]."""
    out = []
    for fed, asked in windows:
        for p, token in enumerate(asked):
            x = [float(v) for v in Scripted.logits(p, fed[p], fed[p - 1] if p else 99)]
            out.append((x[token] - math.log(sum(math.exp(v) for v in x)), x.index(max(x))))
    return out


TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, VOCAB, 301)]
BOS    = 7


@pytest.mark.parametrize("n, context, window", [(10, 64, None), (64, 64, None), (65, 64, None), (129, 64, None), (300, 300, None),
    (301, 150, None), (40, 64, 7), (40, 16, 99), (5, 64, 2), (CHUNK + 1, 300, None), (CHUNK, 300, None), (2*CHUNK + 3, 300, None)])
def test_windows_that_start_with_bos(n, context, window):
    size, decoder = min(window or context, context), Scripted(context)
    got     = score_tokens(decoder, TOKENS[:n], BOS, window)
    windows = [([BOS, *TOKENS[at:min(at + size, n) - 1]], TOKENS[at:min(at + size, n)]) for at in range(0, n, size)]
    want    = by_hand(windows)
    assert decoder.fed == [fed for fed, _ in windows] and got.token_ids == TOKENS[:n]
    assert np.allclose(got.logprobs, [w[0] for w in want], atol=1e-9) and got.top1.tolist() == [w[1] for w in want]
    assert math.isclose(got.nll, -sum(w[0] for w in want)) and math.isclose(got.perplexity, math.exp(got.nll/n))


@pytest.mark.parametrize("n, context", [(2, 64), (10, 64), (65, 64), (66, 64), (300, 100)])
def test_windows_that_start_with_the_token_before(n, context):
    decoder = Scripted(context)
    got     = score_tokens(decoder, TOKENS[:n], None)
    windows = [(TOKENS[at - 1:min(at + context, n) - 1], TOKENS[at:min(at + context, n)]) for at in range(1, n, context)]
    want    = by_hand(windows)
    assert decoder.fed == [fed for fed, _ in windows] and got.token_ids == TOKENS[1:n] and len(got.logprobs) == n - 1
    assert np.allclose(got.logprobs, [w[0] for w in want], atol=1e-9) and got.top1.tolist() == [w[1] for w in want]


def test_a_token_of_id_0_can_start_a_window():
    assert (d := Scripted(64)) and score_tokens(d, TOKENS[:3], 0) and d.fed == [[0, *TOKENS[:2]]]


@pytest.mark.parametrize("tokens, first, window, message", [(TOKENS, BOS, 1, "the context holds 1 positions, scoring needs at least 2"),
    ([], BOS, None, "the text has 0 tokens, at least 1 are needed"), ([3], None, None, "the text has 1 tokens, at least 2 are needed"),
    ([], None, None, "the text has 0 tokens, at least 2")])
def test_what_cannot_be_scored(tokens, first, window, message):
    with pytest.raises(ValueError, match=message):
        score_tokens(Scripted(64), tokens, first, window)
    assert len(score_tokens(Scripted(64), [3], BOS).logprobs) == 1 == len(score_tokens(Scripted(2), [3, 4], None, 2).logprobs)


def test_log_softmax_of_large_numbers():
    got = log_softmax(np.array([[1000.0, 999.0, -1000.0], [0, 0, 0]], np.float32))
    assert np.allclose(got[0, :2], [-math.log(1 + math.exp(-1)), -1 - math.log(1 + math.exp(-1))]) and got[0, 2] < -1999
    assert np.allclose(got[1], -math.log(3)) and got.dtype == np.float64


def test_perplexity_has_an_end():
    assert Score([1], np.array([-1e4]), np.array([0])).perplexity == math.exp(700)
    assert math.isclose(Score([1, 2], np.array([-math.log(3), -math.log(12)]), np.array([0, 0])).perplexity, 6.0)


def test_devices_that_score():
    with pytest.raises(ValueError, match="device 'sim' cannot score, possible are reference and float"):
        make_decoder(None, "sim")


@pytest.mark.parametrize("add_bos", [True, False])
def test_a_text_starts_as_its_tokenizer_says(add_bos):
    """With BOS, or with its own first token, which is not scored then."""
    model = random_model(ModelConfig(32, 48, 1, 1, 1, 32, 300, 64), seed=2)
    t     = Tokenizer.from_bytes(model.tokenizer)
    t.add_bos       = add_bos
    model.tokenizer = t.to_bytes()
    got, ids = score_text(model, "word3 word5 abc", "float"), t.encode("word3 word5 abc")
    fed  = [t.bos, *ids[:-1]] if add_bos else ids[:-1]
    want = log_softmax(FloatDecoder(model).forward(fed, "all"))[np.arange(len(fed)), ids[-len(fed):]]
    assert got.token_ids == ids[-len(fed):] and np.allclose(got.logprobs, want, atol=1e-5)
