# SPDX-License-Identifier: BSD-2-Clause
"""What this machine has of what LiteLlama needs: each tool and package, and the line that installs it.

Standard library only: setup.sh runs this file before anything is installed (`python3 -I host/doctor.py --debian`), so the list of
Debian packages stands here and nowhere else. What it tells of LiteX is soc/found.py's.
"""

import argparse
from dataclasses import dataclass
from importlib import metadata, util
import os
import re
import shutil
import sys

# Command, its Debian package, what for.
TOOLS = (
    ("make",                    "make",                     "builds"),
    ("g++",                     "g++",                      "the simulator"),
    ("verilator",               "verilator",                "the simulator"),
    ("ccache",                  "ccache",                   "fast rebuilds of the simulator"),
    ("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf",  "the firmware"),
    ("gcc",                     "gcc",                      "tests of the firmware"),
    ("iverilog",                "iverilog",                 "tests of the emitted Verilog"),
    ("git",                     "git",                      "tests of what is tracked, and to tell a LiteX of a checkout"),
)
# Better to have: set-up installs it where the distribution has it, and goes on where not.
WISHED = (
    ("clang++-19",              "clang-19",                 "a simulator that is a fifth faster"),
)
VENV_PACKAGE = "python3-venv"  # Debian keeps ensurepip, and with it `python3 -m venv`, in a package of its own.
EXTRAS       = {"": "everything", "ecp5": "ECP5 bitstreams", "dev": "tests", "train": "training the default model",
    "references": "test cases made by another engine"}


@dataclass(frozen=True)
class Check:
    """One thing that is needed. found: path or version, empty if missing. fix: the line that installs it."""
    name:     str
    purpose:  str
    found:    str
    fix:      str
    required: bool = True


def _which(command):
    """Path of `command`, also when the virtual environment that we run in is not activated."""
    return shutil.which(command, path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]))


def debian_missing(tools=TOOLS):
    """Debian packages whose tool is not there."""
    missing = [package for command, package, _ in tools if not _which(command)]
    return missing + ([] if tools is not TOOLS or util.find_spec("ensurepip") else [VENV_PACKAGE])


def _order(version):
    """What versions are compared by: the numbers of the release."""
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]


def _check_package(requirement):
    """Check of one requirement as the package's metadata states it (`name>=version; extra == "dev"`)."""
    wanted, _, marker = requirement.partition(";")
    name, lowest = (part.strip() for part in re.split(">=|==", wanted))
    extra = re.search(r"extra\s*==\s*[\"'](\w+)", marker)
    extra = extra.group(1) if extra else ""
    try:
        have = metadata.version(name)
    except metadata.PackageNotFoundError:
        have = ""
    fix = f'pip install "{name}>={lowest}"'
    if have and _order(have) < _order(lowest):
        return Check(name, f"version {lowest} or newer", "", f"{fix}  # found {have}", not extra)
    return Check(name, EXTRAS.get(extra, extra), have, fix, not extra)


def _check_picolibc():
    """Check of the C library against the makefiles of the LiteX that is there."""
    from litellama.soc.found import package, picolibc_fault   # (By its full name: this file also runs by itself.)
    fault = picolibc_fault()
    return Check("picolibc for this LiteX", "the firmware", "" if fault else str(package("pythondata-software-picolibc")), fault)


def doctor():
    """list of Check, tools first, then Python packages, then whether LiteX and its C library fit."""
    python = "%d.%d.%d" % sys.version_info[:3]
    checks = [Check("python", "everything", python if sys.version_info >= (3, 11) else "", "apt-get install python3  # 3.11 or newer")]
    checks += [Check(command, purpose, _which(command) or "", f"apt-get install {package}", tools is TOOLS)
        for tools in (TOOLS, WISHED) for command, package, purpose in tools]
    try:
        requirements = metadata.requires("litellama") or []
    except metadata.PackageNotFoundError:
        return checks + [Check("litellama", "everything", "", "pip install -e .")]
    packages = {}
    for check in map(_check_package, requirements):
        packages.setdefault(check.name, check)  # Needed always comes before needed for an extra.
    return checks + list(packages.values()) + [_check_picolibc()]


def main(argv=None, say=print, parser=argparse.ArgumentParser):
    """Say the table, line by line; 0 if nothing that is required is missing, 1 otherwise."""
    p = parser(prog="litellama doctor", description="What is needed, what of it was found, and how to install the rest. "
        "Status 1 if something that is required is missing.")
    p.add_argument("--debian", action="store_true", help="only the Debian packages that are missing, for set-up")
    p.add_argument("--debian-wished", action="store_true", help="only those that are missing and better to have")
    args = p.parse_args(argv)
    if args.debian or args.debian_wished:
        for package in debian_missing() if args.debian else debian_missing(WISHED):
            say(package)
        return 0
    checks = doctor()
    width  = max(len(c.name) for c in checks)
    for c in checks:
        state = "found  " if c.found else "MISSING" if c.required else "absent "
        say(f"{c.name:{width}}  {state}  {c.found or c.fix + '  (for ' + c.purpose + ')'}")
    if any(c.name == "litex" for c in checks):
        from litellama.soc.found import TRIED, package
        say(f"LiteX is {package('litex') or 'missing'}. Tried: {TRIED}.")
    missing = [c.name for c in checks if c.required and not c.found]
    say(f"{len(missing)} missing: {', '.join(missing)}" if missing else "Nothing is missing.")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
