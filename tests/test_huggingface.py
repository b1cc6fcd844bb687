# SPDX-License-Identifier: BSD-2-Clause
"""Hugging Face folders, written here: the same model as through another importer, the same function as the half-split form, the
same ids as the `tokenizers` library."""

import dataclasses
import functools
import io
import json
import os
import re
import struct

import numpy as np
import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from litellama.accel import image
from litellama.accel.config import ModelConfig
from litellama.host import pretokenizers
from litellama.host.devices.float_model import FloatDecoder, rmsnorm, silu, softmax
from litellama.host.importers import load_model
from litellama.host.importers.huggingface import NAMES
from litellama.host.importers.pad import Builder, tensor_shapes
from litellama.host.random_model import odd_configs, random_tensors
from litellama.host.tokenizer import Tokenizer

from test_importers import refused
from test_tokenizer import TRICKY, texts

VOCAB    = 700
SMALL    = ModelConfig(64, 96, 2, 4, 2, 32, VOCAB, 64, 3e-3, 20000.0)   # No default value.
CONTROL  = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"


def half_split(w, head_dim):
    """Rows of each head from adjacent pairs to Hugging Face's order, item by item."""
    out = np.empty_like(w)
    for row in range(len(w)):
        head, i = divmod(row, head_dim)
        out[head*head_dim + i//2 + (i % 2)*head_dim//2] = w[row]
    return out


def plain_tensors(config, seed, tied):
    """{Hugging Face's name: float32} of random_tensors."""
    tensor, out = random_tensors(config, seed), {}
    for kind in tensor_shapes(config):
        for i in range(config.n_layers if "{}" in NAMES[kind] else 0 if kind == "classifier" and tied else 1):
            w = tensor(kind, i)
            out[NAMES[kind].format(i) + ".weight"] = half_split(w, config.head_dim) if kind in ("wq", "wk") else w
    return out


def safetensors_bytes(tensors, dtype="F32"):
    """A safetensors file by its specification (the package has no bfloat16 for NumPy; F32 is compared with it below)."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, x in tensors.items():
        raw = x.tobytes() if dtype == "F32" else x.astype(np.float16).tobytes() if dtype == "F16" else \
            (x.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = dict(dtype=dtype, shape=list(x.shape), data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def config_json(config, tied=True, **change):
    """config.json as transformers writes it."""
    d = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=config.dim, intermediate_size=config.hidden,
        num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads, num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim, vocab_size=config.vocab, max_position_embeddings=config.context, rms_norm_eps=config.eps,
        rope_theta=config.rope_base, rope_scaling=None, hidden_act="silu", tie_word_embeddings=tied, attention_bias=False,
        mlp_bias=False, bos_token_id=1, eos_token_id=2, torch_dtype="float32", use_cache=True)
    return json.dumps({k: v for k, v in (d | change).items() if v is not ...})


@functools.cache
def byte_level(pre="smollm", vocab=VOCAB):
    """The library's tokenizer, trained here, as SmolLM2 or Llama 3 have it."""
    t = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama3"))
    regex = pre in ("gpt2", "smollm")
    split = lambda p: pre_tokenizers.Split(tokenizers.Regex(p), "isolated")
    llama3 = split(pretokenizers.KINDS["llama-bpe"].patterns[0])
    first = dict(gpt2=[], smollm=[pre_tokenizers.Digits(individual_digits=True)], llama3=[llama3]).get(pre)
    first = first if first is not None else [split(pre)]
    t.pre_tokenizer = pre_tokenizers.Sequence([*first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts(200), trainers.BpeTrainer(vocab_size=vocab, special_tokens=list(CONTROL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


@functools.cache
def sentencepiece_like(metaspace=False):
    """As transformers converts Llama 2's tokenizer.model: all pairs that make a piece, by its score."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts()), model_writer=out, model_type="bpe",
        vocab_size=VOCAB, byte_fallback=True, character_coverage=0.999, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, num_threads=1, minloglevel=2)
    sp     = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    ids    = {sp.id_to_piece(i): i for i in range(VOCAB)}
    merges = []
    for piece, id in ids.items():
        pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
        merges += [(sp.get_score(id), pair) for pair in sorted(pairs, key=lambda p: (ids[p[0]], ids[p[1]]))]
    merges = [pair for _, pair in sorted(merges, key=lambda m: -m[0])]
    t = tokenizers.Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return sp, t


SETTINGS = dict(bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=TEMPLATE)


def write_folder(folder, config=SMALL, tied=True, dtype="F32", seed=0, tokenizer=None, shards=1, settings=SETTINGS, **change):
    """A model folder; returns its path."""
    os.makedirs(folder, exist_ok=True)
    def write(name, data):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
    write("config.json", config_json(config, tied, **change))
    write("tokenizer.json", (tokenizer or byte_level()).to_str())
    write("tokenizer_config.json", json.dumps(settings))
    write("generation_config.json", json.dumps(dict(eos_token_id=[2, 0])))
    tensors = plain_tensors(config, seed, tied)
    if shards == 1:
        write("model.safetensors", safetensors_bytes(tensors, dtype))
        return str(folder)
    names, where = list(tensors), {}
    for i in range(shards):
        part = {n: tensors[n] for n in names[i::shards]}
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write(file, safetensors_bytes(part, dtype))
        where |= {n: file for n in part}
    write("model.safetensors.index.json", json.dumps(dict(metadata=dict(total_size=1), weight_map=where)))
    return str(folder)


def half_split_forward(config, tensors, tokens, tied, table):
    """Logits by Hugging Face's own form: half-split tensors, rotate_half."""
    c, n  = config, len(tokens)
    t     = lambda kind, i=0: tensors[NAMES[kind].format(i) + ".weight"]
    cos, sin = (np.concatenate([table[:n, :c.head_dim//2, i]]*2, -1)[:, None] for i in range(2))
    def rotate(y):
        half = np.concatenate([-y[..., c.head_dim//2:], y[..., :c.head_dim//2]], -1)
        return y*cos + half*sin
    heads = lambda y: y.reshape(n, -1, c.head_dim)
    x     = t("embedding")[tokens]
    for i in range(c.n_layers):
        h    = rmsnorm(x, t("norm1", i), c.dim, c.eps)
        q, k = (rotate(heads(h @ t(kind, i).T)) for kind in ("wq", "wk"))
        k, v = (np.repeat(y, c.group, 1) for y in (k, heads(h @ t("wv", i).T)))
        s    = np.einsum("thd,shd->hts", q, k)/np.sqrt(c.head_dim)
        s    = np.where(np.tri(n, dtype=bool), s, -np.inf)
        x    = x + np.einsum("hts,shd->thd", softmax(s), v).reshape(n, -1) @ t("wo", i).T
        h    = rmsnorm(x, t("norm2", i), c.dim, c.eps)
        x    = x + (silu(h @ t("w1", i).T)*(h @ t("w3", i).T)) @ t("w2", i).T
    return rmsnorm(x, t("norm_final"), c.dim, c.eps) @ t("embedding" if tied else "classifier").T


# Models -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name,config,tied", odd_configs(), ids=[c[0] for c in odd_configs()])
def test_same_as_another_importer_and_as_the_half_split_form(tmp_path, name, config, tied):
    config = dataclasses.replace(config, vocab=VOCAB, rope_base=50000.0, eps=3e-3)
    model, notes = load_model(write_folder(tmp_path/"m", config, tied, seed=7))
    assert model.config == config and model.tied == tied
    same = Builder(config).model(random_tensors(config, 7), tied, rope=model.rope)
    assert image.pack_stream(model) == image.pack_stream(same)
    assert len(notes) == 1 and "quantised to q8_0" in notes[0]
    tokens = list(range(3, 40))
    want   = half_split_forward(config, plain_tensors(config, 7, tied), tokens, tied, model.rope)
    got    = FloatDecoder(model).forward(tokens, "all")
    assert np.abs(got - want).mean() < 0.06 and np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.998


@pytest.mark.parametrize("dtype,shards", [("F32", 3), ("F16", 1), ("BF16", 1), ("BF16", 2)])
def test_types_and_shards(tmp_path, dtype, shards):
    model, _ = load_model(write_folder(tmp_path/"m", dtype=dtype, shards=shards))
    plain, _ = load_model(write_folder(tmp_path/"p"))
    if dtype == "F32":
        assert image.pack_stream(model) == image.pack_stream(plain)
    for a, b in zip(model.layers, plain.layers):
        assert np.abs(a.w13.dequantise() - b.w13.dequantise()).max() < 0.02
    assert np.allclose(model.norm_final, plain.norm_final, rtol=0.01)
    want, _ = load_model(str(tmp_path/"m"), type="q4_1")
    assert want.classifier.type == image.Q4_1


def test_the_packages_own_file(tmp_path):
    from safetensors.numpy import save_file
    folder = write_folder(tmp_path/"m")
    plain  = load_model(folder)[0]
    save_file(plain_tensors(SMALL, 0, True), os.path.join(folder, "model.safetensors"))
    assert image.write_image(load_model(folder)[0]) == image.write_image(plain)


@pytest.mark.parametrize("match,change", [
    ("model_type", dict(model_type="gpt_neox")), ("sliding_window.*at least 1", dict(model_type="mistral", sliding_window=0)),
    ("hidden_act", dict(hidden_act="gelu")), ("quantised", dict(quantization_config=dict(bits=4))),
    ("has no hidden_size", dict(hidden_size=...)), ("must be int", dict(hidden_size="64")), ("must be int", dict(hidden_size=True)),
    ("shape", dict(hidden_size=128)), ("at least 1", dict(num_attention_heads=0)), ("no tensor", dict(num_hidden_layers=3)),
    ("has 1 layers", dict(num_hidden_layers=1)), ("dynamic", dict(rope_scaling=dict(type="dynamic", factor=2.0))),
    ("lm_head", dict(tie_word_embeddings=False)), ("vocabulary is 600", dict(vocab_size=600)),
    ("RoPE base", dict(rope_theta=0.5)), ("must be float", dict(rope_scaling=dict(type="yarn", factor=2.0, mscale="1")))])
def test_refused_configurations(tmp_path, match, change):
    folder = write_folder(tmp_path/"m", **change)
    with pytest.raises(ValueError, match=match):
        load_model(folder)


def test_mistral_without_a_window(tmp_path):
    model, _ = load_model(write_folder(tmp_path/"m", model_type="mistral", sliding_window=None))
    assert model.config.dim == SMALL.dim


def test_missing_parts(tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = write_folder(tmp_path/name)
        os.unlink(os.path.join(folder, name))
        assert name in refused(folder)
    (tmp_path/"model.safetensors"/"pytorch_model.bin").write_bytes(b"")
    assert "PyTorch" in refused(tmp_path/"model.safetensors")
    assert "folder it is in" in refused(tmp_path/"config.json"/"model.safetensors")


# Tokenizers ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("pre", ["gpt2", "smollm", "llama3", r"\s+|\w+|[^\s\w]+"])
def test_byte_level_tokenizers(tmp_path, pre):
    library = byte_level(pre)
    model, notes = load_model(write_folder(tmp_path/"m", tokenizer=library))
    t = Tokenizer.from_bytes(model.tokenizer)
    assert t.kind == "bpe" and not t.add_bos and t.steps["pre_tokenizer"] == json.loads(library.to_str())["pre_tokenizer"]
    assert (model.bos, model.eos, t.stop) == (1, 2, (2, 0)) and set(t.control) == set(CONTROL) and len(notes) == 1
    for text in TRICKY + texts(40):
        if not any(c in text for c in CONTROL):
            assert t.encode(text) == library.encode(text).ids, repr(text)
        assert t.decode(t.encode(text)) == text
    assert model.template == TEMPLATE


@pytest.mark.parametrize("metaspace", [False, True])
def test_sentencepiece_like_tokenizer(tmp_path, metaspace):
    sp, library = sentencepiece_like(metaspace)
    settings = dict(bos_token=dict(content="<s>"), eos_token=dict(content="</s>"))
    model, notes = load_model(write_folder(tmp_path/"m", tokenizer=library, settings=settings))
    t = Tokenizer.from_bytes(model.tokenizer)
    assert t.kind == "bpe" and t.add_bos and (t.bos, t.eos, t.unknown) == (1, 2, 0)
    for text in TRICKY + texts(40):
        if not any(c in text for c in t.control) and "<unk>" not in text:
            assert t.encode(text) == library.encode(text, add_special_tokens=False).ids, repr(text)
        if not (metaspace and text[:1] in (" ", "\u2581")):   # There Metaspace adds none, and SentencePiece does.
            assert t.encode(text) == sp.encode(text), repr(text)
    assert Tokenizer.from_bytes(t.to_bytes()).to_bytes() == t.to_bytes()


def test_rows_of_the_embedding_without_a_piece(tmp_path):
    config = dataclasses.replace(SMALL, vocab=VOCAB + 64)
    model, _ = load_model(write_folder(tmp_path/"m", config, tokenizer=byte_level()))
    t = Tokenizer.from_bytes(model.tokenizer)
    assert t.vocab == VOCAB + 64 and t.decode([VOCAB + 3]) == "" and max(t.encode("".join(TRICKY))) < VOCAB


def test_refused_tokenizers(tmp_path):
    folder = write_folder(tmp_path/"m")
    path   = tmp_path/"m"/"tokenizer.json"
    good   = json.loads(path.read_text())
    for match, change in [
        ("WordPiece, supported", dict(model=dict(type="WordPiece", vocab={}))), ("no vocabulary", dict(model=dict(type="BPE"))),
        ("no unknown", dict(model=dict(type="Unigram", vocab=[]))), ("cannot be used", dict(normalizer=dict(type="Lowercose"))),
        ("decoder.*WordPiece", dict(decoder=dict(type="WordPiece", prefix="##", cleanup=True))),
        ("post-processor", dict(post_processor=dict(type="Other"))), ("dropout", dict(model=good["model"] | dict(dropout=0.1))),
        ("suffix", dict(model=good["model"] | dict(end_of_word_suffix="</w>"))),
        ("cannot be used|pair", dict(model=good["model"] | dict(merges=["a b c"]))),
        ("cannot be used", dict(model=good["model"] | dict(merges=["qqqq zzzz"]))),
        ("dropout", dict(model=good["model"] | dict(dropout="x"))),
        ("with id", dict(model=good["model"] | dict(vocab=good["model"]["vocab"] | {"x9": -1}))),
        ("with id", dict(added_tokens=[dict(id="0", content="x")])), ("corrupt", dict(added_tokens=[3])),
        ("cannot be used|corrupt", dict(pre_tokenizer=dict(type="Sequence")))]:
        path.write_text(json.dumps(good | change))
        assert (text := refused(folder)) and re.search(match, text), (match, text)


# Hostile files ------------------------------------------------------------------------------------

def test_damaged_safetensors(tmp_path):
    folder = write_folder(tmp_path/"m")
    path   = tmp_path/"m"/"model.safetensors"
    good   = path.read_bytes()
    n      = struct.unpack_from("<Q", good)[0]
    for size in (0, 7, 8, 9, n, n + 8, len(good) - 1):
        path.write_bytes(good[:size])
        assert "model.safetensors" in refused(folder)
    for claim in (0, n - 1, n + 1, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", claim) + good[8:])
        assert refused(folder)
    header = json.loads(good[8:8 + n])
    name   = "model.norm.weight"
    for change in (dict(dtype="I64"), dict(shape=[2**60]), dict(shape=[-1]), dict(shape="x"), dict(data_offsets=[0, 2**50]),
            dict(data_offsets=[8, 4]), dict(data_offsets=[0]), dict(shape=[32, 2])):
        text = json.dumps(header | {name: header[name] | change}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + good[8 + n:])
        assert refused(folder), change
    many = json.dumps({f"t{i}": header[name] | dict(data_offsets=[0, len(good) - n - 8]) for i in range(9)}).encode()
    path.write_bytes(struct.pack("<Q", len(many)) + many + good[8 + n:])
    assert "overlap" in refused(folder)


def test_index_cannot_leave_the_folder(tmp_path):
    folder = write_folder(tmp_path/"m", shards=2)
    path   = tmp_path/"m"/"model.safetensors.index.json"
    good   = json.loads(path.read_text())["weight_map"]
    for name, match in (("../x.safetensors", "outside"), ("/etc/passwd", "outside"), ("", "outside"), ("nothing", "no nothing"),
            ("model-00002-of-00002.safetensors", "has no tensor"), (3, "no weight_map")):
        path.write_text(json.dumps(dict(weight_map=good | {next(iter(good)): name})))
        assert match in refused(folder)


@pytest.mark.parametrize("seed", range(2))
def test_fuzz(tmp_path, seed):
    """Random damage: an error or a model, never another exception."""
    folder, rng = write_folder(tmp_path/"m"), np.random.default_rng(seed)
    for name, n in (("config.json", 60), ("model.safetensors", 60), ("tokenizer.json", 30), ("tokenizer_config.json", 10)):
        path = tmp_path/"m"/name
        good = path.read_bytes()
        for _ in range(n):
            x = bytearray(good)
            for at in rng.integers(0, min(len(x), 4000), 2):
                x[at] = int(rng.integers(32, 127))
            path.write_bytes(x)
            refused(folder)
        path.write_bytes(good)
