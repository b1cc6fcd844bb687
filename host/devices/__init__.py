# SPDX-License-Identifier: BSD-2-Clause
"""Devices that run a model: the simulated SoC, a board on a serial line, the bit-exact twin, plain float."""

from ...accel.config import check


def open_device(name, baudrate=None):
    """Device of a `--device` argument: "sim", "reference", "float" or what pyserial opens (path or URL), there with `baudrate`
    (default protocol.BAUDRATE). ValueError if it cannot be opened."""
    check(baudrate is None or name not in ("sim", "reference", "float"), f"--baudrate is {baudrate}, but device {name} is no serial line")
    if name == "reference":
        from .reference import ReferenceDevice
        return ReferenceDevice()
    if name == "float":
        from .float_model import FloatDevice
        return FloatDevice()
    if name == "sim":
        from .sim import SimDevice
        return SimDevice()
    from .serial import SerialDevice
    return SerialDevice(name) if baudrate is None else SerialDevice(name, baudrate)
