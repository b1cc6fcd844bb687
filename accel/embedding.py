# SPDX-License-Identifier: BSD-2-Clause
"""Embedding row to fp32, and small integers and fp16 to fp32."""

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .config import BLOCK
from .image import Q4_0, Q4_1, Q8_0
from .readout import FP32_ONE
from .unpack import weights_layout
from .vector import DEST_X, P_M1, VPU_LAYOUT


class LlamaFP16ToFP(LiteXModule):
    """y = fp32 of fp16 h, exact with its subnormals (numerics.from_fp16). Latency 2 clocks with `enable`, interval 1."""
    latency = 2

    def __init__(self):
        self.enable = Signal(reset=1)
        self.h      = Signal(16)
        self.y      = Signal(32)

        # # #

        # 1: how far the mantissa, with its leading one or without, has to be shifted.
        mant, lz       = Signal(11), Signal(4)
        exponent, sign = Signal(5), Signal()
        field          = self.h[10:15]
        self.sync += If(self.enable,
            mant.eq(Cat(self.h[:10], field != 0)),
            exponent.eq(Cat(field[0] | (field == 0), field[1:])),
            sign.eq(self.h[15]),
            lz.eq(0),
            If(field == 0, [If(self.h[i], lz.eq(10 - i)) for i in range(10)]),
        )

        # 2: shift. An exponent field of 1, which subnormals share, is 113 in fp32.
        shifted = mant
        for i in range(4):
            level = Signal(11)
            self.comb += level.eq(Mux(lz[i], shifted << 2**i, shifted))
            shifted = level
        nonzero = shifted[10]
        biased  = Signal(8)
        self.comb += biased.eq(exponent + 112 - lz)
        self.sync += If(self.enable,
            self.y.eq(Cat(Replicate(0, 13), shifted[:10], biased, sign) & Replicate(nonzero, 32)))


class LlamaInt8ToFP(LiteXModule):
    """y = fp32 of signed 8-bit v. Latency 2 clocks with `enable`, interval 1."""
    latency = 2

    def __init__(self):
        self.enable = Signal(reset=1)
        self.v      = Signal(8)
        self.y      = Signal(32)

        # # #

        # 1: magnitude, up to 128.
        magnitude, sign = Signal(8), Signal()
        self.sync += If(self.enable,
            sign.eq(self.v[7]),
            magnitude.eq((self.v ^ Replicate(self.v[7], 8)) + self.v[7]),
        )

        # 2: leading one of bit i is exponent i.
        mant, exponent = Signal(7), Signal(8)
        self.comb += [If(magnitude[i], mant.eq(magnitude[:i] << (7 - i) if i else 0), exponent.eq(127 + i)) for i in range(8)]
        self.sync += If(self.enable, self.y.eq(Cat(Replicate(0, 16), mant, exponent, sign)))


class LlamaEmbedding(LiteXModule):
    """Weights of an embedding row to fp32 values q*d + m (numerics.dequantise_row), to DEST_X.

    type: Q8_0, Q4_0 or Q4_1, stable while a row comes through `sink` (LlamaUnpack's weights, never a pair: a beat is
    up to `lanes` weights of 4 bits, or half as many of 8, of one block; d and m hold for it). Each weight is one VPU operation, fp32(q)*fp32(d) +
    fp32(m)*1.0.

    Latency: 3 clocks from beat to first operation. Interval: 1 clock per weight.
    """
    def __init__(self, lanes):
        self.sink = sink = stream.Endpoint(weights_layout(lanes))
        self.vpu  = vpu  = stream.Endpoint(VPU_LAYOUT)
        self.type = Signal(2)

        # # #

        advance = Signal()
        self.comb += advance.eq(~vpu.valid | vpu.ready)

        # 1: pick a weight from the beat, which is held meanwhile.
        index      = Signal(max=lanes)   # In nibbles.
        wide       = Signal()
        beat_last  = Signal()
        nibble     = Signal(4)
        weight     = Signal(8)
        d, m       = Signal(16), Signal(16)
        valid, last = Signal(), Signal()
        byte       = sink.q
        for i in reversed(range(log2_int(lanes) - 1)):   # A tree of multiplexers: an Array of nibbles costs five times as much.
            level      = Signal(8*2**i)
            self.comb += level.eq(Mux(index[1 + i], byte[8*2**i:], byte[:8*2**i]))
            byte       = level
        self.comb += [
            wide.eq(self.type == Q8_0),
            nibble.eq(Mux(index[0], byte[4:], byte[:4])),
            beat_last.eq(index == Mux(wide, lanes - 2, min(lanes, BLOCK) - 1)),
            sink.ready.eq(advance & beat_last),
        ]
        self.sync += If(advance,
            valid.eq(sink.valid), last.eq(sink.last & beat_last),
            d.eq(sink.d[:16]), m.eq(sink.m[:16] & Replicate(self.type == Q4_1, 16)),
            Case(self.type, {
                Q8_0:      weight.eq(byte),
                Q4_0:      weight.eq(Cat(nibble[:3], Replicate(~nibble[3], 5))),   # Less 8.
                "default": weight.eq(nibble),
            }),
            If(sink.valid, index.eq(index + Mux(wide, 2, 1)), If(beat_last, index.eq(0))),
        )

        # 2, 3: to fp32.
        self.q_to_fp = q_to_fp = LlamaInt8ToFP()
        self.d_to_fp = d_to_fp = LlamaFP16ToFP()
        self.m_to_fp = m_to_fp = LlamaFP16ToFP()
        self.comb += [converter.enable.eq(advance) for converter in (q_to_fp, d_to_fp, m_to_fp)]
        self.comb += [q_to_fp.v.eq(weight), d_to_fp.h.eq(d), m_to_fp.h.eq(m)]
        valid_2, last_2 = Signal(), Signal()
        self.sync += If(advance, valid_2.eq(valid), last_2.eq(last), vpu.valid.eq(valid_2), vpu.last.eq(last_2))

        # q*d + m.
        self.comb += [
            vpu.a.eq(q_to_fp.y), vpu.b.eq(d_to_fp.y), vpu.p_sel.eq(P_M1),
            vpu.c.eq(m_to_fp.y), vpu.d.eq(FP32_ONE),
            vpu.dest.eq(DEST_X),
        ]
