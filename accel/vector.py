# SPDX-License-Identifier: BSD-2-Clause
"""Vector unit: the one fp32 pipeline through which every element of every vector passes, shared by all stages."""

from functools import reduce
from operator import or_

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from .fp import LlamaFPMul, LlamaFPAdd, delay

# Kinds of rows that LlamaMatVec tags and the controller routes: the image's NORM1 .. EMBEDDING are 0 to 10.
KIND_SCORE = 11    # A key's score against a query head.
KIND_VALUE = 12    # An element of a head's weighted sum of values.

# Where a result goes.
DEST_ACT    = 0    # Block-float converter, then activations.
DEST_X      = 1    # Residual memory.
DEST_KVBUF  = 2    # Input of the key/value quantiser.
DEST_SCORE  = 3    # Score memory.
DEST_KVQ    = 4    # Value times 1/scale, to int8.
DEST_SCALAR = 5    # RMSNorm's own mean + eps.

# First summand.
P_ZERO = 0
P_E    = 1
P_M1   = 2

VPU_LAYOUT = [
    ("a", 32), ("b", 32), ("c", 32), ("d", 32), ("e", 32),
    ("chain",  1),
    ("p_sel",  2),
    ("neg",    1),
    ("dest",   3),
    ("column", 3),
]
VPU_RESULT_LAYOUT = [("data", 32), ("dest", 3), ("column", 3)]


def grant(module, clients):
    """Fixed-priority arbiter: one-hot grants of the stream endpoints `clients`, lowest index first; drives their `ready`."""
    grants = Signal(len(clients))
    for i, client in enumerate(clients):
        higher       = reduce(or_, [other.valid for other in clients[:i]], Constant(0))
        module.comb += [grants[i].eq(client.valid & ~higher), client.ready.eq(grants[i])]
    return grants


def granted(grants, clients, name):
    """Field `name` of the granted client: AND-OR, so that what a client leaves at 0 costs nothing. 0 if none is granted."""
    return reduce(or_, [getattr(client, name) & Replicate(grants[i], len(getattr(client, name)))
        for i, client in enumerate(clients)])


class LlamaVPU(LiteXModule):
    """One fp32 operation a clock: M1 = a*b, Q = (M1 if chain else c)*d, result = P - Q if neg else P + Q, where P is 0, e or M1.

    Every product and the sum are rounded on their own (numerics.fmul, numerics.fadd). `clients` are streams of operations
    with fixed priority, the lowest index first; only the granted one sees `ready`. A field that a client leaves at 0 costs
    nothing in the operand multiplexer. `source` carries result, dest, column and last of the operation; it has no
    back-pressure (its `ready` is ignored), so a client only sends what the destination can take.

    Latency: `latency` clocks from grant to result, in grant order. Interval: 1 clock.
    """
    latency = 1 + 2*LlamaFPMul.latency + LlamaFPAdd.latency

    def __init__(self, n_clients):
        self.clients = [stream.Endpoint(VPU_LAYOUT) for _ in range(n_clients)]
        self.source  = stream.Endpoint(VPU_RESULT_LAYOUT)

        # # #

        # Operands of the granted client, in a register.
        op     = Record(VPU_LAYOUT + [("last", 1)])
        valid  = Signal()
        grants = grant(self, self.clients)
        self.sync += [
            valid.eq(grants != 0),
            *[getattr(op, name).eq(granted(grants, self.clients, name)) for name, *_ in op.layout],
        ]

        # M1 = a*b; the other operands wait for it.
        self.mul1 = mul1 = LlamaFPMul()
        self.comb += [mul1.a.eq(op.a), mul1.b.eq(op.b)]
        c, d, e, chain, p_sel = (delay(self, getattr(op, name), mul1.latency) for name in ("c", "d", "e", "chain", "p_sel"))

        # Q = (M1 or c)*d; P is chosen here so that only one operand travels on.
        self.mul2 = mul2 = LlamaFPMul()
        p = Signal(32)
        self.comb += [
            mul2.a.eq(Mux(chain, mul1.p, c)),
            mul2.b.eq(d),
            If(p_sel == P_E, p.eq(e)).Elif(p_sel == P_M1, p.eq(mul1.p)),
        ]
        p   = delay(self, p, mul2.latency)
        neg = delay(self, op.neg, mul1.latency + mul2.latency)

        # Result = P +- Q.
        self.add = add = LlamaFPAdd()
        self.comb += [
            add.a.eq(p),
            add.b.eq(Cat(mul2.p[:31], mul2.p[31] ^ neg)),
            self.source.data.eq(add.s),
        ]
        tags = delay(self, Cat(op.last, op.dest, op.column), self.latency - 1)
        self.comb += [
            self.source.valid.eq(delay(self, valid, self.latency - 1, reset_less=False)),
            Cat(self.source.last, self.source.dest, self.source.column).eq(tags),
        ]
