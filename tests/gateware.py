# SPDX-License-Identifier: BSD-2-Clause
"""Run a gateware block twice on the same vectors: in Migen's simulator, then as emitted Verilog (Icarus, or Verilator where
there are many).

The two disagree on signed arithmetic (LiteX prints `-8'd1`, which is unsigned), so a block counts as tested only when both
agree in every cycle on every output.
"""

import os
import random
import re
import subprocess

from migen import ClockDomain, Signal, passive, run_simulation
from migen.fhdl.structure import _ClockDomainList, _Fragment
from migen.fhdl.tools import list_targets
from litex.gen.fhdl.verilog import convert

from litellama.soc.cache import cached, digest

MINUS_UNSIGNED = re.compile(r"-\d+'d")

TESTBENCH = """
module tb(input clk);
    reg [{iw}-1:0] inputs  [0:{n}-1];
    reg [{ow}-1:0] outputs [0:{n}-1];
    wire [{iw}-1:0] in = inputs[i];
    wire [{ow}-1:0] out;
    integer i = 0, errors = 0;
    dut dut(.sys_clk(clk), .sys_rst(1'b0){ports});
    initial begin
        $readmemh("inputs.hex", inputs);
        $readmemh("outputs.hex", outputs);
    end
    always @(posedge clk) begin
        i <= i + 1;
        if (out !== outputs[i]) begin
            errors = errors + 1;
            if (errors < 4) $display("cycle %0d: verilog %h, migen %h", i, out, outputs[i]);
        end
        if (i == {n} - 1) begin
            if (errors == 0) $display("SAME"); else $display("%0d cycles differ", errors);
            $finish;
        end
    end
endmodule
"""
CLOCK = "module clock; reg clk = 0; always #5 clk = !clk; tb tb(.clk(clk)); endmodule\n"
MAIN  = """#include "Vtb.h"
#include "verilated.h"
double sc_time_stamp() { return 0; }
int main() { Vtb t; while (!Verilated::gotFinish()) { t.clk = 0; t.eval(); t.clk = 1; t.eval(); } }
"""
LONG  = 2000   # Cycles from which compiling with Verilator is quicker than interpreting with Icarus.


def flatten_ios(ios):
    """Signals of a mix of Signals, Records and stream Endpoints."""
    for io in ios:
        if isinstance(io, Signal):
            yield io
        else:
            yield from io.flatten()


def run_block(dut, generators, ios, path):
    """Simulate `dut` with `generators` in Migen; replay every cycle through its Verilog under folder `path`.

    ios: Signals, Records or Endpoints that are the block's ports; their directions are found. AssertionError on any
    difference, and on any `-N'd` in the Verilog.
    """
    signals = list(flatten_ios(ios))
    trace   = []

    def monitor():
        while True:
            row = []
            for s in signals:
                row.append((yield s))
            trace.append(row)
            yield

    fragment = dut.get_fragment()
    targets  = {id(s) for s in list_targets(fragment.comb) | list_targets(list(fragment.sync.values()))}
    verilog  = _copy(fragment)
    run_simulation(_copy(fragment), [*generators, passive(monitor)()])
    outs    = [i for i, s in enumerate(signals) if id(s) in targets]
    ins     = [i for i, s in enumerate(signals) if id(s) not in targets]
    os.makedirs(path, exist_ok=True)
    clock   = ClockDomain("sys")
    verilog.clock_domains.append(clock)
    emitted = convert(verilog, ios={clock.clk, clock.rst, *signals}, name="dut")
    text    = emitted.main_source
    assert not MINUS_UNSIGNED.search(text), MINUS_UNSIGNED.findall(text)
    text    = re.sub(r"^(reg \[\d+:0\] (\w+)\[0:(\d+)\];)$", r"\1\ninteger init_\2; initial for (init_\2 = 0; init_\2 <= \3; "
        r"init_\2 = init_\2 + 1) \2[init_\2] = 0;", text, flags=re.M)
    names   = {id(s): emitted.ns.get_name(s) for s in signals}
    # LiteX gives registers that are ports, and those of block RAMs, no initial value.
    text    = re.sub(r"^(reg (?:\[\d+:0\] )?\w+_(?:dat|adr)\d+);$", r"\1 = 0;", text, flags=re.M)
    resets  = "".join(f"initial {names[id(signals[i])]} = {len(signals[i])}'d{signals[i].reset.value & (1 << len(signals[i])) - 1};\n"
        for i in outs if re.search(rf"output\s+reg\b[^,;]*\b{names[id(signals[i])]}\b", text))
    text    = text.replace("endmodule", resets + "endmodule")
    def join(index):
        return "{" + ", ".join(names[id(signals[i])] for i in index) + "}", sum(len(signals[i]) for i in index)
    def hexes(index):
        for row in trace:
            v = 0
            for i in index:
                v = v << len(signals[i]) | row[i] & (1 << len(signals[i])) - 1
            yield f"{v:x}"
    ports, wires = "", ""
    for index, bus in ((ins, "in"), (outs, "out")):
        high = sum(len(signals[i]) for i in index)
        for i in index:
            ports += f", .{names[id(signals[i])]}({bus}[{high - 1}:{high - len(signals[i])}])"
            high  -= len(signals[i])
    bench = TESTBENCH.format(iw=max(1, join(ins)[1]), ow=max(1, join(outs)[1]), n=len(trace), ports=ports)
    for name, data in (("dut.v", text), ("tb.v", bench), ("clock.v", CLOCK), ("main.cpp", MAIN), ("inputs.hex", "\n".join(hexes(ins)) + "\n"),
                       ("outputs.hex", "\n".join(hexes(outs)) + "\n"), *emitted.data_files.items()):
        with open(os.path.join(path, name), "w") as f:
            f.write(data)
    run = lambda *command, cwd=path: subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout
    if len(trace) < LONG:
        run("iverilog", "-g2005", "-s", "clock", "-o", "tb", "clock.v", "tb.v", "dut.v")
        result = run("vvp", "-n", "tb")
    else:
        def compiled(folder):
            for name, source in sources.items():
                (folder/name).write_text(source)
            run("verilator", "-O3", "--cc", "--exe", "--build", "--top-module", "tb", "--x-assign", "unique", "--x-initial", "unique",
                "-Wno-fatal", "-Wno-lint", "-Wno-COMBDLY", "-Wno-BLKANDNBLK", "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1",
                "tb.v", "dut.v", "main.cpp", cwd=folder)
        sources = {"dut.v": text, "tb.v": bench, "main.cpp": MAIN}
        # LiteX writes the time into a comment: without it, the same block is the same text.
        key     = digest(*(re.sub(r"//.*", "", source) for source in sources.values()))
        result  = run(str(cached("block", key, compiled)/"obj_dir"/"Vtb"))
    assert "SAME" in result, result
    return trace


def _copy(f):
    """The fragment with containers of its own: simulator and converter both change theirs."""
    return _Fragment(list(f.comb), {k: list(v) for k, v in f.sync.items()}, set(f.specials), _ClockDomainList(f.clock_domains))


def throttle(seed, probability):
    """Infinite stream of booleans, True with `probability`: the random valid or ready of a test."""
    prng = random.Random(seed)
    while True:
        yield prng.random() < probability


def feed(endpoint, items, probability=1.0, seed=1):
    """Generator: send dicts of payload/param (and `first`, `last`) fields through a stream sink with random gaps."""
    go = throttle(seed, probability)
    for item in items:
        while not next(go):
            yield
        for k, v in item.items():
            yield getattr(endpoint, k).eq(v)
        yield endpoint.valid.eq(1)
        yield
        while not (yield endpoint.ready):
            yield
        yield endpoint.valid.eq(0)


def drain(endpoint, out, n, probability=1.0, seed=2, timeout=100000):
    """Generator: append `n` dicts of all payload/param fields and `last` of a stream source to list `out`, randomly stalling.

    Checks that the payload is stable while stalled. AssertionError after `timeout` cycles.
    """
    go     = throttle(seed, probability)
    fields = [f[0] for f in endpoint.description.payload_layout + endpoint.description.param_layout] + ["first", "last"]
    held   = None
    while len(out) < n:
        ready = next(go)
        yield endpoint.ready.eq(int(ready))
        yield
        timeout -= 1
        assert timeout > 0, f"only {len(out)} of {n} items came out"
        valid, taken = (yield endpoint.valid), (yield endpoint.ready)
        item = {}
        if valid:
            for f in fields:
                item[f] = (yield getattr(endpoint, f))
            assert held is None or held == item, f"payload changed while stalled: {held} to {item}"
        else:
            assert held is None, "valid fell before ready"
        held = item if valid and not taken else None
        if valid and taken:
            out.append(item)
    yield endpoint.ready.eq(0)
