# SPDX-License-Identifier: BSD-2-Clause
"""What an ECP5 has, and what a netlist for it takes.

LUTs are what the netlist's cells take: LUT4, two per CCU2C (carry), six per TRELLIS_DPR16X4 (distributed RAM: four, and two for its
write port). nextpnr adds 2 to 6 %.
"""

from collections import Counter
from dataclasses import dataclass
import json
import re

from ..accel.config import check

# For yosys before synth_ecp5: in our memories and in FIFOs, whose words are read later, what is read while the same address is written
# does not matter.
NO_RW_CHECK = "setattr -set no_rw_check 1 m:llama_* m:storage*"


def squeeze(bits):
    """Commands for yosys, after NO_RW_CHECK, for a device that gets full: fewer LUTs at the price of longer paths and wires.

    Sums and comparisons of up to `bits` bits go into LUTs instead of carry chains, to each of which nextpnr adds four LUTs for its ends.
    Of the mappings that ABC finds (yosys' third script for abc9, several passes) one within 30 ns a path is as good as a faster one."""
    return ("proc", "flatten", "opt_expr", "opt_clean", "opt", "wreduce", "peepopt", "opt_clean",
        f"techmap -map +/techmap.v t:$add t:$sub %u r:Y_WIDTH<={bits} %i",
        f"techmap -map +/techmap.v t:$lt t:$le %u t:$ge %u t:$gt %u r:A_WIDTH<={bits} %i r:B_WIDTH<={bits} %i", "opt_clean",
        "scratchpad -copy abc9.script.flow3 abc9.script", "scratchpad -set abc9.D 30000")


LUTS = dict(LUT4=1, CCU2C=2, TRELLIS_DPR16X4=6)


@dataclass(frozen=True)
class Usage:
    """LUTs (and as many flip-flops), block RAMs of 18 kbit, multipliers of 18x18: of a netlist, or what a device has."""
    luts:       int
    ffs:        int
    dp16kd:     int
    mult18x18d: int


# A 12F is a 25F with another number on it.
DEVICES = {
    "12F": Usage(24288, 24288,  56,  28),
    "25F": Usage(24288, 24288,  56,  28),
    "45F": Usage(43848, 43848, 108,  72),
    "85F": Usage(83640, 83640, 208, 156),
}
NAMES = dict(luts="LUTs", ffs="flip-flops", dp16kd="block RAMs (DP16KD)", mult18x18d="multipliers (MULT18X18D)")


def device(part):
    """Usage that a part (LFE5U-25F-8MG285C) offers at most; ValueError if it is no ECP5."""
    found = re.match(r"LFE5UM?(?:5G)?-(\d\dF)", part, re.I)
    check(found and found.group(1).upper() in DEVICES, f"part {part} is no ECP5 that is known here")
    return DEVICES[found.group(1).upper()]


def cells(netlist, top):
    """Cells of module `top` of yosys' JSON netlist: name -> cell."""
    with open(netlist) as f:
        return json.load(f)["modules"][top]["cells"]


def luts(types):
    """LUTs of a Counter of cell types."""
    return sum(n*types[name] for name, n in LUTS.items())


def usage(cells):
    """Usage of the cells of a netlist."""
    types = Counter(cell["type"] for cell in cells.values())
    return Usage(luts(types), types["TRELLIS_FF"], types["DP16KD"], types["MULT18X18D"])


# Owner of what has a name of its own: memories, and registers that stand in the core itself.
_OWNERS = dict(keys="kvowner", values="kvowner", x="xmemory", sumofsquares="xmemory", scores="softmax", act="activations",
    row="matvec", kv="kvquantise", function="functionarbiter", bfp="blockfloat", stage="counters")
_BLOCKS = ("activations", "blockfloat", "controller", "counters", "cut", "debugwindow", "embedding", "fetch", "functionarbiter", "kvowner",
    "kvquantise", "kvwriter", "matvec", "residual", "rmsnorm", "rope", "signature", "softmax", "streamreader", "swiglu", "topk", "unpack",
    "vpu", "xmemory")


def block(name):
    """Block of the core that a cell belongs to by its name (yosys names a cell after a net at its output); `registers`: what the
    core has itself; `fifos`, the core's and the SoC's; `soc`: all else, the core's registers on the CSR bus among it."""
    found = re.search(r"llamacore_(?:llama)?([a-z]+)", name) or re.match(r"llama_([a-z]+)", name)
    if not found:
        return "fifos" if name.startswith("storage") else "soc"
    owner = _OWNERS.get(found.group(1), found.group(1))
    return owner if owner in _BLOCKS else "registers"


def blocks(cells):
    """Usage by block of the core, largest first, as cell names tell: within a few percent, since a LUT between two blocks has
    the name of one."""
    parts = {}
    for name, cell in cells.items():
        parts.setdefault(block(name), {})[name] = cell
    return dict(sorted(((name, usage(part)) for name, part in parts.items()), key=lambda item: -item[1].luts))


def placer_options(used, part):
    """Options of nextpnr for a design that takes `used` of `part`. Where there is room its electrostatic placer makes the wires a quarter
    shorter (soc/README.md). In a full device its usual one, to which short wires are worth more than a clock above the one that was
    asked for: less weight for the timing (10 by default)."""
    return ["--placer", "static"] if used.luts < 0.8*device(part).luts else ["--placer-heap-timingweight", "2"]


def check_fits(used, part, what):
    """ValueError, naming value and limit, unless `used` fits `part`."""
    has = device(part)
    for name, text in NAMES.items():
        value, limit = getattr(used, name), getattr(has, name)
        check(value <= limit, f"{what} takes {value} {text}, {part} has {limit}: a smaller core (--lanes, --columns, --max-context, "
            "--kv-bytes, --fifo-bytes) or a larger device is needed")
