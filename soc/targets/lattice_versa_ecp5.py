# SPDX-License-Identifier: BSD-2-Clause
"""Versa ECP5: LFE5UM5G-45F, DDR3 of 16 bits, 128 MB."""

from ..boards import Board, Fit
from ..build import main

# 108 block RAMs, 72 multipliers. (Three columns fit as well, but take 96 % of the block RAMs and did not route: soc/README.md. Two read
# the keys and values of a group of three heads twice.)
BOARD = Board(
    target     = "litex_boards.targets.lattice_versa_ecp5",
    about      = "LFE5UM5G-45F, 128 MB DDR3",
    choice     = "device",
    fits       = {"LFE5UM5G": Fit(
        core    = dict(lanes=16, columns=2, max_hidden=2048, kv_bytes=8192, fifo_bytes=4096),
        options = dict(l2_size=0),
        budget  = dict(luts=26_700, ffs=19_300, dp16kd=91, mult18x18d=47),
    )},
    memory     = "ddr3x16-ecp5",
    options    = dict(sys_clk_freq=75e6, bios_lto=True),
    speedgrade = "800",
)

if __name__ == "__main__":
    main(board=BOARD)
