# SPDX-License-Identifier: BSD-2-Clause
"""The eight invariants of the design, each with a test that fails where it is broken.

One small core with a monitor inside (core_monitor.py) is built once and runs all models here.
"""

from collections import Counter
from dataclasses import asdict
import functools
import re

import numpy as np
import pytest

from litex.soc.interconnect import csr_bus
from litex.gen import LiteXModule
from litedram.common import LiteDRAMNativePort
from migen import Memory, READ_FIRST, Signal, run_simulation
from migen.fhdl.structure import Case, If, _Assign, _Slice
from migen.genlib.fsm import FSM

from litellama.accel import image, numerics
from litellama.accel.config import BLOCK, CoreConfig, ModelConfig
from litellama.accel.controller import ERROR_LIMIT, ERROR_STREAM
from litellama.accel.core import LlamaCore
from litellama.accel.kv import LlamaKVOwner, LlamaKVRam
from litellama.host.random_model import random_model
from litellama.soc.synthesis import SCRIPT

from core_bench import Core, emit
from core_monitor import FAULTS, WATCHED, blocks, check_starts_and_dones, monitor, seen, watch_text

CONFIG = CoreConfig(max_dim=64, max_hidden=128, max_heads_dim=128, max_head_dim=64, max_context=64, kv_bytes=8192,
    kv_scales=256, max_topk=16, fifo_bytes=2048)
MODELS = {
    "shared": (ModelConfig(64, 96, 2, 4, 2, 32, 70, 64), image.Q4_0, image.Q8_0),    # Two query heads on each KV head.
    "short":  (ModelConfig(32, 32, 1, 1, 1, 32, 40, 64), image.Q4_1, image.Q4_1),    # Rows of one block.
    "wide":   (ModelConfig(32, 64, 2, 2, 1, 48, 33, 64), image.Q8_0, image.Q4_0),    # Heads of two blocks.
}
LENGTH = 35   # Passes of a text: past a block of 32 positions.


def bare(config=CONFIG, **options):
    """The core and its ports, before it is put together."""
    return LlamaCore(config, [LiteDRAMNativePort("read", address_width=24, data_width=128)],
        LiteDRAMNativePort("write", address_width=24, data_width=128), **options)


@functools.cache
def model_of(name):
    """The random model of that name."""
    config, layers, head = MODELS[name]
    return random_model(config, layers, head, seed=3)


def core_of(name, **port):
    """A fresh simulated core with the model of that name and the monitor."""
    core = Core(CONFIG, model_of(name), monitor=monitor, **port)
    core.set("dims_topk", CONFIG.max_topk)
    return core


@functools.cache
def text_of(name):
    """Decode a text, with random stalls of the DRAM port; what the monitor saw after each pass."""
    return watch_text(core_of(name, stall_256=40), LENGTH)


# 1: one controller, real starts and dones ---------------------------------------------------------

@pytest.mark.parametrize("name", MODELS)
def test_every_start_has_its_done(name):
    """Each block's done is one pulse per start, after all of its work; exactly one stage is active while the core is busy."""
    last = text_of(name)[-1]
    check_starts_and_dones(last)
    assert not last["fault_stages"] and not last["fault_place"]


def test_failed_pass_leaves_nothing_open():
    """A pass that ends early leaves no block open and counts as one."""
    core = core_of("shared")
    core.set("dims_hidden_blocks", 2)     # w13's header differs: the pass ends there.
    core.step(1, 0)
    got = seen(core)
    assert core.get("error") == ERROR_STREAM and not blocks(got["open"]) and not got["fault_stages"]
    assert not any(got[f"fault_{fault}"] for fault in FAULTS)


def modules(module):
    """The module and all below it."""
    yield module
    for _, m in module._submodules:
        yield from modules(m)


def assignments(statements):
    """All assignments in (nested) statements."""
    for s in statements:
        if isinstance(s, _Assign):
            yield s
        elif isinstance(s, If):
            yield from assignments(s.t)
            yield from assignments(s.f)
        elif isinstance(s, Case):
            for branch in s.cases.values():
                yield from assignments(branch)
        elif not isinstance(s, (int, str)) and hasattr(s, "__iter__"):
            yield from assignments(s)


def whole(value):
    """The signal that `value` is, or is a slice of; None for all else."""
    while isinstance(value, _Slice):
        value = value.value
    return value if isinstance(value, Signal) else None


def test_state_is_kept_once():
    """The controller has one state machine, and no register outside it is a copy of its state, layer, head or position."""
    core     = bare(with_csr=False)
    ctrl     = core.controller
    fragment = core.get_fragment()
    assert [m for m in modules(ctrl) if isinstance(m, FSM)] == [ctrl.fsm]
    own      = {whole(s.l) for s in assignments(ctrl._fragment.sync["sys"])}
    copies   = {ctrl.fsm.state, ctrl.fsm.next_state, ctrl.layer, ctrl.head, ctrl.position}
    wires    = [(whole(s.l), whole(s.r)) for s in assignments(fragment.comb)]
    drivers  = Counter(l for l, _ in wires)   # What has several is a choice, not another name.
    while new := {l for l, r in wires if r in copies and l is not None and drivers[l] == 1} - copies:
        copies |= new
    for s in assignments(fragment.sync["sys"]):
        if whole(s.l) not in own:
            assert whole(s.r) not in copies, f"{s.l} is a copy of the controller's {whole(s.r)}"


# 2: one owner of keys and values ------------------------------------------------------------------

@functools.cache
def memories():
    """[(module, memory)] of the core, before it is put together; and the core."""
    core = bare()
    return [(m, s) for m in modules(core) for s in m._fragment.specials if isinstance(s, Memory)], core


def test_keys_and_values_have_one_owner():
    """Keys, values and their scales are one memory each; the owner's alone, with one port that reads and one that writes."""
    found, core = memories()
    assert [m for m in modules(core) if isinstance(m, LlamaKVOwner)] == [core.kv]
    assert [m for m in modules(core) if isinstance(m, LlamaKVRam)] == [core.kv.keys, core.kv.values]
    for ram, name in ((core.kv.keys, "llama_keys"), (core.kv.values, "llama_values")):
        for name, bits in ((name, 8*CONFIG.kv_bytes), (name + "_scales", 16*CONFIG.kv_scales)):
            holders = [(m, s) for m, s in found if s.name_override == name]
            assert [m for m, _ in holders] == [ram], f"{name} is in {holders}"
            memory = holders[0][1]
            assert memory.width*memory.depth == bits
            assert sorted(port.we is not None for port in memory.ports) == [False, True], f"ports of {name}"
            assert set(memory.ports) <= set(ram._fragment.specials), f"a port of {name} is held by another module"


def test_nothing_mirrors_keys_and_values():
    """The core's named memories are these: a new one has to be argued for here."""
    names = Counter(s.name_override for _, s in memories()[0])
    assert names.pop("storage") == 19   # FIFOs.
    assert names == Counter(("llama_keys", "llama_keys_scales", "llama_values", "llama_values_scales", "llama_act_mant",
        "llama_act_meta", "llama_bfp_buffer", "llama_kv_buffer", "llama_x", "llama_row_sums", "partial_sums", "llama_rope_cosine",
        "llama_rope_sine", "llama_scores", "llama_topk_list", "llama_function_table", "llama_stage_clocks"))


# 3: reads and writes overlap, never in one place --------------------------------------------------

@pytest.mark.parametrize("name", MODELS)
def test_no_read_meets_a_write(name):
    """All of this position's keys are stored before one is read, all values likewise; the owner sees no conflict."""
    last = text_of(name)[-1]
    assert not last["fault_unready"] and not last["fault_conflict"] and not last["fault_asked"]


def test_keys_stream_while_values_are_stored():
    """With one short head its keys are scored while its values are still quantised and stored, and it then waits for them."""
    last = text_of("short")[-1]
    assert last["overlaps"] > 0 and last["waits"] > 0


# 4: causality -------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", MODELS)
def test_loops_end_at_the_position(name):
    """Scores and exponentials are those of positions 0 to pos, for each head of each layer, and no more."""
    c = MODELS[name][0]
    for position, got in enumerate(text_of(name)):
        want = c.n_layers*c.n_heads*(position + 1)
        assert (got["pass_scores"], got["pass_exp2"]) == (want, want), f"position {position}"
    assert not blocks(got["fault_work"]) & {"kv_read", "scores", "softmax", "probabilities"}


@pytest.mark.parametrize("name", ("shared", "wide"))
def test_what_lies_behind_the_position_does_not_matter(name):
    """A core full of another text's keys and values gives bit for bit what an empty one gives."""
    fresh, used = core_of(name), core_of(name)
    c, rng      = fresh.model.config, np.random.default_rng(5)
    for position in range(LENGTH):
        used.step(int(rng.integers(c.vocab)), position, logits=False)
    for position, token in enumerate(rng.integers(0, c.vocab, 6).tolist()):
        for core in (fresh, used):
            core.step(token, position)
        assert (fresh.peek("x", 0, c.dim_blocks*BLOCK) == used.peek("x", 0, c.dim_blocks*BLOCK)).all(), f"position {position}"
        (ids, logits), (used_ids, used_logits) = fresh.topk(), used.topk()
        assert ids == used_ids and (numerics.bits(logits) == numerics.bits(used_logits)).all()


# 5: keys and values once per KV head --------------------------------------------------------------

@pytest.mark.parametrize("name", MODELS)
def test_keys_and_values_are_computed_once_per_kv_head(name):
    """Each KV head's key and value is computed and stored once in a pass, and read in turn by all query heads of its group."""
    c    = MODELS[name][0]
    size = c.n_layers*c.n_kv_heads*c.head_blocks*BLOCK
    for got in text_of(name):
        assert got["pass_computed"] == 2*size and got["pass_bytes"] == 2*size
        assert got["pass_scales"] == 2*c.n_layers*c.n_kv_heads and got["pass_taken"] == 0
        for kind in ("keys", "values"):
            assert got[f"pass_{kind}_read"] == c.n_layers*c.n_heads
            assert got[f"pass_{kind}_heads"] == c.n_layers*c.n_kv_heads


# 6: token_ready -----------------------------------------------------------------------------------

def test_token_ready_is_one_pulse():
    """One clock of token_ready per pass: with logits, without, with either error, and when it is reset."""
    core = core_of("shared")
    core.step(1, 0)
    core.step(2, 1, logits=False)
    core.set("dims_context", CONFIG.max_context + BLOCK)
    core.step(3, 2)
    assert core.get("error") == ERROR_LIMIT
    core.set("dims_context", core.context)
    core.set("dims_vocab", 71)
    core.step(3, 2)
    assert core.get("error") == ERROR_STREAM
    core.set("dims_vocab", 70)
    for name, value in dict(token=3, position=2, want_logits=1, start=1).items():
        core.set(name, value)
    core.lib.core_steps(core.core, 1)
    core.set("start", 0)
    core.lib.core_steps(core.core, 700)
    assert core.get("busy")
    core.set("reset", 1)
    core.lib.core_steps(core.core, 1)
    core.set("reset", 0)
    core.lib.core_steps(core.core, 2000)
    assert not core.get("busy")
    core.step(3, 2)
    assert core.get("error") == 0
    got = seen(core)
    assert (got["passes"], got["token_ready_clocks"], got["pass_token_ready"]) == (6, 6, 1)
    assert not any(got[f"fault_{fault}"] for fault in FAULTS) and not got["fault_stages"]
    assert all(after["pass_token_ready"] == 1 for after in text_of("shared"))


def test_token_ready_is_latched_until_it_is_cleared():
    """The event is pending, and the interrupt high, from the pulse until software clears it: each pass raises it again."""
    top      = LiteXModule()
    top.core = core = bare()
    bus      = csr_bus.Interface(data_width=32, address_width=14)
    top.bank = bank = csr_bus.CSRBank(core.get_csrs(), bus=bus)
    address  = {csr.name.rstrip("0"): i for i, csr in enumerate(bank.simple_csrs)}
    clocks   = []

    def cycles(n):
        for _ in range(n):
            clocks.append((yield core.token_ready))
            yield

    def main():
        enable, pending, control = (address[name] for name in ("ev_enable", "ev_pending", "control"))
        yield from bus.write(enable, 1)
        for n in (1, 2):
            yield from cycles(20)
            assert not (yield core.ev.irq)
            yield from bus.write(control, 1)     # All dimensions are 0: refused at once, and that ends the pass.
            yield from cycles(30)
            assert sum(clocks) == n, f"{sum(clocks)} clocks of token_ready"
            for _ in range(3):
                assert (yield core.ev.irq)
                assert (yield from bus.read(pending)) == 1
            yield from bus.write(pending, 1)
            yield from cycles(3)
            assert not (yield core.ev.irq), "the interrupt cannot be cleared"
            assert (yield from bus.read(pending)) == 0
    run_simulation(top, main())


# 7: limits ----------------------------------------------------------------------------------------

LIMITS = dict(dim_blocks=CONFIG.max_dim//BLOCK, hidden_blocks=CONFIG.max_hidden//BLOCK, q_blocks=CONFIG.max_heads_dim//BLOCK,
    kv_blocks=CONFIG.max_heads_dim//BLOCK, head_blocks=CONFIG.max_head_dim//BLOCK, context=CONFIG.max_context, topk=CONFIG.max_topk)


def test_dimensions_over_a_limit_are_refused():
    """One over each limit ends the pass with error 2 before it reads anything; the limit itself does not."""
    core = core_of("wide")
    for name, limit in LIMITS.items():
        before = core.get("dims_" + name)
        core.set("dims_" + name, limit)
        core.step(1, 0)
        assert core.get("error") != ERROR_LIMIT, f"{name} {limit} is refused"
        for wrong in (limit + 1, 2*limit) + ((0,) if name != "topk" else ()):
            core.set("dims_" + name, wrong)
            cycles = core.step(1, 0)
            assert core.get("error") == ERROR_LIMIT, f"{name} {wrong} is accepted"
            assert cycles < 10, f"{name} {wrong} is refused after {cycles} cycles"
        core.set("dims_" + name, before)
    core.step(1, core.context)
    assert core.get("error") == ERROR_LIMIT, "a position outside the context is accepted"
    core.step(1, 0)
    assert core.get("error") == 0


@pytest.mark.parametrize("change,limit", (
    (dict(dim=65),                     "dim (padded) is 96, this core is built for at most 64"),
    (dict(hidden=129),                 "hidden (padded) is 160, this core is built for at most 128"),
    (dict(n_heads=6, n_kv_heads=1),    "heads*head_dim is 192, this core is built for at most 128"),
    (dict(head_dim=66, n_heads=1, n_kv_heads=1), "head_dim (padded) is 96, this core is built for at most 64"),
))
def test_models_over_a_limit_are_refused(change, limit):
    """The host's message names the value and the limit."""
    fits  = dict(dim=64, hidden=96, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=32, vocab=70, context=64)
    CONFIG.check_model(ModelConfig(**fits))
    with pytest.raises(ValueError, match=re.escape(limit)):
        CONFIG.check_model(ModelConfig(**{**fits, **change}))


@pytest.mark.parametrize("change, limit", (
    (dict(kv_bytes=8192 - 32), "kv_bytes is 8160, must be a power of 2"),
    (dict(kv_scales=32), "kv_scales is 32, must be a multiple of 32 and at least max_context 64"),
))
def test_caches_that_cannot_be_are_refused(change, limit):
    """A tile runs round its memory; the scales of one head are there at once."""
    with pytest.raises(ValueError, match=re.escape(limit)):
        CoreConfig(**{**asdict(CONFIG), **change})


# 8: memories are what a block RAM can be ----------------------------------------------------------

LUT_RAM_BITS = 4096


def test_memories_fit_block_ram():
    """At most two ports, one of them writing, READ_FIRST, no port without clock but on small LUT RAM; synthesis sets
    no_rw_check by name."""
    assert 0 < SCRIPT.find("setattr -set no_rw_check 1 m:llama_* m:storage*\n") < SCRIPT.index("synth_ecp5")
    for module, memory in memories()[0]:
        name = f"{memory.name_override} of {type(module).__name__}"
        assert len(memory.ports) <= 2, f"{name} has {len(memory.ports)} ports"
        assert sum(port.we is not None for port in memory.ports) <= 1, f"{name} is written by two ports"
        lut_ram = any(port.async_read for port in memory.ports)
        bits    = memory.width*memory.depth
        assert not lut_ram or bits <= LUT_RAM_BITS, f"{name}: {bits} bits of LUT RAM"
        if not lut_ram:
            assert all(port.mode == READ_FIRST for port in memory.ports), f"{name} is not READ_FIRST"
            assert memory.name_override.startswith(("llama_", "storage")), f"no_rw_check does not reach {name}"


def test_verilog_has_each_memory_once():
    """Each memory is one array in the Verilog, addressed by at most two signals, and what is written at one only there."""
    text      = re.sub(r"//.*", "", emit(CONFIG)[2]["core.v"])
    arrays    = re.findall(r"^reg \[\d+:0\] (\w+)\[0:\d+\];", text, re.M)
    expected  = Counter(s.name_override for _, s in memories()[0])
    assert Counter(re.sub(r"^(storage|llama_\w+?|partial_sums)_\d+$", r"\1", a) for a in arrays) == expected
    for array in arrays:
        addresses = set(re.findall(rf"\b{array}\[(\w+)\]", text))
        writes    = set(re.findall(rf"^\s*{array}\[(\w+)\](?:\[\d+:\d+\])? <=", text, re.M))
        assert len(addresses) <= 2, f"{array} is addressed by {addresses}"
        assert len(writes) <= 1, f"{array} is written at {writes}"
