# SPDX-License-Identifier: BSD-2-Clause
"""Builds and runs the simulated SoC.

    with Simulator(build_simulator(CoreConfig()), firmware, image) as simulator:
        client.connect(simulator.url)

What is built is cached (soc/cache.py) in layers, so that as little as possible is made again: `libc` (picolibc, shared by
all configurations), `soc` (one per configuration and version of our sources: headers, libraries, Verilog), `vsim` (one
per distinct Verilog: the compiled simulator) and `firmware`. Model and firmware are read when the simulator starts.

By hand: python3 -m litellama.soc.sim --help
"""

from dataclasses import asdict, dataclass, fields
import argparse
import contextlib
import json
import logging
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import time

from ..accel.config import CoreConfig
from .cache import cached, digest, fresh_names
from .found import accepted, package, picolibc_fault

ROOT = Path(__file__).absolute().parent

# Sources and packages that decide what the Verilog is.
_GATEWARE = (ROOT.parent/"accel", ROOT)
_VERSIONS = ("litex", "litedram", "migen", "pythondata-cpu-vexriscv")

# --x-*: no randomised unknowns. Measured, simulated cycles per CPU second while SmolLM2's layers and a classifier stream, against
# g++ 12 -O3: this (clang++-19 -O2) +16 to +24 %, clang++-16 +17 %, clang++-14 -12 %, g++ -O2 0 to +3 %, with a profile 3 % more,
# -Os -33 %; -march=native a few per cent more, but then what is built belongs to one machine. Verilator 5.048: +8 % with g++, none
# with clang++-19. One evaluation a cycle, clock enables in the arithmetic: within the noise, which is large: the same object
# files, linked otherwise, differ by up to 20 %. Earlier: split functions -20 %, --flatten -8 %, LiteX's regular_comb -20 %.
_VERILATOR_FLAGS = ("-O3", "--cc", "--exe", "--top-module", "sim", "--prefix", "Vsim", "--Mdir", "obj_dir",
    "--x-assign", "fast", "--x-initial", "fast", "--noassert", "--unroll-count", "256",
    "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-COMBDLY")
_COMPILERS  = ("clang++-19", "g++")   # The first that is there.
_MAKE_FLAGS = ("OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2")   # Slow: what runs once.
_FIRMWARE = (".c", ".h", ".S", ".ld", ".py")
# LiteX's own libraries that the firmware may link; boards have more, the firmware needs no more.
_LIBRARIES = ("libc", "libcompiler_rt", "libbase")


class SimError(ValueError):
    """A build that failed or a simulator that ended: one line that says where to look."""


@dataclass(frozen=True)
class SimBuild:
    """A built simulator. folder: csr.json, csr.csv and software/include/generated as LiteX lays them out."""
    folder:       Path
    binary:       Path
    clk_freq:     int
    image_offset: int

    @property
    def generated(self):
        """Folder of csr.h, soc.h, mem.h, variables.mak."""
        return self.folder/"software/include/generated"


def _run(command, log, what, cwd=None):
    """Run a build command with its output in `log`; LiteX's builds need the virtual environment's meson and ninja. Where Ctrl-C or a
    signal ends us, what it has started ends, too; if we are killed, that keeps the cache's lock until it has ended."""
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath)
    if not shutil.which(command[0], path=path):
        raise SimError(f"{command[0]} is missing: `litellama doctor` shows how to install it")
    with open(log, "a") as f:
        process = subprocess.Popen(command, cwd=cwd, stdout=f, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, process_group=0,
            close_fds=False, env=dict(os.environ, PATH=path, CCACHE_BASEDIR=str(cwd or ""), CCACHE_NOHASHDIR="1"))
        try:
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)   # Compilers remove their temporary files.
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        raise SimError(f"{what} failed (status {status}): see {log}")


def _ccache():
    return ["ccache"] if shutil.which("ccache") else []


def _compiler():
    """Name of the C++ compiler that is used, and its version."""
    name = next(filter(shutil.which, _COMPILERS), _COMPILERS[-1])
    if not shutil.which(name):
        return name, ""   # _run() will say so, if it is needed.
    return name, subprocess.run([name, "--version"], capture_output=True, text=True).stdout


# Software libraries -------------------------------------------------------------------------------

def _make_library(software, name, log):
    """Compile LiteX's library `name` in software/<name>."""
    from litex.soc.integration.builder import soc_directory
    (software/name).mkdir(exist_ok=True)
    _run(["make", "-j2", "-C", str(software/name), "-f", f"{soc_directory}/software/{name}/Makefile",
        "CCACHE=" + " ".join(_ccache())], log, f"build of {name}")


def _build_libc(folder, include):
    """Picolibc and compiler-rt depend on the CPU's flags alone: compile them once, keep what is linked (MB of 430)."""
    shutil.copytree(include, folder/"include")
    variables = folder/"include/generated/variables.mak"
    variables.write_text(variables.read_text().replace(str(include), str(folder/"include")))
    for name in _LIBRARIES[:2]:
        _make_library(folder, name, folder/"build.log")
        for path in (folder/name).iterdir():
            if path.name not in (f"{name}.a", "picolibc.h"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if re.search("^LTO=1", variables.read_text(), re.M):   # Objects for the linker's optimiser have no symbols to strip.
        return
    triple = re.search(r"^TRIPLE=(.*)", variables.read_text(), re.M).group(1)
    for name in _LIBRARIES[:2]:
        _run([f"{triple}-strip", "--strip-debug", f"{folder}/{name}/{name}.a"], folder/"build.log", "strip")


def link_libc(software):
    """Link the cached C library, built for this CPU by this LiteX, into a LiteX software folder; returns its packages' names."""
    if fault := picolibc_fault():
        raise SimError(fault)
    include  = software/"include"
    text     = (include/"generated/variables.mak").read_text()
    flags    = " ".join(re.findall(r"^(?:CPUFLAGS=.*|LTO=1|PICOLIBC_FORMAT=(?!integer).*|LIBC_MODE=.*)", text, re.M))
    packages = [package(f"pythondata-software-{name}").state for name in ("picolibc", "compiler-rt")]
    litex    = package("litex")
    packages += [litex.state] if litex.checkout else []
    libc     = cached("libc", digest(flags, *packages), lambda target: _build_libc(target, include))
    for name in _LIBRARIES[:2]:
        if (software/name).is_dir() and not (software/name).is_symlink():   # LiteX makes an empty one.
            (software/name).rmdir()
        if not (software/name).exists():
            (software/name).unlink(missing_ok=True)
            (software/name).symlink_to(libc/name)
    return _LIBRARIES[:2]


def _build_libraries(folder):
    link_libc(folder/"software")
    _make_library(folder/"software", "libbase", folder/"build.log")


# Simulator ----------------------------------------------------------------------------------------

def _generate(folder, config, memory, options):
    """Elaborate the SoC: Verilog, headers, CSR map. Returns the SoC."""
    from litex.soc.integration.builder import Builder
    from .memory import get_memory
    from .sim_soc import LlamaSimSoC
    fresh_names()
    soc     = LlamaSimSoC(config, get_memory(memory), **options)
    builder = Builder(soc, output_dir=folder, compile_software=False, compile_gateware=False, csr_csv=folder/"csr.csv",
        csr_json=folder/"csr.json", **accepted(Builder.__init__, build_log=False))
    builder.software_packages  = [package for package in builder.software_packages if package[0] in _LIBRARIES]
    builder.software_libraries = list(_LIBRARIES)
    builder.build(run=False)
    return soc


def _compile(folder, gateware, sources, defines):
    """Verilate and compile the design; memories' contents are read from the folder in which the simulator starts."""
    for path in gateware.glob("*.init"):
        shutil.copy(path, folder)
    flags = " ".join(f"-D{key}={value}" for key, value in defines.items())
    log   = folder/"build.log"
    cxx   = _compiler()[0]
    _run(["verilator", *_VERILATOR_FLAGS, "-CFLAGS", flags, *map(str, sources), str(ROOT/"sim_main.cpp")], log, "verilator",
        cwd=folder)
    _run(["make", "-j2", "-C", str(folder/"obj_dir"), "-f", "Vsim.mk", "Vsim", *_MAKE_FLAGS, f"CXX={cxx}", f"LINK={cxx}",
        "OBJCACHE=" + " ".join(_ccache())], log, "compilation of the simulator", cwd=folder)
    (folder/"obj_dir/Vsim").rename(folder/"Vsim")
    shutil.rmtree(folder/"obj_dir")


def _build_soc(folder, config, memory, options):
    from .integration import IMAGE_OFFSET
    with open(folder/"litex.log", "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        here = os.getcwd()
        try:
            soc = _generate(folder, config, memory, options)
        finally:
            os.chdir(here)
    _build_libraries(folder)
    gateware = folder/"gateware"
    verilog  = gateware/"sim.v"
    sources  = [verilog] + [Path(name) for name, *_ in soc.platform.sources if Path(name).name != verilog.name]
    defines  = dict(SIM_DRAM_BYTES=f"{soc.bus.regions['main_ram'].size}ull", SIM_WORD_BYTES=soc.word_bytes,
        SIM_READ_LATENCY=soc.sdrphy.settings.read_latency)
    code     = "\n".join(line for line in verilog.read_text().splitlines() if not line.startswith("//"))  # No dates.
    version  = subprocess.run(["verilator", "--version"], capture_output=True, text=True).stdout
    key      = digest(code, json.dumps(defines), version, *_VERILATOR_FLAGS, *_compiler(), *_MAKE_FLAGS,
        ROOT/"sim_main.cpp", *sources[1:], *sorted(gateware.glob("*.init")))
    vsim     = cached("vsim", key, lambda target: _compile(target, gateware, sources, defines))
    facts    = dict(binary=str(vsim/"Vsim"), clk_freq=soc.sys_clk_freq, image_offset=IMAGE_OFFSET)
    (folder/"simulator.json").write_text(json.dumps(facts))


def build_simulator(config=CoreConfig(), memory="ddr3x16", l2_bytes=8192, **options):
    """SimBuild of the SoC with a core of `config` (None: without) and `memory` (see soc/memory.py), from the cache if it
    is there. options: as LlamaSimSoC takes them."""
    options = dict(options, l2_bytes=l2_bytes)
    sources = [path for folder in _GATEWARE for path in sorted(folder.glob("*.py"))]
    key     = digest(json.dumps([config and asdict(config), memory, options], sort_keys=True), sys.version, *_compiler(),
        *(package(name).state for name in _VERSIONS), *sources, ROOT/"sim_main.cpp")
    folder  = cached("soc", key, lambda target: _build_soc(target, config, memory, options))
    facts   = json.loads((folder/"simulator.json").read_text())
    return SimBuild(folder, Path(facts["binary"]), facts["clk_freq"], facts["image_offset"])


def make_firmware(folder, build_folder, source, target):
    """Make `target` in `folder` by the Makefile in `source`, for the SoC whose LiteX output is in `build_folder`."""
    _run(["make", "-C", str(folder), "-f", str(source/"Makefile"), f"BUILD_DIR={build_folder}", f"FIRMWARE_DIR={source}",
        f"PYTHON={sys.executable}", target], folder/"build.log", "build of the firmware")


def build_firmware(build, source=None, target="fw.bin"):
    """Path of `target` made by the Makefile in `source` (default: ours) for the SoC of `build`, from the cache if there."""
    source = Path(source or ROOT.parent/"firmware").absolute()
    files  = [path for path in sorted(source.rglob("*")) if path.suffix in _FIRMWARE or path.name == "Makefile"]
    if not files:
        raise SimError(f"no firmware sources in {source}")
    folder = cached("firmware", digest(str(build.folder), target, *files),
        lambda folder: make_firmware(folder, build.folder, source, target))
    return folder/target


def _unnamed(name, data=b""):
    """File in memory with `data`: no folder has it, and it ends with the processes that hold it."""
    file = os.fdopen(os.memfd_create(f"litellama-{name}"), "w+b")
    file.write(data)
    file.flush()
    return file


class Simulator:
    """A running simulator, as a context manager. It ends with the `with` block, and with this process however that ends; no file is
    left behind then. Ctrl-C is not for it: it stands in the terminal's foreground group, so that Ctrl-Z stops and `fg` continues both.

    build: SimBuild. firmware: file for the DRAM. image: the same, or bytes. rx_gap_cycles: least distance of characters to the SoC.
    url: its UART for pyserial's serial_for_url, `port` the same as a number. cycles, seconds (of CPU time): once stopped.
    """
    def __init__(self, build, firmware, image=None, rx_gap_cycles=100, max_cycles=None):
        self.build   = build
        self.cycles  = None
        self.seconds = None
        self.port    = None
        self._arguments = [f"+firmware={Path(firmware).absolute()}", f"+rx_gap={rx_gap_cycles}", "+control",
            f"+image_offset={build.image_offset}"]
        self._image = None
        if isinstance(image, bytes):   # Read by way of this process: the simulator does not keep it.
            self._image, image = _unnamed("image", image), None
            self._arguments.append(f"+image=/proc/{os.getpid()}/fd/{self._image.fileno()}")
        if image:
            self._arguments.append(f"+image={Path(image).absolute()}")
        if max_cycles is not None:
            self._arguments += [f"+max_cycles={max_cycles}"]

    @property
    def url(self):
        """Address of the UART."""
        return f"socket://127.0.0.1:{self.port}"

    def __enter__(self):
        self._log = _unnamed("log")
        before    = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])   # What is blocked is inherited.
        try:
            self._process = subprocess.Popen([self.build.binary, *self._arguments], cwd=self.build.binary.parent,
                stdin=subprocess.PIPE, stdout=self._log, stderr=subprocess.STDOUT)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            self.port = int(self._wait_for(r"^uart socket://127\.0\.0\.1:(\d+)$", seconds=60).group(1))   # Files were read before.
        except BaseException:
            self.stop()
            raise
        finally:
            if self._image:
                self._image.close()
        return self

    def __exit__(self, *_):
        self.stop()

    def _wait_for(self, pattern, seconds):
        end = time.monotonic() + seconds
        while True:
            ended = self._process.poll() is not None
            found = re.search(pattern, self.output(), re.M)
            if found:
                return found
            if ended or time.monotonic() > end:
                last = self.output().strip().splitlines()[-1:] or ["it printed nothing"]
                raise SimError(f"the simulator did not start: {last[0]}")
            time.sleep(0.005)

    def output(self):
        """What the simulator itself (not the SoC) has printed so far."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def alive(self):
        """Whether it runs (or pauses)."""
        return self._process.poll() is None

    def wait(self, seconds=None):
        """Wait until it ends by itself (max_cycles); True if it did."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _tell(self, command):
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(command)
            self._process.stdin.flush()

    def pause(self):
        """Stop the clock, so that a machine that waits for its user does not burn a core."""
        self._tell(b"p")

    def resume(self):
        """Let the clock run on."""
        self._tell(b"r")

    def stop(self):
        """End it. Sets `cycles` and `seconds`. Again: nothing."""
        if self._log.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if not self.wait(5):
            self._process.kill()
            self._process.wait()
        found = re.search(r"^stopped (\d+) cycles ([\d.]+) seconds$", self.output(), re.M)
        if found:
            self.cycles, self.seconds = int(found.group(1)), float(found.group(2))
        self._log.close()


# Command line -------------------------------------------------------------------------------------

def _console(simulator):
    """Copy what the UART says to standard output until the simulator ends."""
    import socket
    with socket.create_connection(("127.0.0.1", simulator.port)) as client:
        while data := client.recv(4096):
            sys.stdout.buffer.write(data)
            sys.stdout.flush()


def main(argv=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m litellama.soc.sim", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("build", "run"), help="build: print the folder of the build. run: until ^C")
    parser.add_argument("--memory", default="ddr3x16", help="see soc/memory.py (default: ddr3x16)")
    parser.add_argument("--l2-bytes", type=int, default=8192, help="the CPU's L2 cache (default: 8192)")
    parser.add_argument("--no-core", action="store_true", help="the SoC without the decoder core")
    parser.add_argument("--firmware", help="binary to run (default: built from firmware/)")
    parser.add_argument("--image", help="model image")
    parser.add_argument("--max-cycles", type=int, help="stop after so many")
    parser.add_argument("--console", action="store_true", help="copy the UART's output here")
    for field in fields(CoreConfig):
        parser.add_argument("--" + field.name.replace("_", "-"), type=int, default=field.default,
            help=f"of the core (default: {field.default})")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    try:
        config = None if args.no_core else CoreConfig(**{f.name: getattr(args, f.name) for f in fields(CoreConfig)})
        build  = build_simulator(config, args.memory, args.l2_bytes)
        if args.command == "build":
            print(build.folder)
            return 0
        firmware = args.firmware or build_firmware(build)
        with Simulator(build, firmware, args.image, max_cycles=args.max_cycles) as simulator:
            print(simulator.url, file=sys.stderr)
            with contextlib.suppress(KeyboardInterrupt):
                _console(simulator) if args.console else simulator.wait()
        if simulator.cycles:
            print(f"{simulator.cycles} cycles, {simulator.cycles/simulator.seconds/1e6:.3f} M/s", file=sys.stderr)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
