# SPDX-License-Identifier: BSD-2-Clause
"""Runs what LiteX wrote for yosys, nextpnr-ecp5 and ecppack, a step at a time: what is done already, with the same inputs and
options, is not done again, so that seeds can be added later and a build goes on where it was stopped."""

import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import time

from ..accel.config import check
from . import ecp5
from .cache import digest


def _plain(path):
    """A file without its comments, which have the date, and the hierarchy in an order of chance."""
    return re.sub(r"^//.*|^#.*|/\*(?s:.*?)\*/", "", path.read_text(errors="replace"), flags=re.M)


class Trellis:
    """The build in folder `gateware` of the design `name`. seconds: CPU time of each step that was ever run there."""

    def __init__(self, gateware, name):
        self.folder   = Path(gateware)
        self.name     = name
        script        = (self.folder/f"build_{name}.sh").read_text()
        commands      = {line.split()[0]: shlex.split(line) for line in script.splitlines() if line and not line.startswith(("#", "set"))}
        self.options  = []     # More of nextpnr's.
        self._yosys   = commands["yosys"]
        self._pnr     = self._without(commands["nextpnr-ecp5"], ("--seed", "--textcfg"), ("--timing-allow-fail",))
        self._pack    = commands["ecppack"]
        self.seconds  = {}
        self._netlist = None   # Key of the netlist that yosys was asked for.

    @staticmethod
    def _without(command, options, flags):
        """`command` without options that have a value, and without flags."""
        kept = []
        for i, word in enumerate(command):
            if word not in (*options, *flags) and not (i and command[i - 1] in options):
                kept.append(word)
        return kept

    @staticmethod
    def _stamp(path):
        """What a step that was done has left; {} if it was not."""
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def _step(self, step, key, command, *outputs):
        """Run `command` unless `outputs` are there and were made with the same `key`."""
        stamp = self.folder/f"{step}.done.json"
        done  = self._stamp(stamp)
        if done.get("key") != key or not all((self.folder/output).exists() for output in outputs):
            stamp.unlink(missing_ok=True)
            log   = self.folder/f"{step}.log"
            begin = time.monotonic(), sum(os.times()[2:4])
            with open(log, "w") as f:
                status = subprocess.run(command, cwd=self.folder, stdout=f, stderr=f, stdin=subprocess.DEVNULL).returncode
            errors = re.findall(r"^(?:ERROR|error): .*", log.read_text(errors="replace"), re.M)
            check(status == 0, f"{command[0]} failed (status {status}): {errors[0] if errors else 'no reason given'}: see {log}")
            done = dict(key=key, wall=round(time.monotonic() - begin[0]), cpu=round(sum(os.times()[2:4]) - begin[1]))
            stamp.write_text(json.dumps(done))
        self.seconds[step] = {k: done[k] for k in ("wall", "cpu")}

    @property
    def _netlist_key(self):
        script  = (self.folder/f"{self.name}.ys").read_text()
        sources = [Path(p) for p in re.findall(r"^read_\w+.*?(\S+)$", script, re.M)]
        sources = [self.folder/p for p in sources] + sorted(self.folder.glob("*.init"))
        return digest(re.sub(r"\S*/", "", script), *map(_plain, sources))

    def synthesise(self):
        """Cells of the netlist. Comes before all else."""
        self._netlist = self._netlist_key
        self._step("yosys", self._netlist, self._yosys, f"{self.name}.json")
        return ecp5.cells(self.folder/f"{self.name}.json", self.name)

    def _placing(self, seed):
        """(command, key, report) of placing with `seed`."""
        report  = f"seed{seed}.json"
        command = [*self._pnr, *self.options, "--seed", str(seed), "--textcfg", f"seed{seed}.config", "--report", report, "--timing-allow-fail"]
        return command, digest(self._netlist, " ".join(command), _plain(self.folder/f"{self.name}.lpf")), report

    @property
    def key(self):
        """Of netlist, constraints and options: where it is the same, on any machine, a seed gives the same placement."""
        return self._placing(0)[1]

    def place(self, seed):
        """Place and route with `seed`: clock -> {achieved, constraint} in MHz."""
        self.synthesise()
        command, key, report = self._placing(seed)
        self._step(f"seed{seed}", key, command, report, f"seed{seed}.config")
        clocks  = json.loads((self.folder/report).read_text())["fmax"]
        return {name: clock for name, clock in clocks.items() if clock["constraint"]}

    def placed(self):
        """Seeds that this very design was placed with before."""
        stamps = {int(path.name[4:-10]): self._stamp(path) for path in self.folder.glob("seed*.done.json")}
        return sorted(seed for seed, stamp in stamps.items() if stamp.get("key") == self._placing(seed)[1])

    def pack(self, seed):
        """Path of the bitstream of a placed seed."""
        source = f"{self.name}.config"
        (self.folder/source).write_bytes((self.folder/f"seed{seed}.config").read_bytes())
        self._step("ecppack", digest(" ".join(self._pack), (self.folder/source).read_text()), self._pack, f"{self.name}.bit")
        return self.folder/f"{self.name}.bit"
