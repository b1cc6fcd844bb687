# SPDX-License-Identifier: BSD-2-Clause
"""Devices that run a model: the simulated SoC, a board on a serial line, the bit-exact twin, plain float."""


def open_device(name, **options):
    """Device of a `--device` argument: "sim", "reference", "float" or what pyserial opens (path or URL).

    options: passed to the simulator's or serial device's constructor. ValueError if it cannot be opened.
    """
    if name == "reference":
        from .reference import ReferenceDevice
        return ReferenceDevice()
    if name == "float":
        from .float_model import FloatDevice
        return FloatDevice()
    if name == "sim":
        from .sim import SimDevice
        return SimDevice(**options)
    from .serial import SerialDevice
    return SerialDevice(name, **options)
