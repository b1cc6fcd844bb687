# SPDX-License-Identifier: BSD-2-Clause
"""What is particular about a board, as data: one file per board in soc/targets/. BaseSoC, pins and PHY are litex-boards'."""

from dataclasses import dataclass, field
from importlib import import_module
import pkgutil

from ..accel.config import check


@dataclass(frozen=True)
class Fit:
    """What suits one of the FPGAs that a board comes with.

    core:       fields of CoreConfig that differ from what suits the DRAM (soc.memory.suited_config).
    options:    defaults of LiteX's and the target's options, by their names as keywords (`sys_clk_freq`, `l2_size`).
    debug:      whether the core's debug window is there.
    small_bios: LiteX's BIOS without its commands (soc/bios), in half the ROM.
    controller: fields of LiteDRAM's ControllerSettings that differ.
    squeeze:    for an ECP5 that gets full: bits up to which sums are made of LUTs (ecp5.squeeze); 0: it does not.
    budget:     most that it may take of a resource (fields of ecp5.Usage), as a ratchet: soc.report fails above it.
    """
    core:       dict = field(default_factory=dict)
    options:    dict = field(default_factory=dict)
    debug:      bool = True
    small_bios: bool = False
    controller: dict = field(default_factory=dict)
    squeeze:    int  = 0
    budget:     dict = field(default_factory=dict)


DDR3_CHIPS = dict(sdram_device=("MT41K64M16", "MT41K128M16", "MT41K256M16", "MT41K512M16"))

# DDR3 of 16 bits at 1:2 gives 128 bits every second clock: 16 lanes take as much. Three columns are SmolLM2's group of heads. Core and
# SoC are to take at most 60 % of an 85F, of whose block RAMs (208) there are fewest; an L2 cache for the CPU would take 17 of them.
ECP5_DDR3 = Fit(
    core    = dict(lanes=16, columns=3, kv_bytes=16384, fifo_bytes=16384),
    options = dict(l2_size=0),
    budget  = dict(luts=27_700, ffs=20_600, dp16kd=112, mult18x18d=57),
)


@dataclass(frozen=True)
class Board:
    """A board that litex-boards has.

    target:     module with its BaseSoC.
    about:      FPGA and DRAM, in a few words.
    fits:       FPGA -> Fit; the first one is the default. `choice` is the keyword of BaseSoC that selects it, `None` if there is one.
    options:    as in Fit, for all of them.
    speedgrade: grade of the DRAM's timings that fits its real clock, None for LiteDRAM's default.
    uart_pins:  of a serial port that the platform does not have: (tx, rx, IO standard).
    memory:     the simulated DRAM (soc.memory.MEMORIES) that moves as many bytes a clock in the same way; None: there is none.
    attach:     function of the SoC: gives it what else the board needs to work.
    choices:    keyword of BaseSoC -> values that it takes, where wrong ones are not refused by name.
    generic:    nothing is known of it here.
    """
    target:     str
    about:      str
    fits:       dict = field(default_factory=lambda: {"": Fit()})
    choice:     str  = None
    options:    dict = field(default_factory=dict)
    speedgrade: str  = None
    uart_pins:  tuple = None
    memory:     str  = None
    attach:     object = None
    choices:    dict = field(default_factory=dict)
    generic:    bool = False

    @property
    def name(self):
        """The name that --board takes."""
        return self.target.rpartition(".")[2]

    def fit(self, fpga=None):
        """Fit of an FPGA of this board (None: the default one)."""
        fpga = fpga or next(iter(self.fits))
        check(fpga in self.fits, f"--{self.choice} of {self.name} is {fpga!r}, must be one of {', '.join(self.fits)}")
        return self.fits[fpga]

    def defaults(self, fpga=None):
        """Defaults of all options, for an FPGA."""
        fpga = fpga or next(iter(self.fits))
        return self.options | ({self.choice: fpga} if self.choice else {}) | self.fit(fpga).options

    def simulated(self, fpga=None):
        """Options of soc.sim.build_simulator for the SoC around the core on an FPGA: L2, CPU, DRAM controller."""
        options = self.defaults(fpga)
        return dict(l2_bytes=options.get("l2_size", 8192), cpu_variant=options.get("cpu_variant", "standard"),
            controller=self.fit(fpga).controller)


def known():
    """Names of the boards in soc/targets/."""
    from . import targets
    return sorted(info.name for info in pkgutil.iter_modules(targets.__path__))


def get_board(name):
    """Board of that name; of any other target with SDRAM by its module's name (litex_boards.targets.X). ValueError lists the
    names there are."""
    if name.startswith("litex_boards.targets."):
        if name.rpartition(".")[2] in known():
            name = name.rpartition(".")[2]
        else:
            return Board(name, "any target of litex-boards", generic=True)
    check(name in known(), f"board is {name!r}, must be one of {', '.join(known())}, or litex_boards.targets.X")
    return import_module(f".targets.{name}", __package__).BOARD
