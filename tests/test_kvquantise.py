# SPDX-License-Identifier: BSD-2-Clause
"""LlamaKVQuantise against numerics.quantise_kv: bytes and scales, where the layout has them, in order."""

import itertools
import random

from migen import passive
import numpy as np
import pytest

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from gateware import run_block
from stage import Bench, f32_bits, pulse, until
from litellama.accel import numerics
from litellama.accel.config import BLOCK, CoreConfig
from litellama.accel.kvquantise import LlamaFPToInt8, LlamaKVQuantise
from litellama.accel.vector import DEST_ACT, DEST_KVBUF, P_E, VPU_LAYOUT

CONFIG = CoreConfig(lanes=16, kv_bytes=4096, kv_scales=128, max_context=32, max_head_dim=64)
PARAMS = ("base", "sbase", "stride", "context", "position", "k_offset", "v_offset", "head_blocks", "kv_blocks")
WRITE  = ("write_values", "write_valid", "write_address", "write_data", "write_scale_valid", "write_scale_address", "write_scale")


class Elements(LiteXModule):
    """In LlamaRope's place: a client of the vector unit that the test drives."""
    def __init__(self):
        self.vpu = stream.Endpoint(VPU_LAYOUT)


def make():
    elements = Elements()
    quantise = LlamaKVQuantise(CONFIG)
    bench    = Bench([elements, quantise], [elements.vpu.valid, elements.vpu.e, elements.vpu.p_sel, elements.vpu.dest,
        quantise.start, quantise.claim, quantise.room, *(getattr(quantise, n) for n in PARAMS)],
        [quantise.ready, quantise.k_done, quantise.v_done, *(getattr(quantise, n) for n in WRITE), elements.vpu.ready])
    return bench, elements.vpu, quantise


def send(vpu, quantise, heads, probability, prng):
    """Send heads (n, hd) as LlamaRope does: claim each while ready, elements with gaps, other results between them."""
    yield vpu.p_sel.eq(P_E)
    for head in heads:
        yield from until(quantise.ready)
        yield from pulse(quantise.claim)
        for bits in f32_bits(head):
            while prng.random() > probability:
                yield vpu.valid.eq(prng.getrandbits(1))
                yield vpu.dest.eq(DEST_ACT)
                yield vpu.e.eq(0x7F000000)
                yield
            yield vpu.valid.eq(1)
            yield vpu.dest.eq(DEST_KVBUF)
            yield vpu.e.eq(bits)
            yield
            while not (yield vpu.ready):
                yield
        yield vpu.valid.eq(0)


@passive
def collect(quantise, out):
    """Append what is written: ("byte" or "scale", of values, address, data); and k_done, v_done as ("k",), ("v",)."""
    while True:
        values = yield quantise.write_values
        if (yield quantise.write_valid):
            out.append(("byte", values, (yield quantise.write_address), (yield quantise.write_data)))
        if (yield quantise.write_scale_valid):
            out.append(("scale", values, (yield quantise.write_scale_address), (yield quantise.write_scale)))
        if (yield quantise.k_done):
            out.append(("k",))
        if (yield quantise.v_done):
            out.append(("v",))
        yield


def expected(heads, n, p):
    """What is written for n heads of keys, then n of values, in order."""
    q, s = numerics.quantise_kv(heads)
    out, hd, t = [], heads.shape[1], p["position"]
    for values in (0, 1):
        for h in range(n):
            base = p["base"] + h*p["context"]*hd
            for i in range(hd):
                at = base + (t//BLOCK*BLOCK*hd + i*BLOCK + t % BLOCK if values else t*hd + i)
                out.append(("byte", values, at, int(q[values*n + h, i]) & 255))
            out.append(("scale", values, p["sbase"] + h*p["context"] + t, int(s[values*n + h])))
        out.append(("kv"[values],))
    return out


def heads_of(kind, n, rng):
    """n heads of 32 with a given sort of contents."""
    x = rng.standard_normal((n, BLOCK)).astype(np.float32)
    if kind == "edges":        # Zero head, saturating scale, subnormal and vanishing scale, halves, only one element.
        x[0]  = 0
        x[1] *= np.float32(1e12)   # numerics itself ends at 2**63.
        x[2] *= np.float32(1e-5)
        x[3] *= np.float32(3e-6)
        x[4] *= np.float32(1e-7)
        x[5]  = np.float32(127)*(rng.integers(-254, 255, BLOCK)/np.float32(254)).astype(np.float32)
        x[5, 3] = 127
        x[6]  = 0
        x[6, 31] = -2.5
        x[7] *= np.float32(2.0**-126/8)
        x[7]  = np.where(np.abs(x[7]) < numerics.F32_MIN, np.float32(0), x[7])
        x[7, 0] = numerics.F32_MIN
    return x


def layers(quantise, vpu, jobs, want, got, probability, prng):
    """Generator: the layers of `jobs` one after the other, as the controller starts them."""
    for heads, n, blocks, p in jobs:
        want += expected(heads, n, p)
        p     = dict(p, stride=p["context"]*blocks*BLOCK, k_offset=p["position"]*blocks, v_offset=p["position"]//BLOCK*blocks,
            head_blocks=blocks, kv_blocks=n*blocks)
        for name in PARAMS:
            yield getattr(quantise, name).eq(p[name])
        yield from pulse(quantise.start)
        yield from send(vpu, quantise, heads, probability, prng)
        while len(got) < len(want):
            yield
        for _ in range(prng.randrange(3)):
            yield


@pytest.mark.parametrize("kind, probability, load", (("normal", 1.0, 0.0), ("edges", 0.7, 0.3)))
def test_layers(kind, probability, load, tmp_path):
    """Layers of 1 + 1 heads of 64 and of 32, first and later tiles, or (edges) of 4 + 4 of 32, far from address 0."""
    rng, prng = np.random.default_rng(3), random.Random(4)
    bench, vpu, quantise = make()
    x    = heads_of(kind, 8, rng)
    jobs = [(x, 4, 1, dict(base=3 << 27, sbase=15 << 20, context=96, position=69))]
    if kind == "normal":
        jobs = [(x[:4].reshape(2, 64), 1, 2, dict(base=2048, sbase=32, context=64, position=31)),
                (x[:4].reshape(2, 64), 1, 2, dict(base=2048, sbase=32, context=64, position=33)),
                (x[6:], 1, 1, dict(base=0, sbase=0, context=32, position=0))]
    want, got = [], []
    bench.run(layers(quantise, vpu, jobs, want, got, probability, prng), tmp_path, load=load, extra=[collect(quantise, got)])
    assert got == want


@pytest.mark.parametrize("seed", (1, 2))
def test_room(seed, tmp_path):
    """A head waits for room, begins once for each time that there is, and is then written whole: nothing is lost or swapped."""
    rng, prng = np.random.default_rng(seed), random.Random(seed)
    bench, vpu, quantise = make()
    x     = heads_of("normal", 8, rng)
    jobs  = [(x[:6], 3, 1, dict(base=64, sbase=7, context=64, position=40)),
        (x[4:].reshape(2, 64), 1, 2, dict(base=0, sbase=0, context=32, position=8))]
    want, got, rooms = [], [], [0]
    waits = itertools.cycle((seed, 400, 150, 3, 500, 60))
    @passive
    def room():
        """Low for a while, then high until a head begins."""
        while True:
            yield quantise.room.eq(0)
            for _ in range(next(waits)):
                yield
                assert sum(g[0] == "scale" for g in got) + in_head(got) <= rooms[0], "a head is written without room"
            rooms[0] += 1
            yield quantise.room.eq(1)
            n = len(got)
            while len(got) == n or got[-1][0] != "byte":
                yield
    bench.run(layers(quantise, vpu, jobs, want, got, 0.9, prng), tmp_path, load=0.2, extra=[collect(quantise, got), room()])
    assert got == want


def in_head(got):
    """Whether a head's bytes have begun and its scale has not come."""
    return bool(got) and got[-1][0] == "byte"


def test_to_int8(tmp_path):
    """Every rounding border of 0 to 128 and its neighbours, either sign, huge and tiny."""
    dut    = LlamaFPToInt8()
    x      = np.concatenate([np.arange(0, 10, 0.25), np.arange(10.5, 126, 2.5), np.arange(126, 130, 0.25)]).astype(np.float32)
    x      = np.concatenate([x, np.nextafter(x, np.float32(-1)), np.nextafter(x, np.float32(1000)),
        np.float32([1e18, 9e18, 1e-30, 2.0**-126])])
    x      = np.where(np.abs(x) < numerics.F32_MIN, np.float32(0), x)
    x      = np.concatenate([x, -x[x != 0]])
    want   = np.clip(numerics.round_away(x.astype(np.float64)), -127, 127) & 255
    got    = []
    def main():
        for bits in f32_bits(x) + [0]*dut.latency:
            yield dut.x.eq(bits)
            yield
            got.append((yield dut.q))
    bench = Bench([], [dut.x], [dut.q], [dut])
    run_block(bench, [main()], bench.ios, tmp_path)
    assert got[dut.latency:] == list(want)
