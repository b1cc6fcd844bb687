# SPDX-License-Identifier: BSD-2-Clause
"""Safetensors files, one or several with an index: tensors as float32, read from the mapped file.

Read here because the `safetensors` package has no bfloat16 for NumPy. Format: uint64 length of the header, the header as JSON
({name: {"dtype", "shape", "data_offsets": [first, end]}}, offsets from the header's end), data. Nothing is allocated by what a
file claims. Errors are ValueError.
"""

import json
import math
import os

import numpy as np

from ...accel.config import check
from . import ggml

HEADER_MAX = 1 << 25   # Bytes.
DTYPES     = {"F32": 4, "F16": 2, "BF16": 2}
INDEX      = "model.safetensors.index.json"
SINGLE     = "model.safetensors"


def read_json(path, limit=HEADER_MAX):
    """The JSON object in file `path`."""
    name = os.path.basename(path)
    try:
        check(os.path.getsize(path) <= limit, f"{name} has more than {limit} bytes")
        with open(path, "rb") as f:
            d = json.loads(f.read())
    except OSError as e:
        raise ValueError(f"cannot read {name}: {e.strerror or e}") from None
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{name} is no JSON text: {' '.join(str(e).split())[:100]}") from None
    check(isinstance(d, dict), f"{name} is no JSON object")
    return d


class _File:
    """One file: `tensors` {name: (dtype, shape, first byte, end)}."""

    def __init__(self, path):
        self.name = os.path.basename(path)
        try:
            check(os.path.isfile(path), f"there is no {self.name}")
            size = os.path.getsize(path)
            check(size >= 8, f"{self.name} has {size} bytes, a safetensors file has at least 8")
            self.data = np.memmap(path, np.uint8, "r")
        except OSError as e:
            raise ValueError(f"cannot read {self.name}: {e.strerror or e}") from None
        n = int(self.data[:8].view("<u8")[0])
        check(n <= min(size - 8, HEADER_MAX), f"{self.name} is truncated or corrupt: its header claims {n} bytes of {size}")
        try:
            header = json.loads(self.data[8:8 + n].tobytes())
        except (ValueError, RecursionError):
            raise ValueError(f"{self.name} is corrupt: its header is no JSON text") from None
        check(isinstance(header, dict), f"{self.name} is corrupt: its header is no JSON object")
        said = header.pop("__metadata__", None)
        said = said.get("format") if isinstance(said, dict) else None
        check(said in (None, "pt", "np", "mlx"), f"{self.name} is of format {str(said)[:20]!r}, whose matrices may be transposed: "
            "readable is pt")
        self.tensors = {name: self._entry(name, info, 8 + n, size) for name, info in header.items()}
        total = sum(end - first for _, _, first, end in self.tensors.values())
        check(total <= size, f"{self.name} has tensors that overlap: {total} bytes in a file of {size}")

    def _entry(self, name, info, start, size):
        what  = f"tensor {name[:80]!r} of {self.name}"
        check(isinstance(info, dict) and {"dtype", "shape", "data_offsets"} <= set(info), f"{what} has no type, shape or offsets")
        numbers = lambda key: isinstance(info[key], list) and all(type(n) is int and 0 <= n < 1 << 48 for n in info[key])
        check(numbers("shape") and numbers("data_offsets") and len(info["data_offsets"]) == 2 and len(info["shape"]) <= 4,
            f"{what} has a wrong shape or offsets")
        first, end = info["data_offsets"]
        check(first <= end <= size - start,
            f"{self.name} is truncated: {name[:80]!r} ends at byte {start + end}, the file at {size}")
        return str(info["dtype"])[:20], tuple(info["shape"]), start + first, start + end

    def read(self, name):
        """Tensor as float32 of its own shape."""
        dtype, shape, first, end = self.tensors[name]
        check(dtype in DTYPES, f"tensor {name} is of type {dtype}, readable are {', '.join(DTYPES)}")
        check(end - first == math.prod(shape)*DTYPES[dtype], f"tensor {name} of shape {shape} has {end - first} bytes")
        return ggml.floats(np.array(self.data[first:end]), dtype).reshape(shape)


class SafeTensors:
    """All tensors of a folder: `files` {name of tensor: _File}; notes: what there is to say of them (list of str). One file counts
    before an index, as in transformers."""

    def __init__(self, folder):
        single, index = os.path.join(folder, SINGLE), os.path.join(folder, INDEX)
        self.notes    = []
        if os.path.isfile(single):
            file       = _File(single)
            self.files = {name: file for name in file.tensors}
            if os.path.isfile(index):
                self.notes.append(f"{SINGLE} is used, not the parts that {INDEX} names")
            return
        if not os.path.isfile(index):
            others = os.listdir(folder)
            check(not any(f.endswith(".safetensors") for f in others), f"there is neither {SINGLE} nor {INDEX} in it, which would "
                "name the parts")
            pickles = any(f.endswith((".bin", ".pt", ".pth")) for f in others)
            check(False, f"there is no {SINGLE} in it"
                + (", only PyTorch's own format: save it with safe_serialization=True" if pickles else ""))
        names = read_json(index).get("weight_map")
        check(isinstance(names, dict) and all(isinstance(f, str) for f in names.values()), f"{INDEX} has no weight_map")
        for f in set(names.values()):
            check(f and f == os.path.basename(f) and f not in (".", ".."), f"{INDEX} names a file outside the folder: {f[:80]!r}")
        opened = {f: _File(os.path.join(folder, f)) for f in sorted(set(names.values()))}
        for name, f in names.items():
            check(name in opened[f].tensors, f"{f} has no tensor {name[:80]!r}, which the index says it has")
        for f, file in opened.items():
            other = next((n for n in file.tensors if names.get(n) != f), None)
            check(other is None, f"{f} has a tensor {str(other)[:80]!r}, which the index does not have")
        self.files = {name: opened[f] for name, f in names.items()}

    def dtypes(self):
        """Types of the matrices (set of str)."""
        entries = (file.tensors[name] for name, file in self.files.items())
        return {dtype for dtype, shape, _, _ in entries if len(shape) == 2}

    def read(self, name, shape):
        """Tensor `name` as float32 of `shape`; ValueError if absent or different."""
        check(name in self.files, f"there is no tensor {name}")
        got = self.files[name].tensors[name][1]
        check(got == shape, f"tensor {name} has shape {got}, expected {shape}")
        return self.files[name].read(name)
