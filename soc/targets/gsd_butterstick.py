# SPDX-License-Identifier: BSD-2-Clause
"""ButterStick: LFE5UM5G-85F, DDR3 of 16 bits, two ranks of 128 MB.

The board has no serial port: here it is on the first two pins of SYZYGY port A, S0 (tx) and S1 (rx)."""

from ..boards import ECP5_DDR3, Board, Fit
from ..build import main

BOARD = Board(
    target     = "litex_boards.targets.gsd_butterstick",
    about      = "LFE5UM5G-85F, 256 MB DDR3",
    choice     = "device",
    fits       = {"85F": Fit(ECP5_DDR3.core, ECP5_DDR3.options, budget=ECP5_DDR3.budget | dict(luts=31_000, ffs=22_500))},
    memory     = "ddr3x16-ecp5",
    options    = dict(sys_clk_freq=60e6, bios_lto=True, with_syzygy_gpio=False),
    speedgrade = "800",
    uart_pins  = ("SYZYGY0:S0", "SYZYGY0:S1", "LVCMOS33"),
)

if __name__ == "__main__":
    main(board=BOARD)
