# SPDX-License-Identifier: BSD-2-Clause
"""`litellama bench` without a simulation: lists of points, reports, plots, from canned figures."""

import json
from pathlib import Path

import pytest

from litellama.accel.controller import STAGES
from litellama.host import bench, cli
from litellama.host.plot import STAGE_GROUPS, STALL_GROUPS, draw, name_of
from litellama.soc.memory import MEMORIES, get_memory

import types_table

FIELDS = {"shape", "type", "head_type", "perplexity", "memory", "context", "cycles_per_token", "bytes_per_token",
    "peak_bytes_per_cycle", "mbu", "ceiling", "tokens_per_second_per_gbps", "stalls"}


def canned(memory="ddr3x16", context=256, shape="small", type="q4_0"):
    """A report like measure's, whose parts add up."""
    peak, size = get_memory(memory).peak_bytes, 1_000_000 + 500*context
    beats      = size//min(16, peak)
    stalls     = dict(beats=beats, no_data=1000, no_room=100*context, idle=10*context, firmware=1500)
    stages     = dict.fromkeys(STAGES, 40) | dict(scores=60*context, softmax=50*context, firmware=1500)
    cycles     = sum(stalls.values())
    stages["w13"] = cycles - sum(n for s, n in stages.items() if s != "w13")
    return dict(shape=shape, type=type, head_type=type, perplexity=None, memory=memory, context=context, layers=4, layers_measured=2,
        lanes=32, columns=3, ports=2,
        cycles_per_token=cycles, bytes_per_token=size, peak_bytes_per_cycle=peak, mbu=round(size/cycles/peak, 4), ceiling=0.93,
        tokens_per_second_per_gbps=round(1e9/cycles/peak, 3), stalls=stalls, stages=stages)


@pytest.fixture
def measured(monkeypatch):
    """Calls of bench's measure, which answers with canned reports; models are not made."""
    calls = []
    def measure(model, n_layers, memory="ddr3x16", context=None, options=None, vs_cpu=False, board=None):
        calls.append((model, n_layers, memory, context, options))
        report = canned(memory, context or 256)
        return {k: v for k, v in report.items() if k not in ("shape", "type", "head_type", "perplexity")}
    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "shape_model", lambda config, type, layers, head: (config.dim, type, layers, head))
    return calls


def test_one_point_is_an_object(measured, capsys):
    """As it was without lists: one object with all fields, nothing on stderr."""
    assert bench.main(["--shape", "smollm2-135m", "--json", "--ports", "1"]) == 0
    out, err = capsys.readouterr()
    report   = json.loads(out)
    assert FIELDS <= set(report) and report["shape"] == "smollm2-135m" and err == ""
    assert measured == [((576, "q4_0", None, "q4_0"), 30, "ddr3x16", None, dict(ports=1))]
    assert sum(report["stalls"].values()) == sum(report["stages"].values()) == report["cycles_per_token"]


def test_lists_are_measured_in_all_combinations(measured, capsys):
    """Shapes with commas of their own, memories, contexts: each point once, in order, with progress; --json prints a
    list."""
    shapes = "stories15m,mine:64,96,2,4,2,16,300,smollm2-135m"
    assert bench.main(["--shape", shapes, "--memory", "sdr16,ddr3x32", "--context", "64,128", "--json"]) == 0
    out, err = capsys.readouterr()
    reports  = json.loads(out)
    names    = ["stories15m", "mine:64,96,2,4,2,16,300", "smollm2-135m"]
    want     = [(s, m, c) for s in names for m in ("sdr16", "ddr3x32") for c in (64, 128)]
    assert [(r["shape"], r["memory"], r["context"]) for r in reports] == want
    dims     = dict(zip(names, (288, 64, 576)))
    assert [(call[0][0], *call[2:4]) for call in measured] == [(dims[s], m, c) for s, m, c in want]
    assert len(err.splitlines()) == 12 and err.splitlines()[-1].startswith("12/12: smollm2-135m")
    bench.main(["--shape", "stories15m", "--context", "64,64", "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_table_tells_the_ceiling(measured, capsys):
    """Share of the peak, the ceiling, and the one of the other."""
    bench.main(["--shape", "stories15m"])
    out    = capsys.readouterr().out
    report = canned()
    assert f"{100*report['mbu']:.2f} % of 16 bytes a cycle" in out
    assert f"93.00 %; a token has {100*report['mbu']/0.93:.2f} % of that" in out


@pytest.mark.parametrize("arguments, types, known", (
    (["--shape", "smollm2-135m"], ("q4_0", "q4_0"), True), (["--shape", "smollm2-135m", "--type", "q4_1"], ("q4_1", "q8_0"), True),
    (["--shape", "smollm2-135m", "--type", "q4_1", "--head-type", "q4_0"], ("q4_1", "q4_0"), True),
    (["--shape", "smollm2-135m", "--type", "q8_0", "--head-type", "q4_0"], ("q8_0", "q4_0"), False),
    (["--shape", "stories15m", "--type", "q8_0"], ("q8_0", "q8_0"), False),
    (["--shape", "mini:64,96,2,4,2,16,300"], ("q4_0", "q4_0"), False)))
def test_no_speed_of_a_type_without_its_accuracy(arguments, types, known, measured, capsys):
    """Beside the speed stands the perplexity of the shape's own model in these types, or that the weights are random."""
    bench.main([*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (report["type"], report["head_type"]) == types and (report["perplexity"] is not None) == known
    assert measured[0][0][1::2] == types
    bench.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert f"({types[0]}, head {types[1]})" in lines[0] and "random weights" in "".join(lines)
    assert any("no accuracy" in l for l in lines) != known
    if known:
        table = [r for r in readme_rows() if r[:2] == [t.upper() for t in types]]
        assert f"perplexity of {report['perplexity']:.2f}, as published 24.92" in "".join(lines) and report["perplexity"] >= 24.9
        assert f"{report['perplexity']:.2f}" in [r[4] for r in table]
    assert ("perplexity" in name_of(report), "random weights" in name_of(report)) == (known, not known)


def readme_rows():
    """Cells of the rows of accel/README.md's table of types."""
    text = (Path(bench.__file__).parents[1]/"accel"/"README.md").read_text("utf-8")
    part = text[text.index("### What a type costs"):]
    rows = [l for l in part[:part.index("\n###", 9)].splitlines() if l.startswith("| Q")]
    return [[cell.strip() for cell in l.strip()[1:-1].split("|")] for l in rows]


def test_readme_table_of_types():
    """Every row adds up: bytes from the blocks of SmolLM2's matrices, tokens/s from the bytes; the rows asked for are there."""
    rows    = readme_rows()
    sizes   = dict(Q8_0=34, Q4_0=18, Q4_1=20)   # Of a block of 32.
    weights = 30*(576*576*2 + 2*192*576 + 3*576*1536)
    norms   = 61*4*576
    n_headers = 30*8 + 2   # Matrices and norms of 32 bytes each; w1 and w3 are one.
    for layers, head, embedding, size, perplexity, _, speed, measured in rows:
        row    = 2*16*sizes[embedding]     # Of 18 blocks, in whole groups of 16.
        stream = weights//32*sizes[layers] + 49152*576//32*sizes[head] + norms + 32*n_headers
        total  = stream + row + 4*64 + 30*3*256*2*(64 + 2)   # RoPE row; keys and values of 256 positions, with scales.
        assert size == f"{total:,}" and float(speed) == pytest.approx(1e9/total, abs=0.006)
        if measured:
            value, share = measured.rstrip(" %)").split(" (")
            assert float(value) == pytest.approx(float(share)/100*1e9/total, abs=0.011)
    want = {("Q4_1", "Q8_0"), ("Q4_1", "Q4_1"), ("Q4_1", "Q4_0"), ("Q4_0", "Q8_0"), ("Q4_0", "Q4_0"), ("Q8_0", "Q8_0")}
    assert want <= {(r[0], r[1]) for r in rows}


def test_types_script_makes_rows_of_the_table():
    """Its types are those that the readme's rows name, its line has the table's cells."""
    assert [c.strip() for c in types_table.line(("q4_1", "q8_0", "q8_0"), 99_627_136, 24.917, None)[1:-1].split("|")] == readme_rows()[0]
    assert types_table.line(("q4_0", "q4_1", "q8_0"), 10**9, 2.0, 3.456).split("|")[1:] == [
        " Q4_0 ", " Q4_1 ", " Q8_0 ", " 1,000,000,000 ", " 2.00 ", " 3.46 ", " 1.00 ", "  ", ""]


@pytest.mark.parametrize("arguments, message", ((("--memory", "ddr3x16,ddr9"), "memory is 'ddr9', must be one of"),
    (("--context", "64,0"), "--context is '64,0', must be"), (("--context", "x"), "--context is 'x', must be"),
    (("--shape", "stories15m,none"), "shape is 'none', must be"), (("--shape", "a:1,2,3"), "dimensions are '1,2,3', must be seven"),
    (("--type", "q8_0"), "--type and --head-type need --shape"), (("--head-type", "q8_0"), "--type and --head-type need --shape"),
    (("--plot", "plot.gif"), "--plot is 'plot.gif', its name must end in .png, .svg, .pdf"),
    (("--plot", "no/such/folder/plot.png"), "--plot is 'no/such/folder/plot.png', there is no folder 'no/such/folder'")))
def test_wrong_arguments(measured, arguments, message, capsys):
    """One line that names them, before anything is measured."""
    assert cli.main(["bench", *arguments]) == 1
    assert message in capsys.readouterr().err and not measured


@pytest.mark.parametrize("suffix, magic", ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")))
def test_plot(suffix, magic, measured, tmp_path, capsys):
    """Every memory and two contexts on one page, in each format, from the command line."""
    path = tmp_path/f"plot{suffix}"
    assert bench.main(["--shape", "stories15m,smollm2-135m", "--memory", ",".join(MEMORIES), "--context", "64,256", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(magic) and path.stat().st_size > 10_000
    assert f"{path}: {4*len(MEMORIES)} points" in capsys.readouterr().err


def test_panels_show_the_reports(tmp_path):
    """Ceilings and peaks of the memories, shares, cycles over widths; bars as high as the cycles, by stage and by stream."""
    reports = [canned(m, c) for m in ("ddr3x16", "sdr16") for c in (64, 512)]
    figure  = draw(reports, tmp_path/"plot.svg")
    roof, width, context = figure.axes
    levels  = sorted(float(line.get_segments()[0][0][1]) for line in roof.collections)
    assert levels == pytest.approx(sorted((16, 16*0.93, 2, 2*0.93)))
    shares  = {y for line in roof.lines for y in line.get_ydata()}
    assert shares == {r["mbu"]*r["peak_bytes_per_cycle"] for r in reports if r["context"] == 512}
    solid   = [line for line in width.lines if line.get_linestyle() == "-"]
    assert [list(line.get_ydata()) for line in solid] == [[r["cycles_per_token"] for r in reversed(reports) if r["context"] == c]
        for c in (64, 512)]
    tops    = {}
    for bar in context.patches:
        tops[round(bar.get_x(), 6)] = max(tops.get(round(bar.get_x(), 6), 0), bar.get_y() + bar.get_height())
    assert sorted(tops.values()) == pytest.approx(sorted(2*[r["cycles_per_token"] for r in reports]))


def test_one_point_can_be_drawn(tmp_path):
    """A plain bench has a plot, too."""
    draw([canned()], tmp_path/"plot.pdf")
    assert (tmp_path/"plot.pdf").stat().st_size > 5000


def test_groups_leave_nothing_out():
    """All stages and all stalls are in exactly one group."""
    assert sorted(part for parts in STAGE_GROUPS.values() for part in parts) == sorted((*STAGES, "firmware"))
    assert sorted(part for parts in STALL_GROUPS.values() for part in parts) == sorted(canned()["stalls"])


def test_boards():
    """NAME or NAME:FPGA; what is unknown, or has no memory like it in simulation, is told with what there is."""
    assert bench.find_board("gsd_orangecrab")[1] == "85F" and bench.find_board("gsd_orangecrab:25F")[1] == "25F"
    for text, why in (("nonesuch", "board is 'nonesuch'"), ("gsd_orangecrab:12F", "--device of gsd_orangecrab is '12F'"),
            ("xilinx_kc705", "no simulated memory is like its")):
        with pytest.raises(ValueError, match=why):
            bench.find_board(text)
