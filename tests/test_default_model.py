# SPDX-License-Identifier: BSD-2-Clause
"""The shipped default model answers held-out prompts (greedy decoding, the 4-bit weights as shipped).

The forward pass here is NumPy in float32 and reads like the paper; it shares no code with the
training script, so it also checks that the file means what GGUF says. The asserted rates are the
measured ones (host/models/README.md) less a small margin.

Usage: `python tests/test_default_model.py [prompt ...]` prints the rates, or answers the prompts.
"""

import itertools
import os
import re
import sys

import gguf
import numpy as np
import pytest

from litellama.host import corpus

MODEL = os.path.join(os.path.dirname(corpus.__file__), "models", "litellama-default.gguf")

# Share of each group of corpus.HELD_OUT that has to be answered right.
RATES = {"capitals": 0.87, "facts": 0.95, "sums": 0.80, "memory": 0.94, "not told": 0.95, "identity": 0.50, "refusals": 0.85,
         "stories": 0.90}


class Model:
    """A Llama in NumPy with a KV cache, read from a GGUF file."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.w = {t.name.removesuffix(".weight"): gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
        self.meta     = {name: field.contents() for name, field in reader.fields.items()}
        self.n_layers = self.meta["llama.block_count"]
        self.n_heads  = self.meta["llama.attention.head_count"]
        self.n_kv     = self.meta["llama.attention.head_count_kv"]
        self.head_dim = self.meta["llama.rope.dimension_count"]
        self.pieces   = self.meta["tokenizer.ggml.tokens"]
        self.scores   = self.meta["tokenizer.ggml.scores"]
        self.ids      = {piece: i for i, piece in enumerate(self.pieces)}
        self.eos      = self.meta["tokenizer.ggml.eos_token_id"]
        self.reset()

    def reset(self):
        """Empties the context."""
        self.position = 0
        self.cache    = [[] for _ in range(self.n_layers)]

    def encode(self, text):
        """SentencePiece BPE: merge the neighbours whose joint piece scores best, bytes for the rest."""
        parts = list("\u2581" + text.replace(" ", "\u2581"))
        while True:
            pairs = [(self.scores[self.ids[x + y]], -i) for i, (x, y) in enumerate(itertools.pairwise(parts)) if x + y in self.ids]
            if not pairs:
                break
            i = -max(pairs)[1]
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        return [t for p in parts for t in ([self.ids[p]] if p in self.ids else [self.ids[f"<0x{b:02X}>"] for b in p.encode()])]

    def decode(self, tokens):
        """Text of tokens; the first space belongs to the tokenizer."""
        parts = [self.pieces[t] for t in tokens]
        data  = b"".join(bytes([int(p[3:5], 16)]) if re.fullmatch("<0x..>", p) else p.replace("\u2581", " ").encode() for p in parts)
        return data.decode(errors="replace").removeprefix(" ")

    def rms_norm(self, x, name):
        """x / rms(x) * gain."""
        return x / np.sqrt(np.mean(x * x) + self.meta["llama.attention.layer_norm_rms_epsilon"]) * self.w[name]

    def rope(self, x):
        """Rotates the pairs (2i, 2i+1) of x (heads, head_dim) by the position."""
        angle = self.position * self.meta["llama.rope.freq_base"] ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        pairs = (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * angle)
        return np.stack((pairs.real, pairs.imag), -1).reshape(x.shape).astype(np.float32)

    def forward(self, token):
        """Logits after one more token."""
        x = self.w["token_embd"][token]
        for i in range(self.n_layers):
            w = {k: self.w[f"blk.{i}.{k}"] for k in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
            h = self.rms_norm(x, f"blk.{i}.attn_norm")
            q = self.rope((w["attn_q"] @ h).reshape(self.n_heads, self.head_dim))
            k = self.rope((w["attn_k"] @ h).reshape(self.n_kv, self.head_dim))
            self.cache[i].append((k, (w["attn_v"] @ h).reshape(self.n_kv, self.head_dim)))
            keys, values = (np.repeat(np.stack(c, 1), self.n_heads // self.n_kv, 0) for c in zip(*self.cache[i]))
            score = np.einsum("hd,htd->ht", q, keys) / np.sqrt(np.float32(self.head_dim))
            score = np.exp(score - score.max(1, keepdims=True))
            y = np.einsum("ht,htd->hd", score / score.sum(1, keepdims=True), values)
            x = x + w["attn_output"] @ y.reshape(-1)
            h = self.rms_norm(x, f"blk.{i}.ffn_norm")
            g = w["ffn_gate"] @ h
            x = x + w["ffn_down"] @ (g / (1 + np.exp(-g)) * (w["ffn_up"] @ h))
        self.position += 1
        return self.w["token_embd"] @ self.rms_norm(x, "output_norm")

    def chat(self, turns, limit=200):
        """The replies to the user's turns, one after the other in one context."""
        self.reset()
        replies, prompt = [], [self.meta["tokenizer.ggml.bos_token_id"]]
        for turn in turns:
            prompt += [self.ids["<|user|>"], *self.encode(turn), self.eos, self.ids["<|assistant|>"]]
            tokens, prompt = self.generate(prompt, limit), [self.eos]
            replies.append(self.decode(tokens))
        return replies

    def generate(self, prompt, limit=200):
        """Greedy tokens after `prompt`, without the end token."""
        for token in prompt:
            logits = self.forward(token)
        tokens = []
        while len(tokens) < limit and (token := int(np.argmax(logits))) != self.eos:
            tokens.append(token)
            logits = self.forward(token)
        return tokens


def misses(model, group):
    """(number of prompts of a group, those answered wrong with their replies)."""
    cases = [case for case in corpus.HELD_OUT if case.group == group]
    wrong = []
    for case in cases:
        replies = model.chat(case.turns)
        if not case.accepts(replies[-1]):
            wrong.append((case.turns, replies))
    return len(cases), wrong


@pytest.fixture(scope="module", name="model")
def _model():
    return Model(MODEL)


@pytest.mark.parametrize("group", RATES)
def test_held_out(model, group):
    """Held-out prompts of one group are answered at the stated rate."""
    n, wrong = misses(model, group)
    assert n >= 8
    assert len(wrong) <= (1 - RATES[group]) * n, wrong


def test_empty_prompt_tells_a_story(model):
    """BOS alone starts a story that ends by itself and keeps its hero."""
    model.reset()
    text = model.decode(model.generate([model.meta["tokenizer.ggml.bos_token_id"]], 300))
    assert model.position < 290 and text.endswith(".")
    hero = re.search(r"named (\w+)", text).group(1)
    assert text.count(hero) >= 3


def test_system_message(model):
    """A system message changes nothing in a plain answer."""
    ids = model.ids
    model.reset()
    prompt = [model.meta["tokenizer.ggml.bos_token_id"], ids["<|system|>"], *model.encode("You are a kind helper."), model.eos,
              ids["<|user|>"], *model.encode("What is the capital of Spain?"), model.eos, ids["<|assistant|>"]]
    assert "Madrid" in model.decode(model.generate(prompt))


def test_file():
    """Shape, size and tokenizer of the file are those that the hardware is sized for."""
    model = Model(MODEL)
    assert os.path.getsize(MODEL) < 1_500_000
    assert model.w["token_embd"].shape == (1024, 128) and model.n_layers == 4 and model.n_kv == 1
    assert model.pieces[model.eos] == "<|end|>" and model.meta["tokenizer.ggml.add_bos_token"]
    assert all(model.meta["tokenizer.ggml.token_type"][model.ids[t]] == gguf.TokenType.CONTROL
               for t in ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"))
    assert model.decode(model.encode("Hello, Zo\u00eb! 12 + 7 = ?")) == "Hello, Zo\u00eb! 12 + 7 = ?"


def test_held_out_prompts_are_not_in_the_training_text():
    """None of the held-out last prompts occurs in a large sample of the training text."""
    held = {case.turns[-1].lower().rstrip(".?!") for case in corpus.HELD_OUT if case.group not in ("memory", "not told")}
    seen = {text.lower().rstrip(".?!") for _, d in zip(range(10000), corpus.documents(2)) for role, text in d if role == corpus.USER}
    assert not held & seen


if __name__ == "__main__":
    shipped = Model(MODEL)
    if sys.argv[1:]:
        for prompt, reply in zip(sys.argv[1:], shipped.chat(sys.argv[1:])):
            print(f"> {prompt}\n{reply}")
    else:
        for name in RATES:
            count, failed = misses(shipped, name)
            print(f"{name}: {count - len(failed)} of {count}")
            for case_turns, case_replies in failed:
                print("   ", case_turns[-1], "->", case_replies[-1])
