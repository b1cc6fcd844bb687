# SPDX-License-Identifier: BSD-2-Clause
"""GGUF: every tensor type and every RoPE scaling that is understood gives the model that the file describes."""

import dataclasses
import struct

import gguf
import numpy as np
import pytest

from litellama.accel import image
from litellama.accel.config import ModelConfig
from litellama.host import quantise
from litellama.host.devices.float_model import FloatDecoder
from litellama.host.importers import load_model
from litellama.host.importers.rope import Scaling, scaled_table
from litellama.host.random_model import random_tensors

from test_importers import GGML, SMALL, plain_forward, raw_tensor, refused, write_gguf


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_gguf(tmp_path, type, tied):
    path         = write_gguf(tmp_path/"m.gguf", SMALL, lambda kind, layer: type, tied, seed=4)
    model, notes = load_model(path)
    assert model.tied == tied and model.config == dataclasses.replace(SMALL, eps=float(np.float32(SMALL.eps)))   # float32 there.
    tensor, t = random_tensors(SMALL, 4), GGML[type]
    for kind in ("wq", "wk", "wv", "wo", "w2"):
        w, source = getattr(model.layers[1], kind), gguf.quants.dequantize(gguf.quants.quantize(tensor(kind, 1), t), t)
        if type.startswith("Q"):
            assert np.array_equal(w.dequantise(), source) and image.TYPE_NAMES[w.type] == type.lower() and not notes
        else:
            assert np.array_equal(w.d, quantise.quantise(source, image.Q8_0).d) and w.type == image.Q8_0
    w13 = model.layers[0].w13.dequantise()
    for at, kind in enumerate(("w1", "w3")):
        source = gguf.quants.dequantize(gguf.quants.quantize(tensor(kind, 0), t), t)
        assert np.abs(w13[at::2] - source).max() < 0.003*np.abs(source).max() + (0 if type.startswith("Q") else 0.01)
    assert np.array_equal(model.norm_final, tensor("norm_final", 0))


def test_gguf_mixed_types_and_odd_heads(tmp_path):
    config = ModelConfig(96, 160, 2, 2, 1, 48, 300, 64)
    types  = dict(wq="Q4_0", wk="Q8_0", wv="F16", wo="Q4_1", w1="Q4_0", w3="Q8_0", w2="Q4_1", embedding="Q8_0")
    model, notes = load_model(write_gguf(tmp_path/"m.gguf", config, lambda kind, layer: types[kind]))
    got = {k: image.TYPE_NAMES[getattr(model.layers[0], k).type] for k in ("wq", "wk", "wv", "wo", "w13", "w2")}
    assert got == dict(wq="q4_0", wk="q8_0", wv="q8_0", wo="q4_1", w13="q8_0", w2="q4_1")
    assert sum("heads of 48 were padded" in n and "error" in n for n in notes) == 2
    assert sum("w1 made q8_0 from q4_0" in n for n in notes) == 2
    tokens = list(range(3, 30))
    tensor = random_tensors(config, 0)
    cooked = {}
    def lossy(kind, layer):
        x = tensor(kind, layer)
        t = GGML[types.get(kind, "F32")]
        return cooked.setdefault((kind, layer), x if x.ndim == 1 else gguf.quants.dequantize(gguf.quants.quantize(x, t), t))
    assert np.abs(FloatDecoder(model).forward(tokens, "all") - plain_forward(config, lossy, tokens)).mean() < 0.15


def test_gguf_type_asked_for(tmp_path):
    path = write_gguf(tmp_path/"m.gguf", SMALL, lambda kind, layer: "Q8_0")
    for name in ("q4_0", "q4_1"):
        model, notes = load_model(path, type=name)
        assert {image.TYPE_NAMES[w.type] for w in (model.layers[0].wq, model.layers[1].w13, model.classifier)} == {name}
        assert any("q8_0 to " + name in n and "error" in n for n in notes)
    assert load_model(path, type="keep")[0].classifier.type == image.Q8_0


@pytest.mark.parametrize("type,stored,worst", [("Q5_0", "q8_0", 0), ("Q5_1", "q8_0", 0.006), ("Q4_K", "q4_1", 0.0005),
    ("Q5_K", "q8_0", 0.006), ("Q6_K", "q8_0", 0.006)])
def test_gguf_other_block_types(tmp_path, type, stored, worst):
    """What is not stored becomes the nearest stored type; the note has the error that was made."""
    config = ModelConfig(256, 512, 1, 8, 2, 32, 300, 64)
    path   = write_gguf(tmp_path/"m.gguf", config, lambda kind, layer: type)
    model, notes = load_model(path)
    assert len(notes) == 1 and f"8 matrices {type.lower()} to {stored}, worst error" in notes[0]
    tensor, layer = random_tensors(config, 0), model.layers[0]
    for kind, got in (("wq", layer.wq.dequantise()), ("w3", layer.w13.dequantise()[1::2]),
            ("embedding", model.classifier.dequantise())):
        source = gguf.quants.dequantize(raw_tensor(tensor(kind, 0), GGML[type]), GGML[type])
        error  = np.sqrt(np.square(got - source).sum()/np.square(source).sum())
        assert error <= worst and (error > 0) == (worst > 0)
    assert image.TYPE_NAMES[layer.wq.type] == stored
    for name in ("q4_0", "q8_0"):
        asked, notes = load_model(path, type=name)
        assert image.TYPE_NAMES[asked.layers[0].wq.type] == name and f"{type.lower()} to {name}" in notes[0]


def test_gguf_q5_0_with_odd_heads(tmp_path):
    """Where heads are padded, blocks are made anew."""
    config = ModelConfig(96, 160, 2, 2, 1, 48, 300, 64)
    model, notes = load_model(write_gguf(tmp_path/"m.gguf", config, lambda kind, layer: "Q5_0"))
    tensor = random_tensors(config, 0)
    source = gguf.quants.dequantize(gguf.quants.quantize(tensor("wq", 1), GGML["Q5_0"]), GGML["Q5_0"])
    got    = model.layers[1].wq.dequantise().reshape(2, 64, 96)
    assert np.array_equal(got[:, :48].reshape(96, 96), source) and not got[:, 48:].any() and "q5_0 to q8_0" in notes[0]


def test_gguf_k_types_need_whole_blocks(tmp_path):
    path = write_gguf(tmp_path/"m.gguf", SMALL, lambda kind, layer: "Q8_0")
    data = bytearray(open(path, "rb").read())
    at   = data.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 16
    data[at:at + 4] = struct.pack("<I", GGML["Q6_K"])
    (tmp_path/"x").write_bytes(data)
    assert "multiples of 256" in refused(tmp_path/"x")


@pytest.mark.parametrize("type", ["Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_gguf_nan_scales_of_other_types(tmp_path, type):
    config = ModelConfig(256, 256, 1, 8, 2, 32, 300, 64)
    data   = bytearray(open(write_gguf(tmp_path/"m.gguf", config, lambda kind, layer: type), "rb").read())
    at     = len(data) - 256*4 - (2 if type == "Q6_K" else gguf.GGML_QUANT_SIZES[GGML[type]][1])   # Then the last norm.
    data[at:at + 2] = b"\xff\x7f"
    (tmp_path/"x").write_bytes(data)
    text = refused(tmp_path/"x")
    assert text and ("NaN" in text or "fp16" in text)


# RoPE scaling (files: test_llamacpp.py) --------------------------------------------------------------------------------------

def test_llama3_scaling_is_metas():
    """The divisors that llama.cpp's converter writes for Llama 3.1 and 3.2 (head_dim 128 and 64)."""
    for head_dim, factor in ((128, 8.0), (64, 32.0)):
        want = []
        for f in 500000.0**(-np.arange(0, head_dim, 2)/head_dim):
            wave = 2*np.pi/f
            if wave < 8192/4:
                want.append(1)
            elif wave > 8192/1:
                want.append(factor)
            else:
                smooth = (8192/wave - 1)/(4 - 1)
                want.append(1/((1 - smooth)/factor + smooth))
        got = Scaling("llama3", factor, 8192).divisors(head_dim, 500000.0)
        assert np.allclose(got, want, rtol=1e-12)


def test_yarn_is_llama_cpps():
    """rope_yarn() of ggml-cpu: theta_extrap, theta_interp, ramp over pairs, magnitude."""
    n, base, factor, original = 128, 10000.0, 8.0, 4096
    dims  = [n*np.log(original/(beta*2*np.pi))/(2*np.log(base)) for beta in (32, 1)]
    start, end = max(0, np.floor(dims[0])), min(n - 1, np.ceil(dims[1]))
    s     = Scaling("yarn", factor, original)
    table = scaled_table(ModelConfig(256, 64, 1, 2, 1, n, 300, 64, rope_base=base), s)
    for pair in range(n//2):
        extra = 37*base**(-2*pair/n)
        mix   = 1 - min(1, max(0, (pair - start)/max(0.001, end - start)))
        theta = extra/factor*(1 - mix) + extra*mix
        scale = 1 + 0.1*np.log(factor)
        assert np.allclose(table[37, pair], [np.cos(theta)*scale, np.sin(theta)*scale], atol=1e-6)


@pytest.mark.parametrize("bad", [dict(kind="dynamic"), dict(factor=0.0), dict(factor=float("nan")), dict(kind="yarn"),
    dict(kind="llama3", original=2**40), dict(low=2.0, high=1.0), dict(beta_fast=0.5), dict(attention=-1.0)])
def test_bad_scaling_is_refused(bad):
    with pytest.raises(ValueError, match="RoPE"):
        Scaling(**bad)


def test_gguf_refusals(tmp_path):
    for i, (match, arguments) in enumerate([
        ("Q2_K", dict(type_of=lambda kind, layer: "Q2_K", config=ModelConfig(256, 256, 1, 8, 2, 32, 300, 64))),
        ("blk.0.attn_q.bias.*a bias", dict(extra=[("blk.0.attn_q.bias", np.zeros(64, np.float32))])),
        ("mixture", dict(change=lambda w: w.add_expert_count(8))),
    ]):
        with pytest.raises(ValueError, match=match):
            load_model(write_gguf(tmp_path/f"{i}.gguf", **(dict(config=SMALL) | arguments)))
