# SPDX-License-Identifier: BSD-2-Clause
"""`litellama build`: the table of boards, its options and errors, elaboration and lint of some boards, the README's own SoC."""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

from litedram.core import refresher
from litedram.modules import MT41K64M16, MT48LC16M16
from migen import Module, Signal, run_simulation
import numpy as np
import pytest

from litellama.host import cli
from litellama.soc import board_soc, boards, build, cache, ecp5, lint, tools, trellis
from litellama.soc.targets import gsd_butterstick

ROOT  = Path(__file__).resolve().parent.parent
NAMES = ("digilent_arty", "digilent_nexys_video", "gsd_butterstick", "gsd_orangecrab", "lambdaconcept_ecpix5", "lattice_versa_ecp5",
    "radiona_ulx3s", "sipeed_tang_primer_20k", "xilinx_kc705")

# Boards and options -------------------------------------------------------------------------------


def test_known_boards():
    """Those that are promised."""
    assert boards.known() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_boards_defaults_are_options(name):
    """For each of its FPGAs, what the table says arrives as arguments; the target takes its choice of FPGA."""
    board = boards.get_board(name)
    assert board.name == name and board.about
    for fpga, fit in board.fits.items():
        choice = [f"--{board.choice}", fpga] if board.choice else []
        _, base, _, args = build.parse(["--board", name, *choice])
        assert args.debug_window == fit.debug
        for key, value in (board.defaults(fpga) | fit.core).items():
            assert getattr(args, key) == value, key
        assert board.choice is None or board.choice in board_soc.target_options(base)


def test_options_override_the_table():
    """The command line's own, LiteX's and the target's."""
    _, _, parser, args = build.parse(["--board", "gsd_orangecrab", "--device", "25F", "--lanes", "16", "--l2-size", "2048",
        "--no-with-led-chaser", "--uart-name", "crossover"])
    assert (args.device, args.lanes, args.columns, args.l2_size, args.with_led_chaser) == ("25F", 16, 1, 2048, False)
    assert parser.soc_argdict["uart_name"] == "crossover"


def fails(capsys, *argv):
    """The one line that `litellama build` leaves on stderr."""
    assert cli.main(["build", *argv]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes_are_told_in_one_line(capsys):
    """No board, an unknown one, an FPGA that the board does not have, wrong seeds, a speed grade that is too slow."""
    for name in NAMES:
        assert name in fails(capsys) and name in fails(capsys, "--board", "nonesuch")
    assert "nonesuch" in fails(capsys, "--board", "nonesuch")
    assert "no target nonesuch" in fails(capsys, "--board", "litex_boards.targets.nonesuch")
    assert "--device of gsd_orangecrab is '12F', must be one of 85F, 25F" in fails(capsys, "--board", "gsd_orangecrab", "--device", "12F")
    assert "--estimate is for ECP5, xc7a35t" in fails(capsys, "--board", "digilent_arty", "--estimate")
    assert "refuses its options: assert revision" in fails(capsys, "--board", "gsd_orangecrab", "--revision", "9")
    assert "--seeds is '1,x'" in fails(capsys, "--board", "gsd_orangecrab", "--seeds", "1,x")
    assert "expected one argument" in fails(capsys, "--board") and "--device" in fails(capsys, "--board", "gsd_orangecrab", "--device")
    assert "--no-compile" in fails(capsys, "--board", "gsd_orangecrab", "--estimate", "--no-compile")
    for option in ("--estimate", "--no-compile"):
        assert "--load needs a bitstream" in fails(capsys, "--board", "gsd_orangecrab", "--load", option)
    assert "sdcard" in fails(capsys, "--board", "lattice_versa_ecp5", "--with-sdcard")


@pytest.mark.parametrize("option", (["--nonesuch"], ["--dev", "25F"], ["--sdram-device", "FOO"]))
def test_unknown_option_is_wrong_usage(option, capsys):
    """Status 2 and one line, as of any other sub-command. An option's beginning is none: the FPGA would be another than the core's."""
    with pytest.raises(SystemExit) as end:
        cli.main(["build", "--board", "gsd_orangecrab", *option])
    assert end.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("target, options", (
    ("colorlight_5a_75x", ("--target-board", "5a-75e", "--revision", "7.1")),   # Its BaseSoC has arguments without default, `board` too.
    ("machdyne_konfekt", ()),                                                    # Its platform does not state the device's family.
    ("qmtech_xc7a35t", ()),                                                      # Its console is not `serial`.
))
def test_any_target(target, options):
    """What is odd about some targets; the core is in."""
    board, base, parser, args = build.parse(["--board", f"litex_boards.targets.{target}", *options])
    assert build.make_soc(board, base, parser, args).llama.config.lanes


def test_required_options_are_asked_for(capsys):
    with pytest.raises(SystemExit):
        build.parse(["--board", "litex_boards.targets.colorlight_5a_75x"])
    assert "the following arguments are required: --target-board, --revision" in capsys.readouterr().err


def test_speedgrade():
    """The grade of the real clock gives shorter refreshes, a grade below it is refused."""
    module = MT41K64M16(48e6, "1:2")
    graded = board_soc.at_speedgrade(module, "800")
    assert graded.timing_settings.tRFC == module.timing_settings.tRFC//2
    assert graded.timing_settings.tRFC/48e6 >= 110e-9   # What 1 Gbit needs.
    assert board_soc.at_speedgrade(module, None) is module
    with pytest.raises(ValueError, match="must be at least the DRAM's 1000 MT/s"):
        board_soc.at_speedgrade(MT41K64M16(125e6, "1:4"), "800")
    with pytest.raises(ValueError, match="has none"):
        board_soc.at_speedgrade(MT48LC16M16(50e6, "1:1"), "800")


def test_refresh_timer_is_litedrams():
    """Clock by clock, whatever `wait` does; and the boards have it."""
    pair, differ, pulses = (refresher.RefreshTimer(5), board_soc.RegisteredRefreshTimer(5)), [], []
    top = Module()
    top.submodules += pair

    def run():
        rng = np.random.default_rng(2)
        for _ in range(2000):
            wait = int(rng.random() < 0.9)
            for timer in pair:
                yield timer.wait.eq(wait)
            yield
            done = []
            for timer in pair:
                done.append((yield timer.done))
            differ.append(done[0] != done[1])
            pulses.append(done[0])
    run_simulation(top, run())
    assert not any(differ) and 100 < sum(pulses) < 400
    soc = build.make_soc(*build.parse(["--board", "lambdaconcept_ecpix5"]))
    assert isinstance(soc.sdram.controller.refresher.zqcs_timer, board_soc.RegisteredRefreshTimer)
    assert refresher.RefreshTimer is not board_soc.RegisteredRefreshTimer


def test_butterstick_sets_its_ports_voltages():
    """Pulses of the share of time that makes the voltage (of the circuit's three resistors), then, settled, the converters on."""
    volts  = (3.3, 1.2, 1.8)
    pads   = SimpleNamespace(pdm=Signal(3), en=Signal())
    module = gsd_butterstick.SyzygyVoltages(pads, volts, 1500)
    high, enabled = np.zeros(3), []

    def watch():
        yield
        for clock in range(2048):
            yield
            pulses   = (yield pads.pdm)
            high[:] += [pulses >> i & 1 for i in range(3)]
            if (yield pads.en):
                enabled.append(clock)
    run_simulation(module, watch())
    mean = 3.3*high/2048
    assert np.abs(0.6 + 53.6e3*(0.6/13e3 + (0.6 - mean)/68e3) - volts).max() < 0.003
    assert enabled[0] in range(1498, 1502) and enabled == list(range(enabled[0], 2048))
    soc = build.make_soc(*build.parse(["--board", "gsd_butterstick"]))
    assert isinstance(soc.syzygy_voltages, gsd_butterstick.SyzygyVoltages)


# Tools --------------------------------------------------------------------------------------------


def test_tools_are_found_by_name():
    """What LiteX calls is on PATH inside, and PATH is as it was outside; yosys answers."""
    before = os.environ["PATH"]
    with tools.on_path():
        assert all(shutil.which(name) for name in (*tools.TOOLS, "meson", "ninja"))
    assert os.environ["PATH"] == before


def test_yosys_by_its_name(tmp_path):
    """The script that stands for yosys runs one, with a log."""
    (tmp_path/"x.v").write_text("module x(input a, output b); assign b = !a; endmodule\n")
    (tmp_path/"x.ys").write_text("read_verilog x.v\nsynth_ecp5 -top x -json x.json\n")
    subprocess.run([tools.folder()/"yosys", "-l", "x.rpt", "x.ys"], cwd=tmp_path, check=True, capture_output=True)
    assert ecp5.usage(ecp5.cells(tmp_path/"x.json", "x")) == ecp5.Usage(1, 0, 0, 0)
    assert "LUT4" in (tmp_path/"x.rpt").read_text()


def test_missing_tool(monkeypatch):
    """The package that has it is named, although a script that would run it is on PATH."""
    monkeypatch.setitem(tools.TOOLS, "nextpnr-ecp5", ("nonesuch_nextpnr_ecp5", "run"))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    with tools.on_path(), pytest.raises(ValueError, match="nextpnr-ecp5 is missing: .* `pip install nonesuch-nextpnr-ecp5`"):
        tools.require("nextpnr-ecp5")


def test_placers():
    """Another for a full device than where there is room."""
    options = lambda luts, part: ecp5.placer_options(ecp5.Usage(luts, 0, 0, 0), part)
    assert options(27_828, "LFE5UM5G-85F-8BG554I") == options(27_667, "LFE5UM5G-45F-8BG381C") == ["--placer", "static"]
    assert options(20_440, "LFE5U-25F-8MG285C") == ["--placer-heap-timingweight", "2"]


def test_device_too_small():
    """Name, value and limit."""
    ecp5.check_fits(ecp5.Usage(24288, 100, 56, 28), "LFE5U-25F-8MG285C", "it")
    with pytest.raises(ValueError, match=r"it takes 60 block RAMs \(DP16KD\), LFE5U-25F-8MG285C has 56"):
        ecp5.check_fits(ecp5.Usage(24288, 100, 60, 28), "LFE5U-25F-8MG285C", "it")
    with pytest.raises(ValueError, match="no ECP5"):
        ecp5.device("xc7a35ticsg324-1L")


def test_steps_are_done_once(tmp_path):
    """A step runs again only if its inputs or options differ; other seeds are other steps; a failure names its reason and its log."""
    for name, text in {"t.ys": "read_verilog t.v\n", "t.v": "// Today.\n/* a\n* b\n*/\nmodule t; endmodule\n", "t.lpf": "", "t.json":
            '{"modules": {"t": {"cells": {}}}}', "build_t.sh": "# A comment.\nset -e\nyosys t\nnextpnr-ecp5 --json t.json --textcfg "
            "t.config --25k --timing-allow-fail --seed 1\necppack t\n"}.items():
        (tmp_path/name).write_text(text)
    tool = "#!/bin/sh\necho $0 $* >> calls\nfor i; do [ $i = seed3.config ] && echo ERROR: too big && exit 1; done\n" \
        "echo '{\"fmax\": {\"sys\": {\"achieved\": 80, \"constraint\": 75}}}' > seed1.json\n" \
        "cp seed1.json seed2.json; touch seed1.config t.bit\n"
    flow = trellis.Trellis(tmp_path, "t")
    for command in (flow._yosys, flow._pnr, flow._pack):
        path = tmp_path/command[0]
        path.write_text(tool)
        path.chmod(0o755)
        command[0] = str(path)
    calls = lambda: (tmp_path/"calls").read_text().splitlines()
    assert flow.place(1)["sys"]["achieved"] == 80 and len(calls()) == 2
    assert calls()[1].endswith("--json t.json --25k --seed 1 --textcfg seed1.config --report seed1.json --timing-allow-fail")
    (tmp_path/"t.v").write_text("// Tomorrow.\n/* b\n* a\n*/\nmodule t; endmodule\n")
    flow.place(1)
    flow.place(2)
    assert flow.pack(1).name == "t.bit" and len(calls()) == 4
    assert sorted(flow.seconds) == ["ecppack", "seed1", "seed2", "yosys"]
    with pytest.raises(ValueError, match="ERROR: too big: see .*seed3.log"):
        flow.place(3)
    (tmp_path/"t.v").write_text("module t(input a); endmodule\n")
    flow.place(1)
    assert len(calls()) == 7 and flow.placed() == [1]
    (tmp_path/"seed1.config").unlink()
    flow.place(1)
    (tmp_path/"seed1.done.json").write_text("")   # Of a process that was killed while it wrote.
    assert len(calls()) == 8 and flow.placed() == []
    flow.place(1)
    assert len(calls()) == 9 and flow.placed() == [1]


def test_one_build_at_a_time(tmp_path):
    """A second one in the same folder says so, and waits."""
    events = []
    with cache.locked(tmp_path/".lock"):
        def second():
            with cache.locked(tmp_path/".lock", lambda: events.append("waits")):
                events.append("works")
        thread = threading.Thread(target=second)
        thread.start()
        while not events:
            time.sleep(0.01)
        events.append("first ends")
    thread.join()
    assert events == ["waits", "first ends", "works"]


# Elaboration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, fpga, script", (
    ("lambdaconcept_ecpix5", (), "lambdaconcept_ecpix5.ys"),
    ("gsd_orangecrab", ("--device", "25F"), "gsd_orangecrab.ys"),
    ("digilent_arty", ("--variant", "a7-35"), "digilent_arty.tcl"),
))
def test_board_elaborates(name, fpga, script, tmp_path, capsys):
    """Verilog, constraints and script are written; the core is in; the console is the serial port; Verilator has no complaint."""
    assert cli.main(["build", "--board", name, *fpga, "--no-compile", "--output-dir", str(tmp_path)]) == 0
    gateware    = tmp_path/"gateware"
    constraints = next(path for path in gateware.iterdir() if path.suffix in (".lpf", ".xdc")).read_text()
    assert (gateware/script).exists() and "serial_tx" in constraints and "ddram" in constraints
    assert name == "digilent_arty" or "synth_ecp5 -nowidelut" in (gateware/script).read_text()
    verilog  = (gateware/f"{name}.v").read_text()
    if name != "digilent_arty":   # What decides is reset, data is not.
        assert re.search(r"if \(sys_rst\) begin.*\w+bankmachine0_row_opened <= 1'd0;", verilog, re.S)
        assert not re.search(r"if \(sys_rst\) begin.*\w+bankmachine0_row <= \w+;", verilog[verilog.index("if (sys_rst)"):], re.S)
    buffered = re.findall(r"DCCA DCCA\(.*?CLKO +\((\w+)\)", verilog, re.S)
    assert buffered == ([] if name == "digilent_arty" else ["sys_rst"])   # The reset is on a wire of the clock network.
    assert "llama_status" in (tmp_path/"csr.csv").read_text()
    assert ("llama_debug" in (tmp_path/"csr.csv").read_text()) == (name != "gsd_orangecrab")
    assert lint.lint(gateware, name) == []


def test_lint_finds_faults(tmp_path):
    """A name that nothing declares is told, then a register with two drivers; the FPGA's own cells are not."""
    text = "module t(input clk, input clk2, output reg q);\nwire w;\nPLL #(\n\t.P (1)\n) PLL(\n\t// Inputs.\n\t.I (clk),\n\n" \
        "\t// Outputs.\n\t.O (w)\n);\nalways @(posedge clk) q <= w;\nalways @(posedge clk2) q <= NAME;\nendmodule\n"
    (tmp_path/"t.ys").write_text("read_verilog t.v\n")
    for name, fault in (("nonesuch", "nonesuch"), ("clk", "MULTIDRIVEN")):
        (tmp_path/"t.v").write_text(text.replace("NAME", name))
        faults = lint.lint(tmp_path, "t")
        assert any(fault in line for line in faults) and not any("PLL" in line for line in faults)


def test_lint_tells_loops(tmp_path):
    """A loop is told, but for the one of processes, not of signals, which LiteX's converter and LiteDRAM's bridge make."""
    (tmp_path/"t.ys").write_text("read_verilog t.v\n")
    for name, told in (("ack", True), ("soc_litedram_wb_ack", False)):
        (tmp_path/"t.v").write_text(f"module t(input x, output y);\nwire {name};\nassign {name} = ~{name} ^ x;\nassign y = {name};\nendmodule\n")
        assert any("UNOPTFLAT" in line for line in lint.lint(tmp_path, "t")) == told, name


def test_readme_adds_the_core_to_any_soc(tmp_path):
    """The README's lines, as written."""
    (code,) = re.findall(r"^## In your own SoC\n.*?^```python\n(.*?)^```", (ROOT/"README.md").read_text(), re.M | re.S)
    assert len(code.splitlines()) <= 10
    (tmp_path/"soc.py").write_text(code)
    with tools.on_path():
        subprocess.run([sys.executable, "soc.py"], cwd=tmp_path, check=True, capture_output=True)
    assert list(tmp_path.glob("build/gateware/*.v")) and (tmp_path/"build/firmware/fw.bin").stat().st_size > 10000
