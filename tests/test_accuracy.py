# SPDX-License-Identifier: BSD-2-Clause
"""What the gateware's numbers cost on SmolLM2-135M-Instruct, against plain float32 on the same weights: over data/alice.txt,
with all of it and with keys and values in float, beside an engine that is not ours; and whether 20 prompts begin alike.

Usage: `python tests/test_accuracy.py [--gguf FILE]` fetches what is missing, prints the tables of README.md ("Models") and
accel/README.md ("Precision"), and ends with status 1 if a published bar is missed. It takes 10 minutes on one core.
The suite scores a few hundred tokens, and these only where the model was fetched before.

The engine is llama.cpp as PyPI's xllamacpp builds it, through its server, KV cache fp16 (its default), one thread. Token by
token: the prompt is the text so far as token ids (its KV is kept from call to call), the next token of the text is forced by
a logit bias, and the answer states that token's log-probability and the first choice, both from before the bias.
"""

import argparse
from dataclasses import dataclass
import hashlib
from pathlib import Path
import sys

import numpy as np
import pytest

from litellama.accel import image
from litellama.accel.config import BLOCK, CoreConfig, check
from litellama.host import fetch
from litellama.host.importers import default_path, load_model
from litellama.host.score import Score, make_decoder, score_tokens
from litellama.host.template import ChatTemplate
from litellama.host.tokenizer import Tokenizer

from test_numerics import compare, scored_tokens

TEXT     = Path(__file__).parent/"data"/"alice.txt"
SOURCE   = fetch.SOURCES["smollm2"]
N_TOKENS = 4000   # At least.
N_QUICK  = 257    # Of these, in the suite: two chunks.

# Largest |perplexity over float's less 1| and smallest share of same top-1, over the whole text.
BARS = {"reference": (0.003, 0.975), "reference-float-kv": (0.0005, 0.997)}

MARGIN  = 0.3     # Between float's first and second logit: above it the first must be the reference's too.
N_FIRST = 8       # Tokens of an answer that are compared.
PROMPTS = """\
What is the capital of Japan?
Count from 1 to 10
What is the capital of France?
Who wrote Romeo and Juliet?
What is 12 plus 30?
Name three primary colors.
Why is the sky blue?
How many days are there in a week?
Write a short poem about the sea.
What is the largest planet in the solar system?
Translate "good morning" to Spanish.
Give me a recipe for pancakes.
What does a carpenter do?
List the four seasons.
How do I boil an egg?
Tell me a story about a dog and a cat.
What is the opposite of hot?
Explain what a computer is to a child.
At what temperature does water freeze?
What should I pack for a day at the beach?""".splitlines()


# Distances ----------------------------------------------------------------------------------------

def distance(score, base):
    """(perplexity over that of `base` less 1, share of same top-1, mean |difference of log-probability|)."""
    assert score.token_ids == base.token_ids
    return (score.perplexity/base.perplexity - 1, float((score.top1 == base.top1).mean()),
        float(np.abs(score.logprobs - base.logprobs).mean()))


@dataclass
class Beginning:
    """What two greedy answers to a prompt share, up to N_FIRST tokens or a stop; `margin`: float's where they part, or None."""
    tokens: list
    margin: float = None


def compare_beginnings(base, other, prompt, stop):
    """Beginning of the answers of decoders `base` (float) and `other` to the tokens `prompt`."""
    for d in (base, other):
        d.position = 0
    feed, tokens = list(prompt), []
    while len(tokens) < N_FIRST and not (tokens and tokens[-1] in stop):
        a, b   = base.forward(feed), other.forward(feed)
        choice = int(a.argmax())
        if int(b.argmax()) != choice:
            second, first = np.sort(a)[-2:]
            return Beginning(tokens, float(first - second))
        tokens.append(choice)
        feed = [choice]
    return Beginning(tokens)


# The other engine ---------------------------------------------------------------------------------

class Engine:
    """xllamacpp over the GGUF file `path`."""

    def __init__(self, path, context):
        import xllamacpp
        p = xllamacpp.CommonParams()
        p.model.path, p.n_ctx, p.n_parallel, p.port = str(path), context, 1, 0
        p.verbosity, p.warmup, p.cpuparams.n_threads = -1, False, 1
        self._server = xllamacpp.Server(p)

    def score(self, tokens):
        """Score of all `tokens` but the first, in one window."""
        logprobs, top1 = [], []
        for i in range(1, len(tokens)):
            answer = self._server.handle_completions(dict(prompt=tokens[:i], n_predict=1, n_probs=1, temperature=0.0,
                cache_prompt=True, logit_bias=[[tokens[i], 1e4]]))
            said = answer["choices"][0]["logprobs"]["content"][0]
            assert said["id"] == tokens[i]
            logprobs.append(said["logprob"])
            top1.append(said["top_logprobs"][0]["id"])
        return Score(list(tokens[1:]), np.array(logprobs), np.array(top1))


# The suite ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def smollm2():
    """The model, where it was fetched before."""
    path = fetch.image_path(SOURCE)
    if not path.exists():
        pytest.skip("SmolLM2 is not in the cache: `litellama fetch smollm2`")
    return load_model(str(path))[0]


def test_text():
    """Plain UTF-8 in whole paragraphs, one a line; the prompts are 20."""
    data = TEXT.read_bytes()
    assert b"\r" not in data and data.endswith(b"\n") and not data.endswith(b"\n\n")
    assert all(p == p.strip() and "\n" not in p for p in data.decode("utf-8")[:-1].split("\n\n"))
    assert len(set(PROMPTS)) == 20


def test_text_is_long_enough(smollm2):
    assert len(Tokenizer.from_bytes(smollm2.tokenizer).encode(TEXT.read_text("utf-8"))) > N_TOKENS


def test_first_tokens(smollm2):
    """The beginning of the text keeps to the published bars, with room for its being short."""
    tokens = Tokenizer.from_bytes(smollm2.tokenizer).encode(TEXT.read_text("utf-8"))[:N_QUICK]
    base, score = (score_tokens(make_decoder(smollm2, d), tokens, None) for d in ("float", "reference"))
    perplexity, top1, difference = distance(score, base)
    assert abs(perplexity) < 0.01 and top1 > 0.95 and difference < 0.04


class Fixed:
    """Decoder whose logits are given: one row per step."""

    def __init__(self, *rows):
        self.rows, self.position = rows, 0

    def forward(self, tokens):
        """The row of this step."""
        self.position += 1
        return np.array(self.rows[self.position - 1], np.float32)


@pytest.mark.parametrize("other,expected", [
    (([0, 1, 2], [0, 3, 1], [5, 0, 0]), Beginning([2, 1, 0])),      # Alike up to the stop.
    (([0, 1, 2], [2, 1, 1]),            Beginning([2], 0.25)),      # Part at the second token.
    (([9, 1, 2],),                      Beginning([], 1.0)),
])
def test_beginnings(other, expected):
    base = Fixed([0, 1, 2], [1.75, 2, 1], [3, 0, 0])
    assert compare_beginnings(base, Fixed(*other), [7, 8], stop={0}) == expected


def test_readme_has_the_sizes_of_the_default_model():
    model, _ = load_model(default_path())
    header   = image.read_header(image.write_image(model))
    readme   = (TEXT.parents[2]/"README.md").read_text("utf-8")
    assert f"| {header.image_bytes:,} | {sum(token_bytes(model, header)):,} |" in readme


# The command --------------------------------------------------------------------------------------

POSITIONS = 512   # Whose keys and values a token reads, in the tables.


def token_bytes(model, header):
    """(stream, groups of the embedding's row, RoPE row, keys and values with their scales): bytes read from DRAM for a token
    with POSITIONS positions, itself included. Keys and values that fit on chip cost none."""
    c, core = model.config, CoreConfig()
    groups  = max((row*c.dim_blocks % 16 + c.dim_blocks + 15)//16 for row in range(16))
    kv      = 0 if core.kv_on_chip(c) else core.kv_dram_bytes(c, POSITIONS)
    return header.stream_bytes, groups*image.GROUP_BYTES[header.embed_type], 4*BLOCK*c.head_blocks, kv


def models_table(models):
    """Lines of README.md's table. models: {name: (Model, float's perplexity, the reference's)}."""
    lines = ["| model | image | bytes a token | perplexity float | reference |"]
    for name, (model, base, perplexity) in models.items():
        header = image.read_header(image.write_image(model))
        parts  = token_bytes(model, header)
        lines.append(f"| {name} | {header.image_bytes:,} | {sum(parts):,} ({' + '.join(f'{n:,}' for n in parts)}) | "
            f"{base:.4f} | {perplexity:.4f} ({100*(perplexity/base - 1):+.3f} %) |")
    return lines


def measure_text(model, gguf):
    """(lines of the table, what misses its bar, {device: Score}) over the whole text."""
    tokens = Tokenizer.from_bytes(model.tokenizer).encode(TEXT.read_text("utf-8"))
    lines, missed, scores, far = ["| | perplexity | over float | mean abs. difference | same top-1 |"], [], {}, {}
    for device in ("float", *BARS, "xllamacpp"):
        if device == "xllamacpp":
            scores[device] = Engine(gguf, len(tokens) + 1).score(tokens)
        else:
            scores[device] = score_tokens(make_decoder(model, device), tokens, None)
        perplexity, top1, difference = far[device] = distance(scores[device], scores["float"])
        lines.append(f"| {device} | {scores[device].perplexity:.4f} | {100*perplexity:+.4f} % | {difference:.5f} | "
            f"{100*top1:.2f} % |")
        print(lines[-1], file=sys.stderr, flush=True)
        if device in BARS and not (abs(perplexity) <= BARS[device][0] and top1 >= BARS[device][1]):
            missed.append(lines[-1])
    if not (far["reference"][1] > far["xllamacpp"][1] and far["reference"][2] < far["xllamacpp"][2]):
        missed.append("reference: not closer to float than xllamacpp")
    return [f"{len(tokens) - 1} tokens scored", *lines], missed, scores


def measure_prompts(model):
    """(lines, what misses its bar) of the prompts' beginnings."""
    t, lines, missed = Tokenizer.from_bytes(model.tokenizer), [], []
    template    = ChatTemplate(model.template, t)
    base, other = make_decoder(model, "float"), make_decoder(model, "reference")
    for prompt in PROMPTS:
        fed = template.encode(template.render([dict(role="user", content=prompt)]))
        b   = compare_beginnings(base, other, fed, t.stop)
        end = "" if b.margin is None else f", then float's margin is {b.margin:.3f}"
        lines.append(f"{prompt}  {len(b.tokens)} alike{end}")
        if b.margin is not None and b.margin > MARGIN:
            missed.append(lines[-1])
    return lines, missed


def main():
    """Measure, print, compare with the bars."""
    parser = argparse.ArgumentParser(description="The published precision, on SmolLM2-135M-Instruct.")
    parser.add_argument("--gguf", metavar="FILE", help="the model's GGUF file, for xllamacpp (default: the fetched one)")
    gguf     = parser.parse_args().gguf
    model, _ = load_model(fetch.fetch_again("smollm2"))
    gguf     = gguf or fetch.fetch_file("smollm2")
    with open(gguf, "rb") as f:
        check(hashlib.file_digest(f, "sha256").hexdigest() == SOURCE.sha256, f"{gguf} is not {SOURCE.about}")
    lines, missed, scores = measure_text(model, gguf)
    said, wrong   = measure_prompts(model)
    default, _    = load_model(default_path())
    result, score = compare(default, scored_tokens(default))
    lines += ["", *said, "", *models_table({
        "default": (default, score.perplexity, score.perplexity*(1 + result["reference"][0])),
        "SmolLM2": (model, scores["float"].perplexity, scores["reference"].perplexity)})]
    print("\n".join(lines + [f"missed: {m}" for m in missed + wrong]))
    return 1 if missed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
