# SPDX-License-Identifier: BSD-2-Clause
"""The SoC that is simulated: VexRiscv, LiteDRAM's real controller, UART, timer and (with a configuration) the core.

From a board it differs in the PHY, the pins, and in that the CPU resets straight into DRAM, where the simulator has put
the firmware: no ROM, no BIOS.
"""

from migen import *

from litedram.core.controller import ControllerSettings

from litex.build.generic_platform import Pins, Subsignal
from litex.build.io import CRG
from litex.build.sim import SimPlatform
from litex.soc.integration.soc_core import SoCCore

from .integration import add_llama
from .phy import LinearDRAMPHY

DRAM_BASE = 0x40000000


def _io(phy):
    """Pins of the design: clock, UART as byte streams, and the memory behind `phy`."""
    return [
        ("sys_clk", 0, Pins(1)),
        ("serial", 0,
            Subsignal("source_valid", Pins(1)), Subsignal("source_ready", Pins(1)), Subsignal("source_data", Pins(8)),
            Subsignal("sink_valid",   Pins(1)), Subsignal("sink_ready",   Pins(1)), Subsignal("sink_data",   Pins(8))),
        ("dram", 0, *[Subsignal(name, Pins(width)) for name, width, *_ in phy.memory.layout]),
    ]


class LlamaSimSoC(SoCCore):
    """See the module.

    config: CoreConfig, or None for the same SoC without the core. dram: soc.memory.DRAM. l2_bytes: CPU's L2 cache.
    controller: further settings of LiteDRAM's ControllerSettings.
    """
    def __init__(self, config, dram, l2_bytes=8192, cpu_variant="standard", controller={}):
        module   = dram.litedram_module()
        settings = dram.phy_settings()
        width    = settings.dfi_databits*settings.nphases//8
        align    = controller.get("bank_byte_alignment", 0)//width
        columns  = module.geom_settings.colbits - log2_int(width*8//settings.databits)
        phy      = LinearDRAMPHY(module, settings, bank_shift=max(columns, log2_int(max(align, 1))))
        platform = SimPlatform("SIM", _io(phy))
        SoCCore.__init__(self, platform, dram.clk_freq,
            ident                = "LiteLlama simulation",
            ident_version        = False,
            cpu_type             = "vexriscv",
            cpu_variant          = cpu_variant,
            cpu_reset_address    = DRAM_BASE,
            integrated_rom_size  = 0,
            integrated_sram_size = 0x4000,
            uart_name            = "sim",
        )
        self.crg    = CRG(platform.request("sys_clk"))
        self.sdrphy = phy
        self.add_sdram("sdram", phy=phy, module=module, l2_cache_size=l2_bytes,
            controller_settings=ControllerSettings(**controller))
        pads = platform.request("dram")
        for name, *_ in phy.memory.layout:
            pad, signal = getattr(pads, name), getattr(phy.memory, name)
            self.comb += signal.eq(pad) if name == "rdata" else pad.eq(signal)
        self.comb += platform.trace.eq(0)
        if config is not None:
            add_llama(self, config)
        self.word_bytes = width
