# SPDX-License-Identifier: BSD-2-Clause
"""GGML's tensor types: raw bytes of a GGUF file to floats, to stored blocks, or to what becomes stored blocks.

Q8_0, Q4_0, Q4_1 keep their content. Of the others the nearest stored type is: Q4_1 for Q4_K (the same nibbles; only the products
of its two scales are rounded to fp16), Q8_0 for Q5_0 (exact), Q5_1, Q5_K and Q6_K (made anew: a fifth or sixth bit is worth more
than the bytes that Q4_1 would save; `--type q4_1` decides otherwise).

Layouts: ggml-common.h of https://github.com/ggml-org/ggml. Q4 nibbles there: item k and item k + 16 share byte k; in Q4_K's 256
items those of pairs of 32 do.
"""

from dataclasses import dataclass

import numpy as np

from ...accel.config import BLOCK
from ...accel.image import Q4_0, Q4_1, Q8_0, QMatrix

# GGML type: (name, items per block, bytes per block).
GGML_TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 8: ("Q8_0", 32, 34), 2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210)}
OTHER_TYPES = {9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M",
    31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 34: "TQ1_0", 35: "TQ2_0", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0"}


@dataclass(frozen=True)
class Foreign:
    """A matrix of a type that is not stored. name: that type; values: float32 (rows, columns); type: the nearest stored type;
    near: QMatrix of that type with (nearly) the same values where the blocks' structure allows it, else None."""
    name:   str
    values: np.ndarray
    type:   int
    near:   QMatrix = None


def floats(raw, kind):
    """float32 of raw bytes (uint8) of F32, F16 or BF16."""
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return raw.view("<f4" if kind == "F32" else "<f2").astype(np.float32)


def matrix(raw, rows, kind):
    """QMatrix or Foreign of raw bytes (uint8) of a block type."""
    if kind in ("Q8_0", "Q4_0", "Q4_1"):
        return _stored(raw, rows, kind)
    import gguf
    with np.errstate(all="ignore"):   # A hostile scale becomes NaN, which quantising refuses.
        values = gguf.quants.dequantize(raw.reshape(rows, -1), gguf.GGMLQuantizationType[kind])
        near   = _q5_0(raw, rows) if kind == "Q5_0" else _q4_k(raw, rows) if kind == "Q4_K" else None
    return Foreign(kind.lower(), values, Q4_1 if kind == "Q4_K" else Q8_0, near)


def _half(b, at):
    """The fp16 bits at byte `at` of each block."""
    return np.ascontiguousarray(b[..., at:at + 2]).view("<u2")[..., 0].astype(np.uint16)


def _nibbles(b):
    """Items of each block of 16 bytes."""
    return np.concatenate([b & 15, b >> 4], axis=-1)


def _stored(raw, rows, kind):
    b = raw.reshape(rows, -1, {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}[kind])
    if kind == "Q8_0":
        return QMatrix(Q8_0, np.ascontiguousarray(b[..., 2:]).view(np.int8), _half(b, 0))
    q = _nibbles(b[..., 2 if kind == "Q4_0" else 4:])
    return QMatrix(Q4_0, q, _half(b, 0)) if kind == "Q4_0" else QMatrix(Q4_1, q, _half(b, 0), _half(b, 2))


def _q5_0(raw, rows):
    """fp16 d, 32 high bits, 16 bytes of nibbles; value d*(q - 16): exactly a Q8_0."""
    b    = raw.reshape(rows, -1, 22)
    high = np.unpackbits(np.ascontiguousarray(b[..., 2:6]), axis=-1, bitorder="little")
    return QMatrix(Q8_0, (_nibbles(b[..., 6:]) | high << 4).astype(np.int8) - np.int8(16), _half(b, 0))


def _q4_k(raw, rows):
    """fp16 d, fp16 dmin, 8 scales and 8 minima of 6 bits, 128 bytes of nibbles; value d*scale*q - dmin*minimum."""
    from gguf.quants import Q4_K
    b     = raw.reshape(-1, 144)
    parts = Q4_K.get_scale_min(np.ascontiguousarray(b[:, 4:16]))
    d, m  = (np.ascontiguousarray(b[:, at:at + 2]).view("<f2").astype(np.float32)*p.astype(np.float32)
        for at, p in zip((0, 2), parts))
    q = b[:, 16:].reshape(-1, 4, 1, BLOCK) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1) & 15
    half = lambda x: x.astype(np.float16).view(np.uint16).reshape(rows, -1)
    return QMatrix(Q4_1, q.reshape(rows, -1, BLOCK), half(d), half(0 - m))
