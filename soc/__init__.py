# SPDX-License-Identifier: BSD-2-Clause
"""The core in a SoC: `add_llama` for any LiteX SoC with SDRAM, and the SoC that is simulated cycle by cycle."""
