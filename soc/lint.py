# SPDX-License-Identifier: BSD-2-Clause
"""Verilator's lint of what LiteX wrote for a board, whatever the FPGA: its primitives get stubs made from how they are used.

What LiteX's style of Verilog always gives is left out: widths (a Migen sum is wider than its target), blocking assignments, cases."""

import re
import subprocess

IGNORED = ("WIDTH", "COMBDLY", "CASEINCOMPLETE", "CASEOVERLAP", "UNSIGNED", "CMPCONST", "TIMESCALEMOD", "INITIALDLY", "PINMISSING")
# Loops of processes, not of signals: LiteX's Wishbone converter drives the cyc of the narrow bus and the ack of the wide one in one
# process, and LiteDRAM's bridge answers that cyc by the narrow bus's ack. nextpnr's timing analysis finds no loop (ULX3S).
_NO_LOOP  = re.compile(r"UNOPTFLAT: .*litedram_wb_ack'$")
_INSTANCE = re.compile(r"^(\w+) (?:#\(\n(.*?)\n\) )?(\w+)\s*\(\n(.*?)\n\);", re.M | re.S)


def stubs(text, others=()):
    """Empty modules, as Verilog, for all that LiteX's `text` instantiates and neither it nor `others` define."""
    defined = {name for t in (text, *others) for name in re.findall(r"^\s*module (\w+)", t, re.M)}
    used, parameters = {}, {}
    for name, given, _, body in _INSTANCE.findall(text):
        if name in ("module", *defined):
            continue
        kind = "input"
        for line in body.splitlines():
            if found := re.search(r"// (Input|Output|InOut)s", line):
                kind = "output" if found.group(1) == "Output" else "input"   # (Verilator has no tristate of this kind.)
            elif found := re.match(r"\s*\.(\w+)\s*\(", line):
                used.setdefault(name, {})[found.group(1)] = kind
        parameters.setdefault(name, set()).update(re.findall(r"^\s*\.(\w+)", given or "", re.M))
    lines = []
    for name, its in used.items():
        given  = ", ".join(f"parameter {p} = 0" for p in sorted(parameters[name]))
        ports  = ", ".join(f"{kind} [255:0] {port}" for port, kind in its.items())
        lines += [f"module {name} {'#(' + given + ') ' if given else ''}({ports});", "endmodule"]
    return "\n".join(["/* verilator lint_off DECLFILENAME */", *lines, ""])


def _sources(gateware, top):
    """Verilog besides the design's own, from the script that names it: yosys', Vivado's, Gowin's or Quartus's."""
    scripts = "\n".join(path.read_text() for pattern in ("*.ys", "*.tcl", "*.qsf") for path in gateware.glob(pattern))
    named   = dict.fromkeys(re.findall(r"[^\s{}\"]+\.s?v\b", scripts))
    return [path for path in named if not path.endswith(f"{top}.v") and not path.startswith("+/")]   # (+/: yosys' own.)


def lint(gateware, top):
    """Complaints of Verilator about the design `top` in a LiteX gateware folder: lines of text."""
    sources = _sources(gateware, top)
    texts   = [(gateware/path).read_text() for path in (f"{top}.v", *sources)]
    (gateware/"lint_stubs.v").write_text(stubs(texts[0], texts[1:]))
    done = subprocess.run(["verilator", "--lint-only", "-Wno-fatal", "-Wno-style", *(f"-Wno-{name}" for name in IGNORED),
        "--top-module", top, f"{top}.v", "lint_stubs.v", *sources], cwd=gateware, capture_output=True, text=True)
    return [line for line in done.stderr.splitlines() if line.startswith("%") and not _NO_LOOP.search(line)]
