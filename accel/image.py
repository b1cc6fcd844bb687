# SPDX-License-Identifier: BSD-2-Clause
"""The weight stream and the model image: one documented binary layout (accel/README.md, "Image"), written and read here.

The image is little-endian. Header, section table, sections; each section starts at a multiple of 4,096 bytes and has a
CRC-32 in the table. The stream section is what the gateware reads for one token, in exactly that order.
"""

from dataclasses import dataclass, field
import struct
import zlib

import numpy as np

from .config import BLOCK, GROUP_BLOCKS, UNIT_BYTES, ModelConfig, ceil_div, check

MAGIC         = b"LITELLAM"
VERSION       = 2
MATRIX_MAGIC  = 0x4D4C
SECTION_ALIGN = 4096
SECTIONS      = ("STRM", "EMBD", "ROPE", "TOKN", "TMPL", "META")   # EMBD only where the classifier is not tied.
HEADER        = struct.Struct("<8sIIII 8I ff 3I fff 8I I")
SECTION       = struct.Struct("<4sIII")
MATRIX        = struct.Struct("<HBbBBHIII12x")

# Matrix types (llama.cpp's block formats) and their bytes per group of 16 blocks.
F32, Q8_0, Q4_0, Q4_1 = range(4)
TYPE_NAMES  = {F32: "f32", Q8_0: "q8_0", Q4_0: "q4_0", Q4_1: "q4_1"}
GROUP_BYTES = {Q8_0: 17*UNIT_BYTES, Q4_0: 9*UNIT_BYTES, Q4_1: 10*UNIT_BYTES}

# Matrix kinds, in stream order. Layers repeat NORM1 to W2.
NORM1, WK, WV, WQ, WO, NORM2, W13, W2, NORM_FINAL, CLASSIFIER, EMBEDDING = range(11)
KIND_NAMES = ("norm1", "wk", "wv", "wq", "wo", "norm2", "w13", "w2", "norm_final", "classifier", "embedding")


@dataclass
class QMatrix:
    """Quantised matrix of `rows` x (`blocks`*32) weights: value = d*(q - 8 if Q4_0 else q) + m.

    q: uint8 nibbles (Q4_0, Q4_1) or int8 (Q8_0), shape (rows, blocks, 32); d, m: fp16 bits as uint16, (rows, blocks);
    m is None unless Q4_1.
    """
    type: int
    q:    np.ndarray
    d:    np.ndarray
    m:    np.ndarray = None

    @property
    def rows(self):
        """Rows of the matrix."""
        return self.q.shape[0]

    @property
    def blocks(self):
        """Blocks of 32 weights per row."""
        return self.q.shape[1]

    def signed(self):
        """Integer weights as the lanes multiply them, int8 (rows, blocks, 32)."""
        q = self.q.astype(np.int8)
        return q - np.int8(8) if self.type == Q4_0 else q

    def dequantise(self):
        """float32 values, (rows, blocks*32)."""
        w = self.signed().astype(np.float32)*self.d.view(np.float16).astype(np.float32)[..., None]
        if self.m is not None:
            w += self.m.view(np.float16).astype(np.float32)[..., None]
        return w.reshape(self.rows, -1)

    def scale_exponent(self):
        """Largest exponent es (value = mantissa*2**es) over all scales: the accumulator's reference, -24 to 5."""
        bits = self.d if self.m is None else np.concatenate([self.d, self.m])
        return int(max(1, ((bits >> 10) & 31).max(initial=1))) - 25


@dataclass
class Layer:
    """One decoder layer. norm1, norm2: float32 (dim_blocks*32,); the rest QMatrix. w13 has rows of w1 and w3 alternating."""
    norm1: np.ndarray
    wk:    QMatrix
    wv:    QMatrix
    wq:    QMatrix
    wo:    QMatrix
    norm2: np.ndarray
    w13:   QMatrix
    w2:    QMatrix


@dataclass
class Model:
    """A whole model in stored (padded) form. rope: float32 (context, head_blocks*16, 2), cosine and sine of each pair."""
    config:     ModelConfig
    layers:     list
    norm_final: np.ndarray
    classifier: QMatrix
    embedding:  QMatrix      # The classifier itself where tied.
    rope:       np.ndarray
    bos:        int  = 1
    eos:        int  = 2
    tokenizer:  bytes = b""  # Opaque here: host/tokenizer.py.
    template:   str  = ""    # Jinja2 chat template.
    meta:       dict = field(default_factory=dict)

    @property
    def tied(self):
        """Whether the classifier is the embedding."""
        return self.embedding is self.classifier


def rope_table(head_dim, context, base=10000.0, factors=None):
    """Cosine and sine of position*base**(-2i/head_dim) for pairs (2i, 2i+1): float32 (context, padded pairs, 2).

    factors: optional divisors of the frequencies (RoPE scaling), (head_dim/2,). Padding pairs get cosine 1, sine 0.
    Source: Su et al., RoFormer, arXiv 2104.09864.
    """
    freq  = base**(-np.arange(0, head_dim, 2, dtype=np.float64)/head_dim)
    angle = np.arange(context, dtype=np.float64)[:, None]*(freq if factors is None else freq/np.asarray(factors))
    table = np.zeros((context, ceil_div(head_dim, BLOCK)*BLOCK//2, 2), np.float32)
    table[..., 0] = 1
    table[:, :head_dim//2, 0] = np.cos(angle)
    table[:, :head_dim//2, 1] = np.sin(angle)
    return table


# Stream -------------------------------------------------------------------------------------------

def matrix_header(kind, layer, type, exponent, rows, blocks, piece=0):
    """The 32 bytes before each matrix or norm of the stream. piece: see pack_stream, in bytes."""
    return MATRIX.pack(MATRIX_MAGIC, type, exponent, kind, 0, layer, rows, blocks, piece//UNIT_BYTES)


def pack_norm(weight, kind, layer, piece=0):
    """Header and float32 weights of one norm."""
    data = np.ascontiguousarray(weight, "<f4").tobytes()
    return matrix_header(kind, layer, F32, 0, 1, len(data)//(4*BLOCK), piece) + data


def pack_matrix(w, kind, layer):
    """Header and groups of one matrix: per 16 blocks (row-major) 16 d, then 16 m (Q4_1), then the quants of each block.

    Nibble or byte k of a block is its item k. The last group is padded with zero blocks.
    """
    n, pad = w.rows*w.blocks, -(w.rows*w.blocks) % GROUP_BLOCKS
    def groups(a, dtype):
        a = np.concatenate([a.reshape(n, -1), np.zeros((pad, a.reshape(n, -1).shape[1]), a.dtype)])
        return np.ascontiguousarray(a.astype(dtype)).view(np.uint8).reshape((n + pad)//GROUP_BLOCKS, -1)
    q     = w.q if w.type == Q8_0 else (w.q[..., 0::2] | w.q[..., 1::2] << 4)
    parts = [groups(w.d, "<u2")] + ([groups(w.m, "<u2")] if w.type == Q4_1 else []) + [groups(q.view(np.uint8), np.uint8)]
    return matrix_header(kind, layer, w.type, w.scale_exponent(), w.rows, w.blocks) + np.concatenate(parts, axis=1).tobytes()


def unpack_matrix(buf, offset):
    """Read what pack_matrix or pack_norm wrote at `offset`: (kind, layer, QMatrix or float32 array, next offset)."""
    check(offset + UNIT_BYTES <= len(buf), f"stream ends at byte {len(buf)}, a matrix header was expected at {offset}")
    magic, type, _, kind, _, layer, rows, blocks, _ = MATRIX.unpack_from(buf, offset)
    check(magic == MATRIX_MAGIC, f"no matrix header at stream byte {offset}: found {magic:#06x}")
    check(type in TYPE_NAMES, f"matrix type {type} at stream byte {offset}, must be 0 to 3")
    offset += UNIT_BYTES
    n       = rows*blocks
    size    = n*BLOCK*4 if type == F32 else ceil_div(n, GROUP_BLOCKS)*GROUP_BYTES[type]
    check(offset + size <= len(buf), f"matrix at stream byte {offset} claims {size} bytes, {len(buf) - offset} are left")
    raw  = np.frombuffer(buf, np.uint8, size, offset)
    if type == F32:
        return kind, layer, raw.view("<f4").astype(np.float32), offset + size
    g    = raw.reshape(-1, GROUP_BYTES[type])
    def scales(k):
        return g[:, 32*k:32*(k + 1)].copy().view("<u2").astype(np.uint16).reshape(-1)[:n].reshape(rows, blocks)
    n_scales = 2 if type == Q4_1 else 1
    q = g[:, 32*n_scales:]
    if type == Q8_0:
        q = q.reshape(-1, BLOCK).view(np.int8)
    else:
        q = q.reshape(-1, BLOCK//2)
        q = np.stack([q & 15, q >> 4], axis=-1).reshape(-1, BLOCK)
    return kind, layer, QMatrix(type, q[:n].reshape(rows, blocks, BLOCK).copy(), scales(0),
        scales(1) if type == Q4_1 else None), offset + size


def pack_stream(model):
    """The stream section: (bytes, length up to the first layer's wq, length up to the last layer's end, offset of the
    classifier).

    With keys and values in DRAM the core reads it in pieces that end behind each wq. The header of a layer's norm1 says how
    long the next piece is: from its wo to the next layer's wq, or to the end of the last layer.
    """
    before, after = [], []   # Of each layer: up to wq, but for norm1; from wo on.
    for i, l in enumerate(model.layers):
        before.append(b"".join([pack_matrix(l.wk, WK, i), pack_matrix(l.wv, WV, i), pack_matrix(l.wq, WQ, i)]))
        after.append(b"".join([pack_matrix(l.wo, WO, i), pack_norm(l.norm2, NORM2, i), pack_matrix(l.w13, W13, i),
            pack_matrix(l.w2, W2, i)]))
    parts, norm_bytes = [], len(pack_norm(model.norm_final, NORM_FINAL, 0))
    for i, l in enumerate(model.layers):
        piece  = len(after[i]) + (norm_bytes + len(before[i + 1]) if i + 1 < len(model.layers) else 0)
        parts += [pack_norm(l.norm1, NORM1, i, piece), before[i], after[i]]
    layers_bytes = sum(map(len, parts))
    parts       += [pack_norm(model.norm_final, NORM_FINAL, 0)]
    classifier   = sum(map(len, parts))
    parts       += [pack_matrix(model.classifier, CLASSIFIER, 0)]
    return b"".join(parts), norm_bytes + len(before[0]), layers_bytes, classifier


# Image --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ImageHeader:
    """What the firmware needs of an image: see HEADER for order and width of each field."""
    config:         ModelConfig
    image_bytes:    int
    first_bytes:    int   # Of the stream, up to the first layer's wq.
    layers_bytes:   int
    stream_bytes:   int
    stream_offset:  int
    embed_offset:   int   # Of the embedding's matrix header, from the start of the image.
    embed_type:     int
    rope_offset:    int
    bos:            int
    eos:            int
    sections:       dict  # Name: (offset, length, crc).


def write_image(model):
    """bytes of the image of `model`."""
    import json
    c = model.config
    stream, first_bytes, layers_bytes, classifier = pack_stream(model)
    sections = [(b"STRM", stream)]
    if not model.tied:
        sections.append((b"EMBD", pack_matrix(model.embedding, EMBEDDING, 0)))
    sections += [(b"ROPE", np.ascontiguousarray(model.rope, "<f4").tobytes()), (b"TOKN", model.tokenizer),
        (b"TMPL", model.template.encode()), (b"META", json.dumps(model.meta, sort_keys=True).encode())]
    offset, table, offsets = SECTION_ALIGN, b"", {}
    for name, data in sections:
        offsets[name] = offset
        table        += SECTION.pack(name, offset, len(data), zlib.crc32(data))
        offset       += ceil_div(len(data), SECTION_ALIGN)*SECTION_ALIGN
    embed  = offsets[b"STRM"] + classifier if model.tied else offsets[b"EMBD"]
    fields = [c.dim, c.hidden, c.n_layers, c.n_heads, c.n_kv_heads, c.head_dim, c.vocab, c.context, c.eps, c.rope_base,
        c.dim_blocks, c.hidden_blocks, c.head_blocks, *constants(c), first_bytes, layers_bytes, len(stream), offsets[b"STRM"], embed,
        model.embedding.type, offsets[b"ROPE"], model.bos, model.eos]
    head   = HEADER.pack(MAGIC, VERSION, HEADER.size, offset, len(sections), *fields) + table
    out    = bytearray(offset)
    out[:len(head) + 4] = head + struct.pack("<I", zlib.crc32(head))
    for name, data in sections:
        out[offsets[name]:offsets[name] + len(data)] = data
    return bytes(out)


def constants(c):
    """float32 constants the core is given: 1/dim, eps, log2(e)/sqrt(head_dim)."""
    return np.float32(1/c.dim), np.float32(c.eps), np.float32(np.log2(np.e)/np.sqrt(c.head_dim))


def read_header(buf):
    """Parse and check header and section table of an image (bytes-like); ValueError says what is wrong."""
    check(len(buf) >= HEADER.size + 4, f"image has {len(buf)} bytes, its header alone needs {HEADER.size + 4}")
    f = HEADER.unpack_from(buf, 0)
    magic, version, header_bytes, image_bytes, n_sections = f[:5]
    check(magic == MAGIC, f"not a LiteLlama image: starts with {bytes(magic)!r}, expected {MAGIC!r}")
    check(version == VERSION, f"image version is {version}, this program reads version {VERSION}")
    check(header_bytes == HEADER.size and 1 <= n_sections <= 16,
        f"image header of {header_bytes} bytes with {n_sections} sections, expected {HEADER.size} and 1 to 16")
    end = HEADER.size + n_sections*SECTION.size
    check(len(buf) >= end + 4, f"image has {len(buf)} bytes, its section table ends at {end + 4}")
    check(zlib.crc32(bytes(buf[:end])) == struct.unpack_from("<I", buf, end)[0], "image header is corrupt: CRC-32 differs")
    check(image_bytes <= len(buf), f"image is truncated: {len(buf)} bytes of {image_bytes}")
    sections, before = {}, SECTION_ALIGN
    for i in range(n_sections):
        name, offset, length, crc = SECTION.unpack_from(buf, HEADER.size + i*SECTION.size)
        check(name.decode("ascii", "replace") in SECTIONS and name.decode() not in sections,
            f"image has a section {name!r} that is unknown or there twice")
        check(offset >= before, f"section {name!r} at {offset} overlaps the one before it, which ends at {before}")
        before = offset + length
        check(offset % SECTION_ALIGN == 0 and offset + length <= image_bytes,
            f"section {name!r} at {offset} with {length} bytes lies outside the image of {image_bytes}")
        sections[name.decode("ascii", "replace")] = (offset, length, crc)
    for name in SECTIONS:
        check(name in sections or name == "EMBD", f"image has no section {name}")
    config = ModelConfig(*f[5:13], eps=float(f[13]), rope_base=float(f[14]))
    stored = (config.dim_blocks, config.hidden_blocks, config.head_blocks, *constants(config))
    for name, got, want in zip(("dim_blocks", "hidden_blocks", "head_blocks", "1/dim", "eps", "score scale"), f[15:21], stored):
        check(got == want, f"header of the image says {name} is {got}, its dimensions need {want}")
    return ImageHeader(config, image_bytes, *f[21:30], sections)


def section(buf, header, name):
    """memoryview of a section whose CRC-32 was checked."""
    offset, length, crc = header.sections[name]
    data = memoryview(buf)[offset:offset + length]
    check(zlib.crc32(data) == crc, f"section {name} of the image is corrupt: CRC-32 differs")
    return data


def read_image(buf):
    """Model of an image (bytes-like). Every length is checked against the file before anything is allocated."""
    import json
    h = read_header(buf)
    c = h.config
    stream, offset, layers, starts, exponents = section(buf, h, "STRM"), 0, [], {}, {}
    def take(kind, layer, rows, blocks):
        nonlocal offset
        starts[kind, layer] = offset
        k, l, w, offset = unpack_matrix(stream, offset)
        _check_tensor("stream", (k, l, w), (kind, layer, rows, blocks))
        exponents[kind, layer] = w.scale_exponent() if isinstance(w, QMatrix) else 0
        return w
    kv, q = c.n_kv_heads*c.head_blocks, c.n_heads*c.head_blocks
    for i in range(c.n_layers):
        layers.append(Layer(take(NORM1, i, 1, c.dim_blocks), take(WK, i, kv*BLOCK, c.dim_blocks),
            take(WV, i, kv*BLOCK, c.dim_blocks), take(WQ, i, q*BLOCK, c.dim_blocks), take(WO, i, c.dim_blocks*BLOCK, q),
            take(NORM2, i, 1, c.dim_blocks), take(W13, i, 2*c.hidden_blocks*BLOCK, c.dim_blocks),
            take(W2, i, c.dim_blocks*BLOCK, c.hidden_blocks)))
    norm_final = take(NORM_FINAL, 0, 1, c.dim_blocks)
    classifier = embedding = take(CLASSIFIER, 0, c.vocab, c.dim_blocks)
    check(offset == len(stream), f"stream of the image has {len(stream)} bytes, its matrices end at {offset}")
    for (kind, layer), at in starts.items():
        fields = MATRIX.unpack_from(stream, at)
        piece  = starts.get((WO, layer + 1), starts[NORM_FINAL, 0]) - starts[WO, layer] if kind == NORM1 else 0
        check((fields[2], fields[8]*UNIT_BYTES) == (exponents[kind, layer], piece), f"{KIND_NAMES[kind]} {layer} of the image says "
            f"exponent {fields[2]} and piece {fields[8]*UNIT_BYTES}, its scales and matrices need {exponents[kind, layer]} and {piece}")
    embed = h.sections["STRM"][0] + starts[CLASSIFIER, 0]
    if "EMBD" in h.sections:
        embed, data = h.sections["EMBD"][0], section(buf, h, "EMBD")
        *got, end = unpack_matrix(data, 0)
        _check_tensor("embedding section", got, (EMBEDDING, 0, c.vocab, c.dim_blocks))
        embedding = got[2]
        check(end == len(data), f"embedding section of the image has {len(data)} bytes, the matrix ends at {end}")
    for name, want in (("first_bytes", starts[WO, 0]), ("layers_bytes", starts[NORM_FINAL, 0]),
            ("stream_bytes", len(stream)), ("stream_offset", h.sections["STRM"][0]), ("embed_offset", embed),
            ("embed_type", embedding.type), ("rope_offset", h.sections["ROPE"][0])):
        check(getattr(h, name) == want, f"header of the image says {name} is {getattr(h, name)}, its sections need {want}")
    rope  = section(buf, h, "ROPE")
    check(len(rope) == c.context*c.head_blocks*BLOCK*4,
        f"RoPE table has {len(rope)} bytes, context {c.context} and head_dim {c.head_dim} need {c.context*c.head_blocks*BLOCK*4}")
    try:
        meta = json.loads(bytes(section(buf, h, "META")))
    except RecursionError:
        meta = None
    check(isinstance(meta, dict), "section META of the image is no JSON object")
    return Model(c, layers, norm_final, classifier, embedding, np.frombuffer(rope, "<f4").reshape(c.context, -1, 2), h.bos, h.eos,
        bytes(section(buf, h, "TOKN")), bytes(section(buf, h, "TMPL")).decode("utf-8", "replace"), meta)


def _check_tensor(where, got, want):
    """ValueError unless kind, layer and shape of `got` (kind, layer, QMatrix or array) are those of `want` (kind, layer, rows,
    blocks), and a norm is a vector and nothing else is."""
    kind, layer, w = got
    shape = (w.rows, w.blocks) if isinstance(w, QMatrix) else (1, len(w)//BLOCK)
    check((kind, layer, *shape) == want and isinstance(w, QMatrix) != (want[0] in (NORM1, NORM2, NORM_FINAL)),
        f"{where} of the image holds {KIND_NAMES[kind] if kind < len(KIND_NAMES) else kind} {layer} of {shape}, "
        f"{'a' if isinstance(w, QMatrix) else 'not a'} matrix, expected {KIND_NAMES[want[0]]} {want[1]} of {want[2:]}")
