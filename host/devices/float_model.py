# SPDX-License-Identifier: BSD-2-Clause
"""The `float` device: the decoder as the papers have it, in plain float32 NumPy over the dequantised weights.

It shares no arithmetic with accel/numerics.py, so that the distance between the two is the price of the gateware's numbers.
Sources: Touvron et al., Llama, arXiv 2302.13971; Su et al. (RoPE), 2104.09864; Shazeer (SwiGLU), 2002.05202.
"""

import numpy as np

from ...accel.config import BLOCK, check
from .local import LocalDevice


def rmsnorm(x, weight, dim, eps):
    """x/sqrt(mean(x**2) + eps)*weight over the last axis, whose first `dim` elements are not padding."""
    return x/np.sqrt(np.square(x).sum(-1, keepdims=True)/np.float32(dim) + np.float32(eps))*weight


def rope(x, table):
    """Rotate pairs (2i, 2i+1) of x (T, heads, n) by table (T, n/2, 2) of cosines and sines."""
    a, b = x[..., 0::2], x[..., 1::2]
    c, s = table[:, None, :, 0], table[:, None, :, 1]
    return np.stack([a*c - b*s, a*s + b*c], -1).reshape(x.shape)


def softmax(s):
    """Softmax over the last axis."""
    e = np.exp(s - s.max(-1, keepdims=True))
    return e/e.sum(-1, keepdims=True)


def silu(x):
    """x*sigmoid(x)."""
    with np.errstate(over="ignore"):
        return x/(1 + np.exp(-x))


class FloatDecoder:
    """Forward pass over accel.image.Model `model` with a float32 KV cache; the interface of accel.numerics.Decoder."""

    def __init__(self, model):
        c, self.model, self.config = model.config, model, model.config
        self.context, self.position = c.context, 0
        self.layers = [{k: getattr(l, k) if k.startswith("norm") else getattr(l, k).dequantise()
            for k in ("norm1", "wq", "wk", "wv", "wo", "norm2", "w13", "w2")} for l in model.layers]
        self.embedding  = model.embedding.dequantise()
        self.classifier = self.embedding if model.tied else model.classifier.dequantise()
        n = c.head_blocks*BLOCK
        self.k, self.v = (np.zeros((c.n_layers, c.context, c.n_kv_heads, n), np.float32) for _ in range(2))

    def forward(self, tokens, logits="last"):
        """Logits float32 (vocab,) of the last of `tokens`, (T, vocab) of all for logits="all", or None for logits=None."""
        c, T, start = self.config, len(tokens), self.position
        check(start + T <= self.context, f"{start + T} positions, the context holds {self.context}")
        at    = slice(start, start + T)
        table = np.asarray(self.model.rope[at])
        x     = self.embedding[np.asarray(tokens)]
        for i, w in enumerate(self.layers):
            h = rmsnorm(x, w["norm1"], c.dim, c.eps)
            q, k, v = ((h @ w[name].T).reshape(T, -1, c.head_blocks*BLOCK) for name in ("wq", "wk", "wv"))
            self.k[i, at], self.v[i, at] = rope(k, table), v
            x = x + self._attention(i, rope(q, table), start) @ w["wo"].T
            h = rmsnorm(x, w["norm2"], c.dim, c.eps) @ w["w13"].T
            x = x + (silu(h[:, 0::2])*h[:, 1::2]) @ w["w2"].T
        self.position += T
        if logits is None:
            return None
        y = rmsnorm(x if logits == "all" else x[-1:], self.model.norm_final, c.dim, c.eps) @ self.classifier.T
        return y if logits == "all" else y[0]

    def _attention(self, i, q, start):
        """Causal grouped-query attention of q (T, heads, n): (T, heads*n)."""
        c, (T, H, n) = self.config, q.shape
        end  = start + T
        k, v = (np.repeat(cache[i, :end].swapaxes(0, 1), c.group, 0) for cache in (self.k, self.v))   # (heads, end, n)
        s    = q.swapaxes(0, 1) @ k.swapaxes(1, 2)/np.float32(np.sqrt(c.head_dim))                    # (heads, T, end)
        seen = np.arange(end) <= np.arange(start, end)[:, None]
        return (softmax(np.where(seen, s, -np.inf)) @ v).swapaxes(0, 1).reshape(T, -1)


class FloatDevice(LocalDevice):
    """FloatDecoder as a device: to measure against, and to generate where exactness is not the point."""

    name = "float"

    def _decoder(self, model):
        return FloatDecoder(model)
