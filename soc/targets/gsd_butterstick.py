# SPDX-License-Identifier: BSD-2-Clause
"""ButterStick: LFE5UM5G-85F, DDR3 of 16 bits, 256 MB.

The board has no serial port: here it is on the first two pins of SYZYGY port A, S0 (tx) and S1 (rx)."""

from ..boards import ECP5_DDR3, Board
from ..build import main

BOARD = Board(
    target     = "litex_boards.targets.gsd_butterstick",
    about      = "LFE5UM5G-85F, 256 MB DDR3",
    choice     = "device",
    fits       = {"85F": ECP5_DDR3},
    options    = dict(sys_clk_freq=60e6, bios_lto=True, with_syzygy_gpio=False, sdram_device="MT41K128M16"),
    speedgrade = "800",
    uart_pins  = ("SYZYGY0:S0", "SYZYGY0:S1", "LVCMOS33"),
)

if __name__ == "__main__":
    main(board=BOARD)
