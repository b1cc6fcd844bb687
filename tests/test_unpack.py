# SPDX-License-Identifier: BSD-2-Clause
"""LlamaUnpack against what image.pack_matrix packs: headers, vectors, weight beats with their scales, raw embedding rows."""

import numpy as np
import pytest
from migen import If, Signal, passive

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from gateware import drain, feed, run_block, throttle
from litellama.accel import image
from litellama.accel.config import BLOCK, GROUP_BLOCKS
from litellama.accel.image import F32, Q4_0, Q4_1, Q8_0, QMatrix
from litellama.accel.unpack import JOB_MATRIX, JOB_ROW, JOB_VECTOR, LlamaUnpack


def shown(module, source):
    """Endpoint that copies `source`, payload 0 while not valid: a block RAM's output register starts as X in Icarus, and so
    does a register that is a port."""
    copy  = stream.Endpoint(source.description)
    pairs = [(getattr(copy, f[0]), getattr(source, f[0])) for f in source.description.payload_layout]
    module.comb += [
        copy.valid.eq(source.valid),
        source.ready.eq(copy.ready),
        If(source.valid, copy.last.eq(source.last), *[c.eq(s) for c, s in pairs]),
    ]
    return copy


class Unpacker(LiteXModule):
    """LlamaUnpack with outputs that are combinational copies."""
    def __init__(self, lanes):
        self.unpack  = u = LlamaUnpack(lanes)
        self.weights = shown(self, u.weights)
        self.vector  = shown(self, u.vector)
        self.ios     = [u.sink, u.expect_header, u.accept, u.job, u.vector_blocks, u.row_type, u.row_skip, u.row_blocks,
            self.weights, self.vector]
        for s in (u.header_valid, u.bad_magic, u.type, u.exponent, u.kind, u.layer, u.rows, u.blocks, u.done):
            copy = Signal.like(s)
            self.comb += copy.eq(s)
            self.ios.append(copy)


def random_matrix(prng, type, rows, blocks):
    """QMatrix of any bits: every nibble or byte, every fp16 scale pattern."""
    shape = (rows, blocks, BLOCK)
    q     = prng.integers(-128, 128, shape).astype(np.int8) if type == Q8_0 else prng.integers(0, 16, shape).astype(np.uint8)
    d, m  = (prng.integers(0, 1 << 16, shape[:2]).astype(np.uint16) for _ in range(2))
    return QMatrix(type, q, d, m if type == Q4_1 else None)


def weight_beats(w, lanes, whole=True):
    """The beats that LlamaUnpack delivers for QMatrix `w`, dicts; `whole`: as a matrix, so that 64 lanes may take pairs."""
    out = []
    if lanes > BLOCK:
        n = 2 if whole and w.type != Q8_0 and w.blocks % 2 == 0 else 1
        for at in np.ndindex(w.rows, w.blocks//n):
            here   = slice(at[1]*n, at[1]*n + n)
            q      = w.q[at[0], here].reshape(-1)
            packed = q.view(np.uint8) if w.type == Q8_0 else q[0::2] | q[1::2] << 4
            out.append(dict(q=int.from_bytes(packed.tobytes(), "little"), block_last=1, pair=n - 1, first=0, last=0,
                **{k: 0 if s is None else int.from_bytes(s[at[0], here].astype("<u2").tobytes(), "little")
                    for k, s in (("d", w.d), ("m", w.m))}))
        out[-1]["last"] = 1
        return out
    for r in range(w.rows):
        for b in range(w.blocks):
            q     = w.q[r, b].view(np.uint8) if w.type == Q8_0 else w.q[r, b, 0::2] | w.q[r, b, 1::2] << 4
            parts = q.reshape(-1, lanes//2)
            for i, part in enumerate(parts):
                out.append(dict(q=int.from_bytes(part.tobytes(), "little"), d=int(w.d[r, b]),
                    m=0 if w.m is None else int(w.m[r, b]), block_last=int(i == len(parts) - 1), first=0, last=0))
    out[-1]["last"] = 1
    return out


def relevant(got, want):
    """Beats `got` without what 64 lanes ignore, as the beats `want` tell: the upper half where a block of 4 bits is alone."""
    out = []
    for g, w in zip(got, want):
        if "pair" in w and not w["pair"]:
            narrow = w["q"] >> 128 == 0
            g      = dict(g, d=g["d"] & 0xFFFF, m=g["m"] & 0xFFFF, q=g["q"] & (1 << 128) - 1 if narrow else g["q"])
        out.append(g)
    return out + got[len(want):]


def to_beats(data, lanes):
    """Bytes as sink items."""
    n = lanes//2
    return [dict(data=int.from_bytes(data[i:i + n], "little")) for i in range(0, len(data), n)]


def pulse_job(u, **job):
    """Generator: one clock of `accept` with its job inputs."""
    for name, value in job.items():
        yield getattr(u, name).eq(value)
    yield u.accept.eq(1)
    yield
    yield u.accept.eq(0)


SHAPES = [(F32, 1, 1), (Q4_1, 2, 8), (Q4_0, 3, 7), (Q8_0, 5, 1), (F32, 1, 2), (Q4_1, 1, 1), (Q4_0, 9, 2), (Q8_0, 3, 6), (Q4_1, 5, 6)]


@pytest.mark.parametrize("lanes, feeding, draining", [(8, 0.8, 0.9), (16, 1, 0.5), (32, 1, 1), (32, 0.6, 0.6), (64, 1, 1),
    (64, 0.7, 0.6)])
def test_stream(lanes, feeding, draining, tmp_path):
    """RoPE row, embedding row, then matrices and norms of all types and awkward shapes, back to back."""
    dut, prng = Unpacker(lanes), np.random.default_rng(lanes)
    u         = dut.unpack
    rope      = prng.standard_normal(2*BLOCK).astype(np.float32)
    table     = random_matrix(prng, Q4_1, 2*GROUP_BLOCKS, 1)
    skip      = 5
    row       = QMatrix(Q4_1, *(a[skip:skip + 14].reshape(1, 14, *a.shape[2:]) for a in (table.q, table.d, table.m)))
    data      = rope.tobytes() + image.pack_matrix(table, image.EMBEDDING, 0)[32:]
    items     = []
    for i, (type, rows, blocks) in enumerate(SHAPES):
        kind, layer = i % 11, 20*i
        if type == F32:
            w     = prng.standard_normal(blocks*BLOCK).astype(np.float32)
            data += image.pack_norm(w, kind, layer)
            head  = (F32, 0, kind, layer, 1, blocks)
        else:
            w     = random_matrix(prng, type, rows, blocks)
            data += image.pack_matrix(w, kind, layer)
            head  = (type, w.scale_exponent(), kind, layer, rows, blocks)
        items.append((head, w))
    words   = lambda v, last: [dict(data=int(b), first=0, last=int(last and i == len(v) - 1)) for i, b in enumerate(v.view(np.uint32))]
    vectors = words(rope, True) + [b for _, w in items if not isinstance(w, QMatrix) for b in words(w, True)]
    weights = weight_beats(row, lanes, whole=False) + [b for _, w in items if isinstance(w, QMatrix) for b in weight_beats(w, lanes)]
    got_vectors, got_weights, dones = [], [], []

    def control():
        yield from pulse_job(u, job=JOB_VECTOR, vector_blocks=2)
        while not (yield u.done):
            yield
        yield from pulse_job(u, job=JOB_ROW, row_type=Q4_1, row_skip=skip, row_blocks=14)
        yield u.expect_header.eq(1)
        for head, _ in items:
            while not (yield u.header_valid):
                yield
            assert not (yield u.bad_magic)
            fields = []
            for s in (u.type, u.exponent, u.kind, u.layer, u.rows, u.blocks):
                fields.append((yield s))
            assert tuple(fields) == head
            yield from pulse_job(u, job=JOB_MATRIX)
            yield

    def count_done():
        while True:
            dones.append((yield u.done))
            yield

    run_block(dut, [feed(u.sink, to_beats(data, lanes), feeding), control(), passive(count_done)(),
        drain(dut.weights, got_weights, len(weights), draining), drain(dut.vector, got_vectors, len(vectors), draining)],
        dut.ios, tmp_path)
    assert got_vectors == vectors
    assert relevant(got_weights, weights) == weights
    assert sum(dones) >= len(SHAPES) + 1   # The last one may be in the clock after the simulation's end.


@pytest.mark.parametrize("lanes", [8, 32, 64])
def test_catches_up(lanes, tmp_path):
    """What was taken in while the lanes waited leaves at a beat a clock, across group and matrix borders."""
    dut, prng = Unpacker(lanes), np.random.default_rng(7)
    u         = dut.unpack
    ws        = [random_matrix(prng, Q4_1, lanes//8, GROUP_BLOCKS*2) for _ in range(2)]
    data      = b"".join(image.pack_matrix(w, 1, 0) for w in ws)
    want, got = [b for w in ws for b in weight_beats(w, lanes)], []

    def control():
        yield u.expect_header.eq(1)
        for _ in ws:
            while not (yield u.header_valid):
                yield
            yield from pulse_job(u, job=JOB_MATRIX)
            yield

    def take():
        for _ in range(len(data)//(lanes//2) + 50):
            yield
        yield dut.weights.ready.eq(1)
        while len(got) < len(want):
            yield
            assert (yield dut.weights.valid)
            got.append((yield dut.weights.q))
    run_block(dut, [feed(u.sink, to_beats(data, lanes)), control(), take()], dut.ios, tmp_path)
    assert got == [b["q"] for b in want]


def test_bad_magic(tmp_path):
    """No header where one is expected: bad_magic until reset."""
    dut = Unpacker(16)
    u   = dut.unpack

    def control():
        yield u.expect_header.eq(1)
        while not (yield u.header_valid):
            yield
        for _ in range(20):
            assert (yield u.bad_magic) and (yield u.header_valid)
            yield from pulse_job(u, job=JOB_MATRIX)
    run_block(dut, [passive(feed)(u.sink, [dict(data=0x4D4D)]*50), control()], dut.ios, tmp_path)
