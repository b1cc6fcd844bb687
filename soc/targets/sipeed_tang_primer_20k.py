# SPDX-License-Identifier: BSD-2-Clause
"""Tang Primer 20K: GW2A-18, DDR3 of 16 bits, 128 MB."""

from ..boards import Board, Fit
from ..build import main

# 20,736 LUTs, 46 block RAMs of 18 kbit, 48 multipliers.
BOARD = Board(
    target     = "litex_boards.targets.sipeed_tang_primer_20k",
    about      = "GW2A-18, 128 MB DDR3",
    fits       = {"": Fit(core=dict(lanes=8, columns=1, ports=1, max_dim=576, max_hidden=1536, max_heads_dim=576, max_head_dim=64,
        max_context=1024, kv_bytes=8192, kv_scales=1024, max_topk=16, fifo_bytes=2048), options=dict(l2_size=0), debug=False)},
    options    = dict(sys_clk_freq=48e6, bios_lto=True),
    speedgrade = "800",
)

if __name__ == "__main__":
    main(board=BOARD)
