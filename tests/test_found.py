# SPDX-License-Identifier: BSD-2-Clause
"""Beside any LiteX: what depends on its age, with both of its shapes; what setup.py and constraints.txt ask for; what doctor tells."""

from importlib import metadata
import os
from pathlib import Path
import re
import subprocess
from types import SimpleNamespace

from litex.soc.integration.builder import Builder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
import pytest

from litellama.host import doctor
from litellama.soc import board_software, build, found
from litellama.soc.sim import SimError, build_firmware, build_simulator, link_libc

ROOT   = Path(__file__).resolve().parent.parent
TRIPLE = "riscv64-unknown-elf-"

# Packages -----------------------------------------------------------------------------------------


def litex_and_picolibc(tmp_path, monkeypatch, include, data):
    """A LiteX whose makefiles want picolibc's headers in `include`, and a picolibc that has them in `data`."""
    makefile = tmp_path/"litex/soc/software/common.mak"
    makefile.parent.mkdir(parents=True)
    makefile.write_text(f"# Toolchain options\nINCLUDES = -I$(PICOLIBC_DIRECTORY)/{include} \\\n           -I$(LIBBASE_DIRECTORY)\n")
    (tmp_path/"picolibc/data"/data).mkdir(parents=True)
    packages = {"litex": found.Package("litex", "2026.4", tmp_path/"litex", None),
        "pythondata-software-picolibc": found.Package("p", "1.7.9", tmp_path/"picolibc", None)}
    monkeypatch.setattr(found, "package", packages.get)


@pytest.mark.parametrize("include, data, told", (
    ("newlib/libc/include", "newlib/libc/include", None),
    ("libc/include", "libc/include", None),
    ("libc/include", "newlib/libc/include", "wants a picolibc with libc/include, .* 1.7.9 has none: .*litex_setup.py"),
    ("newlib/libc/include", "libc/include", "has none: pip install pythondata-software-picolibc==1.7.9.post181"),
))
def test_picolibc_that_does_not_fit_is_told(include, data, told, tmp_path, monkeypatch):
    """LiteX up to 2025.12 and since 2026.4, picolibc 1.7 and 1.8.11; in one line, by what builds and by doctor."""
    litex_and_picolibc(tmp_path, monkeypatch, include, data)
    fault = found.picolibc_fault()
    check = doctor._check_picolibc()
    assert bool(check.found) == (told is None) and check.required and check.fix == fault
    if told is None:
        assert fault == ""
    else:
        assert re.search(told, fault) and "\n" not in fault
        with pytest.raises(SimError, match=told):
            link_libc(tmp_path)


def test_a_missing_picolibc_is_told(monkeypatch):
    monkeypatch.setattr(found, "package", {"litex": found.Package("litex", "2026.4", Path("/"), None)}.get)
    assert found.picolibc_fault() == "pythondata-software-picolibc is missing"


def test_a_checkout_is_told_and_its_sources_are_its_state(tmp_path, monkeypatch):
    """What is edited in a checkout is another LiteX to the caches; a release is its version."""
    folder = tmp_path/"litexish"/"litexish"
    folder.mkdir(parents=True)
    (folder/"__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path/"litexish")
    release = found.package("litexish")
    assert release.checkout is None and release.state == str(release) == "unknown version"
    date = dict(os.environ, GIT_AUTHOR_DATE="2026-08-06T12:00:00Z", GIT_COMMITTER_DATE="2026-08-06T12:00:00Z")
    git  = lambda *a: subprocess.run(["git", "-C", folder.parent, "-c", "user.name=a", "-c", "user.email=a@b", *a], check=True, env=date,
        capture_output=True, text=True).stdout.strip()
    git("init", "-q"), git("add", "."), git("commit", "-qm", "first")
    checkout = found.package("litexish")
    commit   = git("rev-parse", "--short", "HEAD")
    assert str(checkout) == f"unknown version, git {commit} of 2026-08-06 in {folder.parent}"
    before = checkout.state
    assert checkout.state == before
    (folder/"__init__.py").write_text("x = 1\n")
    assert checkout.state != before and ", edited in " in str(found.package("litexish"))
    (folder/"__init__.py").write_text("")
    assert checkout.state == before
    assert found.package("nonesuch") is None


def test_the_installed_litex_is_found():
    """By another way: importing it."""
    import litex
    litex_found = found.package("litex")
    assert Path(litex.__file__).parent == litex_found.folder and litex_found.version == metadata.version("litex")
    assert found.picolibc_fault() == ""


# Choices by LiteX's age ---------------------------------------------------------------------------


def test_only_what_it_takes_is_given():
    """To a Builder as it was, as it is, and as this LiteX has it."""
    older = lambda soc, csr_csv=None: None
    newer = lambda soc, csr_csv=None, build_log=True, libc_mode="minimal": None
    assert found.accepted(older, csr_csv=1, build_log=False) == dict(csr_csv=1)
    assert found.accepted(newer, csr_csv=1, build_log=False) == dict(csr_csv=1, build_log=False)
    assert set(found.accepted(Builder.__init__, csr_csv=1, nonesuch=2)) == {"csr_csv"}


@pytest.mark.parametrize("given, passed", ((dict(), {}), (dict(build_log=True), dict(build_log=False)), (dict(build_log="x.log"),
    dict(build_log="x.log"))))
def test_one_log_in_a_file(given, passed, monkeypatch):
    """Newer LiteX writes litex.log itself, into the same folder as we do: not both; one with another name it may write."""
    seen = {}

    def builder(soc, **arguments):
        seen.update(arguments)
        raise KeyboardInterrupt
    monkeypatch.setattr(board_software, "BoardBuilder", builder)
    with pytest.raises(KeyboardInterrupt):
        build.generate(None, SimpleNamespace(builder_argdict=dict(given, csr_csv=None)), False)
    assert seen == dict(passed, csr_csv=None)


@pytest.mark.parametrize("objects, link", (("boot.o main.o cmd_mem.o", "crt0.o $(OBJECTS)"), ("boot.o main.o cmd_mem.o crt0.o", "$(OBJECTS)")),
    ids=("2024.12", "2026.4"))
def test_small_bios_begins_with_crt0_once(objects, link, tmp_path):
    """LiteX's makefile links crt0.o beside its objects, or newer as one of them; the commands are left out."""
    bios = tmp_path/"soc/software/bios"
    bios.mkdir(parents=True)
    (bios/"Makefile").write_text(f"OBJECTS = {objects}\nifndef LITE\nOBJECTS += readline.o\nendif\nbios.elf: $(OBJECTS)\n\t@echo {link} > linked\n"
        "%.o:\n\t@true\n")
    (tmp_path/"include/generated").mkdir(parents=True)
    (tmp_path/"include/generated/variables.mak").write_text(f"SOC_DIRECTORY={tmp_path}/soc\nBIOS_DIRECTORY={ROOT}/soc/bios\n")
    (tmp_path/"bios").mkdir()
    subprocess.run(["make", "-s", "-C", tmp_path/"bios", "-f", ROOT/"soc/bios/Makefile", "bios.elf"], check=True)
    assert sorted((tmp_path/"bios/linked").read_text().split()) == ["boot.o", "crt0.o", "main.o"]


# Firmware -----------------------------------------------------------------------------------------

# What the library of libc_mode "minimal" is made of, newer LiteX's default (litex/soc/software/libc/Makefile), as far as firmware may call it.
MINIMAL = set("strchr strncpy strncmp strnlen fgetc fputc fputs printf puts strtoul strtoull memcpy memmove memset strcmp strcpy strlen".split())


@pytest.fixture(scope="module")
def simulator():
    """The default SoC, built."""
    return build_simulator()


def symbols(option, *files):
    """Names that nm prints with an option."""
    return set(subprocess.run([f"{TRIPLE}nm", "-j", option, *files], check=True, capture_output=True, text=True).stdout.split())


def test_firmware_needs_the_smallest_libc_alone(simulator):
    """Of what its objects leave to libraries, all that libbase and compiler-rt do not have is in the minimal libc."""
    objects   = list(build_firmware(simulator).parent.glob("*.o"))
    libraries = [simulator.folder/f"software/{name}/{name}.a" for name in ("libbase", "libcompiler_rt")]
    there     = symbols("--defined-only", *objects) | symbols("--defined-only", *libraries)
    linker    = set(re.findall(r"\b_\w+", (ROOT/"firmware/linker.ld").read_text() + (ROOT/"firmware/Makefile").read_text()))
    needed    = symbols("--undefined-only", *objects) - there - linker
    assert {"memcpy", "memset"} <= needed <= MINIMAL


def test_firmware_runs_constructors_of_libraries(simulator, tmp_path):
    """Newer LiteX's crt0 calls what stands between these symbols: they are there, and a constructor stands between them."""
    (tmp_path/"crt0.c").write_text("extern void (*const __preinit_array_start[])(void), (*const __preinit_array_end[])(void);\n"
        "extern void (*const __init_array_start[])(void), (*const __init_array_end[])(void);\n"
        "int made; __attribute__((constructor)) static void make(void) { made = 1; }\n"
        "void _start(void) {\n"
        "for (void (*const *f)(void) = __preinit_array_start; f != __preinit_array_end; f++) (*f)();\n"
        "for (void (*const *f)(void) = __init_array_start; f != __init_array_end; f++) (*f)(); }\n")
    gcc = [f"{TRIPLE}gcc", "-march=rv32i2p0_m", "-mabi=ilp32", "-Os", "-ffreestanding", "-nostdlib"]
    subprocess.run([*gcc, "-c", "crt0.c"], cwd=tmp_path, check=True)
    subprocess.run([*gcc, "-Wl,--gc-sections", "-Wl,--defsym=_image_offset=0x400000", "-L", simulator.generated.parent, "-T",
        ROOT/"firmware/linker.ld", "crt0.o", "-o", "x.elf"], cwd=tmp_path, check=True)
    lines = subprocess.run([f"{TRIPLE}nm", "x.elf"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    place = {line.split()[2]: int(line.split()[0], 16) for line in lines}
    assert place["__init_array_end"] - place["__init_array_start"] == 4 and place["__preinit_array_end"] == place["__preinit_array_start"]


# Requirements -------------------------------------------------------------------------------------


def requirements():
    """Of setup.py, of all extras, and of the build backend."""
    text = (ROOT/"setup.py").read_text() + (ROOT/"pyproject.toml").read_text()
    return [Requirement(r) for r in re.findall(r'"([\w-]+[=<>~!]=?[^"]*)"', text)]


def pins():
    """Version of each package in constraints.txt."""
    lines = [line for line in (ROOT/"constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines) and lines == sorted(lines)
    return dict(line.split("==") for line in lines)


def test_requirements_replace_nothing_newer():
    """Lower bounds alone; the pinned version is at or above each; LiteX as it is, newer, and from git, satisfies them."""
    there = {canonicalize_name(r.name): r for r in requirements() if not r.name.startswith("python_")}
    assert len(there) > 30
    for name, requirement in there.items():
        assert [s.operator for s in requirement.specifier] == [">="], name
        assert requirement.specifier.contains(pins()[name]), name
    for name, version in dict(litex="2026.4", litedram="2026.4", litescope="2027.1.dev3", migen="0.9.2").items():
        assert there[name].specifier.contains(Version(version), prereleases=True)


def test_constraints_pin_all_that_is_pulled_in():
    """What setup.py names and is installed here, and what that needs in turn."""
    pinned, todo, seen = pins(), [r for r in requirements()], set()
    while todo:
        name = canonicalize_name(todo.pop().name)
        if name in seen:
            continue
        seen.add(name)
        assert name in pinned, name
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        todo += [r for r in map(Requirement, needs) if not r.marker or r.marker.evaluate({"extra": ""})]
    assert len(seen) > 50


def test_set_up_uses_the_constraints():
    """For packages and for the build backend, whose environment pip's option does not reach; the Makefile notices a change."""
    assert "export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt\n" in (ROOT/"setup.sh").read_text()
    assert re.search(r"^\$\(VENV\)/\.ready-%:.* constraints\.txt ", (ROOT/"Makefile").read_text(), re.M)


# Doctor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("have, fine", (("2024.12", True), ("2026.4", True), ("2026.04", True), ("2024.8", False), ("2023.12", False),
    ("2025.4+local", True)))
def test_doctor_compares_with_the_lowest(have, fine, monkeypatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda name: have)
    check = doctor._check_package("litex>=2024.12")
    assert check.found == (have if fine else "") and check.required
    assert fine or (check.fix == f'pip install "litex>=2024.12"  # found {have}' and check.purpose == "version 2024.12 or newer")
    assert not doctor._check_package('pytest>=2024.12; extra == "dev"').required


def test_doctor_tells_which_litex_it_found_and_which_were_tried(monkeypatch):
    """The README says the same of what was tried."""
    lines = []
    doctor.main([], lines.append)
    (line,) = [line for line in lines if line.startswith("LiteX is ")]
    assert line == f"LiteX is {found.package('litex')}. Tried: {found.TRIED}." and metadata.version("litex") in line
    readme = (ROOT/"README.md").read_text()
    assert all(text in readme for text in ("2024.12", "2026.4", "2026-08-06", "1.8.11") if text in found.TRIED)
    assert len(re.findall(r"\d{4}\.\d+|\d{4}-\d\d-\d\d|\d\.\d\.\d+", found.TRIED)) == 4


def test_set_up_installs_every_command_that_is_called_by_name():
    """Those of tests and tools."""
    called = set()
    for path in (p for folder in ("accel", "soc", "host", "firmware", "tests") for p in (ROOT/folder).rglob("*.py")):
        called |= set(re.findall(r'(?:subprocess\.\w+|\b_run)\(\s*\["([\w.+-]+)"', path.read_text()))
    tools  = {command for command, *_ in doctor.TOOLS}
    assert {"make", "gcc", "verilator", "git"} <= called & tools
    assert called - tools - {"sh", "bash"} == set()   # (No Debian is without them.)
