# SPDX-License-Identifier: BSD-2-Clause
"""Nexys Video: XC7A200T, DDR3 of 16 bits, 512 MB."""

from ..boards import Board
from ..build import main

BOARD = Board(
    target     = "litex_boards.targets.digilent_nexys_video",
    about      = "XC7A200T, 512 MB DDR3",
    memory     = "ddr3x16",
    options    = dict(sys_clk_freq=100e6, bios_lto=True),
    speedgrade = "1066",   # See lambdaconcept_ecpix5.
)

if __name__ == "__main__":
    main(board=BOARD)
