# SPDX-License-Identifier: BSD-2-Clause
"""Ratchets of the house style: licence headers, file lengths, docstrings, described registers, no unsigned minus in Verilog."""

import importlib
import inspect
from pathlib import Path
import pkgutil
import subprocess

import pytest
from litedram.common import LiteDRAMNativePort
from litex.gen.fhdl.verilog import convert
from litex.soc.interconnect.csr import CSRStatus, CSRStorage
from migen import ClockDomain

import litellama.accel
import litellama.firmware
import litellama.host
import litellama.soc
from litellama.accel.config import CoreConfig
from litellama.accel.core import LlamaCore

from gateware import MINUS_UNSIGNED

ROOT      = Path(__file__).resolve().parent.parent
SOURCES   = (".py", ".c", ".h", ".cpp", ".S", ".ld", ".sh")
MAX_LINES = 500
# Modules that need development extras, which tests do without.
EXTRAS    = ("litellama.host.train",)


def tracked():
    """Files of the project: those git tracks, or where there is no git all that are not hidden."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        return [ROOT/name for name in listed if (ROOT/name).exists()]
    except (OSError, subprocess.CalledProcessError):
        return [p for f in ("accel", "soc", "firmware", "host", "tests") for p in (ROOT/f).rglob("*") if p.is_file()]


def test_every_source_has_a_licence_and_at_most_500_lines():
    """SPDX header within the first three lines; no file longer than the limit."""
    wrong = []
    for path in tracked():
        if path.suffix in SOURCES or path.name == "Makefile":
            lines = path.read_text().splitlines()
            if not any("SPDX-License-Identifier: BSD-2-Clause" in line for line in lines[:3]):
                wrong.append(f"{path.name}: no SPDX header")
            if len(lines) > MAX_LINES:
                wrong.append(f"{path.name}: {len(lines)} lines")
    assert not wrong


def modules():
    """All importable modules of the package."""
    for package in (litellama.accel, litellama.soc, litellama.firmware, litellama.host):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if info.name not in EXTRAS and not info.name.endswith("__main__"):
                yield importlib.import_module(info.name)


def test_every_public_name_has_a_docstring():
    """Modules, public classes, their public methods and properties (or what they override), public functions."""
    missing = []
    for module in modules():
        if not module.__doc__:
            missing.append(module.__name__)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            if (inspect.isclass(thing) or inspect.isfunction(thing)) and not inspect.getdoc(thing):
                missing.append(f"{module.__name__}.{name}")
            if inspect.isclass(thing):
                for key, member in vars(thing).items():
                    public = inspect.isfunction(member) or isinstance(member, (property, staticmethod, classmethod))
                    if public and not key.startswith("_") and not inspect.getdoc(getattr(thing, key)):
                        missing.append(f"{module.__name__}.{name}.{key}")
    assert not missing


def dram_ports():
    """Arguments of LlamaCore: read ports, and the port for keys and values."""
    read, write = (LiteDRAMNativePort(mode, address_width=24, data_width=128) for mode in ("read", "write"))
    return [read], write


@pytest.fixture(scope="module")
def core():
    """The core in its default configuration, with registers, not yet finalised."""
    return LlamaCore(CoreConfig(), *dram_ports())


def test_every_csr_is_described(core):
    """Each register, and each of its fields, says what it is."""
    for csr in core.get_csrs():
        if isinstance(csr, (CSRStatus, CSRStorage)):
            fields = getattr(csr, "fields", None)
            fields = fields.fields if fields is not None else []
            assert csr.description or fields, csr.name
            assert all(f.description for f in fields), csr.name


@pytest.mark.parametrize("lanes, columns", ((8, 1), (16, 2), (32, 3)))
def test_no_minus_on_an_unsigned_literal(lanes, columns):
    """The whole core's Verilog has no `-N'd`, which would make a signed expression unsigned."""
    core = LlamaCore(CoreConfig(lanes=lanes, columns=columns), *dram_ports(), with_csr=False)
    core.clock_domains.cd_sys = clock = ClockDomain("sys")
    text = convert(core, ios={clock.clk, clock.rst, *(s for _, s in core.test_signals())}).main_source
    assert not MINUS_UNSIGNED.findall(text)


def test_nothing_names_this_machine():
    """No absolute path of a home or work folder in what is tracked."""
    home  = str(Path.home())
    found = [path.name for path in tracked() if path.suffix in SOURCES + (".md", "") and path.name != "LICENSE"
        and (f"{home}/" in path.read_text(errors="replace") or f"{ROOT.parent}/" in path.read_text(errors="replace"))]
    assert not found
