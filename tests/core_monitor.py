# SPDX-License-Identifier: BSD-2-Clause
"""Gateware that watches a LlamaCore keep the invariants: sticky faults and counters, for core_bench.build(config, monitor)."""

from functools import reduce
from operator import add

import numpy as np
from migen import If, Mux, ResetInserter, Signal, log2_int

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from litellama.accel.config import BLOCK, UNIT_BYTES
from litellama.accel.kv import FILL_KEYS, FILL_KEY_SCALES, FILL_VALUES, FILL_VALUE_SCALES
from litellama.accel.numerics import EXP2
from litellama.accel.vector import DEST_ACT, DEST_KVBUF, DEST_SCORE, DEST_X

# Blocks whose starts and dones are watched: the bit of a block in the monitor's vectors is its index here.
WATCHED = ("controller", "block_float", "rmsnorm", "squares", "x", "keys", "values", "kv_read", "scores", "softmax",
    "probabilities", "rope_load", "topk", "matvec", "unpack")
FAULTS  = ("early", "twice", "restarted", "work")


class _Watch(LiteXModule):
    """A block's starts and dones: pulses that alternate, up to `most` jobs under way. Where `work` is given, that event comes
    `expected` times from a start to its done."""
    def __init__(self, start, done, most=1, work=None, expected=None):
        self.open      = Signal(4)   # Jobs under way.
        self.seen      = Signal()    # There was a done.
        self.early     = Signal()    # A done without a start before it.
        self.twice     = Signal()    # A done longer than a clock.
        self.restarted = Signal()    # A start during the last job that the block can take.
        self.work      = Signal()    # A done too early, or too late: not all of the work, or more, was seen.

        # # #

        before = Signal()
        self.sync += [
            before.eq(done),
            self.open.eq(self.open + start - done),
            If(done, self.seen.eq(1), If(self.open == 0, self.early.eq(1)), If(before, self.twice.eq(1))),
            If(start & (self.open - done >= most), self.restarted.eq(1)),
        ]
        if work is not None:
            count, total = Signal(24), Signal(24)
            self.comb += total.eq(count + work)
            self.sync += [
                count.eq(total),
                If(done, count.eq(0), If(total != expected, self.work.eq(1))),
                If(start & (self.open == 0), count.eq(0)),
            ]


class CoreMonitor(LiteXModule):
    """Watches `core` between its read `port` and its `write_port`; `signals`: name -> Signal of what it saw since reset (`pass_*`: since the last start).

    fault_*, open, seen: vectors over WATCHED. stages: not exactly one stage level while busy, or one while idle.
    unready: keys or values (or their scales) were read before all of this position's were given out, or while one was.
    asked: the DRAM was asked for a word of a cache before it had taken all bytes of this layer's new keys, values and scales.
    place: a key, value or scale went to the memories of a core whose cache is in DRAM, or to the DRAM of one on chip.
    conflict: LlamaKVOwner's. overlaps: clocks in which one KV memory is read and another written. waits: clocks in which scores
    are done and values are not stored yet.
    pass_*: token_ready clocks, elements of keys and values computed, bytes and scales stored (`taken`: bytes that the DRAM took),
    scores, exponentials; jobs that read keys or values, and how often they were of another KV head than before; reads of keys,
    values and their scales that were asked for, the same, and beats that streamed in.
    """
    def __init__(self, core, port, write_port):
        ctrl, dims, kv, vpu = core.controller, core.dims, core.kv, core.vpu.source
        softmax, quantise   = core.softmax, core.kv_quantise
        fetch, writer       = core.fetch, core.kv_writer
        positions, n_set    = Signal(18), Signal(4)    # Not the controller's own counts.
        heads_seen          = Signal(9)                # Query heads of the group that are done.
        self.comb += [
            positions.eq(ctrl.position + 1),
            n_set.eq(Mux(dims.group - heads_seen > core.config.columns, core.config.columns, dims.group - heads_seen)),
        ]

        # What happens in this clock.
        result   = {dest: vpu.valid & (vpu.dest == dest) for dest in (DEST_ACT, DEST_KVBUF, DEST_SCORE, DEST_X)}
        moved    = lambda endpoint: endpoint.valid & endpoint.ready
        exp2     = moved(softmax.function) & (softmax.function.func == EXP2)
        started  = ctrl.start & ~ctrl.busy
        k_byte   = quantise.write_valid & ~quantise.write_values
        v_byte   = quantise.write_valid & quantise.write_values
        k_scale  = quantise.write_scale_valid & ~quantise.write_values
        v_scale  = quantise.write_scale_valid & quantise.write_values
        elements = lambda blocks: blocks*BLOCK
        self.sync += [
            If(core.block_float.done & ctrl.stages["values"],
                If(heads_seen + n_set == dims.group, heads_seen.eq(0)).Else(heads_seen.eq(heads_seen + n_set))),
            If(started, heads_seen.eq(0)),
        ]

        # A vector's conversion ends with its last column.
        columns_seen, converted = Signal(4), Signal()
        self.comb += converted.eq(core.block_float.done & (columns_seen == Mux(ctrl.stages["softmax"], n_set - 1, 0)))
        self.sync += [
            columns_seen.eq(columns_seen + core.block_float.done),
            If(converted | core.block_float.clear | ctrl.clear_datapath, columns_seen.eq(0)),
        ]

        # How much a job is.
        vector_blocks, beats, kv_beats = Signal(18), BLOCK//core.config.beat_bytes, Signal(24)
        self.comb += [
            If(ctrl.stages["norm"], vector_blocks.eq(dims.dim_blocks)),
            If(ctrl.stages["qkv"], vector_blocks.eq(dims.q_blocks)),
            If(ctrl.stages["softmax"], vector_blocks.eq(n_set*((positions + BLOCK - 1) >> 5))),
            If(ctrl.stages["values"], vector_blocks.eq(n_set*dims.head_blocks)),
            If(ctrl.stages["w13"], vector_blocks.eq(dims.hidden_blocks)),
            kv_beats.eq(beats*Mux(kv.read_values, elements(dims.head_blocks)*((positions + BLOCK - 1) >> 5),
                dims.head_blocks*positions)),
        ]
        self.rows = rows = ResetInserter()(stream.SyncFIFO([("rows", 22)], 16))
        self.comb += [
            rows.reset.eq(ctrl.clear_datapath), rows.sink.valid.eq(core.matvec.start), rows.sink.rows.eq(core.matvec.rows*core.matvec.n_columns),
            rows.source.ready.eq(core.matvec.done),
        ]
        of_values   = Signal()   # What the job reads. (The owner is told a clock after it is started.)
        self.comb  += of_values.eq(Mux(kv.start, ctrl.kv_read_values, kv.read_values))
        n_dim, n_kv = elements(dims.dim_blocks), elements(dims.kv_blocks)
        squares     = core.rmsnorm.squares
        watched     = dict(
            controller    = _Watch(started, core.token_ready),
            block_float   = _Watch(core.block_float.clear, converted, 1,
                core.activations.write.meta_we, vector_blocks),
            rmsnorm       = _Watch(core.rmsnorm.start, core.rmsnorm.done, 1, result[DEST_ACT], n_dim),
            squares       = _Watch(squares.finish, squares.done),
            x             = _Watch(core.x.clear, core.x.done, 1, result[DEST_X], n_dim),
            keys          = _Watch(quantise.start, quantise.k_done, 1, k_byte, n_kv),
            values        = _Watch(quantise.start, quantise.v_done, 1, v_byte, n_kv),
            kv_read       = _Watch(kv.start, kv.done, 1, moved(kv.source), kv_beats),
            scores        = _Watch(softmax.clear, softmax.scores_done, 1, result[DEST_SCORE], positions*n_set),
            softmax       = _Watch(softmax.start, softmax.done, 1, exp2, positions*n_set),
            probabilities = _Watch(softmax.start, softmax.done, 1, result[DEST_ACT], positions*n_set),
            rope_load     = _Watch(core.rope.load, core.rope.load_done, 1, moved(core.rope.vector), elements(dims.head_blocks)),
            topk          = _Watch(core.topk.start, core.topk.done, 1, moved(core.topk.fifo.source), dims.vocab),
            matvec        = _Watch(core.matvec.start, core.matvec.done, 8, moved(core.matvec.source), rows.source.rows),
            unpack        = _Watch(core.unpack.accept, core.unpack.done, 2),
        )
        assert tuple(watched) == WATCHED
        for name, watch in watched.items():
            if name != "controller":   # Its pass goes on while it resets the others.
                watch     = ResetInserter()(watch)
                self.comb += watch.reset.eq(ctrl.clear_datapath)
            self.add_module(f"watch_{name}", watch)
        self.signals = signals = {}
        for fault in FAULTS + ("seen", "open"):
            signals[fault if fault in ("seen", "open") else f"fault_{fault}"] = vector = Signal(len(WATCHED))
            for i, watch in enumerate(watched.values()):
                value = getattr(watch, fault) != 0
                # A fault outlasts the reset of its block.
                self.sync += vector[i].eq(value) if fault == "open" else If(value, vector[i].eq(1))

        def sticky(name, condition):
            """A signal that stays 1 from the first clock in which the condition holds."""
            signals[name] = fault = Signal()
            self.sync += If(condition, fault.eq(1))

        def counter(name, event, clear=0):
            """A signal that counts the clocks of an event."""
            signals[name] = count = Signal(32)
            self.sync += If(clear, count.eq(event)).Elif(event, count.eq(count + 1))
            return count

        # One stage.
        n_stages   = Signal(5)
        self.comb += n_stages.eq(reduce(add, ctrl.stages.values()))
        sticky("fault_stages", n_stages != ctrl.busy)

        # This position's keys and values, of all heads of the layer, are stored before any is read, and no read meets a write.
        layer     = quantise.start
        whole     = {}
        n_stored  = 2*n_kv   # Bytes of the layer, those of scales among them.
        for kind, byte, scale in (("k", k_byte, k_scale), ("v", v_byte, v_scale)):
            n_scales    = counter(f"layer_{kind}_scales", scale, layer)
            n_stored    = n_stored + 2*n_scales
            whole[kind] = (counter(f"layer_{kind}_bytes", byte, layer) == n_kv) & (n_scales*dims.head_blocks == dims.kv_blocks)
        writing_k, writing_v = k_byte | k_scale, v_byte | v_scale
        reading   = kv.busy | kv.start
        sticky("fault_unready", (reading & ~of_values & (~whole["k"] | writing_k)) |
            (reading & of_values & (~whole["v"] | writing_v)) |
            ((softmax.start | ctrl.stages["softmax"]) & (~whole["v"] | writing_v)))
        sticky("fault_conflict", kv.conflict)

        # In DRAM: what the write port takes, whole before the read ports ask for any of it.
        n_taken = Signal(8)
        taken   = Signal(32)
        self.comb += If(moved(write_port.cmd), n_taken.eq(reduce(add, list(writer.commands.source.we))))
        self.sync += taken.eq(Mux(layer, 0, taken) + n_taken)
        asked     = Signal()
        shift     = log2_int(UNIT_BYTES*8//port.data_width)
        self.comb += asked.eq(moved(port.cmd) & (port.cmd.addr[shift:] >= dims.k_base))
        sticky("fault_asked", asked & (~dims.kv_dram | ~whole["k"] | ~whole["v"] | (taken != n_stored)))
        sticky("fault_place", Mux(dims.kv_dram, kv.write_valid | kv.write_scale_valid,
            writer.write_valid | writer.write_scale_valid | moved(write_port.cmd) | kv.fill.valid))
        counter("waits", ctrl.fsm.ongoing("WAIT_VALUES"))
        counter("overlaps", moved(kv.source) & ((kv.read_values & writing_k) | (~kv.read_values & writing_v)))

        # One pass.
        counter("passes", started)
        counter("token_ready_clocks", core.token_ready)
        counter("pass_token_ready", core.token_ready, started)
        counter("pass_computed", result[DEST_KVBUF], started)
        counter("pass_bytes", k_byte | v_byte, started)
        counter("pass_scales", k_scale | v_scale, started)
        signals["pass_taken"] = n_pass_taken = Signal(32)
        self.sync += n_pass_taken.eq(Mux(started, 0, n_pass_taken) + n_taken)
        counter("pass_scores", result[DEST_SCORE], started)
        counter("pass_exp2", exp2, started)
        def heads(kind, event, address):
            """Counts of events, and of those with another address than before."""
            before, none = Signal.like(address), Signal(reset=1)
            counter(f"pass_{kind}_read", event, started)
            counter(f"pass_{kind}_heads", event & (none | (address != before)), started)
            self.sync += [If(event, before.eq(address), none.eq(0)), If(started, none.eq(1))]
        for kind, chosen in (("keys", ~of_values), ("values", of_values)):
            heads(kind, kv.start & chosen, ctrl.kv_base)
        for kind, number in (("key_scales", FILL_KEY_SCALES), ("value_scales", FILL_VALUE_SCALES), ("keys", FILL_KEYS),
                ("values", FILL_VALUES)):
            heads(f"dram_{kind}", moved(fetch.commands) & (fetch.order.sink.kind == number), fetch.commands.address)
            counter(f"pass_{kind}_filled", moved(kv.fill) & (kv.fill.kind == number), started)


def monitor(core, port, write_port):
    """For core_bench.build: attach a CoreMonitor to the core; its signals by name."""
    core.monitor = CoreMonitor(core, port, write_port)
    return {f"monitor_{name}": signal for name, signal in core.monitor.signals.items()}


def seen(core):
    """What the monitor saw."""
    return {name[len("monitor_"):]: core.get(name) for name in core.index if name.startswith("monitor_")}


def blocks(vector):
    """Names of the blocks whose bits are set."""
    return {name for i, name in enumerate(WATCHED) if vector >> i & 1}


def watch_text(core, length):
    """Decode `length` tokens on a fresh core, logits of every third; what the monitor saw after each pass."""
    out    = []
    tokens = np.random.default_rng(4).integers(0, core.model.config.vocab, length)
    for position, token in enumerate(tokens):
        core.step(int(token), position, logits=position % 3 == 0)
        assert core.get("error") == 0
        out.append(seen(core))
    return out


def check_starts_and_dones(last):
    """AssertionError unless, by what was seen last, each block's done is one pulse per start, after all of its work."""
    for fault in FAULTS:
        assert not blocks(last[f"fault_{fault}"]), f"{fault}: {blocks(last[f'fault_{fault}'])}"
    assert not blocks(last["open"]), f"started, never done: {blocks(last['open'])}"
    assert blocks(last["seen"]) == set(WATCHED), "never seen to be done"
