# SPDX-License-Identifier: BSD-2-Clause
"""Read-only Wishbone window on the core's memories."""

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import wishbone

from .config import DEBUG_REGIONS, DEBUG_REGION_WORDS


class LlamaDebugWindow(LiteXModule):
    """Wishbone slave, 32-bit words: region i of DEBUG_REGIONS starts at byte i*262,144.

    memories: name -> (address Signal out, data Signal in); data is valid `latency` clocks after its address. Reads are answered
    with zero while the core is busy, because the memories' ports then belong to the pass; writes are acknowledged and dropped.
    """

    def __init__(self, memories, idle, latency=3):
        self.bus   = bus = wishbone.Interface(data_width=32, address_width=32, addressing="word")
        self.bytes = 4*DEBUG_REGION_WORDS*8

        # # #

        address, region, wait = Signal(16), Signal(3), Signal(max=latency + 3)
        data = {}
        for i, name in enumerate(DEBUG_REGIONS):
            if name in memories:
                port_address, port_data = memories[name]
                self.comb += port_address.eq(address)
                data[i] = bus.dat_r.eq(port_data)
        data["default"] = bus.dat_r.eq(0)
        self.sync += [
            bus.ack.eq(0),
            address.eq(bus.adr[:16]), region.eq(bus.adr[16:19]),
            If(bus.cyc & bus.stb & ~bus.ack,
                wait.eq(wait + 1),
                If(wait == latency + 1,
                    If(idle, Case(region, data)).Else(bus.dat_r.eq(0)),
                    bus.ack.eq(1)),
            ).Else(wait.eq(0)),
        ]
