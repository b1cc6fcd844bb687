# SPDX-License-Identifier: BSD-2-Clause
"""Small files with the keys that public models' files have, as remembered from them: each loads with the notes that it should have and no
other, or says why not."""

import dataclasses
import json

import numpy as np
import pytest

from litellama.accel.config import ModelConfig
from litellama.host.importers import load_model
from litellama.host.random_model import llama2c_bytes

from exact_models import gguf_fields, tokenizer_json, write_fields, write_folder
from test_importers import refused

DIMS = ModelConfig(64, 96, 2, 4, 2, 16, 300, 256, 1e-5, 10000.0)
LLAMA3_FREQS = [("rope_freqs.weight", np.linspace(1, 8, 8, dtype=np.float32))]


def common(name, file_type=15, **more):
    """Fields that llama.cpp's converter writes for every model."""
    return {"general.architecture": "llama", "general.type": "model", "general.name": name, "general.basename": name,
        "general.size_label": "1B", "general.license": "apache-2.0", "general.languages": ["en"], "general.tags": ["text-generation"],
        "general.quantization_version": 2, "general.file_type": file_type} | more


def old(name):
    """What the converter wrote in 2023."""
    return {"general.architecture": "llama", "general.name": name, "general.file_type": 2, "general.quantization_version": 2,
        "general.source.url": "https://example.com", "general.source.huggingface.repository": "a/b"}


# name: (fields beside the model's own, keys that are not there, further tensors, tied, what is told).
GGUF_MODELS = {
    "Llama-2-7B-Chat": (old("LLaMA v2") | {"tokenizer.ggml.unknown_token_id": 0, "llama.vocab_size": 300,
        "tokenizer.chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"},
        ["attention.key_length", "attention.value_length", "rope.freq_base"], [], False, []),
    "TinyLlama-1.1B-Chat": (old("tinyllama") | {"tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}"},
        ["attention.key_length", "attention.value_length"], [], False, []),
    "Llama-3.2-1B-Instruct": (common("Llama 3.2 1B Instruct") | {"general.finetune": "Instruct", "llama.vocab_size": 300,
        "general.base_model.count": 1, "general.base_model.0.name": "Llama 3.2", "general.base_model.0.repo_url": "https://example.com",
        "quantize.imatrix.file": "/models/imatrix.dat", "quantize.imatrix.dataset": "calibration.txt",
        "quantize.imatrix.entries_count": 112, "quantize.imatrix.chunks_count": 125, "llama.rope.freq_base": 500000.0},
        [], LLAMA3_FREQS, True, []),
    "SmolLM2-135M-Instruct": (common("Smollm2 135M 8k Lc100K Mix1 Ep2") | {"general.organization": "Loubnabnl", "llama.vocab_size": 300,
        "llama.rope.freq_base": 100000.0, "tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.padding_token_id": 2},
        ["attention.key_length", "attention.value_length"], [], True, []),
    "Mistral-7B-Instruct-v0.2": (old("mistral") | {"llama.rope.freq_base": 1e6, "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False},
        ["attention.key_length", "attention.value_length"], [], False, []),
    "Yi-6B-Chat": (old("Yi") | {"llama.rope.freq_base": 5e6, "llama.tensor_data_layout": "Meta AI original pth",
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.padding_token_id": 0},
        ["attention.key_length", "attention.value_length"], [], False, []),
    "deepseek-llm-7b (linear scaling)": (old("deepseek") | {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0,
        "tokenizer.ggml.padding_token_id": 2}, ["attention.key_length", "attention.value_length"], [], False, []),
    "Vikhr (sampling, a name with an escape)": (common("Vik\x1bhr", **{"general.sampling.temp": 0.5, "general.sampling.top_k": 40}),
        [], [], False, ["GGUF file suggests --temperature 0.5 --top-k 40"]),
    "a merge with keys of its own": (common("merge") | {"llama.merge.method": "slerp", "mergekit.version": "1"}, [], [], False,
        ["keys that are not known here and not used: llama.merge.method, mergekit.version"]),
}


@pytest.mark.parametrize("name", GGUF_MODELS)
def test_gguf_models(tmp_path, name):
    more, absent, tensors, tied, told = GGUF_MODELS[name]
    fields = {k: v for k, v in gguf_fields(DIMS).items() if k.removeprefix("llama.") not in absent} | more
    model, notes = load_model(write_fields(tmp_path/"m.gguf", fields, DIMS, tied, tensors))
    assert model.tied == tied and model.config.rope_base == fields.get("llama.rope.freq_base", 10000.0)
    others = [n for n in notes if "quantised to" not in n and not n.startswith("tokenizer")]   # The tokenizer's are its own tests'.
    assert len(others) == len(told) and all(t in n for t, n in zip(told, others)), others
    assert model.meta["name"] == more["general.name"]


def test_models_that_say_why_not(tmp_path):
    for name, fields, tensors, why in (
            ("Mixtral-8x7B", {"llama.expert_count": 8, "llama.expert_used_count": 2}, [], "llama.expert_count is 8"),
            ("Phi-like longrope", {"llama.rope.scaling.type": "longrope"}, [("rope_factors_long.weight", np.ones(8, np.float32))],
                "longrope"),
            ("with biases", {}, [("blk.0.attn_k.bias", np.zeros(32, np.float32))], "'blk.0.attn_k.bias' is not supported: a bias"),
            ("Qwen3-like norms", {}, [("blk.0.attn_q_norm.weight", np.ones(16, np.float32))],
                "attn_q_norm.weight' is not supported: a further"),
            ("granite-like scales", {"llama.attention.scale": 0.015625, "llama.logit_scale": 8.0}, [], "llama.attention.scale is 0.015625"),
            ("the second part", {"split.no": 1, "split.count": 2, "split.tensors.count": 100}, [], "part 2 of the 2")):
        path = write_fields(tmp_path/"m.gguf", gguf_fields(DIMS) | common(name) | fields, DIMS, extra=tensors)
        assert why in (refused(path) or ""), name


# Hugging Face folders: name: (changes to config.json, generation_config.json, what is told).
GREEDY = dict(_from_model_config=True, bos_token_id=1, eos_token_id=2, transformers_version="4.40.0")
FOLDERS = {
    "Llama-2-7b-chat-hf": (dict(_name_or_path="meta-llama/Llama-2-7b-chat-hf", initializer_range=0.02, pretraining_tp=1,
        rope_scaling=None, torch_dtype="float16", transformers_version="4.32.0.dev0", use_cache=True, rope_theta=..., head_dim=...),
        GREEDY | dict(do_sample=True, max_length=4096, pad_token_id=0, temperature=0.6, top_p=0.9),
        ["config.json says 'float16', the tensors are F32", "suggests --temperature 0.6 --top-k 50 --top-p 0.9"]),
    "Llama-3.1-8B-Instruct": (dict(attention_bias=False, attention_dropout=0.0, mlp_bias=False, rope_theta=500000.0,
        rope_scaling=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128,
        rope_type="llama3"), eos_token_id=[2, 5, 6], torch_dtype="bfloat16", transformers_version="4.42.3"),
        dict(bos_token_id=1, do_sample=True, eos_token_id=[2, 5, 6], temperature=0.6, top_p=0.9, transformers_version="4.42.3"),
        ["config.json says 'bfloat16'", "suggests --temperature 0.6"]),
    "SmolLM2-135M-Instruct": (dict(is_llama_config=True, rope_interleaved=False, rope_scaling=None, rope_theta=100000,
        pad_token_id=2, initializer_range=0.041666666666666664, **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}}),
        GREEDY, []),
    "TinyLlama-1.1B-Chat-v1.0": (dict(attention_bias=False, num_key_value_heads=2, rope_theta=10000.0, max_position_embeddings=2048),
        dict(bos_token_id=1, eos_token_id=2, max_length=2048, pad_token_id=0, transformers_version="4.35.0"), []),
    "Mistral-7B-v0.1": (dict(architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=64, max_position_embeddings=256,
        rope_theta=10000.0), GREEDY, ["context cut from 256 to 64, the sliding window"]),
    "Yi-6B": (dict(rope_theta=5000000.0, pad_token_id=0, max_position_embeddings=200000), GREEDY, ["context cut from 200000 to 8192"]),
    "deepseek-llm-7b": (dict(attention_bias=False, pretraining_tp=1, aux_loss_alpha=0.001), None,
        ["not known here and not used: aux_loss_alpha"]),
    "transformers 5's form": (dict(rope_theta=..., rope_parameters=dict(rope_type="default", rope_theta=10000.0), torch_dtype=...,
        dtype="float32", transformers_version="5.24.0"), GREEDY, []),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(tmp_path, name):
    changes, generation, told = FOLDERS[name]
    base   = changes.get("rope_theta", ...)
    config = dataclasses.replace(DIMS, rope_base=10000.0 if base is ... else float(base))
    model, notes = load_model(write_folder(tmp_path/"m", config, False, generation=generation, **changes))
    others = [n for n in notes if "quantised to" not in n and not n.startswith("tokenizer")]
    assert len(others) == len(told) and all(t in n for t, n in zip(told, others)), others
    assert model.config.rope_base == config.rope_base and not model.tied


def test_folders_that_say_why_not(tmp_path):
    for change, why in ((dict(model_type="qwen2"), "model_type is 'qwen2'"), (dict(model_type="mixtral"), "'mixtral'"),
            (dict(attention_bias=True), "attention_bias is True"), (dict(hidden_act="gelu_pytorch_tanh"), "hidden_act"),
            (dict(quantization_config=dict(quant_method="fp8")), "'fp8'"), (dict(no_rope_layers=[1, 0]), "no_rope_layers"),
            (dict(rope_scaling=dict(type="dynamic", factor=2.0)), "'dynamic'"),
            (dict(rope_scaling=dict(type="longrope", short_factor=[1.0], long_factor=[1.0])), "'longrope'")):
        assert why in (refused(write_folder(tmp_path/"m", DIMS, **change)) or ""), change


def test_stories15m(tmp_path):
    """llama2.c's first model: 288 wide, 6 heads of 48."""
    checkpoint, tokenizer = llama2c_bytes(ModelConfig(288, 768, 1, 6, 6, 48, 400, 256))
    (tmp_path/"stories15M.bin").write_bytes(checkpoint), (tmp_path/"tokenizer.bin").write_bytes(tokenizer)
    model, notes = load_model(str(tmp_path/"stories15M.bin"))
    assert len(notes) == 1 and "quantised to q8_0" in notes[0] and model.config.head_dim == 48


def test_metas_own_folder(tmp_path):
    (tmp_path/"params.json").write_text(json.dumps(dict(dim=64, n_layers=2, n_heads=4, vocab_size=-1, norm_eps=1e-5)))
    (tmp_path/"consolidated.00.pth").write_bytes(b"PK\x03\x04")
    (tmp_path/"tokenizer.json").write_text(tokenizer_json())
    assert "Meta's or Mistral's own format" in refused(tmp_path)
