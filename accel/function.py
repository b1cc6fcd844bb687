# SPDX-License-Identifier: BSD-2-Clause
"""2**-u, 1/x, 1/sqrt(x) and the logistic function from one table memory, and the arbiter through which the stages share it."""

from migen import *
from migen.fhdl.specials import READ_FIRST

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .fp import LlamaFixedToFP, delay
from .numerics import EXP2, RECIP, RSQRT, SIGMOID, TABLE_BASE, TABLE_DY, TABLE_SIZE, TABLE_Y0
from .vector import grant, granted

FUNCTION_LAYOUT        = [("func", 2), ("x", 32), ("u", 21)]
FUNCTION_RESULT_LAYOUT = [("y", 32), ("p", 17)]


class LlamaFunction(LiteXModule):
    """numerics.exp2_neg, recip, rsqrt and sigmoid: 2,048 segments with linear interpolation in units of 2**-24.

    sink: func (numerics.EXP2, RECIP, RSQRT or SIGMOID); x, fp32 (RECIP and RSQRT ignore its sign, 0 gives 0); u, for EXP2,
    16 fraction bits, at most (32 << 16) - 1; tag, returned with the result. source: y, fp32; p, for EXP2 the integer with
    65,536 for 1 (y is then fp32 of p). No back-pressure on either side.

    Largest errors: EXP2 0.6 of p's unit; RECIP 4e-6 and RSQRT 2e-6 relative; SIGMOID 3.5e-6 absolute.
    Latency: `latency` clocks. Interval: 1 clock. 5 block RAMs of 18 kbit, one 18x18 multiplier.
    """
    def __init__(self, tag_bits=8):
        tag = [("tag", tag_bits)]
        self.sink    = sink   = stream.Endpoint(FUNCTION_LAYOUT + tag)
        self.source  = source = stream.Endpoint(FUNCTION_RESULT_LAYOUT + tag)

        # # #

        self.comb += sink.ready.eq(1)

        # 1: input register. SIGMOID looks at floor(abs(x)*2**20): its mantissa, shifted right by 130 - exponent.
        func, x, u = (delay(self, s, 1) for s in (sink.func, sink.x, sink.u))
        distance   = Signal(5)
        far        = delay(self, sink.x[26:31] < 13, 1)       # Exponent below 104: `distance` may wrap, the result is 0.
        large      = delay(self, sink.x[23:31] > 130, 1)
        self.sync += distance.eq(130 - sink.x[23:31])

        # 2: segment, 15-bit fraction and exponent of each function's result. RSQRT halves the exponent, rounding down.
        shifted = Cat(x[:23], 1)
        for i in reversed(range(5)):
            level = Signal(24)
            self.comb += level.eq(Mux(distance[i], shifted[2**i:], shifted))
            shifted = level
        position = Signal(24)
        index    = Signal(11)
        fraction = Signal(15)
        exponent = Signal(9)
        biased   = x[23:31]
        unit     = (1 << 9) - 24
        self.comb += position.eq(shifted & Replicate(~far, 24))
        self.sync += Case(func, {
            EXP2:    [index.eq(TABLE_BASE[EXP2]    | u[8:16]),                  fraction.eq(Cat(Replicate(0, 7), u[:8])),
                exponent.eq(0)],
            RECIP:   [index.eq(TABLE_BASE[RECIP]   | x[15:23]),                 fraction.eq(x[:15]),
                exponent.eq(unit + 127 - biased)],
            RSQRT:   [index.eq(TABLE_BASE[RSQRT]   | Cat(x[15:23], ~biased[0])), fraction.eq(x[:15]),
                exponent.eq(unit + 64 - biased[1:] - biased[0])],
            SIGMOID: [index.eq(TABLE_BASE[SIGMOID] | position[14:]),            fraction.eq(Cat(0, position[:14])),
                exponent.eq(unit)],
        })

        # 3, 4: table (block RAM), then a register.
        dy_bits = int(TABLE_DY.max()).bit_length()
        table   = Memory(25 + dy_bits, TABLE_SIZE, name="llama_function_table",
            init=[int(y0) | int(dy) << 25 for y0, dy in zip(TABLE_Y0, TABLE_DY)])
        port    = table.get_port(mode=READ_FIRST)
        self.specials += table, port
        self.comb     += port.adr.eq(index)
        entry    = delay(self, port.dat_r, 1)
        fraction = delay(self, fraction, 2)

        # 5, 6: y = y0 - (dy*fraction >> 15).
        dy      = Signal(dy_bits)
        product = Signal(dy_bits + 15)
        y       = Signal(25)
        y0      = delay(self, entry[:25], 1)
        self.comb += dy.eq(entry[25:])
        self.sync += [product.eq(dy*fraction), y.eq(y0 - product[15:])]

        # 7: EXP2 shifts right by n + 8, keeping the half for rounding. SIGMOID is 0 beyond its table.
        is_exp2, is_sigmoid = delay(self, func == EXP2, 5), delay(self, func == SIGMOID, 5)
        zero    = delay(self, Mux(func == SIGMOID, large, biased == 0), 5)
        flip    = is_sigmoid & delay(self, ~x[31], 5)
        n       = delay(self, u[16:], 5)
        shifted = y[7:]
        for i in reversed(range(5)):
            level = Signal(18)
            self.comb += level.eq(Mux(n[i], shifted[2**i:], shifted))
            shifted = level
        part = delay(self, Mux(is_exp2, shifted[1:], y & Replicate(~zero, 25)), 1)
        half = delay(self, is_exp2 & shifted[0], 1)
        flip = delay(self, flip, 1)

        # 8: round, or 1 - y for SIGMOID of a positive x.
        value      = Signal(25)
        self.sync += value.eq((part ^ Replicate(flip, 25)) + Cat(half | flip, Replicate(0, 23), flip))

        # 9 to 12: fp32.
        self.to_fp = to_fp = LlamaFixedToFP(26)
        self.latency = 8 + to_fp.latency
        exponent = delay(self, exponent, 6)
        self.comb += [
            to_fp.value.eq(value),
            to_fp.exponent.eq(Cat(exponent, Replicate(exponent[8], 3))),
            source.y.eq(to_fp.y),
            source.p.eq(delay(self, value[:17], to_fp.latency)),
            source.tag.eq(delay(self, sink.tag, self.latency)),
            source.valid.eq(delay(self, sink.valid, self.latency, reset_less=False)),
        ]


class LlamaFunctionArbiter(LiteXModule):
    """LlamaFunction shared by `n_clients`: `clients` are streams of requests with fixed priority, the lowest index first;
    the results of client i come out of sources[i] in order, `latency` clocks after the grant, without back-pressure
    (`ready` is ignored). Interval: 1 clock."""
    def __init__(self, n_clients):
        self.clients = [stream.Endpoint(FUNCTION_LAYOUT) for _ in range(n_clients)]
        self.sources = [stream.Endpoint(FUNCTION_RESULT_LAYOUT) for _ in range(n_clients)]

        # # #

        self.function = function = LlamaFunction(tag_bits=n_clients)
        self.latency  = function.latency

        grants     = grant(self, self.clients)
        self.comb += [
            function.sink.valid.eq(grants != 0),
            function.sink.tag.eq(grants),
            *[getattr(function.sink, name).eq(granted(grants, self.clients, name)) for name, _ in FUNCTION_LAYOUT],
        ]
        for i, source in enumerate(self.sources):
            self.comb += [
                source.valid.eq(function.source.valid & function.source.tag[i]),
                source.y.eq(function.source.y),
                source.p.eq(function.source.p),
            ]
