# SPDX-License-Identifier: BSD-2-Clause
"""A signature of what a scan reads: sequential reads at full speed, whose beats go nowhere else."""

from functools import reduce
from operator import xor

from migen import Cat, If, Signal
import numpy as np

from litex.gen import LiteXModule


class LlamaSignature(LiteXModule):
    """Per byte lane of a beat, sig = rotl8(sig, 1) ^ byte. A wrong bit changes it wherever it is; two wrong bits cancel only in the
    same lane, a multiple of eight beats apart or at the fitting places of their bytes.

    clear: pulse before the first beat. valid, data: a beat. words: the signature as 32-bit words, lane 0 the lowest byte of
    the first. Latency: 1. Interval: 1 beat.
    """
    def __init__(self, beat_bytes):
        self.clear, self.valid = Signal(), Signal()
        self.data  = Signal(8*beat_bytes)
        self.words = [Signal(32, name=f"signature_{i}") for i in range(beat_bytes//4)]

        # # #

        lanes = [word[8*i:8*i + 8] for word in self.words for i in range(4)]
        self.sync += If(self.clear, [word.eq(0) for word in self.words]).Elif(self.valid,
            [lane.eq(Cat(lane[7], lane[:7]) ^ self.data[8*i:8*i + 8]) for i, lane in enumerate(lanes)])


def signature(data, beat_bytes):
    """LlamaSignature's `words` (uint32) after all of `data`: bytes, a multiple of `beat_bytes`."""
    beats = np.frombuffer(data, np.uint8).reshape(-1, beat_bytes)[::-1]   # The last one is turned by 0 bits.
    turned = [np.bitwise_xor.reduce(beats[k::8], axis=0, dtype=np.uint8) for k in range(8)]
    lanes  = reduce(xor, [t << k | t >> (8 - k) for k, t in enumerate(turned)]).astype(np.uint8)
    return lanes.view("<u4")
