# SPDX-License-Identifier: BSD-2-Clause
"""KC705: XC7K325T, DDR3 of 64 bits, 1 GB."""

from ..boards import Board
from ..build import main

BOARD = Board(
    target  = "litex_boards.targets.xilinx_kc705",
    about   = "XC7K325T, 1 GB DDR3",
    options = dict(sys_clk_freq=125e6, bios_lto=True),
)

if __name__ == "__main__":
    main(board=BOARD)
