# SPDX-License-Identifier: BSD-2-Clause
"""`litellama bench`: cycles of one decoded token on the simulated SoC, where they went, and the same SoC's CPU beside it."""

import argparse
import json
import sys

from ..accel.counters import COUNTERS, STAGES, STREAM_COUNTERS
from .devices.sim import SimDevice
from .importers import load_model, resolve
from .sampler import SamplerParams

PROMPT_TOKENS = 16   # Context before the measured tokens.
TOKENS        = 9    # Sampled; the first belongs to the prompt, the others are measured.


def measure(model, memory="ddr3x16", vs_cpu=False):
    """Decode greedily on the simulated SoC: a dict with

    cycles_per_token (all of it: core, firmware, sampling, UART), bytes_per_token (of the stream section), peak_bytes_per_cycle,
    mbu (their quotient with the cycles), stages and stream (cycles of the last pass by counter), core_cycles (their total), and
    with vs_cpu cpu_cycles_per_token (plain C, int8, -O3, on the same SoC's CPU) and speed_up.
    """
    with SimDevice(memory=memory) as device:
        device.load(model)
        prompt = [model.bos] + [(7*i) % model.config.vocab for i in range(1, PROMPT_TOKENS)]
        result = device.generate(prompt, SamplerParams(), TOKENS)
        counts = dict(zip(COUNTERS, device.counters))
        cycles = result.timings.decode_cycles_per_token
        report = dict(memory=memory, position=device.position, cycles_per_token=round(cycles),
            bytes_per_token=device.hello.stream_bytes, peak_bytes_per_cycle=device.hello.port_bytes,
            mbu=round(device.hello.stream_bytes/cycles/device.hello.port_bytes, 4), core_cycles=counts["total"],
            stages={n: counts[n] for n in STAGES}, stream={n: counts[n] for n in STREAM_COUNTERS})
        if vs_cpu:
            report["cpu_cycles_per_token"] = device.baseline(result.tokens[-1], device.position).cycles
            report["speed_up"]             = round(report["cpu_cycles_per_token"]/cycles, 1)
    return report


def table(report):
    """The report as lines of text."""
    lines = [f"{report['cycles_per_token']} cycles per token at position {report['position']}: {report['bytes_per_token']} bytes, "
        f"{100*report['mbu']:.1f} % of {report['peak_bytes_per_cycle']} bytes a cycle ({report['memory']})"]
    for name, n in report["stages"].items():
        lines.append(f"  {name:<12}{n:>9}{100*n/report['core_cycles']:>7.1f} %")
    lines.append(f"  {'firmware':<12}{report['cycles_per_token'] - report['core_cycles']:>9}  outside the core's pass")
    lines.append("  stream: " + ", ".join(f"{name} {n}" for name, n in report["stream"].items()))
    if "cpu_cycles_per_token" in report:
        lines.append(f"plain C on the same CPU: {report['cpu_cycles_per_token']} cycles per token, {report['speed_up']} times as many")
    return lines


def main(argv=None):
    """The command line; returns the exit status."""
    p = argparse.ArgumentParser(prog="litellama bench", description="Measure decoding on the simulated SoC.")
    p.add_argument("--model", metavar="NAME|FILE", default="default")
    p.add_argument("--memory", default="ddr3x16", help="DRAM of the SoC (default ddr3x16)")
    p.add_argument("--vs-cpu", action="store_true", help="also decode a token by plain C on the SoC's own CPU (takes minutes)")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    args  = p.parse_args(argv)
    model, notes = load_model(resolve(args.model))
    for text in notes:
        print(f"note: {text}", file=sys.stderr)
    report = dict(model=args.model, **measure(model, args.memory, args.vs_cpu))
    print(json.dumps(report) if args.json else "\n".join(table(report)))
    return 0
