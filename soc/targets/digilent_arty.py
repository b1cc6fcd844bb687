# SPDX-License-Identifier: BSD-2-Clause
"""Arty A7: XC7A35T or XC7A100T, DDR3 of 16 bits, 256 MB."""

from ..boards import Board, Fit
from ..build import main

# The 35T has 20,800 LUTs, 50 block RAMs of 36 kbit, 90 multipliers.
BOARD = Board(
    target     = "litex_boards.targets.digilent_arty",
    about      = "XC7A35T or XC7A100T, 256 MB DDR3",
    choice     = "variant",
    fits       = {"a7-35": Fit(core=dict(lanes=16, columns=1, ports=1, max_hidden=2048, kv_bytes=8192, fifo_bytes=4096)), "a7-100": Fit()},
    memory     = "ddr3x16",
    options    = dict(sys_clk_freq=100e6, bios_lto=True),
    speedgrade = "800",
)

if __name__ == "__main__":
    main(board=BOARD)
