# SPDX-License-Identifier: BSD-2-Clause
"""The `reference` device: the bit-exact NumPy twin of the gateware, in this process."""

from ...accel.numerics import Decoder
from .local import LocalDevice


class ReferenceDevice(LocalDevice):
    """Same tokens as the gateware for the same model, prompt, options and seed. kv: see accel.numerics.Decoder."""

    name = "reference"

    def __init__(self, kv="int8"):
        super().__init__()
        self.kv = kv

    def _decoder(self, model):
        return Decoder(model, kv=self.kv)
