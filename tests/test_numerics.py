# SPDX-License-Identifier: BSD-2-Clause
"""The gateware's arithmetic against plain float32 on the same weights: the published bounds, and what each share
costs.

Usage: `python tests/test_numerics.py` prints the figures of accel/README.md.
"""


import numpy as np
import pytest

from litellama.accel import image, numerics
from litellama.accel.numerics import Decoder
from litellama.host import corpus
from litellama.host.devices.float_model import FloatDecoder
from litellama.host.importers import default_path, load_model
from litellama.host.random_model import odd_configs, random_model
from litellama.host.score import log_softmax, make_decoder, score_tokens
from litellama.host.tokenizer import Tokenizer

N_TOKENS = 2000
SEED     = 987654   # Of the corpus; training uses others.


def scored_tokens(model, n=N_TOKENS):
    """`n` tokens of the project's own text as the model was trained on it: dialogues and stories."""
    t, tokens = Tokenizer.from_bytes(model.tokenizer), []
    for messages in corpus.documents(SEED):
        for role, text in messages:
            tokens += ([t.control[f"<|{role}|>"]] if role else []) + t.encode(text) + [t.eos]
        tokens.append(t.bos)
        if len(tokens) >= n:
            return tokens[:n]


def compare(model, tokens):
    """{device: (perplexity over float's less 1, mean |difference of log-probability|, share of same top-1)} and
    float's Score."""
    first  = Tokenizer.from_bytes(model.tokenizer).bos
    scores = {d: score_tokens(make_decoder(model, d), tokens, first) for d in ("float", "reference", "reference-float-kv")}
    f      = scores.pop("float")
    def distance(s):
        return s.perplexity/f.perplexity - 1, float(np.abs(s.logprobs - f.logprobs).mean()), float((s.top1 == f.top1).mean())
    return {d: distance(s) for d, s in scores.items()}, f


def test_published_bounds_on_the_default_model():
    model, _ = load_model(default_path())
    result, _ = compare(model, scored_tokens(model))
    perplexity, _, top1 = result["reference"]
    assert abs(perplexity) <= 0.003 and top1 >= 0.975
    _, difference, top1 = result["reference-float-kv"]
    assert difference <= 0.005 and top1 >= 0.995


@pytest.mark.parametrize("type", ["q8_0", "q4_0", "q4_1"])
@pytest.mark.parametrize("name,config,tied", odd_configs(), ids=[c[0] for c in odd_configs()])
def test_random_models_with_float_kv(name, config, tied, type):
    """All that is not KV costs next to nothing, in any dimensions."""
    model  = random_model(config, type, seed=3, tied=tied)
    tokens = np.random.default_rng(0).integers(3, config.vocab, 100).tolist()
    a, b   = (log_softmax(d.forward(tokens, "all")) for d in (Decoder(model, kv="float"), FloatDecoder(model)))
    assert np.abs(a - b).mean() < 0.005 and np.abs(a - b).max() < 0.05


@pytest.mark.parametrize("name,config,tied", odd_configs(), ids=[c[0] for c in odd_configs()])
def test_random_models_with_int8_kv(name, config, tied):
    model  = random_model(config, "q4_1", "q8_0", seed=4, tied=tied)
    tokens = np.random.default_rng(1).integers(3, config.vocab, 100).tolist()
    a, b   = (log_softmax(d.forward(tokens, "all")) for d in (Decoder(model), FloatDecoder(model)))
    assert np.abs(a - b).mean() < 0.05 and (a.argmax(-1) == b.argmax(-1)).mean() > 0.9


@pytest.mark.parametrize("name,config,tied", odd_configs(), ids=[c[0] for c in odd_configs()])
def test_batches_and_single_steps_give_the_same_bits(name, config, tied):
    model  = random_model(config, "q4_0", seed=5, tied=tied)
    tokens = list(range(10, 50))
    whole  = Decoder(model).forward(tokens, "all")
    single = Decoder(model)
    assert np.array_equal(whole, np.stack([single.forward([t]) for t in tokens]))
    parts  = Decoder(model)
    assert np.array_equal(whole, np.concatenate([parts.forward(tokens[:7], "all"), parts.forward(tokens[7:], "all")]))


def test_causality():
    """What comes later changes nothing before it."""
    _, config, _ = odd_configs()[0]
    model = random_model(config, seed=6)
    a, b  = (Decoder(model).forward([5, 6, 7, 8, last], "all") for last in (9, 200))
    assert np.array_equal(a[:4], b[:4]) and not np.array_equal(a[4], b[4])


# Functions: the errors that their docstrings state.

def test_function_errors():
    x = np.exp(np.linspace(np.log(1e-30), np.log(1e30), 200001)).astype(np.float32)
    assert np.abs(numerics.recip(x).astype(np.float64)*x - 1).max() < 4e-6
    assert np.abs(numerics.rsqrt(x).astype(np.float64)*np.sqrt(x.astype(np.float64)) - 1).max() < 2e-6
    s = np.linspace(-30, 30, 600001).astype(np.float32)
    assert np.abs(numerics.sigmoid(s) - 1/(1 + np.exp(-s.astype(np.float64)))).max() < 3.5e-6
    u = np.arange(0, 20 << 16)
    assert np.abs(numerics.exp2_neg(u) - 65536*2.0**(-u/65536)).max() < 0.6
    assert numerics.recip(np.float32(0)) == 0 and numerics.rsqrt(np.float32(0)) == 0


def test_fp32_has_no_odd_values():
    big, tiny = np.float32(3e38), np.float32(1.2e-38)
    assert numerics.fadd(big, big) == np.finfo(np.float32).max and numerics.fmul(-big, big) == -np.finfo(np.float32).max
    assert numerics.fmul(tiny, np.float32(0.5)) == 0 and not np.signbit(numerics.fmul(-tiny, np.float32(0.5)))
    assert not np.signbit(numerics.fadd(np.float32(-1), np.float32(1)))


def test_fp16_round_trip():
    h = np.arange(0x7C00, dtype=np.uint16)
    assert np.array_equal(numerics.from_fp16(h), h.view(np.float16).astype(np.float32))
    assert np.array_equal(numerics.to_fp16(numerics.from_fp16(h)), h)


@pytest.mark.parametrize("type", [image.Q8_0, image.Q4_0, image.Q4_1])
def test_matvec_does_not_depend_on_order(type):
    """Integer accumulation: blocks of a row in any order give the same bits."""
    from litellama.host.quantise import quantise
    rng = np.random.default_rng(8)
    w   = quantise(rng.standard_normal((16, 256)).astype(np.float32), type)
    x   = numerics.to_bfp(rng.standard_normal((3, 256)).astype(np.float32)*10)
    p   = rng.permutation(8)
    v   = image.QMatrix(type, w.q[:, p], w.d[:, p], None if w.m is None else w.m[:, p])
    assert np.array_equal(numerics.matvec(w, x), numerics.matvec(v, numerics.Bfp(x.mant[:, p], x.exp[:, p], x.emax)))
    exact = x.values() @ w.dequantise().astype(np.float64).T
    assert np.abs(numerics.matvec(w, x) - exact).max() < 1e-5*np.abs(exact).max()


def main():
    """Print the comparison."""
    model, _ = load_model(default_path())
    result, f = compare(model, scored_tokens(model))
    print(f"{N_TOKENS} tokens, float perplexity {f.perplexity:.4f}")
    for device, (perplexity, difference, top1) in result.items():
        print(f"{device}: perplexity {100*perplexity:+.3f} %, mean |difference of log-probability| {difference:.5f}, "
            f"same top-1 {100*top1:.2f} %")


if __name__ == "__main__":
    main()
