# SPDX-License-Identifier: BSD-2-Clause
"""What all tests share."""

import logging

# LiteX narrates every SoC it builds.
logging.disable(logging.WARNING)
