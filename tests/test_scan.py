# SPDX-License-Identifier: BSD-2-Clause
"""Scans: the signature's block against its definition, the twin against both; the core's own reads under random stalls; the
firmware's request and the devices that have it."""

import random

import numpy as np
import pytest

from gateware import run_block, throttle
from stage import Bench, pulse
from core_bench import Core
from firmware_host import Firmware, IMAGE_OFFSET, Port
from test_core import SHAPES, SMALL
from litellama.accel import image, numerics
from litellama.accel.config import UNIT_BYTES, CoreConfig
from litellama.accel.counters import COUNTERS
from litellama.accel.controller import STAGES
from litellama.accel.scan import LlamaSignature, signature
from litellama.accel.stream import CHUNK_UNITS
from litellama.firmware import constants as c
from litellama.host.devices import open_device
from litellama.host.devices.base import DeviceError
from litellama.host.devices.serial import SerialDevice
from litellama.host.protocol import Client, Refused
from litellama.host.random_model import random_model
from litellama.host.sampler import SamplerParams


def defined(data, beat_bytes):
    """The signature by its definition, byte by byte: a list of words."""
    lanes = [0]*beat_bytes
    for i, byte in enumerate(data):
        lane        = i % beat_bytes
        lanes[lane] = (lanes[lane] << 1 & 255) ^ (lanes[lane] >> 7)*0x1D ^ byte
    return [int.from_bytes(bytes(lanes[i:i + 4]), "little") for i in range(0, beat_bytes, 4)]


@pytest.mark.parametrize("beat_bytes, beats", ((4, 1), (8, 7), (16, 8), (16, 129), (32, 1000)))
def test_twin(beat_bytes, beats):
    """The twin is the definition; of a single wrong bit, and of two beats exchanged, it tells."""
    data = np.random.default_rng(beats).bytes(beats*beat_bytes)
    assert signature(data, beat_bytes).tolist() == defined(data, beat_bytes)
    for bit in range(0, 8*len(data), 97):
        wrong = bytearray(data)
        wrong[bit//8] ^= 1 << bit % 8
        assert signature(bytes(wrong), beat_bytes).tolist() != defined(data, beat_bytes)
    for n in (8, 64, 4096):   # A bit that is always wrong.
        assert signature(bytes(beat_bytes*n), beat_bytes).tolist() != signature(b"\0\x08\0\0"*(beat_bytes//4*n), beat_bytes).tolist()
    if beats > 1:
        assert signature(data[beat_bytes:2*beat_bytes] + data[:beat_bytes] + data[2*beat_bytes:], beat_bytes).tolist() != defined(
            data, beat_bytes)


@pytest.mark.parametrize("beat_bytes", (4, 16))
def test_block(beat_bytes, tmp_path):
    """Beats with gaps, twice, with a clear in between."""
    dut  = LlamaSignature(beat_bytes)
    prng = random.Random(beat_bytes)
    def main():
        for n in (37, 5):
            data, go = prng.randbytes(n*beat_bytes), throttle(n, 0.6)
            yield from pulse(dut.clear)
            for i in range(n):
                while not next(go):
                    yield dut.data.eq(prng.randrange(1 << 8*beat_bytes))
                    yield
                yield dut.valid.eq(1)
                yield dut.data.eq(int.from_bytes(data[i*beat_bytes:(i + 1)*beat_bytes], "little"))
                yield
                yield dut.valid.eq(0)
            yield
            words = []
            for word in dut.words:
                words.append((yield word))
            assert words == signature(data, beat_bytes).tolist()
    bench = Bench([], [dut.clear, dut.valid, dut.data], dut.words, [dut])
    run_block(bench, [main()], bench.ios, tmp_path)


def core_of(in_dram, **options):
    """A core with the model gqa, its twin, and its image."""
    config, layers, head = SHAPES["gqa"]
    model = random_model(config, layers, head, seed=21)
    small = {**SMALL, "columns": 1, "kv_bytes": 2048, "kv_scales": 128} if in_dram else SMALL
    core  = Core(CoreConfig(**{**small, **options}), model, latency=25, stall_256=60, in_dram=in_dram)
    return core, numerics.Decoder(model, context=core.context), image.write_image(model)


def decode(core, twin, token):
    """One token on both: the same candidates and logits."""
    core.step(token, twin.position)
    logits      = twin.forward([token])
    ids, values = core.topk()
    assert core.get("error") == 0
    assert ids == list(numerics.topk(logits, len(ids)))
    assert (numerics.bits(values) == numerics.bits(logits[ids])).all()


def check_scan(core, data, base, units):
    """A scan gives the twin's signature of these units of `data`, and its counters what it did."""
    beat_bytes    = core.config.beat_bytes
    cycles, words = core.scan(base, units)
    assert words == signature(data[base*UNIT_BYTES:(base + units)*UNIT_BYTES], beat_bytes).tolist()
    counts = core.counters(COUNTERS)
    assert counts["beats"] == units*UNIT_BYTES//beat_bytes and counts["no_room"] == 0
    assert counts["total"] == sum(counts[s] for s in STAGES) == counts["prepare"] + 1   # (One clock to end a pass.)
    assert abs(counts["total"] - cycles) <= 4
    assert core.get("error") == 0


@pytest.mark.parametrize("in_dram", (False, True))
def test_core_scans(in_dram):
    """Scans of all lengths and alignments before, between and after decoded tokens: every signature and every logit is right,
    one scan is ended by a reset, and one follows a pass without classifier, whose reads end before the stream does."""
    core, twin, data = core_of(in_dram)
    rng, units = np.random.default_rng(3), len(data)//UNIT_BYTES
    for base, n in ((0, 1), (CHUNK_UNITS - 1, 2), (5, CHUNK_UNITS + 3), (0, units)):
        check_scan(core, data, base, n)
        decode(core, twin, int(rng.integers(core.model.config.vocab)))
    for clocks in (3, 700):
        _, words = core.scan(0, units, reset_after=clocks)
        assert words != signature(data, core.config.beat_bytes).tolist()
        decode(core, twin, 7)
        check_scan(core, data, 17, units - 17)
    core.step(9, twin.position, logits=False)
    twin.forward([9], None)
    check_scan(core, data, units - 130, 130)
    decode(core, twin, 11)


def test_scan_is_read_at_full_speed():
    """With a port that never stalls, a scan takes a beat a clock and some clocks to begin and end."""
    core, _, data = core_of(False)
    quick = Core(core.config, core.model, latency=25)
    units = len(data)//UNIT_BYTES
    cycles, words = quick.scan(0, units)
    assert words == signature(data, core.config.beat_bytes).tolist()
    assert cycles <= units*UNIT_BYTES//core.config.beat_bytes + 60


@pytest.mark.parametrize("lanes", (8, 32))
def test_request(lanes):
    """What is read is what was asked for, of the image and of main_ram, up to their last bytes; the session goes on after it."""
    config, layers, head = SHAPES["gqa"]
    model    = random_model(config, layers, head, seed=21)
    data     = image.write_image(model)
    firmware = Firmware(model, config=CoreConfig(lanes=lanes), ram_bytes=1 << 20)
    with SerialDevice("stub", client=Client(Port(firmware), timeout=30.0)) as device:
        device._attach(model)
        device.generate([1, 2], SamplerParams(), 3)
        before = {name: firmware.register(name) for name in ("stream_base", "stream_bytes")}
        ram    = firmware.ram.tobytes()
        for offset, n, in_image in ((0, len(data), True), (32, 64, True), (0, 1 << 20, False), ((1 << 20) - 32, 32, False)):
            done  = device.scan(n, offset, in_image)
            start = offset + IMAGE_OFFSET*in_image
            assert done.signature == signature(ram[start:start + n], lanes//2).tolist()
            assert done.cycles > 0 and len(done.counters) == len(COUNTERS)
        assert {name: firmware.register(name) for name in before} == before
        assert device.position == 4 == device.client.hello().position
        firmware.error = -1
        with pytest.raises(Refused, match="did not read 1024 bytes within 16785 thousand cycles") as caught:
            device.scan(1024)
        assert caught.value.number == c.ERRORS["SCAN_TIMEOUT"][0]
        firmware.error = 0
        assert device.scan(1024).signature == signature(data[:1024], lanes//2).tolist()


@pytest.mark.parametrize("name", ("reference", "float"))
def test_devices_without_hardware(name):
    """They say that they have nothing to scan."""
    with open_device(name) as device, pytest.raises(DeviceError, match=f"device {name} has no DRAM to scan"):
        device.scan(1024)
