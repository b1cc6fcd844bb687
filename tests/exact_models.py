# SPDX-License-Identifier: BSD-2-Clause
"""Random tiny models that are exact in Q8_0, whatever padding does to their blocks, as GGUF file and as Hugging Face folder: with them
another engine's float arithmetic and ours may be compared digit by digit. No key has a default value."""

import json
import os
import struct

import gguf
import numpy as np

from litellama.accel.config import ModelConfig
from litellama.host.importers import gguf_llama, huggingface, load_model
from litellama.host.importers.pad import tensor_shapes
from litellama.host.devices.float_model import FloatDecoder
from litellama.host.random_model import random_tokenizer

VOCAB  = 300
CONFIG = ModelConfig(64, 172, 2, 4, 2, 24, VOCAB, 64, 3e-2, 5000.0)   # Heads of 24, not 16; groups of 2; hidden no multiple of 32.
TOKENS = [3 + 7*i % 290 for i in range(40)]


def exact_tensors(config, seed=0):
    """Function (kind, layer) -> float32: of each pair of weights in a row one is +-127 times the scale, a power of two."""
    shapes = tensor_shapes(config)
    kinds  = list(shapes)
    def tensor(kind, layer):
        rng, shape = np.random.default_rng([seed, kinds.index(kind), layer]), shapes[kind]
        if len(shape) == 1:
            return (1 + 0.2*rng.standard_normal(shape)).astype(np.float32)
        q     = rng.integers(-127, 128, (shape[0], shape[1]//2, 2))
        where = rng.integers(0, 2, q.shape[:2] + (1,))
        np.put_along_axis(q, where, rng.choice([-127, 127], where.shape), 2)
        scale = 2.0**np.round(np.log2(shape[1]**-0.5*(3 if kind in ("embedding", "classifier") else 1.2)/100))
        return (q.reshape(shape)*scale).astype(np.float32)
    return tensor


def gguf_fields(config):
    """{key: value} of a GGUF file of `config`."""
    t = random_tokenizer(config.vocab)
    model = {"context_length": config.context, "embedding_length": config.dim, "block_count": config.n_layers,
        "feed_forward_length": config.hidden, "attention.head_count": config.n_heads, "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim, "attention.value_length": config.head_dim, "rope.dimension_count": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.eps, "rope.freq_base": config.rope_base}
    return {"general.name": "tiny"} | {"llama." + k: v for k, v in model.items()} | {"tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(t.pieces), "tokenizer.ggml.scores": [float(s) for s in t.scores],
        "tokenizer.ggml.token_type": [{"n": 1, "u": 2, "c": 3, "b": 6}[c] for c in t.types], "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2}


def write_gguf(path, config=CONFIG, tied=True, extra=(), seed=0, **changes):
    """A GGUF file; `changes` with __ for dots are further fields, or others (`...`: none). extra: further (name, array). Its path."""
    fields = gguf_fields(config) | {k.replace("__", "."): v for k, v in changes.items()}
    return write_fields(path, {k: v for k, v in fields.items() if v is not ...}, config, tied, extra, seed)


def write_fields(path, fields, config=CONFIG, tied=True, extra=(), seed=0):
    """A GGUF file of exactly these `fields` (int: uint32) and the model's tensors. Its path."""
    w, T = gguf.GGUFWriter(path, fields.get("general.architecture", "llama")), gguf.GGUFValueType
    kind = {bool: T.BOOL, int: T.UINT32, float: T.FLOAT32, str: T.STRING}
    for key, value in fields.items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            item = T.INT32 if type(value[0]) is int else kind[type(value[0])]
            w.add_key_value(key, value, T.ARRAY, item)
        else:
            w.add_key_value(key, value, kind[type(value)])
    names, tensor = gguf_llama.NAMES, exact_tensors(config, seed)
    for k in tensor_shapes(config):
        for i in range(config.n_layers if "{}" in names[k] else 0 if k == "classifier" and tied else 1):
            w.add_tensor(names[k].format(i) + ".weight", tensor(k, i))
    for name, x in extra:
        w.add_tensor(name, x)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    return str(path)


def half_split(w, head_dim):
    """Rows of each head from adjacent pairs to Hugging Face's order."""
    order = [*range(0, head_dim, 2), *range(1, head_dim, 2)]
    return np.ascontiguousarray(w.reshape(-1, head_dim, w.shape[1])[:, order].reshape(w.shape))


def hf_tensors(config=CONFIG, tied=True, seed=0):
    """{Hugging Face's name: float32}."""
    tensor, names, out = exact_tensors(config, seed), huggingface.NAMES, {}
    for k in tensor_shapes(config):
        for i in range(config.n_layers if "{}" in names[k] else 0 if k == "classifier" and tied else 1):
            w = tensor(k, i)
            out[names[k].format(i) + ".weight"] = half_split(w, config.head_dim) if k in ("wq", "wk") else w
    return out


def hf_config(config=CONFIG, tied=True, **changes):
    """Object of config.json; `...` leaves a key out."""
    d = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=config.dim, intermediate_size=config.hidden,
        num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads, num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim, vocab_size=config.vocab, max_position_embeddings=config.context, rms_norm_eps=config.eps,
        rope_theta=config.rope_base, hidden_act="silu", tie_word_embeddings=tied, torch_dtype="float32", bos_token_id=1, eos_token_id=2)
    return {k: v for k, v in (d | changes).items() if v is not ...}


def safetensors_bytes(tensors, metadata=dict(format="pt")):
    """A safetensors file of float32 tensors, by its specification."""
    header, data = ({"__metadata__": metadata} if metadata is not None else {}), b""
    for name, x in tensors.items():
        header[name] = dict(dtype="F32", shape=list(x.shape), data_offsets=[len(data), len(data) + x.nbytes])
        data += x.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tokenizer_json(vocab=VOCAB):
    """Text of a small byte-level tokenizer.json without merges."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces  = {p: i for i, p in enumerate(["<unk>", "<s>", "</s>", *letters])}
    t = tokenizers.Tokenizer(models.BPE(pieces, []))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(["<s>", "</s>"])
    assert len(pieces) <= vocab
    return t.to_str()


def write_folder(folder, config=CONFIG, tied=True, seed=0, tensors=None, generation=None, files=(), **changes):
    """A Hugging Face folder; `changes` to config.json, `files` {name: text or bytes} beside it. Its path."""
    os.makedirs(folder, exist_ok=True)
    content = {"config.json": json.dumps(hf_config(config, tied, **changes)), "tokenizer.json": tokenizer_json(config.vocab),
        "tokenizer_config.json": json.dumps(dict(bos_token="<s>", eos_token="</s>")),
        "model.safetensors": safetensors_bytes(hf_tensors(config, tied, seed) if tensors is None else tensors)}
    if generation is not None:
        content["generation_config.json"] = json.dumps(generation)
    for name, data in (content | dict(files)).items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
    return str(folder)


def log_softmax(y):
    """Log-probabilities of logits over the last axis."""
    y = np.asarray(y, np.float64)
    y = y - y.max(-1, keepdims=True)
    return y - np.log(np.exp(y).sum(-1, keepdims=True))


def our_logprobs(path, tokens=TOKENS):
    """(log-probabilities (T, vocab) by the float device, notes) of the model `path`; its import must have been exact."""
    model, notes = load_model(path)
    assert all("error 0.00 % of RMS, at most 0" in n for n in notes if "quantised to" in n), notes
    return log_softmax(FloatDecoder(model).forward(list(tokens), "all")), [n for n in notes if "quantised to" not in n]
