# SPDX-License-Identifier: BSD-2-Clause
"""Describes a model in lines of text: dimensions, types, sizes, tokenizer, and an image's sections."""

from collections import Counter
import os

from ..accel import image
from ..accel.config import BLOCK, ceil_div
from .importers import load_model
from .tokenizer import Tokenizer


def matrices(model):
    """Yield (kind, layer, QMatrix) of all matrices in stream order, the classifier last."""
    for i, l in enumerate(model.layers):
        for kind in ("wk", "wv", "wq", "wo", "w13", "w2"):
            yield kind, i, getattr(l, kind)
    yield "classifier", 0, model.classifier


def token_parts(header):
    """Bytes of each part that a token reads of the model of `header` (ImageHeader), keys and values apart: of layers (with the final
    norm), head, the embedding's row and the RoPE row."""
    c    = header.config
    norm = image.UNIT_BYTES + 4*BLOCK*c.dim_blocks
    return dict(layers=header.layers_bytes + norm, head=header.stream_bytes - header.layers_bytes - norm,
        embedding=ceil_div(c.dim_blocks, image.GROUP_BLOCKS)*image.GROUP_BYTES[header.embed_type], rope=c.head_blocks*BLOCK*4)


def parts_line(model, header):
    """Types and bytes a token of each part, in one line."""
    parts  = token_parts(header)
    layers = sorted({image.TYPE_NAMES[w.type] for kind, _, w in matrices(model) if kind != "classifier"})
    return (f"{sum(parts.values())} bytes: layers {parts['layers']} ({', '.join(layers)}), head {parts['head']} "
        f"({image.TYPE_NAMES[model.classifier.type]}), embedding's row {parts['embedding']} ({image.TYPE_NAMES[model.embedding.type]}), "
        f"RoPE row {parts['rope']}; and keys and values")


def describe(path, tokenizer=None):
    """Lines that describe the model file `path` (tokenizer: see load_model); ValueError if it is none."""
    model, notes = load_model(path, tokenizer)
    c, t   = model.config, Tokenizer.from_bytes(model.tokenizer)
    types  = Counter((kind, image.TYPE_NAMES[w.type]) for kind, _, w in matrices(model))
    data   = b""
    if not os.path.isdir(path):   # A Hugging Face folder is no image.
        with open(path, "rb") as f:
            data = f.read()
    is_image = data.startswith(image.MAGIC)
    data     = data if is_image else image.write_image(model)
    h     = image.read_header(data)
    lines = [f"name        {model.meta.get('name') or '(none)'}",
        f"dimensions  dim {c.dim}, hidden {c.hidden}, {c.n_layers} layers, "
        f"{c.n_heads} heads on {c.n_kv_heads} KV heads of {c.head_dim}",
        f"vocabulary  {c.vocab}, {t.kind} tokenizer, BOS {model.bos}{'' if t.add_bos else ' (not added)'}, "
        f"stops at {', '.join(map(str, t.stop))}",
        f"context     {c.context}, RoPE base {c.rope_base:g}, eps {c.eps:g}",
        f"classifier  {'tied' if model.tied else 'its own'}",
        f"template    {f'{len(model.template)} characters' if model.template else 'none: a plain default is used'}",
        f"sampling    {model.meta.get('sampling') or 'nothing suggested'}",
        f"matrices    {', '.join(f'{n} {kind} {type}' for (kind, type), n in types.items())}",
        f"stream      {h.stream_bytes} bytes a token",
        f"a token     {parts_line(model, h)}",
        f"image       {h.image_bytes} bytes{'' if is_image else ' (when converted)'}"]
    lines += [f"section     {name} at {offset}, {length} bytes, CRC-32 {crc:08x}"
        for name, (offset, length, crc) in h.sections.items()]
    return lines + [f"note        {text}" for text in notes]
