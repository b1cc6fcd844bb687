# SPDX-License-Identifier: BSD-2-Clause
"""ULX3S: LFE5U-85F of speed grade 6, SDR SDRAM of 16 bits at the system clock."""

from ..boards import Board, Fit
from ..build import main

BOARD = Board(
    target  = "litex_boards.targets.radiona_ulx3s",
    about   = "LFE5U-85F, 32 MB SDR",
    choice  = "device",
    fits    = {"LFE5U-85F": Fit(
        core    = dict(lanes=8, columns=3, kv_bytes=16384, fifo_bytes=8192),
        options = dict(l2_size=0),
        budget  = dict(luts=23_700, ffs=17_600, dp16kd=103, mult18x18d=41),
    )},
    memory  = "sdr16",
    options = dict(sys_clk_freq=50e6, bios_lto=True),
)

if __name__ == "__main__":
    main(board=BOARD)
