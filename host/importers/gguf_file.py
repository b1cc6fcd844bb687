# SPDX-License-Identifier: BSD-2-Clause
"""GGUF files (version 2 and 3, little-endian): fields and tensors. What they say of a model: gguf_llama.py.

The header is read here and not by the `gguf` package, whose reader follows a hostile file's counts without end. Nothing is
allocated by what a file claims: every count and length is compared with the bytes that are left, tensors are views of the
mapped file. Tensor types: importers/ggml.py. Errors are ValueError.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from dataclasses import dataclass
import math

import numpy as np

from ...accel.config import check
from . import ggml
from .ggml import GGML_TYPES, OTHER_TYPES

MAGIC    = b"GGUF"
VERSIONS = (2, 3)
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
_STRING, _ARRAY = 8, 9
FIELDS_MAX = 1 << 14
_DEEPEST  = 4          # Nesting of arrays.
_REQUIRED = object()


class _Cursor:
    """Reads forward through `data` (uint8 array), never past its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size, what):
        """The next `size` bytes, as a view."""
        check(size <= len(self.data) - self.at, f"GGUF file is truncated or corrupt: {what} at byte {self.at} claims {size} "
            f"bytes, {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, dtype, what):
        """One number."""
        return self.take(np.dtype(dtype).itemsize, what).view(dtype)[0].item()

    def string(self, what):
        """Length and bytes, as str."""
        return self.take(self.number("<u8", what), what).tobytes().decode("utf-8", "replace")

    def value(self, type, what, depth=0):
        """Scalar, str, NumPy array of scalars or list of values."""
        if type in _SCALARS:
            return self.number(_SCALARS[type], what)
        if type == _STRING:
            return self.string(what)
        check(type == _ARRAY and depth < _DEEPEST, f"GGUF value {what} has unknown type {type} or is nested too deeply")
        item, n = self.number("<u4", what), self.number("<u8", what)
        if item in _SCALARS:
            return self.take(n*np.dtype(_SCALARS[item]).itemsize, what).view(_SCALARS[item])
        left = len(self.data) - self.at
        check(n*8 <= left, f"GGUF value {what} claims {n} items, {left} bytes are left")
        return [self.value(item, what, depth + 1) for _ in range(n)]


@dataclass(frozen=True)
class TensorInfo:
    """Place of a tensor: GGML type, shape as (rows, columns) or (columns,), first byte in the file."""
    type:   int
    shape:  tuple
    offset: int


class GGUF:
    """Header of a GGUF file over `data` (uint8 array, may be a memory map): `fields` {key: value}, `tensors` {name:
    TensorInfo}."""

    def __init__(self, data):
        c, self.data = _Cursor(data), data
        check(bytes(c.take(4, "magic")) == MAGIC, "not a GGUF file")
        version = c.number("<u4", "version")
        check(version >> 24 == 0 or version & 0xFFFFFF, "this GGUF file is big-endian, readable are little-endian ones")
        check(version in VERSIONS, f"GGUF version is {version:#x}, readable are 2 and 3")
        n_tensors, n_fields = c.number("<u8", "tensor count"), c.number("<u8", "field count")
        check(n_tensors*24 + n_fields*12 <= len(data),
            f"GGUF file claims {n_tensors} tensors and {n_fields} fields in {len(data)} bytes")
        check(n_fields <= FIELDS_MAX, f"GGUF file has {n_fields} fields, at most {FIELDS_MAX} are read")
        self.fields = {}
        for _ in range(n_fields):
            key = c.string("field name")
            check(key not in self.fields, f"GGUF field {key[:60]!r} appears twice")
            self.fields[key] = c.value(c.number("<u4", key[:60]), key[:60])
        infos, self.tensors = [], {}
        for _ in range(n_tensors):
            name  = c.string("tensor name")
            n     = c.number("<u4", name[:60])
            check(1 <= n <= 4, f"GGUF tensor {name[:60]!r} has {n} dimensions, must be 1 to 4")
            shape = tuple(c.number("<u8", name[:60]) for _ in range(n))[::-1]
            infos.append((name, shape, c.number("<u4", name[:60]), c.number("<u8", name[:60])))
        align = self.fields.get("general.alignment", 32)
        check(isinstance(align, int) and 1 <= align <= 1 << 20 and align & (align - 1) == 0,
            f"GGUF alignment {str(align)[:40]} is no power of two up to 2**20")
        start = -(-c.at//align)*align
        for name, shape, type, offset in infos:
            check(name not in self.tensors, f"GGUF tensor {name[:60]!r} appears twice")
            self.tensors[name] = TensorInfo(type, shape, start + offset)
        total = sum(self.size(name) for name in self.tensors)   # Tensors that share bytes could claim any amount.
        check(total <= len(data), f"GGUF file's tensors claim {total} bytes, the file has {len(data)}")

    def field(self, key, kind, default=_REQUIRED):
        """Field `key` as `kind` (int, float, str or bool); ValueError if it is absent without a default, or of another kind."""
        value = self.fields.get(key, default)
        check(value is not _REQUIRED, f"GGUF file has no field {key}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        check(value is default or (isinstance(value, kind) and (kind is not int or not isinstance(value, bool))),
            f"GGUF field {key} is {str(value)[:40]!r}, must be {kind.__name__}")
        return value

    def same(self, key, n_layers, default=_REQUIRED):
        """Field `key`, an int that is the same for all layers: one number, or a list of `n_layers` equal ones."""
        value = self.fields.get(key)
        if not isinstance(value, np.ndarray):
            return self.field(key, int, default)
        check(value.dtype.kind in "iu" and len(value) == n_layers and (value == value[0]).all(),
            f"GGUF field {key} is {str(value.tolist())[:40]}, must be one number for all {n_layers} layers")
        return int(value[0])

    def size(self, name):
        """Bytes of tensor `name`; 0 where its type is unknown."""
        info = self.tensors[name]
        _, items, size = GGML_TYPES.get(info.type, ("", 1, 0))
        return math.prod(info.shape)//items*size

    def read(self, name, shape):
        """Tensor `name` of `shape`: QMatrix, Foreign or float32 array. ValueError if absent, of other shape or type, or cut off."""
        info = self.tensors.get(name)
        check(info is not None, f"GGUF file has no tensor {name}")
        check(info.shape == shape, f"GGUF tensor {name} has shape {info.shape}, expected {shape}")
        check(info.type in GGML_TYPES, f"GGUF tensor {name} is of type {OTHER_TYPES.get(info.type, info.type)}, "
            f"readable are {', '.join(t[0] for t in GGML_TYPES.values())}")
        kind, items, _ = GGML_TYPES[info.type]
        check(shape[-1] % items == 0, f"GGUF tensor {name} has rows of {shape[-1]}, {kind} needs multiples of {items}")
        total = self.size(name)
        check(info.offset + total <= len(self.data), f"GGUF file is truncated: tensor {name} ends at byte "
            f"{info.offset + total}, the file at {len(self.data)}")
        raw = np.asarray(self.data[info.offset:info.offset + total])
        if items == 1:
            return ggml.floats(raw, kind).reshape(shape)
        check(len(shape) == 2, f"GGUF tensor {name} is {kind}, but no matrix")
        return ggml.matrix(raw, shape[0], kind)
