# SPDX-License-Identifier: BSD-2-Clause
"""ButterStick: LFE5UM5G-85F, DDR3 of 16 bits, two ranks of 128 MB.

The board has no serial port: here it is on the first two pins of SYZYGY port A, S0 (tx) and S1 (rx). The voltages of the ports' pins
are the gateware's to set: no serial port without."""

from migen import If, Signal

from litex.gen import LiteXModule

from ..boards import DDR3_CHIPS, ECP5_DDR3, Board, Fit
from ..build import main

VOLTS  = (3.3, 1.2, 1.8)   # Of ports A, B, C. The lowest where nothing of ours is connected: 1.2, and 1.8 for port C's USB chip.
SETTLE = 10*68e3*0.1e-6    # Seconds: ten time constants of the filter (68 kohm, 0.1 uF).


def duty(volts):
    """Share of the time that a port's `pdm` pin is high for a voltage of 1.2 to 3.3 V.

    The circuit, as amaranth-boards' platform of this board tells it (the schematic was not at hand): a converter holds 0.6 V between
    53.6 kohm to its output and 13 kohm to ground; the pin's mean (of 3.3 V), filtered, goes to the same point through 68 kohm."""
    feedback = 0.6
    current  = feedback/13e3 - (volts - feedback)/53.6e3   # What the pin has to bring.
    return (feedback + 68e3*current)/3.3


class SyzygyVoltages(LiteXModule):
    """Drives the pads `pdm` (one per port, pulses of the duty that sets its voltage) and, when the voltages have settled, `en`.

    volts: per port. settle: clocks until `en`, from reset on. A period is 1,024 clocks, far above the filter's 23 Hz."""

    def __init__(self, pads, volts, settle):
        period = 1024
        phase  = Signal(max=period)
        wait   = Signal(max=settle + 1, reset=settle)
        self.sync += [
            phase.eq(phase + 1),
            [pads.pdm[i].eq(phase < round(period*duty(v))) for i, v in enumerate(volts)],
            If(wait != 0, wait.eq(wait - 1)),
            pads.en.eq(wait == 0),
        ]


def attach(soc):
    """Give the SoC what sets the voltages."""
    soc.syzygy_voltages = SyzygyVoltages(soc.platform.request("vccio_ctrl"), VOLTS, int(SETTLE*soc.sys_clk_freq))


BOARD = Board(
    target     = "litex_boards.targets.gsd_butterstick",
    about      = "LFE5UM5G-85F, 256 MB DDR3",
    choice     = "device",
    fits       = {"85F": Fit(ECP5_DDR3.core, ECP5_DDR3.options, budget=ECP5_DDR3.budget | dict(luts=31_000, ffs=22_500))},
    memory     = "ddr3x16-ecp5",
    options    = dict(sys_clk_freq=60e6, bios_lto=True, with_syzygy_gpio=False),
    speedgrade = "800",
    uart_pins  = ("SYZYGY0:S0", "SYZYGY0:S1", "LVCMOS33"),
    choices    = DDR3_CHIPS,
    attach     = attach,
)

if __name__ == "__main__":
    main(board=BOARD)
