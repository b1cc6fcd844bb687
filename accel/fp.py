# SPDX-License-Identifier: BSD-2-Clause
"""fp32 arithmetic: fixed-latency pipelines, one operation a clock, no stall.

fp32 here: round to nearest even, results below the normal range flushed, overflow saturates to the largest finite, zero is
+0, an exponent field of 0 means zero, no NaN and no infinity. Golden model: numerics.fmul, fadd, from_fixed, score_fixed.
"""

from migen import *

from litex.gen import LiteXModule

MANT = 24    # Bits of a mantissa with its leading one.


def delay(module, value, n_cycles, reset_less=True):
    """`value` (any expression) after `n_cycles` registers of `module`."""
    for _ in range(n_cycles):
        stage        = Signal(len(value), reset_less=reset_less)
        module.sync += stage.eq(value)
        value        = stage
    return value


def _any(value):
    """1 if any bit of `value` (bits, possibly none) is set."""
    return (value != 0) if len(value) else Constant(0)


def _registered(module, value):
    """`value` after one register."""
    return delay(module, value, 1)


class _Normalise(LiteXModule):
    """Shift `value` left until its top bit is 1: 24 bits `mant`, then the `round` bit and the `sticky` OR of all the rest.

    lz: how far it was shifted. A value of 0 gives a mant whose top bit is 0. stages: shift distances per pipeline stage,
    largest first, each half of the one before. Bits that no remaining shift can bring into view go to `sticky` at once,
    which keeps the shifter narrow. Latency: len(stages). Interval: 1.
    """
    def __init__(self, width, stages):
        self.value  = Signal(width)
        self.mant   = Signal(MANT)
        self.round  = Signal()
        self.sticky = Signal()
        self.lz     = Signal(sum(map(len, stages)))

        # # #

        value, sticky, lz = self.value, Constant(0), []
        for shifts in stages:
            for shift in shifts:
                top     = Signal()
                shifted = Signal(len(value))
                self.comb += [
                    top.eq(value[len(value) - shift:] == 0),
                    shifted.eq(Mux(top, Cat(Replicate(0, shift), value[:len(value) - shift]), value)),
                ]
                drop   = max(0, len(value) - (MANT + shift))    # MANT, round bit and shift - 1 still to go.
                sticky = sticky | _any(shifted[:drop])
                value  = shifted[drop:]
                lz     = [top, *lz]
            value  = _registered(self, value)
            sticky = _registered(self, sticky)
            lz     = [_registered(self, bit) for bit in lz]
        pad = MANT + 1 - len(value)
        self.comb += [
            Cat(self.round, self.mant).eq(Cat(Replicate(0, pad), value) if pad > 0 else value),
            self.sticky.eq(sticky),
            self.lz.eq(Cat(*lz)),
        ]


class _Pack(LiteXModule):
    """Round to nearest even and assemble: exponent of the result is `exponent` - `lz`, plus one if rounding carries.

    exponent: biased, two's complement, one more than the value meant (so that -lz is ~lz, and rounding the carry-in of the
    same adder). flush: result is 0. Also 0 where the mantissa is, or where the exponent ends below 1. Latency: 1.
    """
    def __init__(self, exponent_bits, lz_bits):
        self.sign     = Signal()
        self.exponent = Signal(exponent_bits)
        self.lz       = Signal(lz_bits)
        self.mant     = Signal(MANT)
        self.round    = Signal()
        self.sticky   = Signal()
        self.flush    = Signal()
        self.y        = Signal(32)

        # # #

        up     = Signal()
        total  = Signal(1 + 23 + exponent_bits)
        result = total[24:]
        zero   = Signal()
        large  = Signal()
        self.comb += [
            up.eq(self.round & (self.sticky | self.mant[0])),
            total.eq(Cat(1, self.mant[:23], self.exponent) +
                Cat(up, Replicate(0, 23), ~self.lz, Replicate(1, exponent_bits - lz_bits))),
            zero.eq(self.flush | ~self.mant[23] | result[-1] | (result == 0)),
            large.eq(_any(result[8:-1]) | (result[:8] == 255)),
        ]
        y = Cat(total[1:24] | Replicate(large, 23), result[0] & ~large, result[1:8] | Replicate(large, 7), self.sign)
        self.sync += self.y.eq(y & Replicate(~zero, 32))


class LlamaFPMul(LiteXModule):
    """p = a*b (numerics.fmul). What is below the normal range before rounding is flushed. Latency 5, interval 1.

    The 24x24 product is made of 18- and 6-bit limbs: 4 MULT18X18D, whose outer two just sit side by side.
    """
    latency = 5

    def __init__(self):
        self.a = Signal(32)
        self.b = Signal(32)
        self.p = Signal(32)

        # # #

        # 1: limb products, sum of exponents.
        al, ah, bl, bh = Signal(18), Signal(6), Signal(18), Signal(6)
        ll, lh, hl, hh = Signal(36), Signal(24), Signal(24), Signal(12)
        exponent = Signal(9)
        self.comb += [
            Cat(al, ah).eq(Cat(self.a[:23], 1)),
            Cat(bl, bh).eq(Cat(self.b[:23], 1)),
        ]
        self.sync += [
            ll.eq(al*bl),
            lh.eq(al*bh),
            hl.eq(ah*bl),
            hh.eq(ah*bh),
            exponent.eq(self.a[23:31] + self.b[23:31]),
        ]
        sign = delay(self, self.a[31] ^ self.b[31], 4)
        zero = delay(self, (self.a[23:31] == 0) | (self.b[23:31] == 0), 3)

        # 2: middle sum.
        middle = Signal(25)
        outer  = _registered(self, Cat(ll, hh))
        self.sync += middle.eq(lh + hl)

        # 3: product. Only the OR of its low 18 bits is needed.
        product = Signal(30)
        low     = _registered(self, _any(outer[:18]))
        self.sync += product.eq(outer[18:] + middle)

        # 4: normalise. The leading one is in bit 29 (exponent 1 higher) or in bit 28.
        below_2 = delay(self, exponent[7:] == 0, 2)                                # Sum of biased exponents <= 127.
        below_1 = delay(self, (exponent[7:] == 0) & (exponent[:7] != 127), 2)      # <= 126.
        one     = product[29]
        self.pack = pack = _Pack(exponent_bits=10, lz_bits=1)
        self.sync += [
            pack.mant.eq(Mux(one, product[6:], product[5:29])),
            pack.round.eq(Mux(one, product[5], product[4])),
            pack.sticky.eq(low | _any(product[:4]) | (one & product[4])),
            pack.lz.eq(~one),
            pack.flush.eq(zero | Mux(one, below_1, below_2)),
        ]

        # 5: round.
        self.sync += pack.exponent.eq(delay(self, exponent, 2) + (1024 - 125))
        self.comb += [pack.sign.eq(sign), self.p.eq(pack.y)]


class LlamaFPAdd(LiteXModule):
    """s = a + b (numerics.fadd). Flip a sign bit to subtract. Latency 7, interval 1."""
    latency = 7

    def __init__(self):
        self.a = Signal(32)
        self.b = Signal(32)
        self.s = Signal(32)

        # # #

        # 1: which is larger.
        swap   = _registered(self, self.a[:31] < self.b[:31])
        zero_a = _registered(self, self.a[23:31] == 0)
        zero_b = _registered(self, self.b[23:31] == 0)
        a      = _registered(self, self.a)
        b      = _registered(self, self.b)

        # 2: swap; distance of the exponents.
        small_zero = Signal()
        large      = Signal(32)
        small      = Signal(32)
        self.comb += [
            small_zero.eq(Mux(swap, zero_a, zero_b)),
            large.eq(Mux(swap, b, a)),
            small.eq(Mux(swap, a, b)),
        ]
        distance = Signal(8)
        self.sync += distance.eq(large[23:31] - small[23:31])
        small_m  = _registered(self, Cat(small[:23], 1) & Replicate(~small_zero, MANT))
        large_m  = _registered(self, Cat(large[:23], 1))
        exponent = _registered(self, large[23:31])
        sign     = _registered(self, large[31])
        subtract = _registered(self, a[31] ^ b[31])
        zero     = _registered(self, zero_a & zero_b)

        # 3: align the smaller: 24 bits, two guard bits and a sticky bit (which makes no difference any more where it is far).
        far     = Signal()
        aligned = Cat(0, 0, small_m)
        sticky  = Constant(0)
        self.comb += far.eq(distance[5:8] != 0)
        for i in reversed(range(5)):
            sticky  = sticky | (distance[i] & _any(aligned[:2**i]))
            shifted = Signal(MANT + 2)
            self.comb += shifted.eq(Mux(distance[i], aligned[2**i:], aligned))
            aligned = shifted
        aligned = _registered(self, Cat(sticky, aligned) & Replicate(~far, MANT + 3))
        large_m, subtract = _registered(self, large_m), _registered(self, subtract)

        # 4: add or subtract; the carry-in of a subtraction is one more bit at the bottom.
        total = Signal(29)
        self.sync += total.eq(Cat(1, 0, 0, 0, large_m, 0) + Cat(subtract, Cat(aligned, 0) ^ Replicate(subtract, 28)))

        # 5, 6: normalise.
        self.normalise = normalise = _Normalise(28, [(16, 8), (4, 2, 1)])
        self.comb += normalise.value.eq(total[1:])

        # 7: round. The top bit is one above the larger operand's leading one.
        self.pack = pack = _Pack(exponent_bits=10, lz_bits=5)
        self.comb += [
            pack.sign.eq(delay(self, sign, 4)),
            pack.exponent.eq(delay(self, exponent, 4) + 2),
            pack.lz.eq(normalise.lz),
            pack.mant.eq(normalise.mant),
            pack.round.eq(normalise.round),
            pack.sticky.eq(normalise.sticky),
            pack.flush.eq(delay(self, zero, 4)),
            self.s.eq(pack.y),
        ]


class LlamaFixedToFP(LiteXModule):
    """y = fp32 of value*2**exponent (numerics.from_fixed): rounded to nearest even, then flushed or saturated.

    width: bits of the signed `value`, 2 to 64. exponent: signed, of the least significant bit. Latency: 2 and one per two
    or three of the normaliser's shifts (width 17 to 32: 4, 33 to 64: 5). Interval 1.
    """
    def __init__(self, width):
        self.value    = Signal((width, True))
        self.exponent = Signal((12, True))
        self.y        = Signal(32)

        # # #

        n      = max(1, bits_for(width - 1))
        shifts = [2**i for i in reversed(range(n))]
        stages = [part for part in (shifts[:-5], shifts[-5:-3], shifts[-3:]) if part]
        self.latency = 2 + len(stages)

        # 1: magnitude; exponent of the top bit, and one (see _Pack).
        value     = Signal(width)
        sign      = Signal()
        exponent  = Signal(12)
        magnitude = Signal(width)
        top       = Signal(14)
        self.comb += [value.eq(self.value), sign.eq(value[-1]), exponent.eq(self.exponent)]
        self.sync += [
            magnitude.eq((value ^ Replicate(sign, width)) + sign),
            top.eq(Cat(exponent, exponent[11], exponent[11]) + (127 + width - 1 + 1)),
        ]

        # Normalise.
        self.normalise = normalise = _Normalise(width, stages)
        self.comb += normalise.value.eq(magnitude)

        # Last: round.
        self.pack = pack = _Pack(exponent_bits=14, lz_bits=n)
        self.comb += [
            pack.sign.eq(delay(self, sign, 1 + len(stages))),
            pack.exponent.eq(delay(self, top, len(stages))),
            pack.lz.eq(normalise.lz),
            pack.mant.eq(normalise.mant),
            pack.round.eq(normalise.round),
            pack.sticky.eq(normalise.sticky),
            self.y.eq(pack.y),
        ]


class LlamaFPToScore(LiteXModule):
    """s = x*65,536 as signed 32 bits, rounded half away from zero and saturated (numerics.score_fixed). Latency 3, interval 1."""
    latency = 3

    def __init__(self):
        self.x = Signal(32)
        self.s = Signal((32, True))

        # # #

        # 1: distance from 2**14 <= abs(x) < 2**15, where no shift is needed.
        exponent = Signal(8)
        mant     = _registered(self, Cat(self.x[:23], 1))
        sign     = _registered(self, self.x[31])
        large    = _registered(self, exponent >= 142)
        small    = _registered(self, exponent < 110)
        distance = Signal(5)
        self.comb += exponent.eq(self.x[23:31])
        self.sync += distance.eq(141 - exponent)

        # 2: integer of 31 bits and the half below it.
        shifted = Cat(Replicate(0, 8), mant)
        for i in reversed(range(5)):
            level = Signal(32)
            self.comb += level.eq(Mux(distance[i], shifted[2**i:], shifted))
            shifted = level
        half      = _registered(self, (shifted[0] & ~small ^ sign) & ~large)
        magnitude = _registered(self, shifted[1:] & Replicate(~small, 31) | Replicate(large, 31))
        sign      = _registered(self, sign)

        # 3: round and negate: -(m + half) = ~m + ~half.
        rounded    = Signal(32)
        self.sync += rounded.eq((Cat(magnitude, 0) ^ Replicate(sign, 32)) + half)
        self.comb += self.s.eq(rounded)
