#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What transformers makes of Hugging Face folders: cases, and the log-probabilities it gave for them (tests/data/transformers.json).

`python tests/transformers_cases.py` makes the file anew; it needs the extra `references` (transformers, torch for CPU: gigabytes, so
the tests compare with the file).
"""

import dataclasses
import json
from pathlib import Path
import sys
import tempfile

import numpy as np

from litellama.accel.config import ModelConfig

from exact_models import CONFIG, TOKENS, VOCAB, hf_tensors, log_softmax, write_folder

DATA      = Path(__file__).parent/"data"/"transformers.json"
POSITIONS = (2, 21, len(TOKENS))
IDS       = [(11*i + 5) % VOCAB for i in range(24)]   # Whose log-probabilities are kept.
YARN      = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=20)
LLAMA3    = dict(rope_type="llama3", factor=8.0, low_freq_factor=0.5, high_freq_factor=3.0, original_max_position_embeddings=40)


def _both():
    tensors = hf_tensors(CONFIG, False)
    return dict(tensors=tensors, tie_word_embeddings=True)


def _only_head():
    tensors = hf_tensors(CONFIG, True)
    return dict(tensors={"lm_head.weight" if n == "model.embed_tokens.weight" else n: x for n, x in tensors.items()})


def cases():
    """{name: arguments of exact_models.write_folder}."""
    new = lambda **r: dict(rope_theta=..., rope_parameters=dict(rope_theta=CONFIG.rope_base, rope_type="default") | r)
    return {
        "heads of 24": {}, "untied": dict(tied=False), "tied, but two tensors": _both(), "tied, the classifier stored": _only_head(),
        "one KV head": dict(config=ModelConfig(96, 160, 3, 3, 1, 32, VOCAB, 64, 1e-3, 300.0)),
        "no groups": dict(config=ModelConfig(48, 90, 1, 2, 2, 24, VOCAB, 64, 0.2, 1e6), tied=False),
        "absent: KV heads, head_dim, eps, theta": dict(config=dataclasses.replace(CONFIG, n_kv_heads=4, head_dim=16),
            num_key_value_heads=..., head_dim=..., rms_norm_eps=..., rope_theta=...),
        "null": dict(config=dataclasses.replace(CONFIG, n_kv_heads=4, head_dim=16), num_key_value_heads=None, head_dim=None,
            rope_scaling=None, pretraining_tp=None),
        "mistral, no window": dict(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=None),
        "mistral, absent: KV heads": dict(config=dataclasses.replace(CONFIG, dim=128, n_heads=16, n_kv_heads=8, head_dim=8),
            model_type="mistral", num_key_value_heads=..., sliding_window=None),
        "swish": dict(hidden_act="swish"), "pretraining_tp": dict(pretraining_tp=2),
        "linear, old": dict(rope_scaling=dict(type="linear", factor=2.5)),
        "linear, new": new(rope_type="linear", factor=2.5),
        "both names": dict(rope_scaling=dict(type="linear", factor=2.5), rope_parameters=dict(rope_type="default", rope_theta=77.0)),
        "theta in both places": dict(rope_parameters=dict(rope_type="default", rope_theta=77.0)),
        "llama3, old": dict(rope_scaling=LLAMA3), "llama3, new": new(**LLAMA3),
        "llama3, original outside": dict(rope_scaling=LLAMA3, original_max_position_embeddings=50),
        "llama3, original absent": dict(rope_scaling={k: v for k, v in LLAMA3.items() if k[0] != "o"}),
        "yarn, old": dict(rope_scaling=YARN), "yarn, new": new(**YARN),
        "yarn, start above 0": new(**YARN | dict(original_max_position_embeddings=4000)),
        "yarn, betas": new(**YARN | dict(original_max_position_embeddings=1000, beta_fast=9.0, beta_slow=2.0)),
        "yarn, attention_factor": new(**YARN, attention_factor=0.7),
        "yarn, mscale": new(**YARN, mscale=0.7, mscale_all_dim=1.3),
        "yarn, mscale alone": new(**YARN, mscale=0.7),
        "yarn, mscale and attention_factor": new(**YARN, mscale=0.7, mscale_all_dim=1.3, attention_factor=0.9),
        "yarn, not truncated": new(**YARN | dict(original_max_position_embeddings=1000), truncate=False),
        "yarn, factor null": new(**YARN | dict(factor=None)),
        "yarn, end at the head's": new(rope_theta=3.0, **YARN | dict(original_max_position_embeddings=300)),
        "yarn, integers": new(**YARN | dict(factor=4), beta_fast=32, beta_slow=1),
        "original absent": new(**{k: v for k, v in YARN.items() if k[0] != "o"}),
    }


def chosen(logprobs):
    """What is kept of log-probabilities (T, vocab): a list of lists."""
    return [[round(float(logprobs[n - 1, i]), 5) for i in IDS] for n in POSITIONS]


def main():
    """Write DATA."""
    import torch
    import transformers
    results = {}
    for name, arguments in cases().items():
        with tempfile.TemporaryDirectory() as folder:
            model = transformers.AutoModelForCausalLM.from_pretrained(write_folder(folder, **arguments), dtype=torch.float32,
                attn_implementation="eager")
            with torch.no_grad():
                logits = model(torch.tensor([TOKENS])).logits[0].double().numpy()
        results[name] = chosen(log_softmax(logits))
    versions = dict(transformers=transformers.__version__, torch=torch.__version__)
    with open(DATA, "w") as f:
        f.write(f'{{"versions": {json.dumps(versions)}, "results": {{\n')
        f.write(",\n".join(f"{json.dumps(n)}: {json.dumps(r)}" for n, r in results.items()) + "\n}}\n")


if __name__ == "__main__":
    sys.exit(main())
