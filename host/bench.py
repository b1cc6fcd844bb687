# SPDX-License-Identifier: BSD-2-Clause
"""`litellama bench`: cycles of one decoded token on the simulated SoC, where they went, and the same SoC's CPU beside it."""

from functools import partial
from itertools import product
import time

from ..accel.config import check
from ..soc.boards import get_board
from ..soc.memory import MEMORIES, get_memory
from .console import Parser, note, say, say_json
from .importers import load_model, resolve
from .measure import HEADS, SHAPES, accuracy, measure, parse_shape, shape_model
from .plot import check_file, draw

PARTS = dict(beats="a beat taken", no_data="array wants data, DRAM has none", no_room="data is there, nobody takes it",
    idle="none wanted, none there", firmware="between two passes: interrupt, sampling, UART, start")


def table(report):
    """The report as lines of text: the stalls, then the stages, each adding up."""
    cycles = report["cycles_per_token"]
    types  = f"{report['type']}, head {report['head_type']}" if report["type"] else "types of its own"
    lines  = [f"{report['shape']} ({types}), context {report['context']}, {report['memory']}: {cycles} cycles per token, "
        f"{report['bytes_per_token']} bytes, {100*report['mbu']:.2f} % of {report['peak_bytes_per_cycle']} bytes a cycle, "
        f"{report['tokens_per_second_per_gbps']:.2f} tokens/s per GB/s",
        f"  sequential reads through the same ports: {100*report['ceiling']:.2f} %; a token has "
        f"{100*report['mbu']/report['ceiling']:.2f} % of that"]
    if report["type"]:
        lines.append(f"  {accuracy(report['shape'], report['type'], report['head_type'])[0]}")
    if "board" in report:
        lines.append(f"  {report['board']} at {report['clk_freq']/1e6:.0f} MHz: {report['tokens_per_second']:.2f} tokens/s")
    if report["layers_measured"] != report["layers"]:
        lines.append(f"  {report['layers']} layers from {report['layers_measured']} that were measured: each layer's cycles, and what "
            "comes once a token")
    for rows, about in ((report["stalls"], PARTS), (report["stages"], {})):
        for name, n in rows.items():
            lines.append(f"  {name:<12}{n:>10}{100*n/cycles:>7.2f} %  {about.get(name, '')}".rstrip())
        lines.append("")
    if "cpu_cycles_per_token" in report:
        lines.append(f"plain C on the same CPU: {report['cpu_cycles_per_token']} cycles per token, {report['speed_up']} times as many")
    return lines


def split_shapes(text):
    """Shapes of a comma-separated list, whose dimensions are separated by commas, too: NAME,NAME:1,2,3,4,5,6,7,NAME."""
    shapes = []
    for part in text.split(","):
        if shapes and ":" in shapes[-1] and part.strip().isdigit():
            shapes[-1] += "," + part
        else:
            shapes.append(part)
    return shapes


def split_contexts(text):
    """Numbers of a comma-separated list; [None] for none."""
    if text is None:
        return [None]
    parts = text.split(",")
    check(all(p.strip().isdigit() and int(p) > 0 for p in parts),
        f"--context is {text!r}, must be a number of positions, 1 or more, or several with commas between")
    return [int(p) for p in parts]


def points(args):
    """What the arguments ask for: [(name, type, head's type, function that gives (model, layers it stands for), memory, context)];
    types of None: the model's own."""
    def known(name):
        model, notes = load_model(resolve(name), args.tokenizer)
        for text in notes:
            note(f"note: {text}")
        return model, model.config.n_layers

    def random(shape):
        return shape_model(shape, args.type, args.layers, head), shape.n_layers

    memories, contexts = args.memory.split(","), split_contexts(args.context)
    for memory in memories:
        get_memory(memory)
    if args.shape:
        head   = args.head_type or HEADS[args.type]
        models = [(name, args.type, head, partial(random, parse_shape(name))) for name in split_shapes(args.shape)]
    else:
        models = [(args.model or "default", None, None, partial(known, args.model or "default"))]
    return [(*model, memory, context) for model, memory, context in product(models, memories, contexts)]


def find_board(text):
    """(Board, FPGA) of NAME[:FPGA]; ValueError if there is none, or no simulated memory like its."""
    name, _, fpga = text.partition(":")
    board = get_board(name)
    board.fit(fpga)
    check(board.memory, f"--board is {name}: no simulated memory is like its ({', '.join(MEMORIES)})")
    return board, fpga or next(iter(board.fits))


def measure_points(wanted, core, vs_cpu, board=None):
    """Report of each of `wanted` (see points), in order; progress goes to stderr where there are several."""
    reports, before, built = [], None, None
    for i, (name, kind, head, make, memory, context) in enumerate(wanted):
        if make is not before:
            before, built = make, make()
        start = time.monotonic()
        reports.append(dict(shape=name, type=kind, head_type=head, perplexity=accuracy(name, kind, head)[1],
            **measure(*built, memory, context, core, vs_cpu, board)))
        if len(wanted) > 1:
            note(f"{i + 1}/{len(wanted)}: {table(reports[-1])[0]} ({time.monotonic() - start:.0f} s)")
    return reports


def main(argv=None):
    """The command line; returns the exit status."""
    p = Parser(prog="litellama bench", description="Measure decoding on the simulated SoC.")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--model", metavar="NAME|FILE", help="a model (default: default)")
    what.add_argument("--shape", metavar="SHAPE", help=f"random weights: {', '.join(SHAPES)}, or NAME:dim,hidden,layers,heads,kv_heads,"
        "head_dim,vocab")
    p.add_argument("--tokenizer", metavar="FILE", help="tokenizer.bin of a llama2.c checkpoint (default: the one beside it)")
    p.add_argument("--type", choices=HEADS, help="of a shape's matrices; q4_1: with a Q8_0 head (default q4_0)")
    p.add_argument("--head-type", choices=HEADS, help="of a shape's classifier (default: as --type says)")
    p.add_argument("--layers", type=int, help="layers of a shape that are built and measured (default: 2, which tells a large model's "
        "share to 1 %%; 8: to 0.1 %%)")
    p.add_argument("--context", help="positions, the token's own included (default: 256, or the model's)")
    where = p.add_mutually_exclusive_group()
    where.add_argument("--memory", default="ddr3x16", help=f"DRAM of the SoC: {', '.join(MEMORIES)} (default %(default)s). Of shapes, "
        "contexts and memories comma-separated lists are measured in all combinations")
    where.add_argument("--board", metavar="NAME[:FPGA]", help="the core of a board, in a SoC like it: its tokens a second")
    for name in ("lanes", "columns", "ports"):
        p.add_argument(f"--{name}", type=int, help="of the core (default: that of `--device sim`)")
    p.add_argument("--vs-cpu", action="store_true", help="also decode a token by plain C on the SoC's own CPU (takes minutes)")
    p.add_argument("--json", action="store_true", help="print one JSON object, of several points a list")
    p.add_argument("--plot", metavar="FILE", help="draw roofline, port widths and contexts to FILE (.png, .svg, .pdf)")
    args  = p.parse_args(argv)
    check(args.shape or args.layers is None, "--layers needs --shape: a model is measured whole")
    check(not (args.shape and args.tokenizer), "--tokenizer is of a model, --shape has none")
    check(args.shape or (args.type is None and args.head_type is None), "--type and --head-type need --shape: a model keeps its types")
    args.type = args.type or "q4_0"
    if args.plot:
        check_file(args.plot)
    board   = find_board(args.board) if args.board else None
    if board:
        args.memory = board[0].memory
    core    = {n: getattr(args, n) for n in ("lanes", "columns", "ports") if getattr(args, n) is not None}
    listed  = any("," in text for text in (args.memory, args.context or "")) or len(split_shapes(args.shape or "")) > 1
    reports = measure_points(points(args), core, args.vs_cpu, board)
    if args.plot:
        draw(reports, args.plot)
        note(f"{args.plot}: {len(reports)} points")
    if args.json:
        say_json(reports if listed else reports[0])
    else:
        for line in (line for report in reports for line in table(report)):
            say(line)
    return 0
