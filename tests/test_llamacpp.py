# SPDX-License-Identifier: BSD-2-Clause
"""GGUF files against llama.cpp (xllamacpp): the log-probabilities of the float device are its own, for every key that is used."""

import dataclasses

import numpy as np
import pytest

from litellama.accel.config import ModelConfig
from litellama.host.importers import load_model

from exact_models import CONFIG, TOKENS, VOCAB, our_logprobs, write_gguf

CLOSE = 2e-4
S     = "llama__rope__scaling__"
YARN  = {S + "type": "yarn", S + "factor": 4.0, S + "original_context_length": 20}
FREQS = [("rope_freqs.weight", np.linspace(1, 8, CONFIG.head_dim//2, dtype=np.float32))]


class LlamaCpp:
    """llama.cpp over the GGUF file `path`: float32 throughout."""

    def __init__(self, path, context):
        import xllamacpp
        p = xllamacpp.CommonParams()
        p.model.path, p.n_ctx, p.n_parallel, p.port = str(path), context, 1, 0
        p.verbosity, p.warmup, p.cpuparams.n_threads = -1, False, 1
        p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(p)

    def logprobs(self, tokens):
        """Log-probabilities (vocab,) after `tokens`."""
        answer = self._server.handle_completions(dict(prompt=list(tokens), n_predict=1, n_probs=VOCAB, temperature=0.0,
            cache_prompt=True, logit_bias=[[5, 1e4]]))   # What it samples must not be an end.
        said = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        assert len(said) == VOCAB
        out = np.empty(VOCAB)
        for p in said:
            out[p["id"]] = p["logprob"]
        return out


def distance(path, config=CONFIG):
    """Largest difference of our log-probabilities from llama.cpp's at three positions, and our notes."""
    engine      = LlamaCpp(path, config.context)
    ours, notes = our_logprobs(path)
    return max(np.abs(engine.logprobs(TOKENS[:n]) - ours[n - 1]).max() for n in (2, 21, len(TOKENS))), notes


@pytest.mark.parametrize("name,config,tied", [
    ("heads of 24", CONFIG, True), ("untied", CONFIG, False),
    ("one KV head", ModelConfig(96, 160, 3, 3, 1, 32, VOCAB, 64, 1e-3, 300.0), True),
    ("no groups", ModelConfig(48, 90, 1, 2, 2, 24, VOCAB, 64, 0.2, 1e6), False)])
def test_models(tmp_path, name, config, tied):
    path = write_gguf(tmp_path/"m.gguf", config, tied)
    model, _ = load_model(path)
    assert dataclasses.replace(config, eps=float(np.float32(config.eps))) == model.config
    far, notes = distance(path, config)
    assert far < CLOSE and notes == []


@pytest.mark.parametrize("name,changes,extra,told", [
    ("factor without a type", {S + "factor": 4.0}, [], ""),
    ("linear", {S + "type": "linear", S + "factor": 2.5}, [], ""),
    ("the older name", {"llama__rope__scale_linear": 4.0}, [], ""),
    ("both names", {S + "factor": 4.0, "llama__rope__scale_linear": 2.0}, [], "scale_linear is 2, but"),
    ("none counts more", {S + "type": "none", S + "factor": 4.0}, [], "not scaled by 4"),
    ("none and the older name", {S + "type": "none", "llama__rope__scale_linear": 4.0}, [], "not scaled by 4"),
    ("a factor of 0", {S + "factor": 0.0}, [], ""),
    ("attn_factor alone", {S + "attn_factor": 0.7}, [], ""),
    ("attn_factor and linear", {S + "type": "linear", S + "factor": 4.0, S + "attn_factor": 0.7}, [], ""),
    ("yarn", YARN, [], ""),
    ("yarn that shrinks", YARN | {S + "factor": 0.5}, [], ""),
    ("yarn, start above 0", YARN | {S + "original_context_length": 4000}, [], ""),
    ("yarn, end at the head's", YARN | {S + "original_context_length": 300, "llama__rope__freq_base": 3.0}, [], ""),
    ("yarn and attn_factor", YARN | {S + "attn_factor": 0.8}, [], ""),
    ("yarn of the whole context", YARN | {S + "original_context_length": ...}, [], ""),
    ("yarn, beta_fast", YARN | {S + "yarn_beta_fast": 3.0}, [], "yarn_beta_fast is 3.0"),
    ("yarn, beta_slow", YARN | {S + "yarn_beta_slow": 0.5}, [], "yarn_beta_slow is 0.5"),
    ("yarn_attn_factor", YARN | {S + "yarn_attn_factor": 0.5}, [], "yarn_attn_factor is 0.5"),
    ("yarn_ext_factor", YARN | {S + "yarn_ext_factor": 0.5}, [], "yarn_ext_factor is 0.5"),
    ("yarn_log_multiplier", YARN | {S + "yarn_log_multiplier": 0.5}, [], "yarn_log_multiplier is 0.5"),
    ("a table", {}, FREQS, ""), ("a table and linear", {S + "factor": 2.0}, FREQS, ""), ("a table and yarn", YARN, FREQS, ""),
    ("lists of equal values", {"llama__attention__head_count_kv": [2, 2], "llama__attention__head_count": [4, 4],
        "llama__feed_forward_length": [172, 172]}, [], ""),
    ("no freq_base", {"llama__rope__freq_base": ...}, [], ""),
    ("no rope.dimension_count", {"llama__rope__dimension_count": ...}, [], "")])
def test_keys(tmp_path, name, changes, extra, told):
    far, notes = distance(write_gguf(tmp_path/"m.gguf", extra=extra, **changes))
    assert far < CLOSE and (len(notes) == 1 and told in notes[0] if told else notes == []), (far, notes)


def test_defaults_of_heads(tmp_path):
    """Without key_length and value_length a head is dim/heads."""
    config = dataclasses.replace(CONFIG, head_dim=16)
    absent = {f"llama__{k}": ... for k in ("attention__key_length", "attention__value_length", "rope__dimension_count")}
    far, notes = distance(write_gguf(tmp_path/"m.gguf", config, **absent), config)
    assert far < CLOSE and notes == []
    with pytest.raises(ValueError, match="value_length is 16 .absent., must be the head's 24"):   # llama.cpp's default is not key_length.
        load_model(write_gguf(tmp_path/"n.gguf", llama__attention__value_length=...))
    for key in ("block_count", "attention__layer_norm_rms_epsilon", "embedding_length", "context_length"):
        with pytest.raises(ValueError, match=f"no field llama.{key.replace('__', '.')}"):
            load_model(write_gguf(tmp_path/"n.gguf", **{f"llama__{key}": ...}))
    heads = load_model(write_gguf(tmp_path/"n.gguf", dataclasses.replace(CONFIG, n_kv_heads=4), llama__attention__head_count_kv=...))
    assert heads[0].config.n_kv_heads == 4


@pytest.mark.parametrize("key,value", [("head_count_kv", [2, 1]), ("head_count_kv", [2]), ("head_count_kv", [2, 2, 2]),
    ("head_count", [4, 2]), ("head_count", ["4", "4"]), ("head_count", [4.0, 4.0])])
def test_layers_that_differ_are_refused(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"attention.{key} is"):
        load_model(write_gguf(tmp_path/"m.gguf", **{f"llama__attention__{key}": value}))


def test_a_sliding_window_cuts_the_context(tmp_path):
    path = write_gguf(tmp_path/"m.gguf", llama__attention__sliding_window=23)
    model, notes = load_model(path)
    assert model.config.context == 23 and "context cut from 64 to 23, the sliding window" in notes
    same, _ = load_model(write_gguf(tmp_path/"n.gguf", llama__attention__sliding_window=100))
    assert same.config.context == 64


def test_yarns_original_context_is_the_whole_one(tmp_path):
    """Also where ours is cut: the ramp is not that of 8,192 positions."""
    config = dataclasses.replace(CONFIG, context=1 << 15)
    path   = write_gguf(tmp_path/"m.gguf", config, **YARN | {S + "original_context_length": ...})
    same   = write_gguf(tmp_path/"n.gguf", config, **YARN | {S + "original_context_length": 1 << 15})
    assert np.array_equal(*(load_model(p)[0].rope for p in (path, same)))
    less   = write_gguf(tmp_path/"n.gguf", config, **YARN | {S + "original_context_length": 1 << 13})
    assert not np.array_equal(*(load_model(p)[0].rope for p in (path, less)))
