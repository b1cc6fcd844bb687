# SPDX-License-Identifier: BSD-2-Clause
"""New keys and values to int8."""

import numpy as np

from migen import *
from migen.fhdl.specials import READ_FIRST
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from . import numerics
from .config import BLOCK, LIMITS
from .fp import delay
from .function import FUNCTION_LAYOUT, FUNCTION_RESULT_LAYOUT
from .kv import ADDRESS_BITS, BLOCK_COUNT_BITS, CONTEXT_BITS, HEAD_BLOCKS_BITS, SCALE_BITS, add_write_signals
from .readout import LlamaReadOut
from .vector import DEST_KVBUF, DEST_KVQ, P_M1, VPU_LAYOUT, VPU_RESULT_LAYOUT

ONE_127TH = int(numerics.bits(np.float32(1/127)))
FP16_MAX  = 0x7BFF


class LlamaFPToInt8(LiteXModule):
    """q = fp32 x rounded half away from zero to -127..127. Latency 2, interval 1."""
    latency = 2

    def __init__(self):
        self.x = Signal(32)
        self.q = Signal(8)

        # # #

        # 1: magnitude with one fraction bit. x of exponent 6 (64 to 127.99) needs no shift, of exponent -1 (0.5 to 0.99) seven.
        exponent = Signal(8)
        shifted  = Signal(8)
        large    = Signal()
        sign     = Signal()
        self.comb += exponent.eq(self.x[23:31])
        self.sync += [
            sign.eq(self.x[31]),
            large.eq(exponent >= 127 + 7),
            Case(exponent, {
                **{127 + e: shifted.eq(Cat(self.x[16:23], 1)[6 - e:]) for e in range(-1, 7)},
                "default": shifted.eq(0),
            })
        ]

        # 2: round, clip, sign.
        rounded   = Signal(8)
        magnitude = Signal(7)
        self.comb += [
            rounded.eq(shifted[1:] + shifted[0]),
            magnitude.eq(rounded[:7] | Replicate(rounded[7] | large, 7)),
        ]
        self.sync += self.q.eq((Cat(magnitude, 0) ^ Replicate(sign, 8)) + sign)


class LlamaKVQuantise(LiteXModule):
    """Quantise the new keys and values of a layer (numerics.quantise_kv) and write them, a byte a clock, to where
    LlamaKVOwner's layout has them: write_values, write_valid, write_address, write_data, write_scale_valid,
    write_scale_address, write_scale. A head is written in one go, its scale last, once `room` is high.

    result: VPU results; those for DEST_KVBUF are the elements of all KV heads' keys, then of all their values, head by
    head, after RoPE. While a head arrives in one of two buffers its largest magnitude is tracked; when it is complete,
    scale = fp16(largest/127) and 1/scale are computed, then every element times 1/scale goes through the VPU (DEST_KVQ)
    to int8 bytes.

    start: pulse before the first key head of a layer; parameters from then to v_done: base and sbase of the layer's KV
    head 0, stride (bytes from head to head, context*hd), context (positions from head to head), position, k_offset
    (position*head_blocks), v_offset (position//32*head_blocks), head_blocks, kv_blocks (blocks of all KV heads). k_done, v_done: pulses when all keys, all
    values of the layer are stored.
    claim: pulse from LlamaRope when it takes the first element of a head, which it may do only while `ready`: two heads
    have room from that moment on, so that results under way need no back-pressure.

    Latency: a head is stored 63 clocks + hd after its last element. Interval: that, or the head's elements where they come
    slower.
    Source of the format: llama.cpp's Q8_0, with one scale per head.
    """
    def __init__(self, config):
        depth         = config.max_head_dim
        self.result   = result   = stream.Endpoint(VPU_RESULT_LAYOUT)
        self.vpu      = vpu      = stream.Endpoint(VPU_LAYOUT)
        self.function = function = stream.Endpoint(FUNCTION_LAYOUT)
        self.function_result     = stream.Endpoint(FUNCTION_RESULT_LAYOUT)

        self.start    = Signal()
        self.k_done   = Signal()
        self.v_done   = Signal()
        self.ready    = Signal(reset=1)
        self.claim    = Signal()
        self.room     = Signal(reset=1)

        add_write_signals(self)

        self.base        = Signal(ADDRESS_BITS)
        self.sbase       = Signal(SCALE_BITS)
        self.stride      = Signal(ADDRESS_BITS)
        self.context     = Signal(CONTEXT_BITS)
        self.position    = Signal(CONTEXT_BITS)
        self.k_offset    = Signal(BLOCK_COUNT_BITS)
        self.v_offset    = Signal(BLOCK_COUNT_BITS)
        self.head_blocks = Signal(HEAD_BLOCKS_BITS)
        self.kv_blocks   = Signal(bits_for(config.max_heads_dim//BLOCK))

        # # #

        head_dim = Signal(bits_for(LIMITS["head_dim"]))
        self.comb += head_dim.eq(Cat(Replicate(0, 5), self.head_blocks))

        # Two head buffers, filled in turn. Half of the memory each.
        memory = Memory(32, 2*depth, name="llama_kv_buffer")
        write  = memory.get_port(write_capable=True, mode=READ_FIRST)
        read   = memory.get_port(has_re=True, mode=READ_FIRST)
        self.specials += memory, write, read

        # Elements in; largest magnitude of the head so far.
        arriving, element    = Signal(), Signal(32)
        fill, index          = Signal(), Signal(max=depth)   # Buffer and place of `element`.
        largest, larger      = Signal(31), Signal()
        full, absmax         = Signal(), Signal(31)          # A head is complete; its largest magnitude.
        head_last, take      = Signal(), Signal()
        self.comb += [
            write.adr.eq(index + Mux(fill, depth, 0)), write.dat_w.eq(element), write.we.eq(arriving),
            head_last.eq(index == head_dim - 1),
            larger.eq(element[:31] > largest),
        ]
        self.sync += [
            arriving.eq(result.valid & (result.dest == DEST_KVBUF)), element.eq(result.data),
            If(take, full.eq(0)),
            If(arriving,
                index.eq(index + 1),
                If(larger, largest.eq(element[:31])),
                If(head_last,
                    index.eq(0), fill.eq(~fill), largest.eq(0), full.eq(1),
                    absmax.eq(Mux(larger, element[:31], largest)),
                )
            )
        ]

        # Room: heads that LlamaRope has begun and that have not been stored.
        claimed, free = Signal(2), Signal()
        self.sync += claimed.eq(claimed + self.claim - free)
        self.comb += self.ready.eq(~claimed[1])

        # Scale: one shift register makes the VPU's product fp16, and that fp32 again. Below exponent 113 fp16 is subnormal.
        mant, exponent  = Signal(24), Signal(8)
        scale, inverse  = Signal(16), Signal(32)
        above, rounded  = Signal(8), Signal(18)
        subnormal, zero = Signal(), Signal()
        self.comb += [
            subnormal.eq(exponent < 113),
            zero.eq(mant == 0),
            above.eq(exponent - 113),
            rounded.eq(Cat(Replicate(0, 10), above) + mant[13:] + mant[12]),
        ]

        # Elements out of the buffer, times 1/scale.
        self.readout = readout = LlamaReadOut(32, 2*depth)
        drain        = Signal()   # Buffer that is emptied.
        self.comb += [
            read.adr.eq(readout.adr), read.re.eq(readout.re), readout.data.eq(read.dat_r),
            readout.base.eq(Mux(drain, depth, 0)), readout.count.eq(head_dim),
            vpu.dest.eq(DEST_KVQ), vpu.p_sel.eq(P_M1),
        ]

        # Bytes: along a key, across the positions of a tile for a value.
        self.to_int8 = to_int8 = LlamaFPToInt8()
        quotient     = Signal()
        stored       = Signal()   # The head's last byte is being written.
        values       = Signal()
        head_base    = Signal(ADDRESS_BITS)
        head_sbase   = Signal(SCALE_BITS)
        address      = Signal(ADDRESS_BITS)
        offset       = Signal(ADDRESS_BITS)
        self.comb += [
            to_int8.x.eq(result.data),
            self.write_values.eq(values),
            self.write_valid.eq(delay(self, quotient, to_int8.latency, reset_less=False)),   # (After a flush it would go elsewhere.)
            self.write_address.eq(address), self.write_data.eq(to_int8.q),
            self.write_scale_address.eq(head_sbase + self.position), self.write_scale.eq(scale),
            If(values, offset.eq(Cat(self.position[:5], Replicate(0, 5), self.v_offset))).Else(
                offset.eq(Cat(Replicate(0, 5), self.k_offset))),
            stored.eq(delay(self, quotient & result.last, to_int8.latency)),
        ]

        # One head after the other.
        blocks = Signal.like(self.kv_blocks)   # Blocks of this kind's heads still to be stored.
        self.fsm = fsm = FSM(reset_state="WAIT_HEAD")
        multiply = fsm.ongoing("MULTIPLY")
        scaling  = fsm.ongoing("SCALE")
        product  = Signal()
        self.comb += [
            # (Handshakes stay outside the FSM's process: Icarus would loop on their glitches.)
            vpu.valid.eq(multiply | (scaling & readout.source.valid)),
            vpu.a.eq(Mux(multiply, inverse, readout.source.data)), vpu.b.eq(Mux(multiply, ONE_127TH, inverse)),
            vpu.last.eq(scaling & readout.source.last), readout.source.ready.eq(scaling & vpu.ready),
            product.eq(result.valid & (result.dest == DEST_KVQ)),
            quotient.eq(scaling & product),
            function.valid.eq(fsm.ongoing("INVERT")), function.func.eq(numerics.RECIP),
            function.x.eq(Cat(mant[:23], exponent & Replicate(mant[23], 8))),
        ]
        fsm.act("WAIT_HEAD",
            If(full, take.eq(1), NextValue(inverse, absmax), NextState("MULTIPLY")))
        fsm.act("MULTIPLY",
            If(vpu.ready, NextState("WAIT_PRODUCT")))
        fsm.act("WAIT_PRODUCT",
            NextValue(exponent, result.data[23:31]),
            NextValue(mant, Cat(result.data[:23], 1) & Replicate(result.data[23:31] != 0, 24)),
            If(product, NextState("DENORMALISE")))
        fsm.act("DENORMALISE",
            If(subnormal & ~zero,
                NextValue(mant, mant[1:]), NextValue(exponent, exponent + 1),
            ).Else(NextState("ROUND")))
        fsm.act("ROUND",
            If(zero,
                NextValue(scale, 0),
            ).Elif((rounded[10:15] == 31) | (rounded[15:] != 0),
                NextValue(scale, FP16_MAX),
            ).Else(NextValue(scale, rounded)),
            NextState("UNPACK"))
        fsm.act("UNPACK",
            NextValue(mant, Cat(Replicate(0, 13), scale[:10], scale[10:15] != 0)),
            NextValue(exponent, scale[10:15] + 112 + (scale[10:15] == 0)),
            NextState("NORMALISE"))
        fsm.act("NORMALISE",
            If(~mant[23] & ~zero,
                NextValue(mant, mant << 1), NextValue(exponent, exponent - 1),
            ).Else(NextState("INVERT")))
        fsm.act("INVERT",
            If(function.ready, NextState("WAIT_INVERSE")))
        fsm.act("WAIT_INVERSE",
            NextValue(inverse, self.function_result.y),
            If(self.function_result.valid, NextState("WAIT_ROOM")))
        fsm.act("WAIT_ROOM",
            NextValue(address, head_base + offset),
            If(self.room, readout.start.eq(1), NextState("SCALE")))
        fsm.act("SCALE",
            If(self.write_valid, NextValue(address, address + Mux(values, BLOCK, 1))),
            If(stored, NextState("STORE")))
        fsm.act("STORE",
            self.write_scale_valid.eq(1), free.eq(1), NextValue(drain, ~drain),
            NextValue(blocks, blocks - self.head_blocks),
            NextValue(head_base, head_base + self.stride), NextValue(head_sbase, head_sbase + self.context),
            If(blocks == self.head_blocks,
                NextValue(blocks, self.kv_blocks), NextValue(head_base, self.base), NextValue(head_sbase, self.sbase),
                NextValue(values, ~values),
            ),
            NextState("WAIT_HEAD"))
        kind_last = Signal()
        self.comb += kind_last.eq(free & (blocks == self.head_blocks))
        self.sync += [
            self.k_done.eq(kind_last & ~values), self.v_done.eq(kind_last & values),
            If(self.start,
                values.eq(0), blocks.eq(self.kv_blocks), head_base.eq(self.base), head_sbase.eq(self.sbase)),
        ]
