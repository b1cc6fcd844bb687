# SPDX-License-Identifier: BSD-2-Clause
"""`litellama selftest`: is the hardware all right? Memory, weights in it, the core's arithmetic, its counters; the same on a board
and in simulation.

load:     the model is there, or is sent, and the firmware finds it whole. If not, the memory's test is the only one that follows.
memory:   patterns that the CPU writes into the DRAM behind the image are read back by the CPU and through the core's own ports
          (FILL and SCAN of the protocol), each pattern written everywhere before any of it is read. The core's own writes are those of
          keys and values, where it has its cache in DRAM: `answer` shows them.
weights:  the whole image through the core's ports: the signature of what was sent.
answer:   greedy tokens and their logits, bit by bit those of accel.numerics.
counters: the last pass's stages add up to its cycles, and it read the whole weight stream.
"""

import struct
import zlib

import numpy as np

from ..accel import image, numerics
from ..accel.config import UNIT_BYTES, ceil_div, check
from ..accel.counters import COUNTERS, STAGES
from ..accel.scan import signature
from ..firmware.constants import PATTERN_ADDRESS, PATTERN_CONSTANT, PATTERN_MIXED
from .console import say, say_json
from .devices.base import DeviceError
from .devices.serial import SerialDevice

PATTERNS = (("zeros", PATTERN_CONSTANT, 0), ("ones", PATTERN_CONSTANT, 0xFFFFFFFF), ("alternating", PATTERN_CONSTANT, 0x55555555),
    ("address", PATTERN_ADDRESS, 0), ("mixed", PATTERN_MIXED, 0x2545F491), ("mixed, inverted", PATTERN_MIXED, ~0x2545F491 & 0xFFFFFFFF))
CHUNK    = 1 << 20    # Bytes that one request fills: no request takes long.
PAGE     = 4096


def pattern_words(pattern, offset, n_bytes, seed):
    """uint32 words that FILL puts at byte `offset` of main_ram (firmware/memtest.c)."""
    at = np.arange(offset, offset + n_bytes, 4, dtype=np.uint32)
    if pattern == PATTERN_CONSTANT:
        return np.full(len(at), seed, np.uint32)
    if pattern == PATTERN_MIXED:
        at = at*np.uint32(0x9E3779B1)
        at ^= at >> np.uint32(15)
    return at ^ np.uint32(seed)


def wrong_lanes(want, got):
    """Byte lanes of the core's port in which two signatures (lists of 32-bit words) differ."""
    return np.flatnonzero(np.array(want, "<u4").view(np.uint8) != np.array(got, "<u4").view(np.uint8)).tolist()


def memory_test(device, n_bytes):
    """[(name of the pattern, "" or what is wrong)] of `n_bytes` behind the image; None: all there is."""
    hello = device.hello
    start = ceil_div(hello.image_offset + hello.image_bytes, PAGE)*PAGE
    room  = (hello.main_ram_bytes - start)//UNIT_BYTES*UNIT_BYTES
    size  = room if n_bytes is None else n_bytes
    check(UNIT_BYTES <= size <= room, f"--bytes is {size}, must be at least {UNIT_BYTES} and at most the {room} behind the model")
    parts, results = [(at, min(CHUNK, start + size - at)) for at in range(start, start + size, CHUNK)], []
    for name, pattern, seed in PATTERNS:
        lanes, n_wrong, bits, first = set(), 0, 0, None
        for at, n in parts:
            device.fill(at, n, pattern, seed)
        for at, n in parts:
            want   = signature(pattern_words(pattern, at, n, seed).astype("<u4").tobytes(), device.core_config().beat_bytes)
            lanes |= set(wrong_lanes(want, device.scan(n, at, in_image=False).signature))
            found  = device.fill(at, n, pattern, seed, compare=True)
            if found.n_wrong and first is None:
                first = found.first
            n_wrong += found.n_wrong
            bits    |= found.bits
        wrong = []
        if n_wrong:
            wrong.append(f"the CPU read {n_wrong} words wrong, the first at byte {first:#x}, bits {bits:#010x}")
        if lanes:
            wrong.append(f"the core's ports read byte lanes {', '.join(map(str, sorted(lanes)))} wrong")
        results.append((f"memory: {name}, {size} bytes", "; ".join(wrong)))
    return results


def weights_test(device, data):
    """[(name, "" or what is wrong)]: the image `data` as the core's ports read it."""
    n    = len(data)//UNIT_BYTES*UNIT_BYTES
    want = signature(data[:n], device.core_config().beat_bytes)
    bad  = wrong_lanes(want, device.scan(n).signature)
    return [(f"weights: {n} bytes", f"byte lanes {', '.join(map(str, bad))} of the core's port differ" if bad else "")]


def known_answer(model, tokens, n, context):
    """[(id, fp32 bits of its logit)] of `n` greedy tokens after `tokens`, by the twin."""
    twin, out = numerics.Decoder(model, context=context), []
    while len(out) < n:
        logits = twin.forward(tokens, "last")
        best   = int(numerics.topk(logits, 1)[0])
        out.append((best, int(numerics.bits(logits[best:best + 1])[0])))
        tokens = [best]
    return out


def answer_test(device, model, n):
    """[(name, "" or what is wrong)]: tokens and logits against the twin's."""
    start = [model.bos if model.bos is not None and model.bos >= 0 else 0]
    crc   = lambda pairs: zlib.crc32(b"".join(struct.pack("<II", *p) for p in pairs))
    got, want = device.known_answer(start, n), known_answer(model, start, n, device.context)
    where = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    wrong = "" if got == want else f"differs from token {where} on: CRC-32 {crc(got):#010x}"
    return [(f"answer: {n} tokens, CRC-32 {crc(want):#010x}", wrong)]


def counters_test(device, data):
    """[(name, "" or what is wrong)] of the counters of the pass before."""
    counts  = dict(zip(COUNTERS, device.counters))
    total   = counts["total"]
    by_pass = sum(counts[stage] for stage in STAGES)
    stream  = image.read_header(data).stream_bytes//device.core_config().beat_bytes
    wrong   = []
    if by_pass != total:
        wrong.append(f"the stages add up to {by_pass}")
    if counts["beats"] < stream:
        wrong.append(f"{counts['beats']} beats were read, the weight stream has {stream}")
    return [(f"counters: {total} cycles, {counts['beats']} beats", "; ".join(wrong))]


def load_test(device, model, n_bytes, on_progress):
    """(name, "" or what is wrong): the model of `n_bytes` gets into the device's DRAM, and is whole there."""
    try:
        device.load(model, on_progress)
        wrong = ""
    except DeviceError as error:   # If it is the line that failed, the memory's test will say so.
        if device.client is None:  # A simulation that has ended.
            raise
        wrong = str(error)
    return f"load: {n_bytes} bytes", wrong


def selftest(device, model, n_bytes, n_tokens, on_progress=None):
    """Generator of (name, "" or what is wrong), test by test. on_progress(bytes, total) while the model is sent. ValueError if
    `device` has no hardware."""
    check(isinstance(device, SerialDevice), f"device {device.name} has no hardware to test: that takes the simulated SoC or a board")
    check(n_tokens >= 1, f"--tokens is {n_tokens}, must be at least 1")
    check(not (n_bytes or 0) % UNIT_BYTES, f"--bytes is {n_bytes}, must be a multiple of {UNIT_BYTES}")   # Before a long upload.
    data   = image.write_image(model)
    loaded = load_test(device, model, len(data), on_progress)
    whole  = not loaded[1]
    yield loaded
    if whole:
        check(n_tokens < device.context, f"--tokens is {n_tokens}, must be below the context, {device.context}")
    yield from memory_test(device, n_bytes)
    if whole:
        yield from weights_test(device, data)
        yield from answer_test(device, model, n_tokens)
        yield from counters_test(device, data)


def report(results, as_json):
    """Print what `selftest` yields as it comes; the exit status."""
    results = [_say(name, wrong, as_json) for name, wrong in results]
    failed  = sum(bool(wrong) for _, wrong in results)
    if as_json:
        say_json(dict(passed=not failed, tests=[dict(name=name, wrong=wrong) for name, wrong in results]))
    else:
        say(f"{failed} of {len(results)} tests failed" if failed else f"all {len(results)} tests passed")
    return 1 if failed else 0


def _say(name, wrong, as_json):
    if not as_json:
        say(f"{'FAILED' if wrong else 'ok':7}{name}{': ' + wrong if wrong else ''}")
    return name, wrong
