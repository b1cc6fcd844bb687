# SPDX-License-Identifier: BSD-2-Clause
"""Every row of the tables of what a source can say is fed: what is used changes the model, what is refused is refused by its name, what
is told is told, and nothing else changes anything. README.md has these tables."""

import json
from pathlib import Path

import numpy as np
import pytest

from litellama.accel import image
from litellama.accel.config import ModelConfig
from litellama.host import importers
from litellama.host.importers import load_model, tables
from litellama.host.importers.gguf_keys import GGUF_KEYS, GGUF_TENSORS
from litellama.host.importers.huggingface_keys import CONFIG_KEYS, GENERATION_KEYS, HF_TENSORS, ROPE_KEYS
from litellama.host.importers.keys import NAMED_MAX, NOTHING, REFUSED, SAMPLING, TOLD, USED, find, judge

from exact_models import hf_tensors, write_folder, write_gguf

TINY   = ModelConfig(32, 40, 1, 4, 2, 16, 300, 64, 3e-2, 5000.0)
S      = "llama.rope.scaling."
FIELDS = {S + "type": "yarn", S + "factor": 4.0, S + "original_context_length": 1000}
ROPE   = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=1000)
LLAMA3 = dict(rope_type="llama3", factor=4.0, original_max_position_embeddings=40, low_freq_factor=1.0, high_freq_factor=4.0)
ODD    = (0.37, "other", [7], True, 7, {"a": 1})   # Values for what is refused or told.
# Usual values of rows whose `usual` depends on the model.
USUAL  = {"llama.vocab_size": 300, "llama.attention.scale": 0.25, "llama.embedding_length_out": 32, "llama.features_length": 32,
    "llama.attention.key_length_swa": 16, "llama.attention.value_length_swa": 16, "llama.rope.dimension_count_swa": 16,
    "llama.rope.freq_base_swa": 5000.0, "attention_multiplier": 0.25, "query_pre_attn_scalar": 16}
# Other values of what is used.
GGUF_USED = {"general.name": "other", "general.architecture": "mistral", "general.alignment": 3, "tokenizer.chat_template": "x",
    "tokenizer.chat_template.9": "x",
    "llama.context_length": 48, "llama.embedding_length": 64, "llama.block_count": 2, "llama.feed_forward_length": 72,
    "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1, "llama.attention.key_length": 8,
    "llama.attention.value_length": 8, "llama.rope.dimension_count": 8, "llama.attention.layer_norm_rms_epsilon": 1e-3,
    "llama.rope.freq_base": 700.0, "llama.attention.sliding_window": 23, S + "type": "linear", S + "factor": 3.0,
    "llama.rope.scale_linear": 3.0, S + "attn_factor": 0.5, S + "original_context_length": 30}
CONFIG_USED = dict(model_type="gpt2", hidden_size=64, intermediate_size=72, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, head_dim=8, vocab_size=280, max_position_embeddings=48, rms_norm_eps=1e-3, tie_word_embeddings=False,
    rope_theta=700.0, rope_scaling=LLAMA3, rope_parameters=LLAMA3, original_max_position_embeddings=30, bos_token_id=7, eos_token_id=7,
    sliding_window=23)
ROPE_USED = dict(rope_type="linear", rope_theta=700.0, factor=3.0, low_freq_factor=2.0, high_freq_factor=5.0,
    original_max_position_embeddings=30, beta_fast=9.0, beta_slow=0.01, attention_factor=0.5, mscale=0.7, mscale_all_dim=1.3,
    truncate=False)


def names(row):
    """Names of a row, with something for each `*`."""
    return [n.replace("*", "9") for n in row.names.split()]


def of(table, *verdicts):
    """Test parameters: the rows of these verdicts."""
    return [pytest.param(row, id=row.names[:40]) for row in table if row.verdict in verdicts]


def plain(path):
    """(image, notes) of a model; the name of its folder does not matter."""
    model, notes = load_model(path)
    if model.meta["source"] == "huggingface":
        del model.meta["name"]
    return image.write_image(model), [n for n in notes if "quantised to" not in n]


@pytest.fixture(scope="module", name="base")
def fixture_base(tmp_path_factory):
    """{"gguf", "config", "generation"}: a function (folder, {key: value}) that loads a model that says so, too."""
    folder = str(tmp_path_factory.mktemp("base"))
    make   = dict(
        gguf=lambda changes={}: write_gguf(folder + "/m.gguf", TINY, **{k.replace(".", "__"): v for k, v in (FIELDS | changes).items()}),
        config=lambda changes={}: write_folder(folder + "/c", TINY, **{"rope_parameters": ROPE} | changes),
        rope=lambda changes={}: write_folder(folder + "/r", TINY, rope_parameters=ROPE | changes),
        generation=lambda changes={}: write_folder(folder + "/g", TINY, generation=changes))
    return {kind: lambda changes={}, write=write: plain(write(changes)) for kind, write in make.items()}


@pytest.mark.parametrize("table", [t for _, t in tables.TABLES], ids=[t for t, _ in tables.TABLES])
def test_rows_are_reached(table):
    """Each name is its own row's, not that of one before."""
    for row in table:
        for name in names(row):
            assert find(name, table) is row, name
    assert all(callable(r.usual) is any(n in USUAL for n in names(r)) for r in table)


def check_rows(base, row, where):
    """Refused or told unless usual: every name of the row alone."""
    good, notes = base()
    first = True
    for name in names(row):
        odd = next(v for v in ODD if not row.is_usual(v, TINY))
        if where == "GGUF file" and isinstance(odd, dict):
            continue
        values = [USUAL[name]] if callable(row.usual) else list(row.usual)
        if first:   # Through a file; the others as they are judged.
            if row.verdict == REFUSED:
                with pytest.raises(ValueError, match=r"(?s)split|type|quantization|" + name.replace(".", r"\.")):
                    base({name: odd})
            else:
                other, told = base({name: odd})
                assert other == good and [n for n in told if name in n and "not used" in n] and len(told) == len(notes) + 1
            for value in values:
                assert base({name: value}) == (good, notes), (name, value)
        elif row.verdict == REFUSED:
            with pytest.raises(ValueError, match=f"{where} says {name}"):
                judge({name: odd}, TABLE[where], where, TINY)
        else:
            assert name in judge({name: odd}, TABLE[where], where, TINY)[0]
        for value in [*values, None, []]:
            assert judge({name: value}, TABLE[where], where, TINY) == []
        first = False


TABLE = {"GGUF file": GGUF_KEYS, "config.json": CONFIG_KEYS, "RoPE parameters in config.json": ROPE_KEYS,
    "generation_config.json": GENERATION_KEYS}
KINDS = {"GGUF file": "gguf", "config.json": "config", "RoPE parameters in config.json": "rope", "generation_config.json": "generation"}


@pytest.mark.parametrize("where,row", [pytest.param(where, r.values[0], id=f"{KINDS[where]} {r.id}") for where, table in TABLE.items()
    for r in of(table, REFUSED, TOLD)])
def test_refused_or_told(base, where, row):
    if row.names.startswith("quantization_config"):   # Refused before anything else, see test_huggingface.
        with pytest.raises(ValueError, match="quantization_config in config.json, 'gptq'"):
            base["config"](dict(quantization_config=dict(quant_method="gptq", bits=4)))
    else:
        check_rows(base[KINDS[where]], row, where)


@pytest.mark.parametrize("where,row", [pytest.param(where, r.values[0], id=f"{KINDS[where]} {r.id}") for where, table in TABLE.items()
    for r in of(table, NOTHING)])
def test_what_changes_nothing(base, where, row):
    """Not the image, and there is nothing to tell."""
    good = base[KINDS[where]]()
    assert base[KINDS[where]]({name: 7 for name in names(row)}) == good


@pytest.mark.parametrize("where,used", [("gguf", GGUF_USED), ("config", CONFIG_USED)])
def test_what_is_used(base, where, used):
    """Each key alone changes the model, or is refused since tensors are of other shape."""
    # By the tokenizer's reader; or with a test of their own.
    others = {"tokenizer.9", "bos_token_id", "eos_token_id", "dtype", "torch_dtype", "use_sliding_window"}
    absent = {"llama.rope.scale_linear": {S + "factor": ...}, "rope_theta": dict(rope_parameters=None)}   # What counts more.
    for row in GGUF_KEYS if where == "gguf" else CONFIG_KEYS:
        for name in set(names(row)) - others if row.verdict == USED else ():
            without = absent.get(name, {})
            try:
                changed = base[where](without | {name: used[name]})[0]
            except ValueError:
                continue
            assert changed != base[where](without)[0], name


def test_what_is_used_of_rope(base):
    good = base["rope"]()[0]
    for row in ROPE_KEYS:
        for name in row.names.split() if row.verdict == USED else ():
            if name in ("low_freq_factor", "high_freq_factor"):
                assert base["rope"](LLAMA3 | {name: ROPE_USED[name]})[0] != base["rope"](LLAMA3)[0]
            elif name.startswith("mscale"):
                both = dict(mscale=0.5, mscale_all_dim=0.9)
                assert base["rope"](both | {name: ROPE_USED[name]})[0] != base["rope"](both)[0]
            elif name == "type":
                assert base["rope"](dict(rope_type=None, type="linear"))[0] != good
            else:
                assert base["rope"]({name: ROPE_USED[name]})[0] != good, name


def test_dtype_is_told(base):
    for name in ("dtype", "torch_dtype"):
        same, notes = base["config"]({"torch_dtype": None} | {name: "torch.float32"})
        assert not notes and same == base["config"]()[0]
        same, notes = base["config"]({"torch_dtype": None} | {name: "bfloat16"})
        assert notes == ["config.json says 'bfloat16', the tensors are F32: kept as they are"] and same == base["config"]()[0]


def test_unknown_keys_are_told(base):
    many = {f"foo_{i}": 1 for i in range(NAMED_MAX + 3)}
    for kind in ("gguf", "config", "generation"):
        good, _     = base[kind]()
        same, notes = base[kind]({"llama.foo\x1b[31m" if kind == "gguf" else "foo\x1b": 1})
        assert same == good and len(notes) == 1 and "not known here and not used: " in notes[0] and "foo\\x1b" in notes[0]
        _, notes = base[kind](many)
        assert len(notes) == 1 and notes[0].endswith(": foo_0, foo_1, foo_10, foo_2, foo_3, foo_4, foo_5, foo_6 and 3 more"), notes


# Sampling ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind,values,options,told", [
    ("gguf", {"general.sampling.temp": 0.5, "general.sampling.top_k": 40, "general.sampling.top_p": 0.75,
        "general.sampling.min_p": 0.125, "general.sampling.penalty_repeat": 1.25, "general.sampling.penalty_last_n": 33},
        "--temperature 0.5 --top-k 40 --top-p 0.75 --min-p 0.125 --repeat-penalty 1.25 --repeat-last-n 33", []),
    ("gguf", {"general.sampling.top_k": 100}, "", ["top_k 100", "must be 0"]),
    ("generation", dict(do_sample=True, temperature=0.6, top_p=0.9), "--temperature 0.6 --top-k 50 --top-p 0.9", []),
    ("generation", dict(do_sample=True), "--temperature 1 --top-k 50", []),
    ("gguf", {"general.sampling.top_k": 0}, "", ["top_k 0, which is not used: the likeliest 64 are the most there are"]),
    ("generation", dict(do_sample=True, top_k=0, eos_token_id=[99999, "2", 1]), "--temperature 1",
        ["top_k 0", "eos_token_id 99999 of generation_config.json", "eos_token_id '2' of generation_config.json"]),
    ("generation", dict(do_sample=True, top_k=20, min_p=0.05, repetition_penalty=1.1, max_new_tokens=100, stop_strings=["a b", "c"]),
        "--temperature 1 --top-k 20 --min-p 0.05 --repeat-penalty 1.1 --tokens 100 --stop 'a b' --stop c", []),
    ("generation", dict(temperature=0.6, top_p=0.9), "", ["temperature 0.6, top_p 0.9, but not do_sample: it is greedy"]),
    ("generation", dict(do_sample=False, temperature=0.6, repetition_penalty=1.2), "--repeat-penalty 1.2", ["temperature 0.6, but not"]),
    ("generation", dict(max_new_tokens=0, repetition_penalty="x", do_sample=True, top_k=1000, stop_strings=[3]), "--temperature 1",
        ["max_new_tokens 0", "repetition_penalty 'x'", "top_k 1000", "stop_strings [3]"])])
def test_sampling_is_suggested(base, kind, values, options, told):
    data, notes = base[kind](values)
    meta = json.loads(bytes(image.section(data, image.read_header(data), "META")))
    assert meta.get("sampling", "") == options
    assert bool(options) == any(n.endswith(f"suggests {options}: not used unless given") for n in notes)
    assert len(notes) == bool(options) + len([t for t in told if "must be" not in t])
    assert all(any(t in n for n in notes) for t in told), notes


def test_suggestions_have_rows():
    """Each option of the table of options is a row's, and the other way round."""
    from litellama.host.importers.sampling import OPTIONS
    rows = [n.rpartition(".")[2] for table in (GGUF_KEYS, GENERATION_KEYS) for r in table if r.verdict == SAMPLING for n in names(r)]
    assert set(rows) == set(OPTIONS)


# Tensors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("row", of(GGUF_TENSORS, REFUSED))
def test_gguf_tensors_are_refused_by_name(tmp_path, row):
    for name in names(row):
        path = write_gguf(tmp_path/"m.gguf", TINY, extra=[(name, np.zeros(32, np.float32))])
        with pytest.raises(ValueError, match=f"tensor '{name}' is not supported: {row.text}"):
            load_model(path)


@pytest.mark.parametrize("row", of(HF_TENSORS, REFUSED))
def test_huggingface_tensors_are_refused_by_name(tmp_path, row):
    for name in names(row):
        path = write_folder(tmp_path/"m", TINY, tensors=hf_tensors(TINY) | {name: np.zeros(32, np.float32)})
        with pytest.raises(ValueError, match=f"tensor '{name}' is not supported: {row.text}"):
            load_model(path)


def test_a_layer_too_many_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'blk.1.attn_norm.weight' is not supported: the configuration has 1 layers"):
        load_model(write_gguf(tmp_path/"m.gguf", TINY, extra=[("blk.1.attn_norm.weight", np.zeros(32, np.float32))]))


# The page ------------------------------------------------------------------------------------------

def test_the_page_has_the_tables():
    text = (Path(importers.__file__).parent/"README.md").read_text("utf-8")
    assert tables.pages() in text, "python -m litellama.host.importers.tables prints them"
