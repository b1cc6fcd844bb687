# SPDX-License-Identifier: BSD-2-Clause
"""Importers: the model that comes out is the one that went in, for every type and odd dimension; bad files are told
so."""

import dataclasses
import struct
import time
import tracemalloc
import zlib

import gguf
import numpy as np
import pytest

from litellama.accel import image
from litellama.accel.config import ModelConfig
from litellama.accel.numerics import Decoder
from litellama.host import quantise
from litellama.host.devices.float_model import FloatDecoder, rmsnorm, rope, silu, softmax
from litellama.host.importers import default_path, load_model
from litellama.host.importers.gguf_llama import NAMES
from litellama.host.importers.pad import Builder, tensor_shapes
from litellama.host.random_model import llama2c_bytes, odd_configs, random_model, random_tensors, random_tokenizer
from litellama.host.tokenizer import Tokenizer

GGML = {name: gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K",
    "Q4_K", "Q5_K", "Q6_K")}
SMALL = ModelConfig(64, 96, 2, 2, 1, 32, 300, 64, 3e-3, 20000.0)   # No default value.


def raw_tensor(x, type):
    """Bytes of `x` in GGML `type`; for K types, which the gguf package cannot make, random blocks in the range of x."""
    if not type.name.endswith("_K"):
        return gguf.quants.quantize(x, type)
    items, size = gguf.GGML_QUANT_SIZES[type]
    rng    = np.random.default_rng(x.shape[0])
    blocks = rng.integers(0, 256, (x.shape[0], x.shape[1]//items, size), np.uint8)
    scale  = (np.abs(x).max()/(31*15)*rng.uniform(0.5, 1, blocks.shape[:2])).astype(np.float16)
    if type.name == "Q6_K":
        blocks[..., -2:] = (scale/8).view(np.uint8).reshape(*scale.shape, 2)
    else:   # d, and dmin such that values fall on both sides of 0.
        blocks[..., :4] = np.stack([scale, scale*np.float16(7)], -1).view(np.uint8)
    return blocks.reshape(x.shape[0], -1)


def write_gguf(path, config, type_of=lambda kind, layer: "F32", tied=True, seed=0, change=None, extra=()):
    """A GGUF file of random tensors; change(writer) may add fields, `extra` are further (name, array)."""
    w, t = gguf.GGUFWriter(path, "llama"), random_tokenizer(config.vocab)
    w.add_context_length(config.context), w.add_embedding_length(config.dim), w.add_block_count(config.n_layers)
    w.add_feed_forward_length(config.hidden), w.add_head_count(config.n_heads), w.add_head_count_kv(config.n_kv_heads)
    w.add_layer_norm_rms_eps(config.eps), w.add_rope_freq_base(config.rope_base), w.add_key_length(config.head_dim)
    w.add_value_length(config.head_dim), w.add_rope_dimension_count(config.head_dim)
    w.add_tokenizer_model("llama"), w.add_token_list(t.pieces), w.add_token_scores(t.scores)
    w.add_token_types([{"n": 1, "u": 2, "c": 3, "b": 6}[c] for c in t.types])
    w.add_bos_token_id(1), w.add_eos_token_id(2)
    if change:
        change(w)
    tensor = random_tensors(config, seed)
    for kind, shape in tensor_shapes(config).items():
        for i in range(config.n_layers if "{}" in NAMES[kind] else 0 if kind == "classifier" and tied else 1):
            x    = tensor(kind, i)
            type = GGML["F32" if x.ndim == 1 else type_of(kind, i)]
            w.add_tensor(NAMES[kind].format(i) + ".weight", raw_tensor(x, type), raw_dtype=type)
    for name, x in extra:
        w.add_tensor(name, x)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    return str(path)


def plain_forward(config, tensor, tokens, tied=True):
    """Logits of the unpadded model, from its plain tensors: what padding must not change."""
    c, n   = config, len(tokens)
    table  = image.rope_table(c.head_dim, n, c.rope_base)[:, :c.head_dim//2]
    x      = tensor("embedding", 0)[tokens]
    heads  = lambda y: y.reshape(n, -1, c.head_dim)
    for i in range(c.n_layers):
        h = rmsnorm(x, tensor("norm1", i), c.dim, c.eps)
        q, k = (rope(heads(h @ tensor(name, i).T), table) for name in ("wq", "wk"))
        k, v = (np.repeat(y, c.group, 1) for y in (k, heads(h @ tensor("wv", i).T)))
        s    = np.einsum("thd,shd->hts", q, k)/np.sqrt(c.head_dim)
        s    = np.where(np.tri(n, dtype=bool), s, -np.inf)
        x    = x + np.einsum("hts,shd->thd", softmax(s), v).reshape(n, -1) @ tensor("wo", i).T
        h    = rmsnorm(x, tensor("norm2", i), c.dim, c.eps)
        x    = x + (silu(h @ tensor("w1", i).T)*(h @ tensor("w3", i).T)) @ tensor("w2", i).T
    return rmsnorm(x, tensor("norm_final", 0), c.dim, c.eps) @ tensor("embedding" if tied else "classifier", 0).T


# Quantisation -------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore::RuntimeWarning")   # The gguf package overflows at subnormal blocks.
@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1"])
def test_rounding_is_llama_cpps(name):
    rng = np.random.default_rng(3)
    x   = (rng.standard_normal((64, 256))*10.0**rng.integers(-6, 3, (64, 1))).astype(np.float32)
    x[3], x[4, :32], x[5, 32:64], x[6] = 0, 7.5, np.arange(-16, 16), 1e-42
    x[7] = np.round(x[7]*4)/4
    ours   = quantise.plain(x, quantise.TYPES[name.lower()])
    theirs = gguf.quants.dequantize(gguf.quants.quantize(x, GGML[name]), GGML[name])
    assert np.array_equal(ours.dequantise(), theirs)


def test_errors_shrink_with_the_type():
    x = np.random.default_rng(4).standard_normal((32, 256)).astype(np.float32)
    e = {name: quantise.quantisation_error(x, quantise.quantise(x, type)).relative for name, type in quantise.TYPES.items()}
    assert 0.003 < e["q8_0"] < 0.01 and 0.06 < e["q4_1"] < e["q4_0"] < 0.12


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9])
@pytest.mark.parametrize("type", quantise.TYPES.values())
def test_unusable_weights_are_refused(bad, type):
    x = np.zeros((2, 64), np.float32)
    x[1, 40] = bad
    with pytest.raises(ValueError, match="NaN|fp16"):
        quantise.quantise(x, type)


def test_q4_0_is_promoted_exactly():
    w = quantise.quantise(np.random.default_rng(5).standard_normal((8, 64)).astype(np.float32), image.Q4_0)
    for type in (image.Q4_1, image.Q8_0):
        other, e = quantise.requantise(w, type)
        assert other.type == type and e.relative == 0 and np.array_equal(other.dequantise(), w.dequantise())


# Formats ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name,config,tied", odd_configs(), ids=[c[0] for c in odd_configs()])
def test_llama2c(tmp_path, name, config, tied):
    checkpoint, tokenizer = llama2c_bytes(config, 11, tied)
    (tmp_path/"model.bin").write_bytes(checkpoint), (tmp_path/"tokenizer.bin").write_bytes(tokenizer)
    model, notes = load_model(str(tmp_path/"model.bin"))
    assert model.config == config and model.tied == tied and len(notes) == 1 and "q8_0" in notes[0]
    tokens = list(range(3, 40))
    plain  = plain_forward(config, random_tensors(config, 11), tokens, tied)
    assert np.abs(FloatDecoder(model).forward(tokens, "all") - plain).mean() < 0.06   # What 8 bits cost.
    same = Builder(config).model(random_tensors(config, 11), tied, rope=model.rope)
    assert image.pack_stream(model) == image.pack_stream(same)


def test_llama2c_tokenizer(tmp_path):
    """Pieces, their kinds and scores as run.c takes them; BOS 1 ends a text, too, and what is named as a control token is one."""
    checkpoint, tokenizer = llama2c_bytes(SMALL, 11)
    last = random_tokenizer(300).pieces[299].replace("\u2581", " ").encode()
    for piece, kind, stops in ((b"<|im_end|>", "c", {1, 2, 299}), (b"<|other|>", "c", {1, 2}), (b"<0xg0>", "n", {1, 2}),
            (b"<|a b|>", "n", {1, 2})):
        at = tokenizer.rindex(last) - 4
        (tmp_path/"tokenizer.bin").write_bytes(tokenizer[:at] + struct.pack("<i", len(piece)) + piece)
        (tmp_path/"model.bin").write_bytes(checkpoint)
        model, _ = load_model(str(tmp_path/"model.bin"))
        t, want  = Tokenizer.from_bytes(model.tokenizer), random_tokenizer(300)
        assert (model.bos, model.eos, t.bos, t.eos, t.unknown, set(t.stop)) == (1, 2, 1, 2, 0, stops) and t.add_bos and t.add_space
        assert list(t.pieces)[:299] == list(want.pieces)[:299] and t.types == want.types[:299] + kind
        assert [float(s) for s in t.scores] == [-float(i) for i in range(300)]


@pytest.mark.parametrize("name,config,tied", odd_configs(), ids=[c[0] for c in odd_configs()])
def test_padding_is_exact(name, config, tied):
    """Where quantisation loses nothing, padded and plain models are the same function."""
    random = random_tensors(config, 2)
    def tensor(kind, layer):   # Each row is of zeros and one other power of two: exact in Q4_0.
        x = random(kind, layer)
        return x if x.ndim == 1 else np.sign(x[:, :1])*(x > 0)*np.float32(2.0**-4)
    model  = Builder(config, image.Q4_0).model(tensor, tied, rope=image.rope_table(config.head_dim, config.context))
    tokens = list(range(50, 90))
    want   = plain_forward(config, tensor, tokens, tied)
    assert np.abs(FloatDecoder(model).forward(tokens, "all") - want).max() < 1e-4*np.abs(want).max()


def test_long_context_is_cut(tmp_path):
    path = write_gguf(tmp_path/"m.gguf", dataclasses.replace(SMALL, context=1 << 17))
    model, notes = load_model(path)
    assert model.config.context == len(model.rope) == 8192 and "context cut from 131072 to 8192" in notes


def test_image_round_trip(tmp_path):
    for name, config, tied in odd_configs():
        model = random_model(config, "q4_1", "q8_0", seed=1, tied=tied)
        (tmp_path/"m.img").write_bytes(image.write_image(model))
        back, notes = load_model(str(tmp_path/"m.img"))
        assert image.write_image(back) == image.write_image(model) and not notes
        assert np.array_equal(Decoder(back).forward([1, 5, 9]), Decoder(model).forward([1, 5, 9]))
    with pytest.raises(ValueError, match="keeps its types"):
        load_model(str(tmp_path/"m.img"), type="q4_0")


# Hostile files ------------------------------------------------------------------------------------

def refused(path, **options):
    """Load a bad file: it must be a ValueError within 4 s of processor time and 64 MB. Returns its text,
    or None if it loaded."""
    start = time.process_time()
    tracemalloc.start()
    try:
        load_model(str(path), **options)
        text = None
    except ValueError as e:
        text = str(e)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6 and time.process_time() - start < 4, f"{path}: {peak} bytes, {time.process_time() - start:.1f} s"
    assert text is None or "\n" not in text and len(text) < 500
    return text


EXTREME = [0, 1, 65535, 2**31, 2**32 - 1, 2**63, 2**64 - 1]


def files(tmp_path):
    """{name: bytes} of one good file of each kind."""
    write_gguf(tmp_path/"good.gguf", SMALL, lambda kind, layer: "Q4_0")
    checkpoint, tokenizer = llama2c_bytes(SMALL, 1)
    (tmp_path/"tokenizer.bin").write_bytes(tokenizer)
    return dict(gguf=(tmp_path/"good.gguf").read_bytes(), bin=checkpoint, img=image.write_image(random_model(SMALL, "q4_0")))


def test_what_is_no_model(tmp_path):
    for data, match in ((b"", "empty"), (b"x", "bytes"), (b"PK\x03\x04" + bytes(100), "zip"), (b"GGUF", "truncated"),
            (b"24ka" + bytes(252), "version 0"), (bytes(1000), "no model that is known"), (b"LITELLAM", "header"),
            (b"hello world, this is a text file\n"*9, "this is a text file")):
        (tmp_path/"x").write_bytes(data)
        with pytest.raises(ValueError, match=match):
            load_model(str(tmp_path/"x"))
    with pytest.raises(ValueError, match="no such file"):
        load_model(str(tmp_path/"missing"))
    with pytest.raises(ValueError, match="no config.json"):
        load_model(str(tmp_path))


def test_truncated_files(tmp_path):
    for kind, data in files(tmp_path).items():
        rng = np.random.default_rng(0)
        for n in [0, 1, 4, 8, 27, 28, 100, len(data) - 1, *rng.integers(0, len(data) - 1, 40)]:
            (tmp_path/"x").write_bytes(data[:n])
            text = refused(tmp_path/"x")
            assert text is not None or (kind == "gguf" and len(data) - n <= 32), (kind, n)   # GGUF ends with padding.


def test_absurd_dimensions(tmp_path):
    data = files(tmp_path)["bin"]
    for field in range(7):
        for value in (0, -1, -2**31, 2**31 - 1, 1 << 20, 3):
            (tmp_path/"x").write_bytes(data[:4*field] + struct.pack("<i", value) + data[4*field + 4:])
            assert refused(tmp_path/"x"), (field, value)
    good = files(tmp_path)["gguf"]
    for at in (8, 16):   # Number of tensors, of fields.
        for value in (2**64 - 1, 2**63, 2**40, 10**6):
            (tmp_path/"x").write_bytes(good[:at] + struct.pack("<Q", value) + good[at + 8:])
            assert "truncated" in (text := refused(tmp_path/"x")) or "claims" in text
    for key in (b"llama.embedding_length", b"llama.block_count", b"llama.feed_forward_length", b"llama.context_length",
                b"llama.attention.head_count", b"llama.attention.head_count_kv", b"llama.attention.key_length"):
        at = good.index(key) + len(key) + 4
        for value in (0, 2**32 - 1, 1 << 14, 1 << 8, 7):
            (tmp_path/"x").write_bytes(good[:at] + struct.pack("<I", value) + good[at + 4:])
            text = refused(tmp_path/"x")
            assert text or (key == b"llama.context_length" and value), (key, value)   # That one is only cut.


@pytest.mark.parametrize("seed", range(4))
def test_fuzz(tmp_path, seed):
    """Random damage: an error or a model, never another exception, a hang or a big allocation."""
    rng = np.random.default_rng(seed)
    for kind, data in files(tmp_path).items():
        reach = dict(gguf=12000, bin=64, img=8192)[kind]   # Where the structure is.
        for _ in range(60):
            x = bytearray(data)
            for _ in range(rng.integers(1, 6)):
                at = int(rng.integers(0, reach))
                if rng.random() < 0.5:
                    x[at] = int(rng.integers(0, 256))
                else:
                    x[at:at + 8] = EXTREME[rng.integers(0, len(EXTREME))].to_bytes(8, "little")
            if kind == "img" and rng.random() < 0.8:
                repair(x)
            (tmp_path/"x").write_bytes(x)
            refused(tmp_path/"x")
    for _ in range(40):
        x = bytearray((tmp_path/"tokenizer.bin").read_bytes())
        x[int(rng.integers(4, len(x)))] = int(rng.integers(0, 256))
        (tmp_path/"t").write_bytes(x)
        (tmp_path/"m").write_bytes(files(tmp_path)["bin"]) if not (tmp_path/"m").exists() else None
        refused(tmp_path/"m", tokenizer=str(tmp_path/"t"))


def repair(x):
    """Make every CRC of a damaged image right, so that the damage gets past them."""
    try:
        n = struct.unpack_from("<I", x, 20)[0]
        for i in range(min(n, 16)):
            at = image.HEADER.size + i*image.SECTION.size
            name, offset, length, _ = image.SECTION.unpack_from(x, at)
            image.SECTION.pack_into(x, at, name, offset, length, zlib.crc32(x[offset:offset + length]))
        end = image.HEADER.size + n*image.SECTION.size
        struct.pack_into("<I", x, end, zlib.crc32(bytes(x[:end])))
    except struct.error:
        pass


def test_tensors_cannot_share_their_bytes(tmp_path):
    """A small file whose many tensors are one would become a big model."""
    good = files(tmp_path)["gguf"]
    at   = good.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight") + 4
    (tmp_path/"x").write_bytes(good[:at] + struct.pack("<2Q", 1 << 12, 96) + good[at + 16:])
    assert "claim" in refused(tmp_path/"x")


def test_padding_that_explodes_is_refused():
    with pytest.raises(ValueError, match="padding"):
        Builder(ModelConfig(2, 2, 256, 256, 256, 2, 300, 64))


def test_damaged_tokenizer_inside_an_image(tmp_path):
    model = random_model(SMALL, "q4_0")
    for tokenizer in (b"", b"{}", b"[" * 10**5, random_tokenizer(SMALL.vocab - 1).to_bytes()):
        (tmp_path/"x").write_bytes(image.write_image(dataclasses.replace(model, tokenizer=tokenizer)))
        assert "tokenizer" in refused(tmp_path/"x")


def test_infinite_scales_are_refused(tmp_path):
    model = random_model(SMALL, "q4_0")
    model.layers[1].wo.d[3, 1] = 0x7C00
    (tmp_path/"x").write_bytes(image.write_image(model))
    assert "scale" in refused(tmp_path/"x")
    data = bytearray(files(tmp_path)["gguf"])
    data[-256 - 18:-256 - 16] = b"\x00\x7e"   # The last tensor is the norm of 64 floats; before it lie blocks of 18 bytes.
    (tmp_path/"x").write_bytes(data)
    assert "NaN" in refused(tmp_path/"x")


def test_default_model_is_found():
    model, _ = load_model(default_path())
    assert model.template and model.tied
