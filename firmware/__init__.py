# SPDX-License-Identifier: BSD-2-Clause
"""LiteLlama's bare-metal firmware: C sources, and the numbers that they share with the host."""
