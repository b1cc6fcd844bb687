# SPDX-License-Identifier: BSD-2-Clause
"""A signature of what a scan reads: sequential reads at full speed, whose beats go nowhere else."""

from migen import Cat, If, Signal
import numpy as np

from litex.gen import LiteXModule

POLYNOMIAL = 0x1D   # x^8 + x^4 + x^3 + x^2 + 1, primitive, without its x^8.


class LlamaSignature(LiteXModule):
    """Per byte lane of a beat, sig = sig*x + byte in GF(2^8): the usual multiple-input signature register of memory tests.

    A wrong bit changes it wherever it is; two wrong bits of a lane can only cancel in different bits, or a multiple of 255 beats
    apart. A bit that is wrong in every beat shows unless the number of beats is a multiple of 255.

    clear: pulse before the first beat. valid, data: a beat. words: the signature as 32-bit words, lane 0 the lowest byte of
    the first. Latency: 1. Interval: 1 beat.
    """
    def __init__(self, beat_bytes):
        self.clear, self.valid = Signal(), Signal()
        self.data  = Signal(8*beat_bytes)
        self.words = [Signal(32, name=f"signature_{i}") for i in range(beat_bytes//4)]

        # # #

        lanes = [word[8*i:8*i + 8] for word in self.words for i in range(4)]
        times = lambda lane: Cat(*[(lane[i - 1] if i else 0) ^ (lane[7] if POLYNOMIAL >> i & 1 else 0) for i in range(8)])
        self.sync += If(self.clear, [word.eq(0) for word in self.words]).Elif(self.valid,
            [lane.eq(times(lane) ^ self.data[8*i:8*i + 8]) for i, lane in enumerate(lanes)])


def signature(data, beat_bytes):
    """LlamaSignature's `words` (uint32) after all of `data`: bytes, a multiple of `beat_bytes`."""
    sums  = np.frombuffer(data, np.uint8).reshape(-1, beat_bytes)
    power = np.arange(256, dtype=np.uint8)                                           # Times x to the number of beats in a sum.
    power = power << np.uint8(1) ^ np.where(power >> 7, np.uint8(POLYNOMIAL), np.uint8(0))
    while len(sums) > 1:   # Sums of twice as many beats, the last of them complete.
        odd   = sums[:1] if len(sums) % 2 else sums[:0]
        pairs = sums[len(odd):]
        sums  = np.concatenate([odd, power[pairs[0::2]] ^ pairs[1::2]])
        power = power[power]
    return sums.reshape(-1).view("<u4")
