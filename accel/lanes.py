# SPDX-License-Identifier: BSD-2-Clause
"""The multiplier lanes: quants to signed integers, a block's integer dot product with activations, and its scaling."""

from migen import Cat, If, Mux, Replicate, Signal, log2_int

from litex.gen import LiteXModule

from .bfp import MANT_BITS
from .config import BLOCK
from .fp import delay
from .image import Q4_0, Q8_0
from .numerics import GUARD

DOT_BITS   = 28   # Block dot product: at most 32*32767*128 < 2**27.
SCALE_BITS = 12   # fp16 mantissa with its sign: below 2**11.


class LlamaQuants(LiteXModule):
    """Signed weights of a beat, one per lane, 8 bits each: a nibble (Q4_1), a nibble less 8 (Q4_0), or a byte (Q8_0).

    A beat holds half as many bytes as lanes: `upper` says that they belong to the upper half of the lanes' activations; the
    other half multiplies 0. So the activations need no multiplexer. With 64 lanes the second 32 are those of the second block of
    a `pair`, else they multiply 0. `bytes` are the beat's bytes as they are. Latency 1.
    """
    def __init__(self, lanes):
        self.q       = q       = Signal(lanes*4)
        self.type    = type    = Signal(2)
        self.upper   = upper   = Signal()
        self.pair    = pair    = Signal()
        self.weights = weights = [Signal((8, True)) for _ in range(lanes)]
        self.bytes   = [Signal((8, True)) for _ in range(lanes//2)]

        # # #

        half = lanes//2
        self.sync += [byte.eq(q[8*k:8*k + 8]) for k, byte in enumerate(self.bytes)]
        nibble, less8 = Signal(), Signal()
        self.comb += [nibble.eq(type != Q8_0), less8.eq(type == Q4_0)]
        for k, weight in enumerate(weights):
            n      = q[4*k:4*k + 4]
            byte   = q[8*(k % half):8*(k % half) + 8]
            top    = Signal()
            chosen = Signal()
            self.comb += [
                top.eq(less8 & ~n[3]),                          # n - 8 is n with its top bit turned, sign extended.
                chosen.eq((k < half) if lanes > BLOCK else (upper if k >= half else ~upper)),
            ]
            self.sync += If(nibble,
                weight.eq(Cat(n[:3], n[3] ^ less8, Replicate(top, 4))),
            ).Else(
                weight.eq(Mux(chosen, byte, 0)),
            )
            if k >= BLOCK:
                self.sync += If(~pair, weight.eq(0))


class LlamaDot(LiteXModule):
    """Sum of `lanes` products of weights (8 bits signed) and activations (16 bits signed): one register after each
    multiplier and each adder, and more at the end up to `latency` where that is over 1 + log2(lanes). Interval 1."""
    def __init__(self, lanes, weights, activations, latency=0):
        self.latency = max(latency, 1 + log2_int(lanes))
        self.sum     = Signal((DOT_BITS, True))

        # # #

        level = []
        for k in range(lanes):
            activation = Signal((MANT_BITS, True))
            product    = Signal((8 + MANT_BITS, True))
            self.comb += activation.eq(activations[MANT_BITS*k:MANT_BITS*(k + 1)])
            self.sync += product.eq(weights[k]*activation)
            level.append(product)
        while len(level) > 1:
            sums = [Signal((min(DOT_BITS, len(level[0]) + 1), True)) for _ in range(len(level)//2)]
            self.sync += [s.eq(a + b) for s, a, b in zip(sums, level[0::2], level[1::2])]
            level = sums
        for _ in range(self.latency - 1 - log2_int(lanes)):
            later      = Signal.like(level[0])
            self.sync += later.eq(level[0])
            level      = [later]
        self.comb += self.sum.eq(level[0])


class LlamaScale(LiteXModule):
    """value*mantissa << GUARD, shifted right by `shift`, floor: one term of numerics.accumulate.

    value: `width` bits signed; mantissa: of a fp16 scale, 12 bits signed; shift: 6 bits, 63 for all that is larger.
    Two multipliers (low 16 bits of the value, and the rest). Latency 5, interval 1.
    """
    latency = 5

    def __init__(self, width):
        self.value    = value    = Signal((width, True))
        self.mantissa = mantissa = Signal((SCALE_BITS, True))
        self.shift    = shift    = Signal(6)
        bits          = width + SCALE_BITS - 1 + GUARD
        self.term     = Signal((bits, True))

        # # #

        # Partial products, then their sum.
        split = 16
        low   = Signal((split + 1, True))
        high  = Signal((width - split, True))
        lows  = Signal((split + SCALE_BITS, True))
        highs = Signal((width - split + SCALE_BITS, True))
        total = Signal((width + SCALE_BITS - 1, True))
        self.comb += [low.eq(value[:split]), high.eq(value[split:])]
        self.sync += [
            lows.eq(low*mantissa),
            highs.eq(high*mantissa),
            total.eq(lows + (highs << split)),
        ]

        # Shift right in three steps of two bits.
        stage = Signal((bits, True))
        left  = delay(self, shift, 2)
        self.comb += stage.eq(total << GUARD)
        for place in (4, 2, 0):
            after  = Signal((bits, True))
            counts = [min(n << place, bits - 1) for n in range(4)]
            moved  = [Cat(stage[n:], Replicate(stage[bits - 1], n)) for n in counts]
            amount = left[place:]
            self.sync += after.eq(Mux(amount[1], Mux(amount[0], moved[3], moved[2]), Mux(amount[0], moved[1], moved[0])))
            stage, left = after, delay(self, left[:place], 1) if place else None
        self.comb += self.term.eq(stage)
