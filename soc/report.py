# SPDX-License-Identifier: BSD-2-Clause
"""The tables of soc/README.md, made by the commands that they state.

    python3 -m litellama.soc.report elaborate              every board, and five other targets: generated, linted
    python3 -m litellama.soc.report estimate [BOARD ...]   ECP5 boards: synthesis, a few minutes each
    python3 -m litellama.soc.report build [BOARD ...] --seeds 1,2,3    place and route, 6 to 40 CPU-minutes a seed
    python3 -m litellama.soc.report tokens [BOARD ...]     cycles of a token in simulation, 10 CPU-minutes a board
    python3 -m litellama.soc.report show                   the tables from what was run so far
    python3 -m litellama.soc.report write                  ... into soc/README.md

What was run is kept in the cache; nothing is run twice for the same design and seed, so `build` can be stopped and go on another
day. On another machine, too: `write` adds to the clocks that are there of the same design. `estimate` and `build` fail if a board
takes more than its budget or misses its clock. `elaborate` and `tokens` run again each time.
"""

import argparse
import json
from pathlib import Path
import re
import subprocess
import sys
import time

from ..accel.config import check
from . import ecp5
from .boards import get_board, known
from .cache import cache_folder
from .lint import lint

README = Path(__file__).absolute().parent/"README.md"
# Model -> (MB of DRAM with firmware, keys and values; options of `litellama bench`).
MODELS = {
    "default": (2, ("--context", "64")),
    "SmolLM2": (116, ("--shape", "smollm2-135m", "--type", "q4_1", "--layers", "4", "--context", "512")),
}
OTHERS = ("trellisboard", "digilent_genesys2", "digilent_arty_s7", "terasic_de0nano", "qmtech_wukong")   # By the generic path.


def variants():
    """(board's name, FPGA, Board) of each build, those for ECP5 by their size first."""
    return [(name, fpga, get_board(name)) for name in known() for fpga in get_board(name).fits]


def _folder(name, fpga, kind="boards"):
    return cache_folder()/kind/"-".join(filter(None, (name, fpga)))


def _elaborated():
    """Path of what `elaborate` found."""
    return _folder("report.json", "", "elaborate")


def _run(name, fpga, *options, kind="boards"):
    """Run `litellama build` for one of them; returns (status, what it printed)."""
    board  = get_board(name)
    choice = [f"--{board.choice}", fpga] if board.choice else []
    folder = _folder(board.name, fpga, kind)
    folder.mkdir(parents=True, exist_ok=True)
    done   = subprocess.run([sys.executable, "-m", "litellama.host", "build", "--board", name, *choice, *options, "--output-dir",
        str(folder)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def elaborate():
    """Generate every board and the other targets, with their software, and lint them; 1 if one fails."""
    results = {}
    for name, fpga, _ in [*variants(), *((f"litex_boards.targets.{name}", "", None) for name in OTHERS)]:
        begin = time.monotonic()
        status, text = _run(name, fpga, "--no-compile-gateware", kind="elaborate")
        short, folder = name.rpartition(".")[2], _folder(name.rpartition(".")[2], fpga, "elaborate")
        faults = [text.strip().splitlines()[-1]] if status else []
        if not status:
            (verilog,) = [path for path in (folder/"gateware").glob("*.v") if path.name != "lint_stubs.v"]
            faults     = lint(folder/"gateware", verilog.stem)
        results[f"{short} {fpga}".strip()] = dict(faults=faults, seconds=round(time.monotonic() - begin), generic=short != name)
        print(f"{short} {fpga}: {'; '.join(faults) or 'no complaint'}", flush=True)
    _elaborated().write_text(json.dumps(results, indent=2) + "\n")
    return int(any(result["faults"] for result in results.values()))


def _measured():
    """Path of what `tokens` found."""
    return _folder("report.json", "", "tokens")


def _dram_mb(board):
    """MB of a board's DRAM."""
    number, unit = re.search(r"(\d+) (MB|GB)", board.about).groups()
    return int(number)*(1024 if unit == "GB" else 1)


def _bench(name, fpga, options):
    """What `litellama bench` says of one of them (host.measure.measure); ValueError with its last line if it fails."""
    done = subprocess.run([sys.executable, "-m", "litellama.host", "bench", "--board", f"{name}:{fpga}", "--json", *options],
        capture_output=True, text=True)
    check(done.returncode == 0, f"{name} {fpga}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return json.loads(done.stdout)


def tokens(names=()):
    """Measure a token of each model that a board's DRAM holds, of all boards that have a simulated memory like their own; boards
    that differ in their clock only are simulated once. 1 if one fails."""
    done, status = {}, 0
    for name, fpga, board in variants():
        if names and name not in names:
            continue
        if not board.memory:
            print(f"{name} {fpga}: no simulated DRAM is like its", flush=True)
            continue
        models = {}
        for model, (needed, options) in MODELS.items():
            if needed > _dram_mb(board):
                continue
            same = json.dumps((model, board.memory, board.fit(fpga).core, board.simulated(fpga)), sort_keys=True)
            if same not in done:
                try:
                    done[same] = _bench(name, fpga, options)
                except ValueError as error:
                    print(error, flush=True)
                    status = 1
                    continue
            models[model] = {key: done[same][key] for key in ("cycles_per_token", "mbu", "peak_bytes_per_cycle")}
        if not models:
            continue
        path    = _measured()
        results = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results | {f"{name} {fpga}".strip(): models}, indent=2) + "\n")
        print(f"{name} {fpga}:", ", ".join(f"{m} {r['cycles_per_token']:,} cycles" for m, r in models.items()), flush=True)
    return status


def _reports():
    """(name, fpga, Fit, report.json of the last build) of those boards that were synthesised."""
    for name, fpga, board in variants():
        path = _folder(name, fpga)/"report.json"
        if path.exists():
            report = json.loads(path.read_text())
            if "key" in report:   # Earlier versions' have none: to be built again.
                yield name, fpga, board.fit(fpga), report


def over_budget(names=()):
    """What is above a board's budget or misses its clock, in words."""
    faults = []
    for name, fpga, fit, report in _reports():
        if not names or name in names:
            for key, limit in fit.budget.items():
                if report["usage"][key] > limit:
                    faults.append(f"{name} {fpga}: {report['usage'][key]} {ecp5.NAMES[key]}, budget {limit}")
            faults += [f"{name} {fpga}: seed {seed}: {clock['achieved']:.1f} MHz of {clock['constraint']:.1f}"
                for seed, clocks in report["clocks"].items() for clock in clocks.values() if clock["achieved"] < clock["constraint"]]
    return faults


def _sys_clock(clocks, sys_clk_freq):
    """MHz that the system's clock reached, among the clocks of one placement: the slowest of those that were asked for its frequency
    (nextpnr names it after any register)."""
    return min(c["achieved"] for c in clocks.values() if abs(1e6*c["constraint"]/sys_clk_freq - 1) < 0.01)


def _written(name):
    """Lines of a table as it stands in soc/README.md."""
    return README.read_text().partition(_begin(name))[2].partition(_end(name))[0].splitlines()


def _begin(name):
    return f"<!-- report: {name} -->\n"


def _end(name):
    return f"<!-- end: {name} -->"


def _clocks(report, there):
    """Seed -> MHz of the system's clock, as text: of a report, and of the rows `there` of the very same design."""
    clocks = {}
    for row in there:
        if f"| `{report['key']}` |" in row:
            clocks |= dict(re.findall(r"(\d+): ([\d.]+)", row.split(" | ")[7]))
    clocks |= {seed: f"{_sys_clock(c, report['sys_clk_freq']):.1f}" for seed, c in report["clocks"].items()}
    return {seed: clocks[seed] for seed in sorted(clocks, key=int)}


def resources_table():
    """Markdown: what each ECP5 board takes, its clock at the seeds that were run, time and command. What was not run on this machine
    stays as it stands in soc/README.md: rows of boards, and clocks of the very same design."""
    heads = ("board", "core: lanes, columns, ports", "LUT", "FF", "DP16KD", "MULT18X18D", "MHz asked", "reached, by seed",
        "design", "CPU s: yosys, a seed", "command")
    rows  = [f"| {' | '.join(heads)} |", "|---"*len(heads) + "|"]
    built = {(name, fpga): report for name, fpga, _, report in _reports()}
    there = _written("resources")
    for name, fpga, board in variants():
        report = built.get((name, fpga))
        if not report:
            rows += [row for row in there if f"`litellama build --board {name} --{board.choice} {fpga} " in row]
            continue
        has    = ecp5.device(report["part"])
        cells  = [f"{value:,} ({100*value/getattr(has, key):.0f} %)" for key, value in report["usage"].items()]
        core   = report["config"]
        clocks = _clocks(report, there)
        placed = [s["cpu"] for step, s in report["seconds"].items() if step.startswith("seed")]
        times  = f"{report['seconds']['yosys']['cpu']}, {round(sum(placed)/len(placed)) if placed else '-'}"
        options = re.sub(r" *(--output-dir \S+|--estimate|--seeds \S+)", "", report["options"]) + f" --seeds {','.join(clocks) or 1}"
        rows.append(f"| {name}, {report['part']} | {core['lanes']}, {core['columns']}, {core['ports']} | {' | '.join(cells)} "
            f"| {report['sys_clk_freq']/1e6:.0f} | {', '.join(map(': '.join, clocks.items())) or 'not run'} "
            f"| `{report['key']}` | {times} | `litellama build {options}` |")
    return rows


def elaborate_table():
    """Markdown: boards and targets that were generated and linted."""
    if not _elaborated().exists():
        return _written("elaborate")
    rows = ["| board | Verilator | seconds |", "|---|---|---|"]
    for name, result in json.loads(_elaborated().read_text()).items():
        target = f"`--board litex_boards.targets.{name}`" if result["generic"] else name
        rows.append(f"| {target} | {'; '.join(result['faults']) or 'no complaint'} | {result['seconds']} |")
    return rows


def tokens_table():
    """Markdown: tokens/s of the boards and share of the DRAM's peak; rows that were not run here stay."""
    heads   = ("board", "MHz", "DRAM: MB", "peak, MB/s", *(f"{name}: tokens/s (share of the peak)" for name in MODELS))
    rows    = [f"| {' | '.join(heads)} |", "|---"*len(heads) + "|"]
    results = json.loads(_measured().read_text()) if _measured().exists() else {}
    for name, fpga, board in variants():
        label = f"{name} {fpga}".strip()
        if label not in results:
            rows += [row for row in _written("tokens") if row.startswith(f"| {label} | ")]
            continue
        clk_freq = board.defaults(fpga)["sys_clk_freq"]
        has      = results[label]
        speeds   = [f"{clk_freq/has[m]['cycles_per_token']:,.2f} ({has[m]['mbu']:.3f})" if m in has else "too large" for m in MODELS]
        peak     = next(iter(has.values()))["peak_bytes_per_cycle"]
        rows.append(f"| {label} | {clk_freq/1e6:.0f} | {_dram_mb(board):,} | {peak*clk_freq/1e6:,.0f} | {' | '.join(speeds)} |")
    return rows


TABLES = dict(resources=resources_table, elaborate=elaborate_table, tokens=tokens_table)


def write():
    """Put the tables into soc/README.md, between their marks."""
    text = README.read_text()
    for name, table in TABLES.items():
        begin, end = _begin(name), _end(name)
        check(begin in text and end in text, f"{README.name} has no marks for the table {name}")
        head, _, rest = text.partition(begin)
        text = head + begin + "".join(f"{row}\n" for row in table()) + end + rest.partition(end)[2]
    README.write_text(text)


def main(argv=None):
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m litellama.soc.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=("elaborate", "estimate", "build", "tokens", "show", "write"))
    parser.add_argument("boards", nargs="*", help="of estimate and build (default: all for ECP5) and tokens (default: all)")
    parser.add_argument("--seeds", default="1,2,3")
    args = parser.parse_args(argv)
    for name in args.boards:
        if name not in known():
            parser.error(f"board is {name!r}, must be one of {', '.join(known())}")
    if args.command == "elaborate":
        return elaborate()
    if args.command == "tokens":
        return tokens(args.boards)
    if args.command in ("estimate", "build"):
        status = 0
        for name, fpga, board in variants():
            if name in args.boards if args.boards else "LFE5U" in board.about:
                options    = ["--estimate"] if args.command == "estimate" else ["--seeds", args.seeds]
                code, text = _run(name, fpga, *options)
                status    |= code
                print(text, end="", flush=True)
        faults = over_budget(args.boards)
        print("\n".join(faults))
        return int(bool(status or faults))
    if args.command == "write":
        write()
    for table in TABLES.values():
        print("\n".join(table()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
