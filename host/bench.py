# SPDX-License-Identifier: BSD-2-Clause
"""`litellama bench`: cycles of one decoded token on the simulated SoC, where they went, and the same SoC's CPU beside it."""

import argparse
import json
import sys

from ..accel.config import check
from ..soc.memory import MEMORIES
from .importers import load_model, resolve
from .measure import SHAPES, TYPES, measure, parse_shape, shape_model

PARTS = dict(beats="a beat taken", no_data="array wants data, DRAM has none", no_room="data is there, nobody takes it",
    idle="none wanted, none there", firmware="between two passes: interrupt, sampling, UART, start")


def table(report):
    """The report as lines of text: the stalls, then the stages, each adding up."""
    cycles = report["cycles_per_token"]
    lines  = [f"{report['shape']} {report['type'] or ''}, context {report['context']}, {report['memory']}: {cycles} cycles per token, "
        f"{report['bytes_per_token']} bytes, {100*report['mbu']:.2f} % of {report['peak_bytes_per_cycle']} bytes a cycle, "
        f"{report['tokens_per_second_per_gbps']:.2f} tokens/s per GB/s"]
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


def main(argv=None):
    """The command line; returns the exit status."""
    p = argparse.ArgumentParser(prog="litellama bench", description="Measure decoding on the simulated SoC.")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--model", metavar="NAME|FILE", help="a model (default: default)")
    what.add_argument("--shape", metavar="SHAPE", help=f"random weights: {', '.join(SHAPES)}, or NAME:dim,hidden,layers,heads,kv_heads,"
        "head_dim,vocab")
    p.add_argument("--type", choices=TYPES, default="q4_0", help="of a shape's matrices; q4_1: with a Q8_0 head (default %(default)s)")
    p.add_argument("--layers", type=int, help="layers of a shape that are built and measured (default: 2)")
    p.add_argument("--context", type=int, help="positions, the token's own included (default: 256, or the model's)")
    p.add_argument("--memory", default="ddr3x16", help=f"DRAM of the SoC: {', '.join(MEMORIES)} (default %(default)s)")
    for name in ("lanes", "columns", "ports"):
        p.add_argument(f"--{name}", type=int, help="of the core (default: that of `--device sim`)")
    p.add_argument("--vs-cpu", action="store_true", help="also decode a token by plain C on the SoC's own CPU (takes minutes)")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    args  = p.parse_args(argv)
    check(args.shape or args.layers is None, "--layers needs --shape: a model is measured whole")
    if args.shape:
        config       = parse_shape(args.shape)
        model, notes = shape_model(config, args.type, args.layers), []
        name, kind   = args.shape, args.type
    else:
        model, notes = load_model(resolve(args.model or "default"))
        name, kind, config = args.model or "default", None, model.config
    for text in notes:
        print(f"note: {text}", file=sys.stderr)
    core   = {n: getattr(args, n) for n in ("lanes", "columns", "ports") if getattr(args, n) is not None}
    report = dict(shape=name, type=kind, **measure(model, config.n_layers, args.memory, args.context, core, args.vs_cpu))
    print(json.dumps(report) if args.json else "\n".join(table(report)))
    return 0
