# SPDX-License-Identifier: BSD-2-Clause
"""`litellama build`: the SoC of a board with the core, its firmware and its bitstream.

    litellama build --board NAME [--load] [--no-compile] [--output-dir DIR] [LiteX's and the target's own options]
    python3 -m litellama.soc.targets.NAME [the same]
    litellama build --board NAME --estimate        what it takes of the device, in minutes, without place and route
    litellama build --board NAME --seeds 1,2,3     the clock at each; the bitstream of the best

NAME is a board of soc/targets/, or litex_boards.targets.X for any other target with SDRAM.
"""

import argparse
from contextlib import contextmanager
from dataclasses import fields
import json
import logging
import os
from pathlib import Path
import sys

from ..accel.config import CoreConfig, check
from ..accel.flush import leave_data
from . import ecp5, tools
from .boards import get_board, known
from .cache import locked

EXTRAS = ("sdcard", "spi_sdcard")   # What a LiteX target's own main() can add to boot from.


def _early(argv, option):
    """Value of an option that has to be known before the others' defaults are; None if it is not there."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(option, dest="value")
    try:
        return first.parse_known_args([a for a in argv if a not in ("-h", "--help")])[0].value
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from None


def _litex_parser(board, platform, base, fit, defaults, prog):
    """LiteX's parser with the target's own keywords and ours."""
    from litex.build.parser import LiteXArgumentParser
    from .board_soc import REQUIRED, target_options

    class Parser(LiteXArgumentParser):
        """LiteX's, with wrong usage told in one line."""

        def error(self, message):
            """Leave with status 2."""
            self.exit(2, f"{prog}: {message} ({prog} --help explains)\n")

    parser = Parser(platform=platform)
    parser.allow_abbrev = False   # As _early; LiteX drops it as a keyword.
    parser.prog, parser.description = prog, f"The core on {board.name}: {board.about}."
    ours = parser.add_argument_group("LiteLlama options")
    ours.add_argument("--board", help="board, or litex_boards.targets.X")
    ours.add_argument("--seeds", default="1", help="place and route with each of these, keep the fastest")
    ours.add_argument("--estimate", action="store_true", help="stop after synthesis and tell what it takes of the device (ECP5)")
    ours.add_argument("--speedgrade", default=board.speedgrade, help="of the DRAM's timings; none: LiteDRAM's default")
    ours.add_argument("--no-core", action="store_true", help="the same SoC without the core, to compare")
    ours.add_argument("--debug-window", action=argparse.BooleanOptionalAction, default=fit.debug, help="the core's memories for the CPU")
    ours.add_argument("--small-bios", action=argparse.BooleanOptionalAction, default=fit.small_bios, help="LiteX's without commands")
    for name in EXTRAS:
        ours.add_argument(f"--with-{name.replace('_', '-')}", action="store_true", help="to boot and load models from")
    for field in fields(CoreConfig):
        ours.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=fit.core.get(field.name),
            help="of the core; None: what suits the DRAM")
    choices = board.choices | ({board.choice: board.fits} if board.choice else {})
    parser.of_target = {}   # Keyword: argument. Without those that have our options' names: the target keeps its defaults.
    for name, value in target_options(base).items():
        dest = name
        if "--" + name.replace("_", "-") in parser._option_string_actions:
            if value is not REQUIRED:
                continue
            dest = f"target_{name}"
        option, parser.of_target[name] = "--" + dest.replace("_", "-"), dest
        if isinstance(value, bool):
            parser.target_group.add_argument(option, action=argparse.BooleanOptionalAction, default=value)
        else:
            kind = float if isinstance(value, (int, float)) and name.endswith("freq") else type(value)
            kind = str if value is None or value is REQUIRED else kind
            parser.target_group.add_argument(option, type=kind, default=None if value is REQUIRED else value, help="of the target",
                required=value is REQUIRED, choices=choices.get(name))
    parser.set_defaults(no_ident_version=True, log_level="warning", **defaults)
    return parser


def parse(argv, board=None, prog="litellama build"):
    """(Board, BaseSoC, parser, arguments) of a command line."""
    from .board_soc import load_target
    argv = list(argv)
    if board is None:
        name = _early(argv, "--board")
        check(name, f"--board NAME is needed: {', '.join(known())}, or litex_boards.targets.X")
        board = get_board(name)
    choice         = board.choice and _early(argv, "--" + board.choice.replace("_", "-"))
    base, platform = load_target(board)
    parser         = _litex_parser(board, platform, base, board.fit(choice), board.defaults(choice), prog)
    before         = sys.argv
    sys.argv       = [prog, *argv]   # LiteX looks for --toolchain and --cpu-type there.
    try:
        return board, base, parser, parser.parse_args(argv)
    finally:
        sys.argv = before


def _on_trellis(soc):
    return type(soc.platform.toolchain).__name__ == "LatticeTrellisToolchain"


def make_soc(board, base, parser, args):
    """The SoC that the arguments ask for."""
    import inspect
    from .board_soc import build_soc, reset_on_global_wire
    arguments = dict(parser.soc_argdict)
    arguments.update({name: getattr(args, argument) for name, argument in parser.of_target.items()})
    if "toolchain" in inspect.signature(base.__init__).parameters:
        arguments["toolchain"] = args.toolchain
    fit   = board.fit(getattr(args, board.choice) if board.choice else None)
    core  = {f.name: getattr(args, f.name) for f in fields(CoreConfig) if getattr(args, f.name) is not None}
    grade = None if args.speedgrade in (None, "none") else args.speedgrade
    soc   = build_soc(board, base, arguments, core, args.debug_window, grade, fit.controller, not args.no_core,
        [name for name in EXTRAS if getattr(args, f"with_{name}")])
    if args.small_bios:
        soc.add_config("BIOS_NO_CRC")
    if _on_trellis(soc):
        reset_on_global_wire(soc)
        soc.platform.toolchain._yosys_cmds += ["hierarchy -top {build_name}", ecp5.NO_RW_CHECK,
            *(ecp5.squeeze(fit.squeeze) if fit.squeeze else ())]
    return soc


@contextmanager
def _log(path):
    """What we and the programs that we start print goes to a file; ValueError with its end if something fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    saved = os.dup(1), os.dup(2)
    with open(path, "w") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])


def generate(soc, parser, small_bios):
    """Write the gateware's sources and compile the software (unless told not to) into the output folder; returns LiteX's Builder."""
    import litex
    from .board_software import BoardBuilder
    arguments = dict(parser.builder_argdict)
    if arguments.get("build_log") is True:   # Newer LiteX's own, in the file that is ours below.
        arguments["build_log"] = False
    builder = BoardBuilder(soc, **arguments)
    builder.small_bios = small_bios
    output  = Path(builder.output_dir)
    here    = os.getcwd()
    # The BIOS contains the time of its build, and the revision of the checkout that LiteX is installed in: not here, so that equal
    # sources give equal bits.
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    os.environ.setdefault("GIT_CEILING_DIRECTORIES", str(Path(litex.__file__).parent.parent))
    try:
        with _log(output/"litex.log"):
            if _on_trellis(soc):   # Data, and what software writes before it counts, needs no reset: 2,000 ends less of its net.
                soc.finalize()
                leave_data(soc._fragment, ["sys"])
            # No wide LUTs: what they make of an ECP5 is told in soc/README.md.
            builder.build(**parser.toolchain_argdict | dict(run=False) | (dict(nowidelut=True) if _on_trellis(soc) else {}))
            if builder.compile_software:
                builder.build_firmware()
    except Exception as error:
        last = (output/"litex.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise ValueError(f"{type(error).__name__}: {error}: see {output/'litex.log'} {': '.join(last)}") from error
    finally:
        os.chdir(here)
    return builder


def _say(text):
    print(text, flush=True)


def _seeds(text):
    parts = text.split(",")
    check(all(p.strip().isdigit() for p in parts), f"--seeds is {text!r}, must be numbers with commas between")
    return [int(p) for p in parts]


def estimate_lines(cells, part, config):
    """Table of an ECP5 netlist against its device, as lines of text."""
    used, has = ecp5.usage(cells), ecp5.device(part)
    lines     = [f"{part}; core: {', '.join(f'{f.name} {getattr(config, f.name)}' for f in fields(config)) if config else 'none'}"]
    lines.append(f"  {'':24}{'taken':>8}{'there are':>11}{'share':>8}")
    for name, text in ecp5.NAMES.items():
        value, limit = getattr(used, name), getattr(has, name)
        lines.append(f"  {text:24}{value:>8}{limit:>11}{100*value/limit:>7.1f} %{'  TOO MANY' if value > limit else ''}")
    lines.append(f"  {'by block':24}{'LUTs':>8}{'FFs':>8}{'RAMs':>6}{'mult':>6}")
    lines += [f"  {name:24}{u.luts:>8}{u.ffs:>8}{u.dp16kd:>6}{u.mult18x18d:>6}" for name, u in ecp5.blocks(cells).items()]
    return lines


def compile_gateware(soc, builder, args):
    """Run the toolchain: yosys, nextpnr for each seed and ecppack on ECP5, LiteX's own script elsewhere. True if all is met."""
    part = soc.platform.device
    if not _on_trellis(soc):
        here, toolchain = os.getcwd(), soc.platform.toolchain
        os.chdir(builder.gateware_dir)
        try:
            toolchain.run_script(toolchain.build_script())
        except OSError as error:   # LiteX's word for a tool that is missing or failed.
            raise ValueError(f"{type(toolchain).__name__}: {error}") from error
        finally:
            os.chdir(here)
        return True
    from .trellis import Trellis
    flow  = Trellis(builder.gateware_dir, soc.build_name)
    cells = flow.synthesise()
    used  = ecp5.usage(cells)
    core  = getattr(soc, "llama", None)
    flow.options = ecp5.placer_options(used, part)
    _say("\n".join(estimate_lines(cells, part, core and core.config)))
    if not args.estimate:
        ecp5.check_fits(used, part, "the SoC with the core")
    results = {}
    for seed in dict.fromkeys(flow.placed() + ([] if args.estimate else _seeds(args.seeds))):
        results[seed] = flow.place(seed)
        _say(f"seed {seed}: " + ", ".join(f"{name} {c['achieved']:.1f} MHz of {c['constraint']:.1f}" for name, c in results[seed].items()))
    facts = dict(board=args.board, part=part, sys_clk_freq=soc.sys_clk_freq, usage=vars(used), clocks=results, key=flow.key,
        seconds=flow.seconds, config=core and vars(core.config), options=args.options)
    Path(builder.output_dir, "report.json").write_text(json.dumps(facts, indent=2) + "\n")
    if args.estimate:
        return True
    share = {seed: min(c["achieved"]/c["constraint"] for c in clocks.values()) for seed, clocks in results.items()}
    best  = max(share, key=share.get)
    _say(f"seed {best} is the fastest: {flow.pack(best)}")
    failed = [str(seed) for seed in share if share[seed] < 1]
    if failed:
        _say(f"clock missed at seed {', '.join(failed)}")
    return share[best] >= 1


def build(argv, board=None, prog="litellama build"):
    """Build what the arguments ask for; returns the exit status."""
    board, base, parser, args = parse(argv, board, prog)
    args.board, args.options = board.name, " ".join(argv)
    _seeds(args.seeds)
    without = args.no_compile or args.no_compile_gateware
    check(not (args.estimate and without), "--estimate needs yosys, --no-compile leaves it out")
    check(not (args.load and (args.estimate or without)), "--load needs a bitstream, --estimate and --no-compile make none")
    with tools.on_path():
        soc     = make_soc(board, base, parser, args)
        if _on_trellis(soc) and not without:
            tools.require("yosys", *([] if args.estimate else ["nextpnr-ecp5", "ecppack"]))
        check(_on_trellis(soc) or not args.estimate, f"--estimate is for ECP5, {soc.platform.device} is none")
        output  = Path(args.output_dir or f"build/{soc.platform.name}")   # As LiteX's Builder has it.
        output.mkdir(parents=True, exist_ok=True)
        with locked(output/".lock", lambda: _say(f"another build is at work in {output}: waiting")):
            builder = generate(soc, parser, args.small_bios)   # (Migen names signals after this variable: another is another netlist.)
            _say(f"sources: {builder.gateware_dir}")
            if builder.firmware:
                _say(f"firmware: {builder.firmware}")
            met = not builder.compile_gateware or compile_gateware(soc, builder, args)
        if args.load and met:
            soc.platform.create_programmer().load_bitstream(builder.get_bitstream_filename(mode="sram"))
    return 0 if met else 1


def main(argv=None, board=None):
    """The command line; returns the exit status. board: Board, when called as that board's own module."""
    argv = sys.argv[1:] if argv is None else list(argv)
    logging.disable(logging.WARNING)   # LiteX narrates every SoC it builds.
    if board:
        try:
            sys.exit(build(argv, board, f"python3 -m litellama.soc.targets.{board.name}"))
        except (ValueError, OSError) as error:
            sys.exit(f"error: {' '.join(str(error).split())}")
    if not any(a.startswith("--board") for a in argv) and set(argv) & {"-h", "--help"}:
        print(__doc__ + "\nBoards: " + ", ".join(known()) + "\n`litellama build --board NAME --help` lists a board's options.")
        return 0
    return build(argv)
