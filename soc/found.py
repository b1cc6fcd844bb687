# SPDX-License-Identifier: BSD-2-Clause
"""Which LiteX is installed: a release, or a git checkout that somebody works in; and what depends on that.

Standard library only: host/doctor.py shows it, whatever else is missing.
"""

from dataclasses import dataclass
import hashlib
from importlib import metadata, util
import inspect
import os
from pathlib import Path
import re
import subprocess

TRIED     = "2024.12 (releases of PyPI), 2026.4 (git, 2026-08-06, with picolibc 1.8.11)"
_SOURCES  = (".py", ".c", ".h", ".S", ".ld", ".mak", ".v", ".sv", ".init", ".build", "Makefile")
_PICOLIBC = "pythondata-software-picolibc"


@dataclass(frozen=True)
class Package:
    """An installed package. folder: of its modules; checkout: the git work tree it is used from, None for a release."""
    name:     str
    version:  str
    folder:   Path
    checkout: Path | None

    @property
    def state(self):
        """What it is, for the keys of caches: a release's version, or the contents of a checkout's sources, which change under it."""
        if not self.checkout:
            return self.version
        h = hashlib.sha256()
        for path in sorted(p for p in self.folder.rglob("*") if p.name.endswith(_SOURCES) and p.is_file()):
            data = path.read_bytes()
            h.update(f"{path.relative_to(self.folder)},{len(data)}:".encode() + data)
        return f"{self.version}+{h.hexdigest()}"

    def __str__(self):
        if not self.checkout:
            return self.version
        commit = _git(self.checkout, "log", "-1", "--format=%h of %cs")
        edited = _git(self.checkout, "status", "--porcelain", "--untracked-files=no")
        return f"{self.version}, git {commit}{', edited' if edited else ''} in {self.checkout}"


def _git(folder, *arguments):
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace").stdout.strip()
    except OSError:
        return ""


def package(name, module=None):
    """Package called `name`, whose Python module is `module` (default: the same, as Python spells it); None if it is not there."""
    spec = util.find_spec(module or name.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(list(spec.submodule_search_locations)[0])
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:   # On PYTHONPATH alone.
        version = "unknown version"
    return Package(name, version, folder, folder.parent if (folder.parent/".git").exists() else None)


def accepted(function, **arguments):
    """Those of `arguments` that `function` has: LiteX's get more with the years."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in known}


def picolibc_fault():
    """Why the C library's package is not what this LiteX's makefiles want, in one line; "" if it is. LiteX up to 2025.12 has picolibc
    1.7, whose library is in newlib/libc, LiteX since March 2026 1.8.11, where it is in libc."""
    litex, picolibc = package("litex"), package(_PICOLIBC)
    if not litex or not picolibc:
        return f"{_PICOLIBC if litex else 'litex'} is missing"
    makefile = litex.folder/"soc/software/common.mak"
    wanted   = re.search(r"-I\$\(PICOLIBC_DIRECTORY\)/(\S+)", makefile.read_text() if makefile.exists() else "")
    if not wanted or (picolibc.folder/"data"/wanted[1]).is_dir():
        return ""
    advice = f"pip install {_PICOLIBC}==1.7.9.post181" if wanted[1].startswith("newlib") else \
        "LiteX's litex_setup.py --update brings it, with its submodule (picolibc 1.8.11)"
    return f"LiteX {litex} wants a picolibc with {wanted[1]}, {_PICOLIBC} {picolibc} has none: {advice}"
