# SPDX-License-Identifier: BSD-2-Clause
"""Model importers: `load_model` takes any file that is understood and gives the in-memory model."""

import importlib.resources
import os
import struct

import numpy as np

from ...accel import image
from ...accel.config import check
from ..console import nearest
from ..fetch import SOURCES, fetch, fetch_file
from ..quantise import TYPES
from ..tokenizer import Tokenizer
from .gguf_llama import read_gguf
from .huggingface import read_huggingface
from .llama2c import check_size, read_llama2c
from .what_is import what_is

CONTEXT_MAX = 8192   # Positions imported; a longer context claimed by a file costs nothing.


def default_path():
    """Path of the default model, shipped in the package."""
    return str(importlib.resources.files(__package__.rpartition(".")[0])/"models"/"litellama-default.gguf")


def resolve(name, type=None, head=None):
    """Path of a `--model` argument: a name ("default", or one of fetch.SOURCES, downloaded on first use) or a file. type, head: as of
    load_model; for others than its own a fetched model's file is needed, its image is not enough."""
    if name in SOURCES:
        return fetch(name) if types(type, head) is None else fetch_file(name)
    known = ("default", *SOURCES)
    check(name == "default" or os.path.exists(name),
        f"no such file or model: {name!r}{nearest(name, known) or ','} known models are {', '.join(known)}")
    return default_path() if name == "default" else name


def _map(path):
    """The file's bytes, mapped read-only."""
    try:
        check(os.path.exists(path), f"no such file: {path}")
        check(os.path.isfile(path), f"{path} is no regular file: a model's is read from many places")
        check(os.path.getsize(path) > 0, f"file is empty: {path}")
        return np.memmap(path, np.uint8, "r")
    except OSError as e:
        raise ValueError(f"cannot read {path}: {e.strerror or e}") from None


def types(type=None, head=None):
    """What pad.Builder makes of `--type` and `--head-type` (names of quantise.TYPES, "keep", or None): one type or None for all
    matrices, or where the classifier has its own a function; the embedding then stays as it is."""
    for name, value in (("type", type), ("head type", head)):
        check(value in (None, "keep") or value in TYPES, f"{name} is {value!r}, must be keep, {', '.join(TYPES)}")
    layers, classifier = TYPES.get(type), TYPES.get(head)
    if head is None or (layers is None and classifier is None):
        return layers
    return lambda kind, layer: {"classifier": classifier, "embedding": None}.get(kind, layers)


def load_model(path, tokenizer=None, type=None, head=None):
    """(accel.image.Model, notes) of an image, GGUF file, Hugging Face folder or llama2.c checkpoint, told apart by content.

    tokenizer: path of a tokenizer.bin, only for llama2.c; the one beside the checkpoint unless given. type: "q8_0", "q4_0",
    "q4_1": all matrices in this type; "keep" or None: quantised ones stay as they are, floats become Q8_0. head: the same of the
    classifier alone, the embedding then keeps its own. notes: what was changed, and with what error (list of str). ValueError, naming
    the file, if anything is wrong with it.
    """
    path, type = os.fspath(path), types(type, head)
    data       = None if os.path.isdir(path) else _map(path)
    try:
        check(tokenizer is None or data is not None and not bytes(data[:8]).startswith((image.MAGIC, b"GGUF")),
            "this has a tokenizer of its own, --tokenizer is for llama2.c checkpoints")
        if data is None:
            return read_huggingface(path, type, CONTEXT_MAX)
        return _load(data, path, tokenizer, type)
    except (ValueError, struct.error, RecursionError, OverflowError, MemoryError, KeyError, TypeError, IndexError) as e:
        reason = str(e) if isinstance(e, ValueError) else f"file is corrupt ({e.__class__.__name__})"
        raise ValueError(f"{path}: {reason}") from None


def _load(data, path, tokenizer, type):
    head = bytes(data[:8])
    if head == image.MAGIC:
        check(type is None, "an image keeps its types: convert from its source again")
        return check_model(image.read_image(data)), []
    if head.startswith(b"GGUF"):
        return read_gguf(data, type, CONTEXT_MAX)
    what = what_is(data)
    check(what is None, f"this is {what}")
    check_size(data)   # What is no checkpoint at all is told so first.
    if tokenizer is None:
        tokenizer = os.path.join(os.path.dirname(path), "tokenizer.bin")
        if not os.path.isfile(tokenizer):
            raise ValueError("there is no tokenizer.bin beside it: put it there, or name it with --tokenizer")
    return read_llama2c(data, _map(tokenizer), type)


def check_model(model):
    """`model`, or ValueError if what an image's own reader leaves open is wrong: kinds of tensors, scales, token ids."""
    c = model.config
    for l in model.layers:
        for w in (l.wk, l.wv, l.wq, l.wo, l.w13, l.w2):
            _check_matrix(w)
        for w in (l.norm1, l.norm2):
            _check_floats(w, "a norm")
    _check_matrix(model.classifier)
    _check_matrix(model.embedding)
    _check_floats(model.norm_final, "a norm")
    _check_floats(model.rope, "the RoPE table")
    check(model.bos < c.vocab and model.eos < c.vocab,
        f"BOS {model.bos} or EOS {model.eos} is outside the vocabulary of {c.vocab}")
    n = Tokenizer.from_bytes(model.tokenizer).vocab
    check(n == c.vocab, f"tokenizer has {n} pieces, the model {c.vocab}")
    return model


def _check_matrix(w):
    check(isinstance(w, image.QMatrix), "a matrix of the image is not quantised")
    for scale in (w.d, w.m):
        check(scale is None or not (scale & 0x7C00 == 0x7C00).any(), "a block's scale is NaN or infinity")


def _check_floats(x, what):
    check(isinstance(x, np.ndarray) and np.isfinite(x).all(), f"{what} of the image is no finite float32")
