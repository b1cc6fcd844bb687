# SPDX-License-Identifier: BSD-2-Clause
"""LiteLlama's decoder core: gateware, its configuration, its image format and its bit-exact NumPy twin."""
