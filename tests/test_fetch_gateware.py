# SPDX-License-Identifier: BSD-2-Clause
"""LlamaFetch: which reads a pass asks for, in which order and when, and where their beats go, against plain arithmetic."""

from collections import deque
import random
from types import SimpleNamespace

from migen import passive
import pytest

from gateware import drain, run_block
from stage import Bench, pulse, until
from litellama.accel import image
from litellama.accel.config import BLOCK, GROUP_BLOCKS, UNIT_BYTES, ceil_div
from litellama.accel.controller import LlamaDims
from litellama.accel.fetch import SCAN, WEIGHTS, LlamaFetch, LlamaSerialMultiplier
from litellama.accel.image import Q4_0, Q4_1, Q8_0
from litellama.accel.kv import FILL_KEYS, FILL_KEY_SCALES, FILL_VALUES, FILL_VALUE_SCALES

DIMS   = ("dim_blocks", "head_blocks", "kv_blocks", "group", "context", "kv_stride", "kv_dram", "k_base", "v_base", "k_scale_base",
    "v_scale_base", "stream_base", "first_units", "layers_units", "stream_units", "embed_base", "embed_type", "rope_base")
INPUTS = ("prepare", "start", "scan", "token", "want_logits", "position", "k_offset", "v_offset", "kv_base", "kv_sbase", "kv_begin",
    "kv_stored", "last_layer", "segment")


class Pass:
    """One pass: token at position, its dims, and the pieces that the stream is in. expected: [(kind, address, units)]."""
    def __init__(self, prng, token, position, type, logits, dram, layers=2, kv_heads=2, group=3, head_blocks=1, dim_blocks=5,
            context=64):
        pieces      = [prng.randrange(1, 9) for _ in range(layers + 2)]   # First, one per layer, final norm and classifier.
        self.token, self.position, self.logits, self.layers, self.pieces = token, position, logits, layers, pieces
        self.stride = context*head_blocks*BLOCK
        self.heads  = kv_heads
        self.dims   = d = dict(dim_blocks=dim_blocks, head_blocks=head_blocks, kv_blocks=kv_heads*head_blocks, group=group,
            context=context, kv_stride=self.stride, kv_dram=int(dram), k_base=prng.randrange(1 << 26), v_base=prng.randrange(1 << 26),
            k_scale_base=prng.randrange(1 << 26), v_scale_base=prng.randrange(1 << 26), stream_base=prng.randrange(1 << 26),
            first_units=pieces[0], layers_units=sum(pieces[:-1]), stream_units=sum(pieces), embed_base=prng.randrange(1 << 25),
            embed_type=type, rope_base=prng.randrange(1 << 26))
        self.group_units = image.GROUP_BYTES[type]//UNIT_BYTES
        first, last      = token*dim_blocks//GROUP_BLOCKS, ceil_div((token + 1)*dim_blocks, GROUP_BLOCKS)
        self.row_skip    = token*dim_blocks % GROUP_BLOCKS
        self.head = [(WEIGHTS, d["rope_base"] + position*head_blocks*4, head_blocks*4),
            (WEIGHTS, d["embed_base"] + first*self.group_units, (last - first)*self.group_units)]

    def layer(self, i):
        """Byte of keys, and scale, where layer i begins."""
        return i*self.heads*self.stride, i*self.heads*self.dims["context"]

    def expected(self, columns):
        """All reads in order."""
        d, out = self.dims, list(self.head)
        if not d["kv_dram"]:
            return out + [(WEIGHTS, d["stream_base"], d["stream_units"] if self.logits else d["layers_units"])]
        at = d["stream_base"]
        def piece(n):
            nonlocal at
            out.append((WEIGHTS, at, n))
            at += n
        piece(self.pieces[0])
        for i in range(self.layers):
            base, sbase = self.layer(i)
            for _ in range(self.heads):
                for _ in range(ceil_div(d["group"], columns)):
                    out += [(FILL_KEY_SCALES, d["k_scale_base"] + 2*sbase//UNIT_BYTES, self.position//16 + 1),
                        (FILL_VALUE_SCALES, d["v_scale_base"] + 2*sbase//UNIT_BYTES, self.position//16 + 1),
                        (FILL_KEYS, d["k_base"] + base//UNIT_BYTES, (self.position + 1)*d["head_blocks"]),
                        (FILL_VALUES, d["v_base"] + base//UNIT_BYTES, (self.position//BLOCK + 1)*BLOCK*d["head_blocks"])]
                base, sbase = base + self.stride, sbase + d["context"]
            piece(self.pieces[1 + i])
        if self.logits:
            piece(self.pieces[-1])
        return out


def content(i, beat_bytes):
    """Data of beat i of all that is read."""
    return (i + 1)*0x9E3779B97F4A7C15F39CC0605CEDC835 & (1 << 8*beat_bytes) - 1


class Scan(Pass):
    """A pass that reads `units` of the stream from unit `base` on, and drops them."""
    def __init__(self, prng, base, units, dram):
        super().__init__(prng, 0, 0, Q8_0, False, dram)
        self.dims.update(stream_base=base, stream_units=units)

    def expected(self, columns):
        """The one read."""
        return [(SCAN, self.dims["stream_base"], self.dims["stream_units"])]


class Reader:
    """In LlamaStreamReader's place: takes commands now and then, up to `depth` at once, and serves their beats with gaps."""
    def __init__(self, dut, prng, depth, ready, valid):
        self.dut, self.prng, self.depth, self.ready, self.valid = dut, prng, depth, ready, valid
        self.beat_bytes = len(dut.sink.data)//8
        self.commands, self.queue, self.served = [], deque(), 0

    @passive
    def run(self):
        """Generator: the reader."""
        commands, sink, offered = self.dut.commands, self.dut.sink, False
        while True:
            if not offered and self.queue and self.prng.random() < self.valid:
                offered = True
                yield sink.data.eq(content(self.served, self.beat_bytes))
            yield sink.valid.eq(int(offered))
            yield commands.ready.eq(int(len(self.queue) < self.depth and self.prng.random() < self.ready))
            yield
            if (yield commands.valid) and (yield commands.ready):
                self.commands.append(((yield commands.address), (yield commands.units)))
                self.queue.append(self.commands[-1][1]*UNIT_BYTES//self.beat_bytes)
            if offered and (yield sink.ready):
                offered      = False
                self.served += 1
                self.queue[0] -= 1
                if self.queue[0] == 0:
                    self.queue.popleft()


def wait(condition, timeout=20_000):
    """Generator: clocks until the condition holds."""
    for _ in range(timeout):
        if condition():
            return
        yield
    raise AssertionError("timeout: a read is missing, or its beats are not taken")


def control(dut, dims, passes, reader, columns, prng):
    """Generator: the controller's part: passes one after the other, each layer's keys and values stored late."""
    asked = 0
    for p in passes:
        for name, value in p.dims.items():
            yield getattr(dims, name).eq(value)
        if isinstance(p, Scan):
            asked += 1
            before = reader.served
            yield from pulse(dut.scan)
            yield from until(dut.scanned)
            assert reader.served == before + p.dims["stream_units"]*UNIT_BYTES//reader.beat_bytes and len(reader.commands) == asked
            yield
            assert not (yield dut.scanned)
            continue
        yield dut.token.eq(p.token)
        yield from pulse(dut.prepare)
        yield
        yield dut.token.eq(0)
        yield from until(dut.prepared)
        for name, value in dict(want_logits=p.logits, position=p.position, k_offset=p.position*p.dims["head_blocks"],
                v_offset=p.position//BLOCK*p.dims["head_blocks"]).items():
            yield getattr(dut, name).eq(int(value))
        assert (yield dut.row_skip) == p.row_skip
        yield from pulse(dut.start)
        want   = p.expected(columns)
        asked += len(want)
        stop   = len(reader.commands) + 3
        for i in range(p.layers if p.dims["kv_dram"] else 0):
            yield from wait(lambda: len(reader.commands) >= stop and not reader.queue)   # The piece up to wq has come.
            for _ in range(prng.randrange(4)):
                yield
            base, sbase = p.layer(i)
            yield dut.kv_base.eq(base)
            yield dut.kv_sbase.eq(sbase)
            yield dut.segment.eq(p.pieces[1 + i])
            yield dut.last_layer.eq(int(i == p.layers - 1))
            yield from pulse(dut.kv_begin)
            yield dut.kv_stored.eq(0)
            for _ in range(prng.randrange(40)):
                yield
                assert len(reader.commands) == stop, "keys are asked for before they are stored"
            yield dut.kv_stored.eq(1)
            stop += 4*p.heads*ceil_div(p.dims["group"], columns)
            yield from wait(lambda: len(reader.commands) >= stop)
            yield dut.kv_base.eq(12345)   # Once asked for, the next layer's may come.
            yield dut.kv_sbase.eq(77)
            stop += 1
        yield from wait(lambda: len(reader.commands) >= asked and not reader.queue)
        for _ in range(20):
            yield
        assert len(reader.commands) == asked, "more is read than a pass needs"


def check(passes, path, columns=1, lanes=32, depth=4, ready=0.6, valid=0.8, taking=0.8, seed=1):
    """Run the passes; compare commands, and every beat that comes out."""
    prng   = random.Random(seed)
    config = SimpleNamespace(beat_bytes=lanes//2, columns=columns)   # (What of a CoreConfig it looks at.)
    dims   = LlamaDims()
    dut    = LlamaFetch(config, dims)
    reader = Reader(dut, prng, depth, ready, valid)
    want   = [read for p in passes for read in p.expected(columns)]
    weights, fills, scanned, n = [], [], [], 0
    for kind, _, units in want:
        beats = units*UNIT_BYTES//config.beat_bytes
        for k in range(beats):
            item = dict(data=content(n, config.beat_bytes), first=0, last=0)
            n   += 1
            if kind == WEIGHTS:
                weights.append(item)
            elif kind == SCAN:
                scanned.append(item["data"])
            else:
                fills.append(dict(item, kind=kind, last=int(k == beats - 1)))
    got_weights, got_fills, dropped = [], [], []
    @passive
    def watch():
        while True:
            if (yield dut.dropped):
                assert (yield dut.sink.ready)   # One a clock, whatever the others do.
                dropped.append((yield dut.sink.data))
            yield
    bench = Bench([], [*(getattr(dims, n) for n in DIMS), *(getattr(dut, n) for n in INPUTS), dut.commands.ready, dut.sink.valid,
        dut.sink.data, dut.weights.ready, dut.fill.ready], [dut.prepared, dut.row_skip, dut.commands.valid, dut.commands.address,
        dut.commands.units, dut.sink.ready, dut.weights.valid, dut.weights.data, dut.fill.valid, dut.fill.last, dut.fill.data,
        dut.fill.kind, dut.scanned, dut.dropped], [dut])
    run_block(bench, [control(dut, dims, passes, reader, columns, prng), reader.run(), watch(), drain(dut.weights, got_weights, len(weights),
        taking, seed), drain(dut.fill, got_fills, len(fills), taking, seed + 1)], bench.ios, path)
    assert reader.commands == [read[1:] for read in want]
    assert got_weights == weights and got_fills == fills and dropped == scanned


@pytest.mark.parametrize("columns", (1, 2, 3, 4))
def test_cache_in_dram(columns, tmp_path):
    """Three query heads on each KV head, read once per set of columns; with logits, then without, in another place."""
    prng = random.Random(columns)
    type = (Q8_0, Q4_0, Q4_1, Q4_0)[columns - 1]
    check([Pass(prng, 77, 37 if columns > 1 else 17, type, True, True, layers=3 - columns % 2),
        Pass(prng, 0, 0, type, False, True, head_blocks=2)], tmp_path, columns, lanes=(16, 32)[columns % 2], seed=columns)


def test_cache_in_dram_of_one_head(tmp_path):
    """One layer, one KV head, one query head, a reader that takes more commands than the switch has places for."""
    prng = random.Random(9)
    check([Pass(prng, 3, t, Q4_1, t == 15, True, layers=1, kv_heads=1, group=1) for t in (15, 16)] +
        [Pass(prng, 3, 31, Q4_1, True, True, layers=1, kv_heads=4, group=2)], tmp_path, depth=30, ready=1, valid=0.3, taking=1)


@pytest.mark.parametrize("lanes", (8, 32))
def test_cache_on_chip(lanes, tmp_path):
    """One read of the stream; embedding rows of all types anywhere in their groups, up to the largest token and row."""
    prng   = random.Random(lanes)
    passes = [Pass(prng, token, position, type, logits, False, dim_blocks=dim_blocks) for token, position, type, logits, dim_blocks in (
        (0, 0, Q8_0, True, 4), (5, 300, Q4_0, False, 3), (1023, 4095, Q4_1, True, 18), (15, 1, Q8_0, False, 1), (16, 2, Q4_1, True, 1),
        ((1 << 18) - 1, (1 << 17) - 1, Q4_0, True, 20))]
    check(passes, tmp_path, lanes=lanes, ready=0.3, seed=lanes)


@pytest.mark.parametrize("lanes, dram", ((8, True), (32, False), (64, True)))
def test_scan(lanes, dram, tmp_path):
    """Scans of one unit and of more, before, between and after passes: one read each, and nothing for anybody else."""
    prng   = random.Random(lanes)
    passes = [Scan(prng, 7, 1, dram), Pass(prng, 5, 17, Q4_0, True, dram), Scan(prng, (1 << 27) - 70, 65, dram),
        Scan(prng, 64, 3, dram), Pass(prng, 6, 18, Q4_0, False, dram)]
    check(passes, tmp_path, lanes=lanes, taking=0.5, seed=lanes)


def test_serial_multiplier(tmp_path):
    """Products of the largest, of zero, of random numbers; idle after b's bits."""
    dut  = LlamaSerialMultiplier(17, 4)
    prng = random.Random(1)
    def main():
        for a, b in [((1 << 17) - 1, 15), (0, 15), (99999, 0), (1, 1), *((prng.randrange(1 << 17), prng.randrange(16)) for _ in range(8))]:
            yield dut.a.eq(a)
            yield dut.b.eq(b)
            yield from pulse(dut.start)
            yield dut.a.eq(5)
            yield
            assert (yield from until(dut.idle)) == 4
            assert (yield dut.p) == a*b
    bench = Bench([], [dut.start, dut.a, dut.b], [dut.idle, dut.p], [dut])
    run_block(bench, [main()], bench.ios, tmp_path)
