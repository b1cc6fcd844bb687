# SPDX-License-Identifier: BSD-2-Clause
"""One file per board: what litex-boards' target of that name needs to carry the core. `python3 -m litellama.soc.targets.NAME`."""
