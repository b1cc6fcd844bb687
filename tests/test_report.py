# SPDX-License-Identifier: BSD-2-Clause
"""The tables of soc/README.md from what was built: cells, budgets, missed clocks, the marks."""

import json

import pytest

from litellama.soc import report

FACTS = dict(part="LFE5UM5G-85F-8BG554I", sys_clk_freq=75e6, usage=dict(luts=27500, ffs=20000, dp16kd=112, mult18x18d=57),
    clocks={"1": {"por": dict(achieved=30, constraint=25), "clk75": dict(achieved=300, constraint=75),
        "$glbnet$cpu.clk": dict(achieved=80.04, constraint=75.0075)}},
    key="0123456789abcdef", seconds=dict(yosys=dict(cpu=100, wall=120), seed1=dict(cpu=900, wall=1000)), config=dict(lanes=16, columns=2, ports=2),
    options="--board lambdaconcept_ecpix5 --device 85F --seeds 1 --output-dir X")

MARKS = "a\n<!-- report: resources -->\nold\n<!-- end: resources -->\nb\n<!-- report: elaborate -->\n<!-- end: elaborate -->\n" \
    "<!-- report: tokens -->\n<!-- end: tokens -->\nc\n"


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Writes a report of the ECPIX-5 with other facts."""
    monkeypatch.setenv("LITELLAMA_CACHE", str(tmp_path))
    monkeypatch.setattr(report, "README", tmp_path/"README.md")
    report.README.write_text(MARKS)
    def write(**facts):
        folder = tmp_path/"boards/lambdaconcept_ecpix5-85F"
        folder.mkdir(parents=True, exist_ok=True)
        (folder/"report.json").write_text(json.dumps(FACTS | facts))
    return write


def test_resources(built):
    """One row a build, with shares of the device, the system's clock by seed, CPU time and command."""
    assert len(report.resources_table()) == 2
    built()
    (row,) = report.resources_table()[2:]
    assert row == "| lambdaconcept_ecpix5, LFE5UM5G-85F-8BG554I | 16, 2, 2 | 27,500 (33 %) | 20,000 (24 %) | 112 (54 %) | 57 (37 %) | 75 " \
        "| 1: 80.0 | `0123456789abcdef` | 100, 900 | `litellama build --board lambdaconcept_ecpix5 --device 85F --seeds 1` |"
    built(clocks={})
    assert "| not run | `0123456789abcdef` | 100, 900 |" in report.resources_table()[2]


def test_over_budget(built):
    """A resource above the board's budget, and any clock that is missed, are named with value and limit."""
    built()
    assert report.over_budget() == []
    built(usage=FACTS["usage"] | dict(dp16kd=300), clocks={"2": {"sys": dict(achieved=74.9, constraint=75)}})
    memory, clock = report.over_budget(["lambdaconcept_ecpix5"])
    assert memory.startswith("lambdaconcept_ecpix5 85F: 300 block RAMs (DP16KD), budget ")
    assert clock == "lambdaconcept_ecpix5 85F: seed 2: 74.9 MHz of 75.0"
    assert report.over_budget(["gsd_orangecrab"]) == []


def test_every_ecp5_build_has_a_budget():
    """Within its device, and 60 % of an 85F."""
    for name, fpga, board in report.variants():
        if "LFE5U" in board.about:
            budget = board.fit(fpga).budget
            assert set(budget) == {"luts", "ffs", "dp16kd", "mult18x18d"}, name
            has = report.ecp5.DEVICES["45F" if "versa" in name else fpga[-3:]]
            assert all(value <= (0.6 if has is report.ecp5.DEVICES["85F"] else 1)*getattr(has, key) for key, value in budget.items()), name


def test_unknown_board(capsys):
    with pytest.raises(SystemExit):
        report.main(["estimate", "nonsense"])
    assert "board is 'nonsense', must be one of digilent_arty" in capsys.readouterr().err


def test_write(built, tmp_path):
    """Tables go between their marks, again and again."""
    built()
    for _ in range(2):
        report.write()
        lines = (tmp_path/"README.md").read_text().splitlines()
        assert "old" not in lines and lines[0] == "a" and lines[-1] == "c" and sum("ecpix5" in line for line in lines) == 1


def test_write_keeps_what_was_run_elsewhere(built, tmp_path):
    """Clocks of the same design are added to, those of another one go; boards and tables that were not run here stay."""
    built()
    report.write()
    built(clocks={"3": {"sys": dict(achieved=90, constraint=75)}, "10": {"sys": dict(achieved=70, constraint=75)}})
    report.write()
    (row,) = report.resources_table()[2:]
    assert "| 1: 80.0, 3: 90.0, 10: 70.0 |" in row and row.endswith("--device 85F --seeds 1,3,10` |")
    (tmp_path/"boards/lambdaconcept_ecpix5-85F/report.json").unlink()
    report.README.write_text(report.README.read_text().replace("<!-- end: elaborate", "| a board | fine | 3 |\n<!-- end: elaborate"))
    report.write()
    assert report.resources_table()[2:] == [row] and report.elaborate_table() == ["| a board | fine | 3 |"]
    built(key="fedcba9876543210", clocks={"2": {"sys": dict(achieved=91, constraint=75)}})
    assert "| 2: 91.0 |" in report.resources_table()[2]


def test_tokens(built, tmp_path, monkeypatch):
    """Each model that the DRAM holds, boards that differ in their clock only measured once; rows that were not run here stay."""
    asked = []
    def bench(name, fpga, options):
        asked.append(f"{name} {fpga} {options[-1]}")
        return dict(cycles_per_token=7_500_000, mbu=0.9, peak_bytes_per_cycle=8, context=512, more=1)
    monkeypatch.setattr(report, "_bench", bench)
    assert report.main(["tokens", "gsd_butterstick", "lambdaconcept_ecpix5", "radiona_ulx3s"]) == 0
    assert asked == ["gsd_butterstick 85F 64", "gsd_butterstick 85F 512", "radiona_ulx3s LFE5U-85F 64"]
    rows = report.tokens_table()[2:]
    assert rows[1:] == ["| lambdaconcept_ecpix5 85F | 75 | 512 | 600 | 10.00 (0.900) | 10.00 (0.900) |",
        "| radiona_ulx3s LFE5U-85F | 50 | 32 | 400 | 6.67 (0.900) | too large |"]
    report.write()
    (tmp_path/"tokens/report.json").unlink()
    report.write()
    assert report.tokens_table()[2:] == rows


def test_tokens_of_a_board_without_simulated_dram(built, capsys):
    """It is said, and nothing is written."""
    assert report.main(["tokens", "xilinx_kc705"]) == 0
    assert "no simulated DRAM is like its" in capsys.readouterr().out and len(report.tokens_table()) == 2


def test_tokens_names_what_failed(built, capsys, monkeypatch):
    """The last line of what `litellama bench` printed; no traceback."""
    monkeypatch.setattr(report, "MODELS", dict(default=(2, ("--context", "x"))))
    assert report.main(["tokens", "radiona_ulx3s"]) == 1
    assert "radiona_ulx3s LFE5U-85F: litellama: --context is 'x', must be" in capsys.readouterr().out
    assert len(report.tokens_table()) == 2


def test_a_report_without_key_is_not_built(built, tmp_path):
    """As earlier versions wrote them."""
    built()
    path = tmp_path/"boards/lambdaconcept_ecpix5-85F/report.json"
    path.write_text(json.dumps({name: value for name, value in FACTS.items() if name != "key"}))
    assert len(report.resources_table()) == 2 and report.over_budget() == []


def test_the_readme_has_the_marks():
    """Both of each table."""
    text = report.README.read_text()
    for name in report.TABLES:
        assert text.count(f"<!-- report: {name} -->\n") == text.count(f"<!-- end: {name} -->") == 1
