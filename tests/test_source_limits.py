# SPDX-License-Identifier: BSD-2-Clause
"""Limits of what importers take, on both sides; lists of values; images whose content is out of range."""

import dataclasses

import numpy as np
import pytest

from litellama.accel import image
from litellama.accel.config import ModelConfig
from litellama.host.importers import load_model
from litellama.host.importers.gguf_file import FIELDS_MAX
from litellama.host.importers.gguf_keys import GGUF_KEYS
from litellama.host.importers.huggingface_keys import CONFIG_KEYS
from litellama.host.importers.keys import judge
from litellama.host.importers.rope import Scaling, scaled_table
from litellama.host.random_model import random_model

from exact_models import CONFIG, hf_tensors, write_folder, write_gguf
from test_importers import refused

TINY = ModelConfig(32, 40, 1, 4, 2, 16, 300, 64, 3e-2, 5000.0)


@pytest.mark.parametrize("good,bad", [
    (dict(factor=1e-3), dict(factor=0.0)), (dict(factor=999999.0), dict(factor=1e6)), (dict(factor=0.5), dict(factor=-2.0)),
    (dict(kind="llama3", original=1), dict(kind="llama3", original=0)),
    (dict(kind="yarn", original=1 << 24), dict(kind="yarn", original=(1 << 24) + 1)),
    (dict(low=1e-3), dict(low=0.0)), (dict(low=3.9), dict(low=4.0)), (dict(high=999999.0), dict(high=1e6)),
    (dict(beta_slow=1e-3), dict(beta_slow=0.0)), (dict(beta_slow=32.0), dict(beta_slow=33.0)),
    (dict(beta_fast=999999.0), dict(beta_fast=1e6)),
    (dict(attention=1e-3), dict(attention=0.0)), (dict(attention=999.0), dict(attention=1e3)), (dict(kind="none"), dict(kind="default"))])
def test_scalings(good, bad):
    Scaling(**good)
    with pytest.raises(ValueError, match="RoPE"):
        Scaling(**bad)


def test_bases_and_tables(tmp_path):
    for base, good in ((1.0, False), (1.001, True), (9e11, True), (1e12, False)):
        config = dataclasses.replace(CONFIG, rope_base=base)
        if good:
            scaled_table(config, Scaling())
        else:
            with pytest.raises(ValueError, match="RoPE base"):
                scaled_table(config, Scaling())
    for value in (0.0, -1.0, np.nan, np.inf):
        table = np.ones(12, np.float32)
        table[5] = value
        assert "must be positive" in refused(write_gguf(tmp_path/"m.gguf", extra=[("rope_freqs.weight", table)]))
    assert "rope_freqs.weight has shape" in refused(write_gguf(tmp_path/"m.gguf", extra=[("rope_freqs.weight", np.ones(11, np.float32))]))


def test_yarns_zeros_and_nulls(tmp_path):
    """0 stands for the usual betas and for no mscale, as in transformers."""
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=1000)
    want = load_model(write_folder(tmp_path/"m", rope_parameters=yarn))[0].rope
    for change in (dict(beta_fast=0, beta_slow=0), dict(beta_fast=None, beta_slow=None), dict(mscale=0, mscale_all_dim=0.5),
            dict(mscale=0.5, mscale_all_dim=0), dict(attention_factor=None), dict(beta_fast=32.0, beta_slow=1.0), dict(truncate=True)):
        assert np.array_equal(load_model(write_folder(tmp_path/"m", rope_parameters=yarn | change))[0].rope, want), change


def test_stored_frequencies_of_a_scaling(tmp_path):
    """The buffer of a model whose RoPE is scaled holds the scaled ones."""
    plain = 1/CONFIG.rope_base**(np.arange(0, 24, 2)/24)
    for divisor, told in ((2.0, False), (1.0, True), (2.001, False), (2.1, True)):
        tensors  = hf_tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": (plain/divisor).astype(np.float32)}
        _, notes = load_model(write_folder(tmp_path/"m", tensors=tensors, rope_scaling=dict(type="linear", factor=2.0)))
        assert any("inv_freq" in n for n in notes) == told, divisor


def test_lists_of_values():
    """One for each layer: all of them must be usual."""
    for keys, name, good, bad in ((CONFIG_KEYS, "layer_types", ["full_attention", "sliding_attention"], ["full_attention", "linear"]),
            (CONFIG_KEYS, "no_rope_layers", [1, 1], [1, 0]), (GGUF_KEYS, "llama.swiglu_clamp_exp", np.zeros(2), np.array([0, 1.0]))):
        assert judge({name: good}, keys, "it", TINY) == []
        with pytest.raises(ValueError, match=f"it says {name} is"):
            judge({name: bad}, keys, "it", TINY)


def test_values_of_another_kind_are_refused():
    for keys, name in ((CONFIG_KEYS, "attention_multiplier"), (CONFIG_KEYS, "query_pre_attn_scalar"), (GGUF_KEYS, "llama.attention.scale"),
            (CONFIG_KEYS, "no_rope_layers"), (GGUF_KEYS, "split.count")):
        for value in ("x", {"a": 1}, [[1]], [{}], float("nan")):
            with pytest.raises(ValueError, match=f"it says {name} is"):
                judge({name: value}, keys, "it", TINY)


def test_messages_are_short_and_printable():
    note, = judge({"x"*999: 1, "\x1b]0;title\x07": 2, "\u202edlrow": 3}, (), "it", TINY)
    assert len(note) < 200 and note.isprintable()
    with pytest.raises(ValueError) as e:
        judge({"llama.hidden_activation": "\x1b\u202e" + "y"*999}, GGUF_KEYS, "it", TINY)
    assert len(str(e.value)) < 150 and str(e.value).isprintable()


def test_fields_are_counted(tmp_path):
    many = {f"x__{i}": 1 for i in range(FIELDS_MAX)}
    assert f"at most {FIELDS_MAX} are read" in refused(write_gguf(tmp_path/"m.gguf", **many))


def test_content_of_images(tmp_path):
    """What an image's own reader leaves open."""
    def check(change, what, type="q4_1"):
        model = random_model(TINY, type, tied=False)
        model = change(model) or model
        (tmp_path/"m.img").write_bytes(image.write_image(model))
        assert what in (refused(tmp_path/"m.img") or ""), what
    for name in ("bos", "eos"):
        check(lambda m: dataclasses.replace(m, **{name: TINY.vocab}), "outside the vocabulary of 300")
        (tmp_path/"m.img").write_bytes(image.write_image(dataclasses.replace(random_model(TINY, "q4_0"), **{name: TINY.vocab - 1})))
        assert getattr(load_model(str(tmp_path/"m.img"))[0], name) == TINY.vocab - 1
    def spoil(array, value):
        array.reshape(-1)[-1] = value
    for get in (lambda m: m.layers[0].norm1, lambda m: m.layers[0].norm2, lambda m: m.norm_final, lambda m: m.rope):
        for value in (np.nan, np.inf):
            check(lambda m: spoil(get(m), value), "no finite float32")
    for get in (*(lambda m, n=n: getattr(m.layers[0], n) for n in ("wk", "wv", "wq", "wo", "w13", "w2")), lambda m: m.classifier,
            lambda m: m.embedding):
        for part in ("d", "m"):
            check(lambda m: spoil(getattr(get(m), part), 0xFC00), "NaN or infinity")


def test_inspect_shows_what_is_suggested(tmp_path):
    from litellama.host.inspect_image import describe
    for values, line in (({"general__sampling__temp": 0.5}, "sampling    --temperature 0.5"), ({}, "sampling    nothing suggested")):
        path = write_gguf(tmp_path/"m.gguf", **values)
        assert line in describe(path)
        (tmp_path/"m.img").write_bytes(image.write_image(load_model(path)[0]))
        assert line in describe(str(tmp_path/"m.img"))
