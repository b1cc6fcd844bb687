# SPDX-License-Identifier: BSD-2-Clause
"""LlamaKVQuantise against numerics.quantise_kv; what it stores is read back through the owner's debug window."""

import random

import numpy as np
import pytest

from migen import passive

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from gateware import run_block
from stage import Bench, f32_bits, pulse, until
from litellama.accel import numerics
from litellama.accel.config import BLOCK, CoreConfig
from litellama.accel.kv import LlamaKVOwner
from litellama.accel.kvquantise import LlamaFPToInt8, LlamaKVQuantise
from litellama.accel.vector import DEST_ACT, DEST_KVBUF, P_E, VPU_LAYOUT

CONFIG = CoreConfig(lanes=16, kv_bytes=4096, kv_scales=128, max_context=32, max_head_dim=64)
PARAMS = ("base", "sbase", "stride", "context", "position", "k_offset", "head_blocks", "kv_blocks")


class Elements(LiteXModule):
    """In LlamaRope's place: a client of the vector unit that the test drives."""
    def __init__(self):
        self.vpu = stream.Endpoint(VPU_LAYOUT)


def make():
    kv       = LlamaKVOwner(CONFIG)
    elements = Elements()
    quantise = LlamaKVQuantise(CONFIG, kv)
    bench    = Bench([elements, quantise], [elements.vpu.valid, elements.vpu.e, elements.vpu.p_sel, elements.vpu.dest,
        quantise.start, quantise.claim, *(getattr(quantise, n) for n in PARAMS), kv.debug_index],
        [quantise.ready, quantise.k_done, quantise.v_done, kv.debug_keys, kv.debug_values, kv.debug_key_scales,
        kv.debug_value_scales, elements.vpu.ready], [kv])
    return bench, elements.vpu, quantise, kv


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


def read_back(kv, port, indices):
    """What `port` of the debug window shows for each index."""
    out = []
    for i, index in enumerate([*indices, 0, 0]):
        yield kv.debug_index.eq(index)
        yield
        if i >= 2:
            out.append((yield port))
    return out


def read_bytes(kv, port, addresses):
    """int8 at each byte address."""
    words = yield from read_back(kv, port, [a//4 for a in addresses])
    return [(w >> 8*(a % 4) & 255 ^ 128) - 128 for w, a in zip(words, addresses)]


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


@pytest.mark.parametrize("kind, probability, load", (("normal", 1.0, 0.0), ("edges", 0.7, 0.3)))
def test_layers(kind, probability, load, tmp_path):
    """Layers of 1 + 1 heads of 64 and of 32, or (edges) of 4 + 4 of 32, stored where the layout says."""
    rng, prng = np.random.default_rng(3), random.Random(4)
    bench, vpu, quantise, kv = make()
    x      = heads_of(kind, 8, rng)
    jobs   = [(x, 4, 1, dict(base=0, sbase=0, context=32, position=5))]
    if kind == "normal":
        jobs = [(x[:4].reshape(2, 64), 1, 2, dict(base=2048, sbase=32, context=32, position=31)),
                (x[6:], 1, 1, dict(base=0, sbase=0, context=32, position=0))]
    pulses = []
    def main():
        for heads, n, blocks, p in jobs:
            hd = blocks*BLOCK
            p  = dict(p, stride=p["context"]*hd, k_offset=p["position"]*blocks, head_blocks=blocks, kv_blocks=n*blocks)
            for name in PARAMS:
                yield getattr(quantise, name).eq(p[name])
            yield from pulse(quantise.start)
            before = len(pulses)
            yield from send(vpu, quantise, heads, probability, prng)
            while len(pulses) < before + 2:
                yield
            yield
            q, s = numerics.quantise_kv(heads)
            for h in range(n):
                base = p["base"] + h*p["stride"]
                key  = yield from read_bytes(kv, kv.debug_keys, range(base + p["position"]*hd, base + (p["position"] + 1)*hd))
                assert key == list(q[h]), f"key {h}"
                value = yield from read_bytes(kv, kv.debug_values, range(base + p["position"], base + p["stride"],
                    p["context"]))
                assert value == list(q[n + h]), f"value {h}"
            scales = [p["sbase"] + h*p["context"] + p["position"] for h in range(n)]
            assert (yield from read_back(kv, kv.debug_key_scales, scales)) == list(s[:n])
            assert (yield from read_back(kv, kv.debug_value_scales, scales)) == list(s[n:])
    @passive
    def count():
        while True:
            if (yield quantise.k_done):
                pulses.append("k")
            if (yield quantise.v_done):
                pulses.append("v")
            yield
    bench.run(main(), tmp_path, load=load, extra=[count()])
    assert pulses == ["k", "v"]*len(jobs)


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
