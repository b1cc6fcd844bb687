# SPDX-License-Identifier: BSD-2-Clause
"""The plots of `litellama bench`: reports of host/measure.py as one page of three panels. matplotlib is only loaded to draw."""

import os

from ..accel.config import check

SUFFIXES = (".png", ".svg", ".pdf")

# What the controller's stages are about, in the order they are stacked, and what the stream did.
STAGE_GROUPS = {
    "weight matrices": ("qkv", "wo", "w13", "w2", "classifier"),
    "attention":       ("scores", "softmax", "values"),
    "norms":           ("norm",),
    "other stages":    ("prepare", "embedding", "drain"),
    "firmware":        ("firmware",),
}
STALL_GROUPS = {
    "beats taken":     ("beats",),
    "no data":         ("no_data",),
    "no room":         ("no_room",),
    "idle":            ("idle",),
    "firmware":        ("firmware",),
}
COLOURS = dict(zip((*STAGE_GROUPS, *(n for n in STALL_GROUPS if n not in STAGE_GROUPS)),
    ("#4c78a8", "#f58518", "#54a24b", "#9d9d9d", "#b279a2", "#9ecae9", "#e45756", "#ffbf79", "#d6d6d6")))
MARKERS = "osD^vP*X"


def check_file(path):
    """ValueError unless a plot can be written to `path`: before anything is measured."""
    suffix = os.path.splitext(path)[1].lower()
    check(suffix in SUFFIXES, f"--plot is {path!r}, its name must end in {', '.join(SUFFIXES)}")
    folder = os.path.dirname(path) or "."
    check(os.path.isdir(folder), f"--plot is {path!r}, there is no folder {folder!r}")


def name_of(report):
    """What was run: shape, types, and what is known of the text they make."""
    if not report["type"]:
        return report["shape"]
    known = report["perplexity"]
    return f"{report['shape']} {report['type']}/{report['head_type']}, {f'perplexity {known:.2f}' if known else 'random weights'}"


def _unique(items):
    """The items without those that came before, in order."""
    return list(dict.fromkeys(items))


def _below(ax):
    """The legend, where no data is."""
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=3, frameon=False)


def roofline(ax, reports):
    """Bytes a cycle that each model's tokens use of each memory, between nothing and the memory's ceiling and peak. Of several
    contexts the longest counts."""
    reports  = list({(r["memory"], name_of(r)): r for r in sorted(reports, key=lambda r: r["context"])}.values())
    memories = _unique(r["memory"] for r in sorted(reports, key=lambda r: r["peak_bytes_per_cycle"]))
    names    = _unique(name_of(r) for r in reports)
    for i, memory in enumerate(memories):
        here = [r for r in reports if r["memory"] == memory]
        peak = here[0]["peak_bytes_per_cycle"]
        ax.hlines(peak, i - 0.4, i + 0.4, color="black", label=None if i else "peak of the pins")
        ax.hlines(peak*here[0]["ceiling"], i - 0.4, i + 0.4, color="black", linestyle="--",
            label=None if i else "ceiling: sequential reads")
    for k, name in enumerate(names):
        here = [r for r in reports if name_of(r) == name]
        x    = [memories.index(r["memory"]) + 0.5*((k + 1)/(len(names) + 1) - 0.5) for r in here]
        ax.plot(x, [r["mbu"]*r["peak_bytes_per_cycle"] for r in here], MARKERS[k % len(MARKERS)],
            label=f"{name}, context {', '.join(map(str, _unique(r['context'] for r in here)))}")
        for at, r in zip(x, here):
            ax.annotate(f"{100*r['mbu']:.0f} %", (at, r["mbu"]*r["peak_bytes_per_cycle"]), textcoords="offset points", xytext=(0, -12),
                ha="center", fontsize=7)
    used = [r["mbu"]*r["peak_bytes_per_cycle"] for r in reports]
    ax.set_yscale("log", base=2)
    ax.set_ylim(min(used)/1.4, max(r["peak_bytes_per_cycle"] for r in reports)*1.2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xticks(range(len(memories)), memories)
    ax.set_ylabel("bytes a cycle")
    ax.set_title("Share of the memory (labels: of its peak)")
    _below(ax)


def by_width(ax, reports):
    """Cycles per token against the peak of the memory's port, and what they would be at that peak."""
    for k, (name, context) in enumerate(_unique((name_of(r), r["context"]) for r in reports)):
        here   = sorted((r for r in reports if (name_of(r), r["context"]) == (name, context)), key=lambda r: r["peak_bytes_per_cycle"])
        widths = [r["peak_bytes_per_cycle"] for r in here]
        (line,) = ax.plot(widths, [r["cycles_per_token"] for r in here], marker=MARKERS[k % len(MARKERS)],
            label=f"{name}, context {context}")
        ax.plot(widths, [r["bytes_per_token"]/r["peak_bytes_per_cycle"] for r in here], ":", marker="_", color=line.get_color())
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(w := _unique(sorted(r["peak_bytes_per_cycle"] for r in reports)), [f"{n:g}" for n in w])
    ax.set_xlabel("port: peak bytes a cycle")
    ax.set_ylabel("cycles per token")
    ax.set_title("Port width (dotted: all bytes at peak)")
    _below(ax)


def by_context(ax, reports):
    """Cycles per token against the context, stacked twice at each point: left by the core's stages, right by what the stream
    did. Of several models or memories each has its bars beside the others'."""
    contexts = sorted({r["context"] for r in reports})
    series   = _unique((name_of(r), r["memory"]) for r in reports)
    width    = 0.8/(2*len(series))
    shown    = set()
    for r in reports:
        left = contexts.index(r["context"]) - 0.4 + 2*width*series.index((name_of(r), r["memory"]))
        for half, (rows, groups) in enumerate(((r["stages"], STAGE_GROUPS), (r["stalls"], STALL_GROUPS))):
            bottom = 0
            for group, parts in groups.items():
                n = sum(rows[part] for part in parts)
                ax.bar(left + half*width, n, 0.94*width, bottom, align="edge", color=COLOURS[group],
                    label=None if group in shown else group)
                shown.add(group)
                bottom += n
        if len(series) > 1:
            ax.annotate(f"{name_of(r)}, {r['memory']}", (left + width, r["cycles_per_token"]), textcoords="offset points", xytext=(0, 2),
                ha="center", fontsize=5, rotation=90)
    ax.margins(y=0.35 if len(series) > 1 else 0.05)   # (Room for the names.)
    ax.set_xticks(range(len(contexts)), contexts)
    ax.set_xlabel("context, positions")
    ax.set_ylabel("cycles per token")
    ax.set_title("Context (left: by stage, right: by stream)" + ("" if len(series) > 1 else f"\n{series[0][0]}, {series[0][1]}"))
    _below(ax)


def draw(reports, path):
    """Write the page of `reports` (a list of what bench prints with --json) to `path`, whose suffix is one of SUFFIXES."""
    check_file(path)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(18, 6), layout="constrained")
    FigureCanvasAgg(figure)   # No window, whatever the user's settings say.
    for ax, panel in zip(figure.subplots(1, 3), (roofline, by_width, by_context)):
        panel(ax, reports)
        ax.grid(axis="y", alpha=0.3)
    with matplotlib.rc_context({"svg.hashsalt": "litellama"}):
        figure.savefig(path, dpi=130)
    return figure
