# SPDX-License-Identifier: BSD-2-Clause
"""The self-test: that it passes on good hardware, and that it finds and names what is broken."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from litellama.accel.config import CoreConfig
from litellama.accel.image import write_image
from litellama.accel.scan import signature
from litellama.firmware import constants as c
from litellama.host import cli
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.serial import SerialDevice
from litellama.host.protocol import Client
from litellama.host.random_model import odd_configs, random_model
from litellama.host.selftest import PATTERNS, memory_test, pattern_words, selftest, weights_test, wrong_lanes

from firmware_host import IMAGE_OFFSET, Firmware, Port

MODEL = random_model(odd_configs()[0][1], seed=3)
IMAGE = write_image(MODEL)
START = -(-(IMAGE_OFFSET + len(IMAGE))//4096)*4096


class Board(SerialDevice):
    """The host-compiled firmware as a device whose core reads the same DRAM. broken(data, offset): what its ports read instead.
    after(firmware): called when the host has read from the line."""
    def __init__(self, broken=lambda data, offset: data, after=lambda firmware: None):
        class Line(Port):
            def read(self, n=1):
                data = super().read(n)
                after(firmware)
                return data
        self.firmware, self.broken = Firmware(MODEL), broken
        firmware = self.firmware
        super().__init__("board", client=Client(Line(firmware), 2.0))
        self._attach(MODEL)

    def scan(self, n_bytes, offset=0, in_image=True):
        """As the core would."""
        offset += IMAGE_OFFSET*in_image
        data    = self.broken(self.firmware.ram[offset:offset + n_bytes].copy(), offset)
        return SimpleNamespace(signature=signature(data.tobytes(), CoreConfig().beat_bytes).tolist())


@pytest.mark.parametrize("name, pattern, seed", PATTERNS, ids=[p[0] for p in PATTERNS])
def test_firmware_and_host_agree_on_patterns(name, pattern, seed):
    board = Board()
    board.fill(START, 4096, pattern, seed)
    assert (board.firmware.ram[START:START + 4096].view("<u4") == pattern_words(pattern, START, 4096, seed)).all()
    assert board.fill(START, 4096, pattern, seed, compare=True).n_wrong == 0
    assert (board.firmware.ram[IMAGE_OFFSET:IMAGE_OFFSET + len(IMAGE)] == np.frombuffer(IMAGE, np.uint8)).all()


def test_wrong_words_are_counted_and_named():
    board = Board()
    board.fill(START, 4096, c.PATTERN_MIXED, 1)
    board.firmware.ram[START + 100] ^= 0x10
    board.firmware.ram[START + 203] ^= 0x81
    found = board.fill(START, 4096, c.PATTERN_MIXED, 1, compare=True)
    assert (found.n_wrong, found.first, found.bits) == (2, START + 100, 0x81000010)


def test_good_memory_passes():
    assert all(not wrong for _, wrong in memory_test(Board(), 1 << 16))
    assert weights_test(Board(), IMAGE)[0][1] == ""


def test_a_stuck_bit_of_the_port_is_found_in_its_lane():
    """The CPU reads right, the core's port has bit 3 of byte lane 5 stuck at 1."""
    def broken(data, offset):
        data[5::16] |= 8
        return data
    results = dict(memory_test(Board(broken), 4096))
    assert results["memory: ones, 4096 bytes"] == ""
    assert results["memory: zeros, 4096 bytes"] == "the core's ports read byte lanes 5 wrong"
    assert weights_test(Board(broken), IMAGE)[0][1].startswith("byte lanes 5 ")


def test_a_shorted_address_line_is_found():
    """Two halves of the memory are one: what is written to one shows in the other."""
    board = Board()
    fill  = board.fill
    def shorted(at, n, pattern, seed, compare=False):
        found = fill(at, n, pattern, seed, compare)
        if not compare:
            board.firmware.ram[START:START + 2048] = board.firmware.ram[START + 2048:START + 4096]
        return found
    board.fill = shorted
    results = dict(memory_test(board, 4096))
    assert results["memory: alternating, 4096 bytes"] == ""
    assert results["memory: address, 4096 bytes"].startswith(f"the CPU read 512 words wrong, the first at byte {START:#x}, bits 0x00000800")


def test_memory_is_tested_even_if_it_is_too_bad_for_the_model(monkeypatch, capsys):
    """One bit of a byte in 64 is stuck, after the start: the model does not get in, and the memory test says why."""
    stuck = []
    def read(firmware):
        if stuck:
            firmware.ram[IMAGE_OFFSET + 3::64] |= 8
    board = Board(after=read)
    stuck.append(True)
    monkeypatch.setattr(cli, "open_device", lambda name, baudrate: board)
    monkeypatch.setattr(cli, "open_model", lambda *_: random_model(odd_configs()[0][1], seed=4))
    assert cli.main(["selftest", "--bytes", "4096", "--json"]) == 1
    (_, loaded), *memory = [test.values() for test in json.loads(capsys.readouterr().out)["tests"]]
    assert loaded.startswith("device: ") and len(memory) == len(PATTERNS)
    memory = dict(memory)
    assert f"first at byte {IMAGE_OFFSET:#x}, bits 0x08000000" in memory["memory: zeros, 4096 bytes"]
    assert not memory["memory: ones, 4096 bytes"]


def test_lanes_of_two_signatures():
    assert wrong_lanes([0, 0x12345678], [0, 0x12005679]) == [4, 6]


@pytest.mark.parametrize("arguments, message", (
    (["--bytes", "48"], "multiple of 32"), (["--bytes", "99999999968"], "at most"), (["--tokens", "0"], "--tokens is 0"),
    (["--tokens", "999"], "--tokens is 999, must be below the context")))
def test_wrong_arguments(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(cli, "open_device", lambda name, baudrate: Board())
    monkeypatch.setattr(cli, "open_model", lambda *_: MODEL)
    assert cli.main(["selftest", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_device_without_hardware_is_refused():
    with pytest.raises(ValueError, match="no hardware to test"):
        list(selftest(ReferenceDevice(), MODEL, 4096, 1))


def test_on_the_simulated_soc(capsys):
    """The command passes, counts its tests, and states an answer that the hardware gave."""
    assert cli.main(["selftest", "--bytes", "32768", "--tokens", "3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and len(report["tests"]) == len(PATTERNS) + 4
