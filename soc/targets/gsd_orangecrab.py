# SPDX-License-Identifier: BSD-2-Clause
"""OrangeCrab: LFE5U-25F or -85F, DDR3 of 16 bits, 128 MB.

The target puts the console on USB with a core that is not on PyPI: here it is on the pins GPIO 1 (tx) and 0 (rx)."""

from ..boards import DDR3_CHIPS, ECP5_DDR3, Board, Fit
from ..build import main

# The 25F holds the smallest core that runs SmolLM2, in a SoC without L2 and with little ROM and RAM: 56 block RAMs, 28 multipliers.
SMALLEST = Fit(
    core       = dict(lanes=8, columns=1, ports=1, max_dim=576, max_hidden=1536, max_heads_dim=576, max_head_dim=64, max_context=1024,
        kv_bytes=4096, kv_scales=1024, max_topk=16, fifo_bytes=2048, cuts=0),
    options    = dict(l2_size=0, cpu_variant="lite", integrated_sram_size=0x1000, bios_console="disable",
        with_led_chaser=False),
    debug      = False,
    small_bios = True,
    controller = dict(cmd_buffer_depth=1, with_auto_precharge=False),
    squeeze    = 12,
    budget     = dict(luts=21_000, ffs=15_200, dp16kd=50, mult18x18d=25),
)

BOARD = Board(
    target     = "litex_boards.targets.gsd_orangecrab",
    about      = "LFE5U-25F or -85F, 128 MB DDR3",
    choice     = "device",
    fits       = {"85F": ECP5_DDR3, "25F": SMALLEST},
    memory     = "ddr3x16-ecp5",
    options    = dict(sys_clk_freq=48e6, bios_lto=True),
    speedgrade = "800",
    uart_pins  = ("GPIO:1", "GPIO:0", "LVCMOS33"),
    choices    = DDR3_CHIPS,
)

if __name__ == "__main__":
    main(board=BOARD)
