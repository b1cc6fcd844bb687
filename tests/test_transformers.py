# SPDX-License-Identifier: BSD-2-Clause
"""Hugging Face folders against transformers: the log-probabilities of the float device are those that transformers gave, for every key
that is used (tests/transformers_cases.py made the file)."""

import json

import numpy as np
import pytest

from litellama.host.importers import load_model

from exact_models import CONFIG, hf_tensors, our_logprobs, write_folder
from transformers_cases import DATA, POSITIONS, cases, chosen

CLOSE    = 2e-4
EXPECTED = json.loads(DATA.read_text())["results"]
TOLD     = {"tied, but two tensors": "another tensor: kept", "theta in both places": None}   # Others have no note.


@pytest.mark.parametrize("name", cases())
def test_models_are_transformers(tmp_path, name):
    ours, notes = our_logprobs(write_folder(tmp_path/"m", **cases()[name]))
    assert np.abs(np.array(chosen(ours)) - np.array(EXPECTED[name])).max() < CLOSE
    told = TOLD.get(name)
    assert len(notes) == 1 and told in notes[0] if told else notes == [], notes


def test_the_cases_differ():
    """So that a key that is ignored shows: each case but those that must be alike has numbers of its own."""
    assert list(EXPECTED) == list(cases()) and all(len(r) == len(POSITIONS) for r in EXPECTED.values())
    alike = {"untied": "tied, but two tensors", "heads of 24": "tied, the classifier stored", "linear, old": "linear, new",
        "llama3, old": "llama3, new", "yarn, old": "yarn, new"}
    flat  = {n: np.array(r) for n, r in EXPECTED.items()}
    for a, b in alike.items():
        assert np.abs(flat[a] - flat[b]).max() < 1e-4
    names = ["heads of 24", "linear, new", "theta in both places", "llama3, new", "llama3, original outside", "llama3, original absent",
        "yarn, new", "yarn, start above 0", "yarn, betas", "yarn, attention_factor", "yarn, mscale", "yarn, not truncated",
        "yarn, factor null", "yarn, end at the head's", "original absent"]
    for i, a in enumerate(names):
        for b in names[:i]:
            assert np.abs(flat[a] - flat[b]).max() > 0.01, (a, b)


def test_a_sliding_window_cuts_the_context(tmp_path):
    """Within the window all positions see each other, so there it is the same model. Absent is not null: mistral's is 4,096."""
    for change, context in ((dict(sliding_window=23), 23), (dict(sliding_window=None), 64), (dict(sliding_window=64), 64),
            (dict(sliding_window=23, use_sliding_window=False), 23)):   # Its own code does not read that key.
        model, notes = load_model(write_folder(tmp_path/"m", model_type="mistral", architectures=["MistralForCausalLM"], **change))
        assert model.config.context == context and any("the sliding window" in n for n in notes) == (context < 64)
        assert any("use_sliding_window" in n for n in notes) == ("use_sliding_window" in change)
    model, notes = load_model(write_folder(tmp_path/"m", sliding_window=23, use_sliding_window=False))
    assert model.config.context == 64 and not any("window" in n for n in notes)
    for kind, context in (("mistral", 4096), ("llama", 8192)):
        model, _ = load_model(write_folder(tmp_path/"m", model_type=kind, max_position_embeddings=1 << 15))
        assert model.config.context == context
    for kind, context in (("mistral", 4096), ("llama", 2048)):
        model, _ = load_model(write_folder(tmp_path/"m", model_type=kind, max_position_embeddings=...))
        assert model.config.context == context


def test_scalings_that_lack_something(tmp_path):
    for kind, keys in (("linear", ["factor"]), ("llama3", ["factor", "low_freq_factor", "high_freq_factor"])):
        whole = dict(rope_type=kind, factor=2.0, low_freq_factor=1.0, high_freq_factor=4.0)
        for key in keys:
            with pytest.raises(ValueError, match=f"has no {key}"):
                load_model(write_folder(tmp_path/"m", rope_scaling={k: v for k, v in whole.items() if k != key}))
    for kind in ("longrope", "dynamic", "su", "proportional", "mrope"):
        with pytest.raises(ValueError, match=f"{kind}.*not supported, only default, linear, llama3, yarn"):
            load_model(write_folder(tmp_path/"m", rope_scaling=dict(rope_type=kind, factor=2.0)))
    with pytest.raises(ValueError, match="ramp is from pair"):
        load_model(write_folder(tmp_path/"m", rope_scaling=dict(rope_type="yarn", factor=2.0, original_max_position_embeddings=2)))
    with pytest.raises(ValueError, match="each kind of layer"):
        load_model(write_folder(tmp_path/"m", rope_parameters=dict(full_attention=dict(rope_type="default"))))
    _, notes = load_model(write_folder(tmp_path/"m", rope_scaling=dict(rope_type="linear", factor=2.0, beta_fast=8)))
    assert "RoPE parameters beta_fast mean nothing to RoPE scaling linear" in notes


def test_stored_frequencies(tmp_path):
    """Buffers of old checkpoints: transformers computes its own."""
    for base, told in ((CONFIG.rope_base, False), (10000.0, True)):
        buffer = (1/base**(np.arange(0, 24, 2)/24)).astype(np.float32)
        tensors = hf_tensors() | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": buffer for i in range(2)}
        _, notes = load_model(write_folder(tmp_path/"m", tensors=tensors))
        assert sum("inv_freq is not what config.json says" in n for n in notes) == told
