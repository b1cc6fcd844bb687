# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's own sources, compiled by the host's gcc with firmware_stub's headers and driven through ctypes.

`Firmware` has an image in its DRAM, and its core is accel.numerics.Decoder: what it answers is what a SoC would answer.
`Port` is its UART as a pyserial port, for host.protocol.Client; `serve` puts the UART on a TCP socket.
"""

import ctypes
from dataclasses import astuple
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from litellama.accel.config import CoreConfig
from litellama.accel.image import write_image
from litellama.accel.numerics import Decoder, topk as top_candidates
from litellama.firmware import constants as c

FIRMWARE     = Path(__file__).resolve().parent.parent/"firmware"
STUB         = Path(__file__).resolve().parent/"firmware_stub"
SOURCES      = [p for p in sorted(FIRMWARE.glob("*.c")) if p.name not in ("main.c", "arch.c")] + [STUB/"stub.c"]
IMAGE_OFFSET = 0x1000    # As in firmware_stub/generated/soc.h.
SCAN         = 0xFFFFFFFF   # Token of a scan: firmware_stub/stub.h.
PASS         = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)
SANITISE     = ["-O1", "-fsanitize=address", "-fno-omit-frame-pointer"] if "libasan" in os.environ.get("LD_PRELOAD", "") else []
_built       = {}


def library():
    """A fresh copy of the firmware as a ctypes library: each has its own state. Undefined behaviour ends the test, as does an access
    outside of an object where the address sanitiser's library is loaded (tests/test_sanitised.py)."""
    if "path" not in _built:
        _built["folder"] = tempfile.TemporaryDirectory(prefix="litellama-firmware-")
        folder = Path(_built["folder"].name)
        subprocess.run([sys.executable, "-m", "litellama.firmware.generate", folder/"llama_generated.h"], check=True)
        subprocess.run(["gcc", "-std=gnu99", "-O2", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-Wall", "-Wextra", "-Werror",
            "-Wno-unknown-pragmas", "-Wmissing-prototypes", "-fsanitize=bounds,shift-exponent,signed-integer-overflow,null,alignment",
            "-fsanitize-undefined-trap-on-error", *SANITISE, f"-I{folder}", f"-I{STUB}", f"-I{FIRMWARE}", *SOURCES, "-o", folder/"fw.so"],
            check=True)
        _built["path"], _built["n"] = folder/"fw.so", 0
    _built["n"] += 1
    copy = _built["path"].with_name(f"fw{_built['n']}.so")
    shutil.copy(_built["path"], copy)
    lib = ctypes.CDLL(copy)
    lib.stub_setup.argtypes   = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, PASS, ctypes.c_uint32]
    lib.stub_send.argtypes    = [ctypes.c_char_p, ctypes.c_uint32]
    lib.stub_advance.argtypes = [ctypes.c_uint64]
    lib.exp2_neg.restype      = ctypes.c_uint32
    return lib


class Firmware:
    """The firmware after reset, with `image` (bytes) or that of `model` in DRAM.

    config: CoreConfig whose limits it was built for. tx_stall_cycles: time a byte takes to be sent. after_pass(firmware): called
    when a pass ends. early: bytes that are in the UART before the firmware starts. pace: calls of arch_sleep that a pass takes, and
    cycles of each. error: what the core reports from now on (-1: it never finishes).
    """

    def __init__(self, model=None, image=None, config=CoreConfig(), ram_bytes=1 << 24, tx_stall_cycles=0, after_pass=None,
            early=b"", pace=(1, 100_000)):
        self.lib, self.model, self.after_pass, self.error = library(), model, after_pass, 0
        self.ram     = np.zeros(ram_bytes, np.uint8)
        self.decoder = None
        self.passes  = []
        image = write_image(model) if image is None and model is not None else image or b""
        self.put_image(image)
        self._limits = (ctypes.c_uint32*len(c.CORE_FIELDS))(*[getattr(config, name) for name in c.CORE_FIELDS])
        self._pass   = PASS(self._run_pass)
        self.lib.stub_setup(self.ram.ctypes.data, ram_bytes, self._limits, self._pass, tx_stall_cycles)
        self.lib.stub_pace(*pace)
        self.send(early)
        self.lib.server_init()

    def put_image(self, image, offset=0):
        """Change DRAM behind the firmware's back."""
        self.ram[IMAGE_OFFSET + offset:IMAGE_OFFSET + offset + len(image)] = np.frombuffer(image, np.uint8)

    def _run_pass(self, token, position, topk):
        if self.error:
            return self.error
        if token == SCAN:
            return 0
        self.passes.append((token, position, topk))
        if self.decoder is None:
            self.decoder = Decoder(self.model)
        assert position <= self.decoder.position, "the firmware skipped a position"
        self.decoder.position = position
        logits = self.decoder.forward([token], "last" if topk else None)
        if topk:
            for i, id in enumerate(top_candidates(logits, topk)):
                self.lib.stub_candidate(i, int(id), int(logits[id].view(np.uint32)))
        if self.after_pass is not None:
            self.after_pass(self)
        return 0

    def send(self, data):
        """Bytes to its UART."""
        self.lib.stub_send(bytes(data), len(data))

    def receive(self, n=1 << 16):
        """Up to n bytes that it has sent."""
        buffer = ctypes.create_string_buffer(n)
        got    = self.lib.stub_receive(buffer, n)
        return buffer.raw[:got]

    def poll(self):
        """Take interrupts and serve one request; returns whether there was one."""
        self.lib.stub_interrupts()
        return bool(self.lib.server_poll())

    def register(self, name):
        """Value of one of the core's registers, by its order in generated/csr.h."""
        text  = (STUB/"generated/csr.h").read_text()
        names = [part.split(")")[0] for part in text[text.index("R(control)"):text.index("#define R(name) STUB")].split("R(")[1:]]
        return self.lib.stub_register_value(names.index(name)) & 0xFFFFFFFF


class Port:
    """The UART as a pyserial port. to_device, to_host: functions from the bytes that are sent to those that arrive."""

    def __init__(self, firmware, to_device=lambda data: data, to_host=lambda data: data):
        self.firmware, self.to_device, self.to_host, self.buffer, self.closed = firmware, to_device, to_host, b"", False

    def write(self, data):
        self.firmware.send(self.to_device(data))

    def read(self, n=1):
        if not self.buffer:
            self.firmware.poll()
            self.firmware.lib.stub_advance(1 << 20)
            self.buffer = self.to_host(self.firmware.receive())
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def close(self):
        self.closed = True


class serve:
    """Context manager: the firmware's UART on a TCP socket, like the simulator's; gives its URL. One client at a time; the next one gets
    what the last one did not take. pass_seconds: time that each pass takes."""

    def __init__(self, firmware, pass_seconds=0.0):
        self.firmware, self.pass_seconds, self.stopping, self.connection = firmware, pass_seconds, False, None
        self.out = b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        firmware.after_pass = lambda _: self._pump(self.pass_seconds)

    def __enter__(self):
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return f"socket://127.0.0.1:{self.listener.getsockname()[1]}"

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()
        self.listener.close()
        if self.connection:
            self.connection.close()

    def _accept(self):
        try:
            self.connection, _ = self.listener.accept()
            self.connection.settimeout(0.001)
        except BlockingIOError:
            time.sleep(0.001)

    def _pump(self, seconds=0.0):
        time.sleep(seconds)
        if self.connection is None:
            return self._accept()
        try:
            self.out += self.firmware.receive()
            self.out  = self.out[self.connection.send(self.out):] if self.out else b""
            if not (data := self.connection.recv(4096)):
                raise ConnectionError
            self.firmware.send(data)
        except TimeoutError:
            pass
        except ConnectionError:
            self.connection.close()
            self.connection = None

    def _run(self):
        while not self.stopping:
            self._pump()
            self.firmware.poll()
