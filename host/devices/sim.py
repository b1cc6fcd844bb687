# SPDX-License-Identifier: BSD-2-Clause
"""The simulated SoC: a Verilator process of our own whose DRAM holds firmware and image, reached over its UART's socket."""

from ...accel.image import write_image
from ...soc.memory import get_memory, suited_config
from ..protocol import Client, open_port
from .serial import SerialDevice

_TIMEOUT = 180.0   # Seconds: half a million cycles a second, on a busy machine less.


class SimDevice(SerialDevice):
    """The simulated SoC with `memory` (soc/memory.py) and a core of `config` (default: what suits it), `options` as
    soc.sim.build_simulator takes them. Built when the first model is loaded, then from the cache. It stands still while nothing is
    asked of it."""

    def __init__(self, config=None, memory="ddr3x16", **options):
        self.name      = "sim"
        self.config    = config or suited_config(get_memory(memory).phy_settings())
        self.memory    = memory
        self.options   = options
        self.simulator = self.client = self.counters = None

    def load(self, model, on_progress=None):
        """Start the simulator anew with the image of `model`. on_progress is not called: nothing is sent."""
        from ...soc.sim import Simulator, build_firmware, build_simulator
        self.config.check_model(model.config)
        build    = build_simulator(self.config, self.memory, **self.options)
        firmware = build_firmware(build)
        self.close()
        self.simulator = Simulator(build, firmware, write_image(model)).__enter__()
        try:
            self.client = Client(open_port(self.simulator.url), _TIMEOUT, retries=0, alive=self.simulator.alive)
            self._attach(model)
        except BaseException:
            self.close()
            raise
        self.simulator.pause()

    def reset(self, keep=0):
        self._awake(super().reset, keep)

    def generate(self, *args, **options):
        return self._awake(super().generate, *args, **options)

    def baseline(self, token, position=0):
        return self._awake(super().baseline, token, position)

    def probe(self, token, position, layers, topk=0):
        return self._awake(super().probe, token, position, layers, topk)

    def scan(self, n_bytes, offset=0, in_image=True):
        return self._awake(super().scan, n_bytes, offset, in_image)

    def fill(self, *args, **options):
        return self._awake(super().fill, *args, **options)

    def known_answer(self, tokens, n):
        return self._awake(super().known_answer, tokens, n)

    def peek(self, region, word, n):
        return self._awake(super().peek, region, word, n)

    def _awake(self, method, *args, **options):
        """Call `method` while the simulator runs."""
        self.simulator.resume()
        try:
            return method(*args, **options)
        finally:
            self.simulator.pause()

    def close(self):
        if self.client is not None:
            self.client.close()
        if self.simulator is not None:
            self.simulator.stop()
        self.client = self.simulator = None
