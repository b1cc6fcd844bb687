# SPDX-License-Identifier: BSD-2-Clause
"""ECPIX-5: LFE5UM5G-85F, DDR3 of 16 bits, 512 MB."""

from ..boards import ECP5_DDR3, Board
from ..build import main

BOARD = Board(
    target     = "litex_boards.targets.lambdaconcept_ecpix5",
    about      = "LFE5UM5G-85F, 512 MB DDR3",
    choice     = "device",
    fits       = {"85F": ECP5_DDR3},
    memory     = "ddr3x16-ecp5",
    options    = dict(sys_clk_freq=75e6, bios_lto=True),
    speedgrade = "1066",   # Of this chip LiteDRAM states tRFC shorter than for 800, and right: 260 ns are 39 of its 138 clocks.
)

if __name__ == "__main__":
    main(board=BOARD)
