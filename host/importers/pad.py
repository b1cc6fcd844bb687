# SPDX-License-Identifier: BSD-2-Clause
"""Builds the stored (padded) form of a model from its plain tensors.

Everything is padded with zeros to blocks of 32, which is exact: the residual vector (`dim`), the feed-forward's hidden
vector, and every head: head_dim 8 or 48 becomes 32 or 64, by zero rows at the end of each head in wq, wk, wv and zero
columns at the end of each head in wo. RoPE pairs are adjacent, so the pairs of a head keep their place and padding pairs
stay zero.

Importers give tensors one at a time through a function, so that a model is never in memory twice.
"""

from fnmatch import fnmatchcase

import numpy as np

from ...accel.config import BLOCK, check
from ...accel.image import Q8_0, TYPE_NAMES, Layer, Model, QMatrix
from ..quantise import BITS, quantisation_error, quantise, requantise, take_rows
from .ggml import GGML_TYPES, Foreign
from .keys import REFUSED, find

_SOURCE_BITS = {name.lower(): 8*size/items for name, items, size in GGML_TYPES.values()}   # Per weight.

GROWTH_MAX = 8   # Times as many weights that padding may make of a large model.
MATRICES   = ("wk", "wv", "wq", "wo", "w1", "w3", "w2")


def tensor_shapes(c):
    """{name: (rows, columns)} of the plain tensors of ModelConfig `c`; norms are (columns,). Layers repeat all but
    three."""
    q, kv = c.n_heads*c.head_dim, c.n_kv_heads*c.head_dim
    return {"embedding": (c.vocab, c.dim), "norm1": (c.dim,), "wq": (q, c.dim), "wk": (kv, c.dim), "wv": (kv, c.dim),
        "wo": (c.dim, q), "norm2": (c.dim,), "w1": (c.hidden, c.dim), "w2": (c.dim, c.hidden), "w3": (c.hidden, c.dim),
        "norm_final": (c.dim,), "classifier": (c.vocab, c.dim)}


def known_tensors(names, stored, config, keys, *others):
    """ValueError if one of the tensors `names` is none of a llama of ModelConfig `config`. stored: its name of each kind; keys: rows
    of keys.Key that say what a tensor is; others: further patterns that are allowed."""
    shapes = tensor_shapes(config)
    known  = {stored[k].format(i) + ".weight" for k in shapes for i in range(config.n_layers if "{}" in stored[k] else 1)}
    for name in sorted(set(names) - known):
        if not any(fnmatchcase(name, pattern) for pattern in others):
            key = find(name, keys)
            check(False, f"tensor {name[:80]!r} is not supported: "
                + (key.text if key.verdict == REFUSED else f"the configuration has {config.n_layers} layers"))


def _spread(n, group, padded):
    """Where each of the n items (in groups of `group`, each padded to `padded`) comes from: index, -1 for padding."""
    index = np.full((n//group, padded), -1)
    index[:, :group] = np.arange(n).reshape(-1, group)
    return index.reshape(-1)


def _weights(c, dim, hidden, head_dim):
    """Weights of a model, with dimensions as given instead of its own."""
    return c.n_layers*dim*(2*(c.n_heads + c.n_kv_heads)*head_dim + 3*hidden) + 2*c.vocab*dim


def _check_scales(w):
    bad = [v for v in (w.d, w.m) if v is not None and (v & 0x7C00 == 0x7C00).any()]
    check(not bad, "a block's scale is NaN or infinity")


class Builder:
    """Turns plain tensors into stored matrices of `type` (None: what is quantised stays as it is or becomes the nearest stored
    type, floats become Q8_0), or of what the function `type(kind, layer)` says. A tied embedding whose classifier is to have
    another type is stored twice. make(w, type): how floats are quantised.

    notes: what was changed on the way and with what error, one line each (list of str); what lost bits, in one "warning: " line.
    """

    def __init__(self, config, type=None, make=quantise):
        c, self.config, self._make = config, config, make
        self._type     = type if callable(type) else lambda kind, layer: type
        self.notes, self._made = [], {}   # Made: (source type, type): (worst error, number).
        rows    = lambda n: _spread(n, n, -(-n//BLOCK)*BLOCK)
        heads   = lambda n: _spread(n*c.head_dim, c.head_dim, c.head_blocks*BLOCK)
        dim     = rows(c.dim)
        plain, stored = (_weights(c, *padding) for padding in ((c.dim, c.hidden, c.head_dim),
            (c.dim_blocks*BLOCK, c.hidden_blocks*BLOCK, c.head_blocks*BLOCK)))
        check(stored <= max(1 << 26, GROWTH_MAX*plain), f"padding would make {stored} weights of {plain}: too odd dimensions")
        self._index = {"wk": (heads(c.n_kv_heads), dim), "wv": (heads(c.n_kv_heads), dim), "wq": (heads(c.n_heads), dim),
            "wo": (dim, heads(c.n_heads)), "w1": (rows(c.hidden), dim), "w3": (rows(c.hidden), dim),
            "w2": (dim, rows(c.hidden)), "embedding": (np.arange(c.vocab), dim), "classifier": (np.arange(c.vocab), dim)}

    def norm(self, weight, name):
        """float32 norm weights padded with zeros."""
        check(np.isfinite(weight).all(), f"{name} contains NaN or infinity")
        out = np.zeros(self.config.dim_blocks*BLOCK, np.float32)
        out[:self.config.dim] = weight
        return out

    def matrix(self, w, kind, layer):
        """Stored QMatrix of the plain tensor `w` (QMatrix, Foreign or float (rows, columns)) of `kind`."""
        rows, columns = self._index[kind]
        asked, name   = self._type(kind, layer), f"layer {layer} {kind}" if kind in MATRICES else kind
        try:
            if isinstance(w, QMatrix):
                source, near, nearest = TYPE_NAMES[w.type], w, w.type
            else:
                source, near, nearest = (w.name, w.near, w.type) if isinstance(w, Foreign) else ("", None, Q8_0)
            type = nearest if asked is None else asked
            if near is not None:
                _check_scales(near)
            if near is not None and near.blocks*BLOCK == len(columns) and (w is near or type == nearest):
                q, e = requantise(near, type) if w is near else (near, quantisation_error(w.values, near))
                q    = q if len(rows) == q.rows else take_rows(q, rows)
            else:
                padded = np.zeros((len(rows), len(columns)), np.float32)
                padded[np.ix_(rows >= 0, columns >= 0)] = w.dequantise() if w is near else w.values if isinstance(w, Foreign) else w
                q = self._make(padded, type)
                e = quantisation_error(padded, q)
        except ValueError as e:
            raise ValueError(f"{name}: {e}") from None
        if source != TYPE_NAMES[q.type]:
            self._tell(source, q.type, e)
        elif near.blocks*BLOCK != len(columns):   # Only wo: padding moves columns to other blocks.
            self.notes.append(f"{name}: heads of {self.config.head_dim} were padded, so its {source} blocks were made anew, {e}")
        return q

    def _tell(self, source, type, error):
        """Count a matrix that was made `type` from `source`, with QuantError `error`."""
        worst, count = self._made.get((source, type), (error, 0))
        self._made[source, type] = (max(worst, error, key=lambda e: e.relative), count + 1)

    def _summary(self):
        """Put what `_tell` counted into notes."""
        lost = []
        for (source, type), (worst, count) in self._made.items():
            text = f"{count} {'matrix' if count == 1 else 'matrices'} {f'{source} to' if source else 'quantised to'} {TYPE_NAMES[type]}"
            if source and worst.relative and BITS[type] <= _SOURCE_BITS[source]:
                lost.append(f"{text} (worst {worst})")
            else:
                self.notes.append(f"{text}, worst {worst}")
        if lost:
            self.notes.append(f"warning: fewer bits than the source has lose accuracy: {', '.join(lost)}; litellama score tells how much")

    def gate(self, w1, w3, name):
        """w13 of stored w1 and w3: rows alternating, both of the larger type."""
        larger = max(w1.type, w3.type, key=BITS.get)
        both   = []
        for w, part in ((w1, "w1"), (w3, "w3")):
            if w.type != larger:
                source = TYPE_NAMES[w.type]
                w, e   = requantise(w, larger)
                self.notes.append(f"{name}: {part} made {TYPE_NAMES[larger]} from {source} to match its twin, {e}")
            both.append(w)
        def weave(a, b):
            return None if a is None else np.stack([a, b], 1).reshape(-1, *a.shape[1:])
        a, b = both
        return QMatrix(larger, weave(a.q, b.q), weave(a.d, b.d), weave(a.m, b.m))

    def model(self, tensor, tied, **others):
        """Model of all tensors: tensor(kind, layer) gives each plain one. others: further fields of Model."""
        layers = []
        for i in range(self.config.n_layers):
            m = {k: self.matrix(tensor(k, i), k, i) for k in MATRICES}
            norm1, norm2 = (self.norm(tensor(k, i), f"layer {i} {k}") for k in ("norm1", "norm2"))
            w13 = self.gate(m["w1"], m["w3"], f"layer {i}")
            layers.append(Layer(norm1, m["wk"], m["wv"], m["wq"], m["wo"], norm2, w13, m["w2"]))
        embedding = self.matrix(tensor("embedding", 0), "embedding", 0)
        head      = self._type("classifier", 0)
        if tied and head in (None, self._type("embedding", 0), embedding.type):
            classifier = embedding
        else:
            classifier = self.matrix(tensor("embedding" if tied else "classifier", 0), "classifier", 0)
        norm_final = self.norm(tensor("norm_final", 0), "norm_final")
        self._summary()
        if tied and classifier is not embedding:
            self.notes.append(f"the classifier is {TYPE_NAMES[classifier.type]} and stored apart from the embedding, whose "
                f"{TYPE_NAMES[embedding.type]} rows stay")
        return Model(self.config, layers, norm_final, classifier, embedding, **others)
