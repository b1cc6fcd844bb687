# SPDX-License-Identifier: BSD-2-Clause
"""Devices that run a model: the simulated SoC, a board on a serial line, the bit-exact twin, plain float."""

import os
import re

from ...accel.config import check
from ..console import nearest

LOCAL = ("sim", "reference", "float")   # Those that are no serial line.


def _check_line(name):
    """ValueError, with what there is, unless `name` looks like what pyserial opens: a path, a URL, COM1."""
    path = "/" in name and "://" not in name
    if os.path.exists(name) or not path and ("://" in name or re.fullmatch(r"COM\d+", name, re.IGNORECASE)):
        return
    from serial.tools.list_ports import comports
    lines = sorted(port.device for port in comports())
    near  = name and nearest(name if path else f"/dev/{name}", lines) or nearest(name, LOCAL)
    raise ValueError(f"there is no device {name!r}{near or ','} there are {', '.join(LOCAL)}, socket://HOST:PORT, and serial lines "
        f"(here: {', '.join(lines) or 'none'})")


def open_device(name, baudrate=None):
    """Device of a `--device` argument: one of LOCAL or what pyserial opens (path or URL), there with `baudrate` (default
    protocol.BAUDRATE). ValueError if it cannot be opened."""
    check(baudrate is None or name not in LOCAL, f"--baudrate is {baudrate}, but device {name} is no serial line")
    if name == "reference":
        from .reference import ReferenceDevice
        return ReferenceDevice()
    if name == "float":
        from .float_model import FloatDevice
        return FloatDevice()
    if name == "sim":
        from .sim import SimDevice
        return SimDevice()
    _check_line(name)
    from .serial import SerialDevice
    return SerialDevice(name) if baudrate is None else SerialDevice(name, baudrate)
