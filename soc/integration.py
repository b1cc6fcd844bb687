# SPDX-License-Identifier: BSD-2-Clause
"""Attaches the decoder core to any LiteX SoC that has a LiteDRAM `sdram`."""

from dataclasses import asdict

from litex.soc.integration.soc import SoCRegion

from ..accel.config import BLOCK, check
from .half_port import LlamaHalfPort
from .memory import suited_config

# Firmware owns main_ram below this offset, the model image starts at it.
IMAGE_OFFSET = 0x00400000
PORT_BITS_MAX = 256   # Of a port that the core takes as it is.


def _get_port(soc, mode, name):
    """A port of the crossbar that the core can take."""
    port = soc.sdram.crossbar.get_port(mode=mode)
    if port.data_width <= PORT_BITS_MAX:
        return port
    half = LlamaHalfPort(port)
    soc.add_module(name=name, module=half)
    return half.port


def add_llama(soc, config=None, name="llama", image_offset=IMAGE_OFFSET, debug=True):
    """Add a LlamaCore called `name` to `soc` (add_sdram must have been called) and return it. config: CoreConfig; None: what
    suits the DRAM (soc.memory.suited_config).

    - DRAM: `config.ports` read ports of the crossbar and a write port for keys and values, all at native width: conversion
      there halves the bandwidth or worse. (Of ports above 256 bits the core takes half a word a clock: soc/half_port.py.)
    - CPU: its CSRs, its interrupt where the CPU takes interrupts, and a read-only window on its RAMs for debugging as
      memory region `<name>_debug` (uncached), unless debug=False leaves that out: synthesis then drops the core's half of it.
    - Software: every field of the configuration as constant `<NAME>_<FIELD>` in generated/soc.h, besides <NAME>_BLOCK
      (weights per block), <NAME>_PORT_BYTES (one beat of a DRAM port) and <NAME>_IMAGE_OFFSET (from main_ram's base).
    """
    from ..accel.core import LlamaCore
    check(hasattr(soc, "sdram"), "add_llama needs a SoC with SDRAM: call soc.add_sdram() first")
    config = config or suited_config(soc.sdram.controller.settings.phy)
    ports  = [_get_port(soc, "read", f"{name}_read{i}") for i in range(config.ports)]
    core   = LlamaCore(config, ports, _get_port(soc, "write", f"{name}_write"))
    soc.add_module(name=name, module=core)
    if soc.irq.enabled:
        soc.irq.add(name, use_loc_if_exists=True)
    if debug:
        soc.bus.add_slave(f"{name}_debug", core.bus, SoCRegion(size=core.debug_bytes, cached=False))
    constants = dict(asdict(config), block=BLOCK, port_bytes=ports[0].data_width//8, image_offset=image_offset)
    for key, value in constants.items():
        soc.add_constant(f"{name}_{key}", value)
    return core
