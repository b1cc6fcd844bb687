# SPDX-License-Identifier: BSD-2-Clause
"""Rotary position embedding of keys and queries; values pass through."""

from migen import *
from migen.fhdl.specials import READ_FIRST

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from . import image
from .kv import HEAD_BLOCKS_BITS
from .readout import ELEMENT_LAYOUT, FP32_ONE, ROW_LAYOUT
from .vector import DEST_ACT, DEST_KVBUF, P_M1, VPU_LAYOUT


class LlamaRope(LiteXModule):
    """RoPE on adjacent pairs (numerics.rope): (a, b) becomes (a*cos - b*sin, a*sin + b*cos), two VPU operations.

    load: pulse before the position's row of the table comes through `vector` (cosine and sine of each pair of a head, fp32,
    `last` on the last); load_done: pulse when it is stored. Then `sink` takes the rows of wk, wv, wq, in any number of whole
    heads of head_blocks*32 rows, without further control. Keys and queries are rotated, values turn by an angle of 0, which
    is exact. Keys and values go to DEST_KVBUF, queries to DEST_ACT.

    kv_ready, kv_claim: LlamaKVQuantise's. A head of keys or values is begun only while kv_ready, and claimed then.

    Latency: 1 clock from a pair's second row to its first operation. Interval: 1 row a clock, one operation per row.
    Source: Su et al., RoFormer, arXiv 2104.09864; pairs as in llama2.c.
    """
    def __init__(self, max_head_dim):
        self.sink   = sink   = stream.Endpoint(ROW_LAYOUT)
        self.vector = vector = stream.Endpoint(ELEMENT_LAYOUT)
        self.vpu    = vpu    = stream.Endpoint(VPU_LAYOUT)

        self.load        = Signal()
        self.load_done   = Signal()
        self.head_blocks = Signal(HEAD_BLOCKS_BITS)
        self.kv_ready    = Signal(reset=1)
        self.kv_claim    = Signal()

        # # #

        # Table: cosines and sines of one position, a memory each.
        n_pairs = max_head_dim//2
        pair    = Signal(max=n_pairs)     # The next to be completed, or to be loaded.
        loading = Signal()
        is_sine = Signal()
        tables  = []
        for i, name in enumerate(("cosine", "sine")):
            memory = Memory(32, n_pairs, name=f"llama_rope_{name}")
            write  = memory.get_port(write_capable=True, mode=READ_FIRST)
            read   = memory.get_port(mode=READ_FIRST)
            self.specials += memory, write, read
            self.comb     += [
                write.adr.eq(pair), write.dat_w.eq(vector.data), write.we.eq(loading & vector.valid & (is_sine == i)),
                read.adr.eq(pair),
            ]
            tables.append(read.dat_r)
        self.comb += vector.ready.eq(loading)

        # The first row of a pair waits; with the second it moves on to a and b, which are held for two operations.
        waiting, first   = Signal(), Signal(32)
        a, b, cos, sin   = Signal(32), Signal(32), Signal(32), Signal(32)
        valid, second    = Signal(), Signal()     # An operation is offered; it is the pair's second.
        last, query      = Signal(), Signal()
        free, accept     = Signal(), Signal()
        head_first       = Signal()
        pair_last        = Signal()
        self.comb += [
            head_first.eq((pair == 0) & ~waiting),
            pair_last.eq(pair == Cat(Replicate(0, 4), self.head_blocks) - 1),
            free.eq(~valid | (vpu.ready & second)),
            # A head is begun when the quantiser has room for it, a pair completed when a and b are free.
            sink.ready.eq(Mux(waiting, free, ~head_first | self.kv_ready | (sink.kind == image.WQ))),
            accept.eq(sink.valid & sink.ready),
            self.kv_claim.eq(accept & head_first & (sink.kind != image.WQ)),
        ]
        self.sync += [
            self.load_done.eq(0),
            If(self.load,
                loading.eq(1), is_sine.eq(0), pair.eq(0),
            ).Elif(loading & vector.valid,
                is_sine.eq(~is_sine),
                If(is_sine, pair.eq(pair + 1)),
                If(vector.last, loading.eq(0), pair.eq(0), self.load_done.eq(1)),
            ),
            If(valid & vpu.ready, second.eq(1), valid.eq(~second)),
            If(accept,
                waiting.eq(~waiting),
                If(~waiting, first.eq(sink.data)),
                If(waiting,
                    a.eq(first), b.eq(sink.data), cos.eq(tables[0]), sin.eq(tables[1]),
                    If(sink.kind == image.WV, cos.eq(FP32_ONE), sin.eq(0)),
                    valid.eq(1), second.eq(0), last.eq(sink.last), query.eq(sink.kind == image.WQ),
                    If(pair_last, pair.eq(0)).Else(pair.eq(pair + 1)),
                ),
            )
        ]

        # a*cos - b*sin, then a*sin + b*cos.
        self.comb += [
            vpu.valid.eq(valid),
            vpu.a.eq(a), vpu.b.eq(Mux(second, sin, cos)), vpu.p_sel.eq(P_M1),
            vpu.c.eq(b), vpu.d.eq(Mux(second, cos, sin)), vpu.neg.eq(~second),
            vpu.dest.eq(Mux(query, DEST_ACT, DEST_KVBUF)),
            vpu.last.eq(last & second),
        ]
