# SPDX-License-Identifier: BSD-2-Clause
"""Quantising: scales of least squared error against brute force over every fp16, what is exact stays exact, no block is worse than
llama.cpp's rounding; types asked for by --type and --head-type, and what is told of them."""

import gguf
import numpy as np
import pytest

from litellama.accel import image
from litellama.accel.config import BLOCK, ModelConfig
from litellama.accel.image import Q4_0, Q4_1, Q8_0, QMatrix
from litellama.accel.numerics import Decoder
from litellama.host import cli, quantise, scales
from litellama.host.devices.float_model import FloatDecoder
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.serial import SerialDevice
from litellama.host.importers import default_path, load_model
from litellama.host.random_model import random_tensors
from litellama.host.sampler import SamplerParams

from firmware_host import Firmware, serve
from test_importers import GGML, write_gguf

HALVES = np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)   # All that are finite and not negative.
LIMITS = {Q4_0: (-8, 7), Q4_1: (0, 15), Q8_0: (-127, 127)}
TYPES  = list(LIMITS)
NAMES  = [image.TYPE_NAMES[t] for t in TYPES]


def values(w):
    """float64 of QMatrix `w` by the definition of its type, (blocks, 32): shares nothing with QMatrix.dequantise."""
    half = lambda bits: bits.reshape(-1, 1).view(np.float16).astype(np.float64)
    q    = w.q.reshape(-1, BLOCK).astype(np.float64) - (8 if w.type == Q4_0 else 0)
    return q*half(w.d) + (half(w.m) if w.type == Q4_1 else 0)


def errors(w, x):
    """Squared error of each block of `w` from `x`, and that `w` is a well-formed matrix."""
    low, high = {Q4_0: (0, 15)}.get(w.type, LIMITS[w.type])
    assert w.q.dtype == (np.int8 if w.type == Q8_0 else np.uint8) and w.q.min() >= low and w.q.max() <= high
    assert w.q.shape == (len(x), x.shape[1]//BLOCK, BLOCK) and w.d.shape == w.q.shape[:2] and w.d.dtype == np.uint16
    return np.square(values(w) - x.reshape(-1, BLOCK).astype(np.float64)).sum(-1)


def theirs(x, type):
    """float64 of what the gguf package's rounding, llama.cpp's, makes of `x`, (blocks, 32)."""
    kind = gguf.GGMLQuantizationType[image.TYPE_NAMES[type].upper()]
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(gguf.quants.quantize(x, kind), kind).reshape(-1, BLOCK).astype(np.float64)


def weights(kind, rows=40, seed=1):
    """float32 weights of some distribution, (rows, 64)."""
    rng = np.random.default_rng(seed)
    x   = dict(normal=lambda: rng.standard_normal((rows, 64)), long_tails=lambda: rng.standard_t(3, (rows, 64)),
        off_centre=lambda: rng.standard_normal((rows, 64)) + 3, one_sided=lambda: np.abs(rng.standard_normal((rows, 64))),
        q8_0=lambda: theirs(rng.standard_normal((rows, 64)).astype(np.float32), Q8_0).reshape(rows, 64))[kind]()
    return (x*np.float32(0.05)).astype(np.float32)


KINDS = ("normal", "long_tails", "off_centre", "one_sided", "q8_0")


def least_d(x, low, high):
    """Least squared error of one block for every fp16 scale of either sign that could make sense."""
    top = np.abs(x).max()
    d   = HALVES[(HALVES >= top/(1.3*high)) & (HALVES <= top/(0.6*high))]
    d   = np.concatenate([d, -d])[:, None]
    return np.square(np.clip(np.rint(x/d), low, high)*d - x).sum(-1).min()


def least_d_m(x):
    """Least squared error of one block over a fine grid of scales and minima, each followed by exact least squares (Cramer)."""
    best = np.inf
    for d in (x.max() - x.min())/np.arange(9, 18, 0.05):
        m  = (x.min() + d*np.arange(-1.5, 3, 0.1))[:, None]
        q  = np.clip(np.rint((x - m)/d), 0, 15)
        n, s, p, t, c = len(x), q.sum(-1), (q*q).sum(-1), x.sum(), (q*x).sum(-1)
        a  = (n*c - s*t)/(n*p - s*s)
        best = min(best, np.square(a[:, None]*q + ((p*t - s*c)/(n*p - s*s))[:, None] - x).sum(-1).min())
    return best


# The search ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("type,worse,single", [(Q4_0, 1.001, 1.1), (Q4_1, 1.02, 1.25), (Q8_0, 1.12, 2)], ids=NAMES)
def test_error_is_near_the_least(type, worse, single):
    """Over all blocks and in each, of what brute force finds; plain rounding is far from it."""
    x     = np.concatenate([weights(kind, 10) for kind in KINDS[:3]])
    got   = errors(quantise.quantise(x, type), x)
    plain = np.square(theirs(x, type) - x.reshape(-1, BLOCK)).sum(-1)
    least = np.array([least_d_m(b) if type == Q4_1 else least_d(b, *LIMITS[type]) for b in x.reshape(-1, BLOCK).astype(np.float64)])
    assert got.sum() <= worse*least.sum() and (got <= single*least).all()
    assert plain.sum() > 1.03*got.sum()


@pytest.mark.parametrize("type", TYPES, ids=NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_block_is_worse_than_llama_cpps(kind, type):
    """At any magnitude that fp16 scales reach, down to where everything rounds to 0."""
    for magnitude in (1, 1e4, 1e-3, 3e-5, 1e-6, 1e-7, 1e-9, 1e-30, 1e-41):
        x     = (weights(kind, 12).astype(np.float64)*magnitude).astype(np.float32)
        plain = np.square(theirs(x, type) - x.reshape(-1, BLOCK)).sum(-1)
        got   = errors(quantise.quantise(x, type), x)
        assert (got <= plain*(1 + 1e-12)).all(), magnitude
        if type == Q4_0 and magnitude > 1e-6 and kind != "q8_0":
            assert got.sum() < 0.97*plain.sum(), magnitude


@pytest.mark.parametrize("type", TYPES, ids=NAMES)
def test_plain_scales_stay_where_the_search_is_worse(type, monkeypatch):
    """Block by block: here it is made to miss in every second one."""
    x, search = weights("normal", 6), quantise.best_scales
    def misses(b, type):
        d, m = search(b, type)
        d[::2] *= np.float16(1.5)
        return d, m
    good, plain = quantise.quantise(x, type), quantise.plain(x, type)
    monkeypatch.setattr(quantise, "best_scales", misses)
    got = quantise.quantise(x, type)
    for name in ("q", "d") + (("m",) if type == Q4_1 else ()):
        assert np.array_equal(getattr(got, name)[:, 0], getattr(plain, name)[:, 0])
        assert np.array_equal(getattr(got, name)[:, 1], getattr(good, name)[:, 1])


@pytest.mark.parametrize("type", TYPES, ids=NAMES)
def test_small_and_special_blocks(type):
    """Zeros are zeros (not -0's scale), a single weight of the smallest fp16 is kept, constants are near, the largest come out finite."""
    x         = np.zeros((7, 64), np.float32)
    x[1, 5]   = 2.0**-24
    x[2]      = -2.0**-24
    x[3, ::2] = 1e-45
    x[4]      = 7.53
    x[5]      = 65504.0 if type == Q4_1 else 7*65504.0
    x[6, 9]   = -65504.0*(1 if type == Q4_1 else 8)
    w   = quantise.quantise(x, type)
    got = values(w).reshape(x.shape)
    errors(w, x)
    assert not got[0].any() and np.array_equal(got[1:3], x[1:3]) and not got[3].any()
    assert np.abs(got[4] - x[4]).max() <= 7.53*2**-11
    assert np.array_equal(got[5], x[5]) and np.array_equal(got[6], x[6])


def test_it_is_deterministic_and_does_not_look_at_other_blocks():
    x = np.concatenate([weights(kind, 8) for kind in KINDS])
    for type in TYPES:
        whole = quantise.quantise(x, type)
        alone = [quantise.quantise(x[i:i + 1], type) for i in range(len(x))]
        for name in ("q", "d") + (("m",) if type == Q4_1 else ()):
            assert np.array_equal(getattr(whole, name), np.concatenate([getattr(w, name) for w in alone]))


@pytest.mark.parametrize("type", TYPES, ids=NAMES)
def test_many_blocks_are_done_in_parts(type, monkeypatch):
    """More than are looked at together, in a matrix and in the search, with a rest."""
    x     = weights("normal", 11)
    whole = quantise.quantise(x, type)
    monkeypatch.setattr(quantise, "PART", 5*64)
    monkeypatch.setattr(scales, "N_BLOCKS", 3)
    parts = quantise.quantise(x, type)
    assert all(np.array_equal(getattr(whole, n), getattr(parts, n)) for n in ("q", "d")) and parts.q.shape == (11, 2, 32)


# What is exact ------------------------------------------------------------------------------------

def representable(type, rng, n=300):
    """float32 (n, 32) that are values of `type`: few and many of its steps, integers with common factors, small and large fp16s."""
    low, high = LIMITS[type]
    d = (rng.standard_normal(n)*10.0**rng.uniform(-4, 1, n)).astype(np.float16)
    d = np.where(d == 0, np.float16(2**-24), np.abs(d) if type != Q4_0 else d)
    q = rng.integers(low, high + 1, (n, BLOCK))//rng.integers(1, 9, (n, 1))
    q[::7, 3:] = 0
    m = (rng.standard_normal(n)*3).astype(np.float16)*d if type == Q4_1 else np.zeros(n, np.float16)
    return q.astype(np.float32)*d[:, None].astype(np.float32) + m[:, None].astype(np.float32)


@pytest.mark.parametrize("type", TYPES, ids=NAMES)
def test_exact_values_come_back(type):
    """Whatever part of the steps they use: llama.cpp's rounding, which takes the scale from the largest, misses many."""
    x = representable(type, np.random.default_rng(2))
    assert np.array_equal(quantise.quantise(x, type).dequantise().reshape(x.shape), x)
    assert (theirs(x, type) != x).any(-1).mean() > 0.2


@pytest.mark.parametrize("source", TYPES, ids=NAMES)
@pytest.mark.parametrize("type", TYPES, ids=NAMES)
def test_requantise_tells_its_error(source, type):
    w      = quantise.quantise(weights("normal"), source)
    got, e = quantise.requantise(w, type)
    x      = values(w)
    wrong  = np.square(values(got) - x).sum()
    assert got.type == type and e.relative == pytest.approx((wrong/np.square(x).sum())**0.5, rel=1e-4, abs=1e-9)
    assert (e.relative == 0) == (source == type or source == Q4_0)
    assert got is w or source != type


@pytest.mark.parametrize("shape,match", [((0, 64), "no weights"), ((3, 0), "no weights"), ((2, 48), "multiples of 32")])
def test_wrong_shapes(shape, match):
    with pytest.raises(ValueError, match=match):
        quantise.quantise(np.ones(shape, np.float32), Q4_0)


def test_q4_1_steps_of_a_constant_block():
    """All weights d*q + m with one q: an fp16, and another for the rest."""
    x = np.full((1, 32), np.float32(1.0) + np.float32(2.0**-14)*7, np.float32)
    assert np.array_equal(quantise.quantise(x, Q4_1).dequantise(), x)


# Types asked for ----------------------------------------------------------------------------------

CONFIG = ModelConfig(256, 256, 1, 8, 2, 32, 300, 64)


def source(path, layers, head, tied=True, config=CONFIG):
    """A GGUF file whose layers and embedding (and classifier) have these GGML types."""
    return write_gguf(path, config, lambda kind, layer: head if kind in ("embedding", "classifier") else layers, tied)


def types_of(model):
    """(types of the layers' matrices, of the classifier, of the embedding), by name."""
    layers = {image.TYPE_NAMES[getattr(l, k).type] for l in model.layers for k in ("wk", "wv", "wq", "wo", "w13", "w2")}
    return (*layers, image.TYPE_NAMES[model.classifier.type], image.TYPE_NAMES[model.embedding.type])


@pytest.mark.parametrize("layers,head,type,head_type,want,tied", [
    ("Q4_1", "Q8_0", None, None, ("q4_1", "q8_0", "q8_0"), True),
    ("Q4_1", "Q8_0", "keep", "keep", ("q4_1", "q8_0", "q8_0"), True),
    ("Q4_1", "Q8_0", "q4_0", None, ("q4_0", "q4_0", "q4_0"), True),
    ("Q4_1", "Q8_0", "q4_0", "keep", ("q4_0", "q8_0", "q8_0"), True),
    ("Q4_1", "Q8_0", "q4_0", "q8_0", ("q4_0", "q8_0", "q8_0"), True),
    ("Q4_1", "Q8_0", None, "q4_1", ("q4_1", "q4_1", "q8_0"), False),
    ("Q4_1", "Q8_0", "keep", "q4_0", ("q4_1", "q4_0", "q8_0"), False),
    ("Q4_1", "Q8_0", "q4_0", "q4_1", ("q4_0", "q4_1", "q8_0"), False),
    ("F32", "F16", "q4_1", "q4_0", ("q4_1", "q4_0", "q8_0"), False),
    ("Q6_K", "Q4_K", None, "q8_0", ("q8_0", "q8_0", "q4_1"), False),
])
def test_types(tmp_path, layers, head, type, head_type, want, tied):
    """Of layers, classifier and embedding; a tied model whose head differs is stored untied, the embedding as the file has it."""
    path         = source(tmp_path/"m.gguf", layers, head)
    model, notes = load_model(path, type=type, head=head_type)
    plain, _     = load_model(path)
    assert types_of(model) == want and model.tied == tied
    assert sum("stored apart" in n for n in notes) == (not tied)
    if not tied or head_type:
        assert np.array_equal(model.embedding.dequantise(), plain.embedding.dequantise())
    if not tied and head in ("Q8_0", "F16"):   # From the file's values, not from what the embedding became.
        name = GGML[head]
        x    = gguf.quants.dequantize(gguf.quants.quantize(random_tensors(CONFIG, 0)("embedding", 0), name), name)
        made = quantise.quantise(x, model.classifier.type)
        assert np.array_equal(model.classifier.q, made.q) and np.array_equal(model.classifier.d, made.d)


def test_head_type_of_an_untied_model(tmp_path):
    model, notes = load_model(source(tmp_path/"m.gguf", "Q4_1", "Q8_0", tied=False), type="q4_0", head="q4_1")
    assert types_of(model) == ("q4_0", "q4_1", "q8_0") and not model.tied and not any("stored apart" in n for n in notes)
    x = random_tensors(CONFIG, 0)("classifier", 0)
    assert np.square(model.classifier.dequantise() - x).mean() < 0.01*np.square(x).mean()


def test_images_with_a_head_apart(tmp_path, capsys):
    """The image reads back, the twin and float agree on it as on the model, the firmware runs it, inspect tells its parts."""
    path     = source(tmp_path/"m.gguf", "Q4_1", "Q8_0", config=ModelConfig(64, 96, 2, 2, 1, 32, 300, 64))
    assert cli.main(["convert", path, "--head-type", "q4_0", "-o", str(tmp_path/"m.img")]) == 0
    model, _ = load_model(str(tmp_path/"m.img"))
    assert types_of(model) == ("q4_1", "q4_0", "q8_0") and not model.tied
    twin, plain = Decoder(model).forward([5, 9, 77], "all"), FloatDecoder(model).forward([5, 9, 77], "all")
    assert np.abs(twin - plain).max() < 0.05*np.abs(plain).max()
    reference = ReferenceDevice()
    reference.load(model)
    with serve(Firmware()) as url, SerialDevice(url) as device:   # The firmware checks what is sent, whole.
        device.load(model)
        assert device.scan(64) and device.hello.image_crc
    assert cli.main(["inspect", str(tmp_path/"m.img")]) == 0
    head = 32 + 600//16*9*32 + 9*32   # 600 blocks in groups of 16, the last one begun.
    said = next(l for l in capsys.readouterr().out.splitlines() if l.startswith("a token "))
    layers = 2*((64*64*2 + 2*32*64 + 3*64*96)//32*20 + 6*32 + 2*(64*4 + 32)) + 64*4 + 32
    assert f"layers {layers} (q4_1), head {head} (q4_0), embedding's row 544 (q8_0), RoPE row 128" in said
    assert said.split()[2] == str(layers + head + 544 + 128)
    with pytest.raises(ValueError, match="keeps its types"):
        load_model(str(tmp_path/"m.img"), head="q8_0")
    assert load_model(str(tmp_path/"m.img"), type="keep", head="keep")[0].classifier.type == Q4_0


def test_wrong_names():
    for options in (dict(type="q5_0"), dict(head="q5_0"), dict(type="q8_0", head="Q8_0")):
        with pytest.raises(ValueError, match="must be keep, q8_0"):
            load_model("none", **options)


# What is told -------------------------------------------------------------------------------------

@pytest.mark.parametrize("layers,head,options,pairs", [
    ("Q4_1", "Q8_0", dict(type="q4_0"), ["7 matrices q4_1 to q4_0", "1 matrix q8_0 to q4_0"]),
    ("Q4_1", "Q8_0", dict(head="q4_1"), ["1 matrix q8_0 to q4_1"]),
    ("Q6_K", "Q6_K", dict(type="q4_1"), ["8 matrices q6_k to q4_1"]),
    ("Q4_K", "Q4_K", dict(type="q4_0"), ["8 matrices q4_k to q4_0"]),       # As many bits, not as many values.
    ("Q8_0", "Q8_0", dict(type="q8_0"), []), ("Q4_0", "Q4_0", dict(type="q8_0"), []), ("Q4_1", "Q8_0", dict(), []),
    ("F32", "F32", dict(type="q4_0"), []), ("Q5_0", "Q5_0", dict(), []), ("Q6_K", "Q6_K", dict(), []),
])
def test_a_smaller_type_than_the_source_has_is_warned_of(tmp_path, capsys, layers, head, options, pairs):
    """In one line with the error made, by convert too; a float source or a type with room for all of it is none of it."""
    path         = source(tmp_path/"m.gguf", layers, head)
    model, notes = load_model(path, **options)
    warnings     = [n for n in notes if n.startswith("warning: ")]
    assert len(warnings) == (len(pairs) > 0) and all(p in warnings[0] for p in pairs)
    arguments = [a for k, v in options.items() for a in (dict(type="--type", head="--head-type")[k], v)]
    assert cli.main(["convert", path, *arguments, "-o", str(tmp_path/"m.img")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [l for l in lines if "warning" in l] == warnings and len(lines) <= 4
    if pairs:
        assert warnings[0].count("error ") == len(pairs) and 1 < float(warnings[0].split("error ")[1].split(" %")[0]) < 15
    assert not any("matri" in n for n in notes) or warnings or layers in ("F32", "Q4_0", "Q5_0", "Q6_K")


def test_the_error_told_is_the_error_made(tmp_path):
    """The worst of the matrices, by hand."""
    path  = source(tmp_path/"m.gguf", "Q8_0", "Q8_0")
    model, notes = load_model(path, type="q4_0")
    worst = 0
    for i, l in enumerate(model.layers):
        for kind, w in (("wq", l.wq), ("wk", l.wk), ("wv", l.wv), ("wo", l.wo), ("w2", l.w2)):
            x     = theirs(random_tensors(CONFIG, 0)(kind, i), Q8_0)
            worst = max(worst, (np.square(values(w) - x).sum()/np.square(x).sum())**0.5)
    told = float(notes[-1].split("error ")[1].split(" %")[0])/100
    assert worst - 1e-4 <= told < worst*1.1


def test_heads_that_are_padded_lose_nothing_where_blocks_divide(tmp_path):
    """Heads of 8 become heads of 32: each new block of wo has the weights of one old one, and is exact."""
    config = ModelConfig(64, 96, 1, 8, 2, 8, 300, 64)
    for type in NAMES:
        model, notes = load_model(source(tmp_path/"m.gguf", type.upper(), "Q8_0", config=config))
        x   = theirs(random_tensors(config, 0)("wo", 0), quantise.TYPES[type]).reshape(64, 8, 8)
        got = model.layers[0].wo.dequantise().reshape(64, 8, 32)
        if type != "q4_1":   # There zeros are to be exact, too.
            assert np.array_equal(got[..., :8], x) and not got[..., 8:].any()
        assert np.square(got[..., :8] - x).sum() < 1e-2*np.square(x).sum() and sum("heads of 8" in n for n in notes) == 1


def test_default_model_is_as_shipped():
    """Nothing is chosen anew: every block of the image is the file's, bit for bit."""
    reader   = {t.name: t for t in gguf.GGUFReader(default_path()).tensors}
    model, _ = load_model(default_path())
    for i, l in enumerate(model.layers):
        rows = [(l.wq, "attn_q"), (l.wk, "attn_k"), (l.wv, "attn_v"), (l.wo, "attn_output"), (l.w2, "ffn_down")]
        rows += [(QMatrix(Q4_0, l.w13.q[at::2], l.w13.d[at::2]), name) for at, name in ((0, "ffn_gate"), (1, "ffn_up"))]
        for w, name in [(w, f"blk.{i}.{name}") for w, name in rows] + [(model.classifier, "token_embd")]:
            raw = reader[name + ".weight"].data.reshape(w.rows, w.blocks, 18)
            assert np.array_equal(w.d, raw[..., :2].copy().view("<u2")[..., 0])
            assert np.array_equal(w.q, np.concatenate([raw[..., 2:] & 15, raw[..., 2:] >> 4], -1))
