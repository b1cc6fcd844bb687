# SPDX-License-Identifier: BSD-2-Clause
"""The SoC: the DRAM model against LiteDRAM's own, cycle by cycle; booting a program; who builds, owns and ends a simulator."""

import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import threading
import time

from migen import *
import pytest

from litex.gen import LiteXModule
from litex.gen.fhdl.verilog import convert

from litedram.core import LiteDRAMCore
from litedram.core.controller import ControllerSettings
from litedram.phy.model import SDRAMPHYModel

from litellama.accel.config import CoreConfig
from litellama.host.doctor import TOOLS, doctor
from litellama.soc import sim
from litellama.soc.cache import cached
from litellama.soc.integration import add_llama
from litellama.soc.memory import MEMORIES, get_memory
from litellama.soc.phy import LinearDRAMPHY
from litellama.soc.sim_soc import LlamaSimSoC

HERE = Path(__file__).absolute().parent

# DRAM model ---------------------------------------------------------------------------------------

CYCLES = 8000  # Ten refreshes.
DRAIN  = 400


class Traffic(LiteXModule):
    """Pseudo-random runs of reads and writes with random byte masks on a native port, the same for the same seed."""
    def __init__(self, port, seed, stop):
        random  = Signal(64, reset=seed*0x9e3779b97f4a7c15 & (1 << 64) - 1)
        words   = Signal(32)
        address = port.cmd.addr
        self.sync += [
            random.eq(Mux(random[0], (random >> 1) ^ 0xd800000000000000, random >> 1)),
            If(port.wdata.ready, words.eq(words + 0x01000193)),
            If(~port.cmd.valid | port.cmd.ready,
                port.cmd.valid.eq((random[:3] != 0) & ~stop),
                port.cmd.we.eq(random[20:22] == 0),
                If(random[3:7] == 0, address.eq(random[30:] & ~0x70)).Else(address.eq(address + 1)),
            )
        ]
        self.comb += [
            port.rdata.ready.eq(1),
            port.wdata.valid.eq(1),
            port.wdata.data.eq(Replicate(words, max(1, port.data_width//32))),
            port.wdata.we.eq(random[10:] | random[40:]),
        ]


class Half(LiteXModule):
    """LiteDRAM on a PHY model, with two ports of traffic. `seen`: what the ports see in each cycle."""
    def __init__(self, dram, linear, stop, bank_byte_alignment=0):
        module   = dram.litedram_module()
        settings = dram.phy_settings()
        module.geom_settings.rowbits = 2  # So few rows that what was written is often read.
        width    = settings.dfi_databits*settings.nphases
        if linear:
            shift    = log2_int(bank_byte_alignment*8//width) if bank_byte_alignment else None
            self.phy = LinearDRAMPHY(module, settings, bank_shift=shift)
            self.add_words(self.phy.memory, settings.read_latency)
        else:
            self.phy = SDRAMPHYModel(module, settings)
        self.core  = LiteDRAMCore(self.phy, module.geom_settings, module.timing_settings, dram.clk_freq,
            controller_settings=ControllerSettings(bank_byte_alignment=bank_byte_alignment))
        self.ports = [self.core.crossbar.get_port() for _ in range(2)]
        for i, port in enumerate(self.ports):
            self.add_module(f"traffic{i}", Traffic(port, i + 1, stop))
        self.valid = Cat(*[port.rdata.valid for port in self.ports])
        self.data  = self.ports[0].rdata.data
        # The crossbar counts latencies by itself: what the PHY calls valid is seen at the DFI alone.
        self.ready = Cat(*[signal for port in self.ports for signal in (port.cmd.ready, port.wdata.ready)],
            self.phy.dfi.phases[0].rddata_valid)

    def add_words(self, memory, latency):
        """What sim_main.cpp does, as gateware."""
        words = Memory(len(memory.rdata), 2**len(memory.radr))
        read, write = words.get_port(async_read=True), words.get_port(write_capable=True, we_granularity=8)
        self.specials += words, read, write
        data = read.dat_r
        for _ in range(latency):
            delayed = Signal(len(data))
            self.sync += delayed.eq(data)
            data = delayed
        self.comb += [
            read.adr.eq(memory.radr), memory.rdata.eq(data),
            write.adr.eq(memory.wadr), write.dat_w.eq(memory.wdata),
            write.we.eq(Replicate(memory.we, len(memory.wmask)) & ~memory.wmask),
        ]


COUNTS = ("differences", "reads", "known", "asked", "done")
MAIN   = """
#include "Vdut.h"
#include "verilated.h"
#include <cstdio>
double sc_time_stamp() { return 0; }
int main()
{
    Vdut t;
    for (int i = 0; i < %(cycles)d + %(drain)d; i++) {
        t.stop = i >= %(cycles)d;
        t.sys_clk = 0; t.eval();
        t.sys_clk = 1; t.eval();
    }
    printf("%%u %%u %%u %%u %%u", t.differences, t.reads, t.known, t.asked, t.done);
}
"""


def compare_models(dram, path, **options):
    """COUNTS of both models under the same traffic: cycles that differ, reads, reads of what was written, and the sum of
    the addresses that the ports asked for and that our model's memory saw."""
    dut    = Module()
    stop   = Signal(name_override="stop")
    counts = {name: Signal(32, name_override=name) for name in COUNTS}
    dut.submodules.a = a = Half(dram, False, stop, **options)
    dut.submodules.b = b = Half(dram, True,  stop, **options)
    memory = b.phy.memory
    valid  = (a.valid != 0) & (a.valid == b.valid)
    dut.sync += [
        If((a.valid != b.valid) | (a.ready != b.ready) | (valid & (a.data != b.data)),
            counts["differences"].eq(counts["differences"] + 1)),
        If(valid, counts["reads"].eq(counts["reads"] + 1)),
        If(valid & (a.data != 0), counts["known"].eq(counts["known"] + 1)),
        counts["asked"].eq(counts["asked"] + sum(Mux(p.cmd.valid & p.cmd.ready, p.cmd.addr, 0) for p in b.ports)),
        counts["done"].eq(counts["done"] + Mux(memory.re, memory.radr, 0) + Mux(memory.we, memory.wadr, 0)),
    ]
    dut.clock_domains.sys = ClockDomain()
    verilog = convert(dut, ios={stop, dut.sys.clk, dut.sys.rst, *counts.values()}, name="dut")
    (path/"dut.v").write_text(str(verilog))
    (path/"main.cpp").write_text(MAIN % dict(cycles=CYCLES, drain=DRAIN))
    subprocess.run(["verilator", "--cc", "--exe", "--build", "--top-module", "dut", "-Wno-fatal", "-Wno-lint", "-Wno-COMBDLY",
        "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0", "dut.v", "main.cpp"], cwd=path, check=True, capture_output=True)
    out = subprocess.run(["obj_dir/Vdut"], cwd=path, check=True, capture_output=True, text=True).stdout
    return map(int, out.split())


@pytest.mark.parametrize("name", ["ddr3x16", "ddr3x16-ecp5", "sdr16"])
def test_dram_model_equals_litedrams(name, tmp_path):
    differences, reads, known, asked, done = compare_models(MEMORIES[name], tmp_path)
    assert differences == 0
    assert reads > CYCLES//8 and known > reads//8
    assert asked == done


def test_memory_is_linear_with_aligned_banks(tmp_path):
    differences, _, _, asked, done = compare_models(MEMORIES["sdr16"], tmp_path, bank_byte_alignment=2048)
    assert differences == 0 and asked == done


def test_memory_table():
    for dram in MEMORIES.values():
        settings = dram.phy_settings()
        port     = settings.dfi_databits*settings.nphases//8
        assert dram.peak_bytes == (port//2 if dram.ecp5 else port)
    with pytest.raises(ValueError, match="ddr3x16"):
        get_memory("ddr5")


# Simulator ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def bare():
    """Build of the SoC without the core (compiled once per machine), and tests/boot's program."""
    build = sim.build_simulator(None)
    return build, sim.build_firmware(build, HERE/"boot")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image of 1 MB, and the checksum that the program makes of its start."""
    data = bytes(i*i*7 % 251 for i in range(1 << 20))
    path = tmp_path_factory.mktemp("image")/"image"
    path.write_bytes(data)
    checksum = 0
    for byte in data[:4096]:
        checksum = (checksum*31 + byte) & 0xffffffff
    return path, checksum


def connect(simulator):
    connection = socket.create_connection(("127.0.0.1", simulator.port), timeout=60)
    return connection, connection.makefile("rb")


def test_boot(bare, image):
    build, program = bare
    path, checksum = image
    with sim.Simulator(build, program, path) as simulator:
        connection, lines = connect(simulator)
        assert lines.readline().split() == [b"errors", b"0", b"image", str(checksum).encode()]
        connection.sendall(b"hello\n")
        assert lines.readline().strip() == b"HELLO"
        connection.close()
        # Its client has gone; the next one is served as well.
        connection, lines = connect(simulator)
        connection.sendall(b"again\n")
        assert lines.readline().strip() == b"AGAIN"
        connection.close()
    assert simulator.cycles > 100000 and simulator.seconds > 0
    assert not simulator.alive()


def test_output_waits_for_a_client(bare, image):
    with sim.Simulator(*bare, image[0]) as simulator:
        time.sleep(2)
        assert connect(simulator)[1].readline().startswith(b"errors 0")


def test_stops_by_itself(bare):
    with sim.Simulator(*bare, max_cycles=100_000) as simulator:
        assert simulator.wait(60)
    assert simulator.cycles == 100_000


def test_pause_and_resume(bare, image):
    with sim.Simulator(*bare, image[0]) as simulator:
        connection, lines = connect(simulator)
        lines.readline()
        simulator.pause()
        connection.sendall(b"paused\n")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(60)
        simulator.resume()
        assert connection.recv(1) in b"\rP"
        connection.close()
        simulator.pause()
    assert not simulator.alive()  # Also ends while it pauses.


def test_uart_is_loopback_only(bare, image):
    with sim.Simulator(*bare, image[0]) as simulator:
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert f"0100007F:{simulator.port:04X}" in [line[1] for line in listening if line[3] == "0A"]


def test_simulator_ends_with_its_parent(bare, image, tmp_path):
    build, program = bare
    child = subprocess.Popen([sys.executable, "-c", f"""
import os, pathlib
from litellama.soc import sim
build = sim.SimBuild(pathlib.Path({str(build.folder)!r}), pathlib.Path({str(build.binary)!r}), 1, {build.image_offset})
simulator = sim.Simulator(build, {str(program)!r}).__enter__()
print(simulator._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""], stdout=subprocess.PIPE, text=True)
    pid = int(child.stdout.readline())
    child.wait()
    for _ in range(100):
        try:
            ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            ended = True
        if ended:
            return
        time.sleep(0.1)
    os.kill(pid, 9)
    pytest.fail("the simulator outlived its parent")


def test_image_that_does_not_fit_is_refused(bare, tmp_path):
    build, program = bare
    large = tmp_path/"large"
    with open(large, "wb") as f:
        f.truncate(1 << 28)
    for path, message in ((large, "no room"), (tmp_path/"absent", "cannot read")):
        with pytest.raises(sim.SimError, match=message):
            sim.Simulator(build, program, path).__enter__()


# Builds -------------------------------------------------------------------------------------------

def test_cache_builds_once_and_recovers(monkeypatch, tmp_path):
    monkeypatch.setenv("LITELLAMA_CACHE", str(tmp_path/"cache"))
    built = []

    def build(folder):
        built.append(sorted(path.name for path in folder.iterdir()))
        (folder/"half").touch()
        time.sleep(0.2)
        if len(built) == 1:
            raise OSError("disk full")

    with pytest.raises(OSError):
        cached("x", "1", build)
    threads = [threading.Thread(target=cached, args=("x", "1", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [[], []]  # What failed was cleared away, and of the four one built.


def test_firmware_that_does_not_compile_is_reported(bare, tmp_path):
    shutil.copytree(HERE/"boot", tmp_path/"boot")
    (tmp_path/"boot/main.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(sim.SimError, match="build of the firmware failed.*build.log"):
        sim.build_firmware(bare[0], tmp_path/"boot")
    with pytest.raises(sim.SimError, match="no firmware sources"):
        sim.build_firmware(bare[0], tmp_path/"nothing")


def test_add_llama_needs_sdram():
    with pytest.raises(ValueError, match="add_sdram"):
        add_llama(Module())


def test_add_llama():
    config = CoreConfig(max_context=256)
    soc    = LlamaSimSoC(config, MEMORIES["ddr3x16"])
    soc.finalize()
    assert "llama" in soc.csr_regions and soc.irq.locs["llama"] not in (soc.irq.locs["uart"], soc.irq.locs["timer0"])
    assert soc.bus.regions["llama_debug"].size >= soc.llama.debug_bytes and not soc.bus.regions["llama_debug"].cached
    constants = soc.constants
    assert constants["LLAMA_MAX_CONTEXT"] == 256 and constants["LLAMA_LANES"] == config.lanes
    assert constants["LLAMA_PORT_BYTES"] == 16 and constants["LLAMA_IMAGE_OFFSET"] == 0x400000


# Doctor -------------------------------------------------------------------------------------------

def test_doctor_finds_what_the_tests_use():
    checks = {check.name: check for check in doctor()}
    for name in ("python", *[command for command, *_ in TOOLS], "litex", "litedram", "numpy", "pytest"):
        assert checks[name].found, checks[name].fix


def test_doctor_names_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    missing = {check.name: check for check in doctor() if not check.found}
    assert missing["verilator"].fix == "apt-get install verilator"
