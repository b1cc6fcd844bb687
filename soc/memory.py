# SPDX-License-Identifier: BSD-2-Clause
"""The DRAMs that the simulated SoC can have: chip, width, clock and the PHY's rate, as data; and which core suits a DRAM."""

from dataclasses import dataclass

from litedram import modules
from litedram.common import PhySettings, get_default_cl_cwl, get_sys_latency, get_sys_phase
from litedram.phy.model import get_sdram_phy_settings, sdram_module_nphases

from ..accel.config import CoreConfig, check


def peak_bytes(phy):
    """Bytes that the data pins of a DRAM (LiteDRAM's PhySettings) move in one system clock."""
    return phy.nphases*(1 if phy.memtype == "SDR" else 2)*phy.databits//8


def suited_config(phy, **fields):
    """CoreConfig for the DRAM of `phy` (LiteDRAM's PhySettings): what add_llama builds, and `--device sim` simulates, unless
    told otherwise. fields: of CoreConfig, for what differs.

    Measured (accel/README.md, "DRAM"): 32 lanes take 16 bytes a clock and 64 take 32; a second port, which opens a bank while the
    first one reads, is worth 3 % with DDR and 1 % with SDR (four: 2 % more with DDR3 at 1:4); a prefetch buffer of 32 KB bridges what
    is left of norms and attention. Three columns serve a group of three query heads, as SmolLM2's, and a third of any other's.
    """
    chosen = dict(lanes=64 if peak_bytes(phy) > 16 else 32, columns=3, ports=2, fifo_bytes=32768)
    return CoreConfig(**chosen | fields)


@dataclass(frozen=True)
class DRAM:
    """One memory of the table.

    module:     LiteDRAM's class of the chip. data_width: data pins, of as many chips side by side as that takes.
    clk_freq:   system clock, Hz.
    speedgrade: of the chip's timings, None for LiteDRAM's default. The grade that fits the real DRAM clock: LiteDRAM
                states tRFC in DRAM clocks, so that a faster grade waits longer than the chip needs.
    ecp5:       timing of LiteDRAM's ECP5 PHY, DDR3 at 1:2 with a burst every second clock.
    """
    module:     str
    data_width: int
    clk_freq:   int  = int(100e6)
    speedgrade: str  = None
    ecp5:       bool = False

    def litedram_module(self):
        """LiteDRAM's module: geometry and timings at this clock."""
        cls = getattr(modules, self.module)
        return cls(self.clk_freq, f"1:{self._phases(cls.memtype)}", speedgrade=self.speedgrade)

    def phy_settings(self):
        """LiteDRAM's PhySettings: phases and latencies, as the controller sees them."""
        memtype = getattr(modules, self.module).memtype
        if not self.ecp5:
            return get_sdram_phy_settings(memtype, self.data_width, self.clk_freq)
        # Figures of litedram.phy.ecp5ddrphy, whose class needs a device's pads.
        phases  = self._phases(memtype)
        cl, cwl = get_default_cl_cwl(memtype, 2/(2*phases*self.clk_freq))
        cl_sys, cwl_sys = get_sys_latency(phases, cl), get_sys_latency(phases, cwl)
        return PhySettings(phytype="ECP5DDRPHY", memtype=memtype, databits=self.data_width, nphases=phases,
            dfi_databits=4*self.data_width, cl=cl, cwl=cwl, rdphase=get_sys_phase(phases, cl_sys, cl),
            wrphase=get_sys_phase(phases, cwl_sys, cwl), read_latency=cl_sys + 10, write_latency=cwl_sys)

    @property
    def peak_bytes(self):
        """Bytes that the data pins move in one system clock."""
        return peak_bytes(self.phy_settings())

    def _phases(self, memtype):
        return 2 if self.ecp5 else sdram_module_nphases[memtype]


MEMORIES = {
    "ddr3x16":      DRAM("MT41K128M16", 16, speedgrade="800"),  # An Arty's: 128-bit port, 16 bytes a clock.
    "ddr3x16-ecp5": DRAM("MT41K128M16", 16, int(75e6), speedgrade="800", ecp5=True),
    "ddr3x32":      DRAM("MT41K128M16", 32, speedgrade="800"),
    "ddr2x16":      DRAM("MT47H64M16",  16),
    "sdr16":        DRAM("IS42S16160",  16),
    "sdr32":        DRAM("IS42S16160",  32),
}


def get_memory(name):
    """DRAM called `name`; ValueError lists the names there are."""
    check(name in MEMORIES, f"memory is {name!r}, must be one of {', '.join(MEMORIES)}")
    return MEMORIES[name]
