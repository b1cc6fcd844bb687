# SPDX-License-Identifier: BSD-2-Clause
"""What all tests share."""

import logging

import pytest

from litellama.soc.cache import fresh_names

# LiteX narrates every SoC it builds.
logging.disable(logging.WARNING)


@pytest.fixture(autouse=True)
def names_as_in_a_new_process():
    """The same gateware has the same Verilog, and so its simulator from the cache, whichever tests ran before."""
    fresh_names()
