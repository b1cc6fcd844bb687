# SPDX-License-Identifier: BSD-2-Clause
"""The core alone under Verilator: built once per configuration, driven from Python against the twin."""

import ctypes
import functools
import glob
import os
import re
import subprocess

import numpy as np
from litedram.common import LiteDRAMNativePort
from litex.gen.fhdl.verilog import convert
from migen import ClockDomain, Signal

from litellama.accel import image
from litellama.accel.config import DEBUG_REGIONS, DEBUG_REGION_WORDS, UNIT_BYTES
from litellama.accel.core import LlamaCore
from litellama.accel.counters import COUNTERS
from litellama.accel.image import MATRIX
from litellama.soc.cache import cached, digest, fresh_names

HERE = os.path.dirname(os.path.abspath(__file__))


def port_bytes(config):
    """Width of the DRAM port that is modelled."""
    return max(16, config.beat_bytes)


def emit(config, monitor=None):
    """The core in `config`, its signals by name, and the files of its Verilog: name -> text.

    monitor: function of the core and its two ports that adds logic to it, before it is converted, and returns signals by name
    to read as well.
    """
    fresh_names()
    port, wport = (LiteDRAMNativePort(mode, address_width=24, data_width=8*port_bytes(config)) for mode in ("read", "write"))
    core    = LlamaCore(config, [port], wport, with_csr=False)
    signals = {**dict(core.test_signals()), **(monitor(core, port, wport) if monitor else {})}
    clock   = ClockDomain("sys")
    core.clock_domains.cd_sys = clock
    ports   = dict(port_cmd_valid=port.cmd.valid, port_cmd_ready=port.cmd.ready, port_cmd_addr=port.cmd.addr,
        port_rdata_valid=port.rdata.valid, port_rdata_ready=port.rdata.ready, port_rdata_data=port.rdata.data,
        wport_cmd_valid=wport.cmd.valid, wport_cmd_ready=wport.cmd.ready, wport_cmd_addr=wport.cmd.addr,
        wport_wdata_valid=wport.wdata.valid, wport_wdata_ready=wport.wdata.ready, wport_wdata_data=wport.wdata.data,
        wport_wdata_we=wport.wdata.we)
    for name, signal in {**signals, **ports}.items():
        signal.name_override = name
    emitted = convert(core, ios={clock.clk, clock.rst, *signals.values(), *ports.values()}, name="core")
    return core, signals, {"core.v": emitted.main_source, **emitted.data_files}


@functools.cache
def build(config, monitor=None):
    """Path of the shared library of the core in `config` (with `monitor`, see emit), and the list of its signal names."""
    _, signals, files = emit(config, monitor)
    with open(os.path.join(HERE, "core_harness.cpp")) as f:
        files["core_harness.cpp"] = f.read()
    listing = " ".join(f"X({i}, {name})" for i, name in enumerate(signals))
    files["signals.h"] = f"#define SIGNALS {listing}\n#define PORT_BYTES {port_bytes(config)}\n"

    def fill(folder):
        for name, text in files.items():
            (folder/name).write_text(text)
        warnings = [f"-Wno-{w}" for w in ("fatal", "WIDTH", "CASEINCOMPLETE", "COMBDLY", "BLKANDNBLK")]
        with open(folder/"build.log", "w") as log:
            run = lambda command: subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=log)
            run(["verilator", "-O3", "--cc", "core.v", "--top-module", "core", "--x-assign", "fast", "--x-initial", "fast",
                "--noassert", "--output-split", "20000", "-CFLAGS", "-fPIC", "--build", "-j", "2", "-MAKEFLAGS",
                "OPT_FAST=-O2 OPT_SLOW=-O1 OPT_GLOBAL=-O2", *warnings])
            root = subprocess.run(["verilator", "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True).stdout.strip()
            run(["g++", "-O2", "-fPIC", "-shared", f"-I{root}/include", f"-I{root}/include/vltstd", "-Iobj_dir",
                "core_harness.cpp", *sorted(glob.glob(str(folder/"obj_dir"/"*.o"))),
                f"{root}/include/verilated.cpp", f"{root}/include/verilated_threads.cpp", "-lpthread", "-o", "core.so"])

    # LiteX writes the time into a comment: without it, the same core is the same text.
    plain = [name + re.sub(r"//.*", "", text) for name, text in sorted(files.items())]
    return str(cached("core", digest(*plain), fill)/"core.so"), list(signals)


class Core:
    """A simulated core that holds one model's image.

    latency, stall_256: cycles a read takes, and the chance in 256 that the port stalls a command or an answer.
    in_dram: where the cache is; None for where it fits. monitor: see emit.
    """

    def __init__(self, config, model, latency=20, stall_256=0, in_dram=None, monitor=None):
        config.check_model(model.config)
        library, names = build(config, monitor)
        self.lib, self.index = ctypes.CDLL(library), {n: i for i, n in enumerate(names)}
        self.lib.core_new.restype   = ctypes.c_void_p
        self.lib.core_until.restype = ctypes.c_int64
        self.lib.core_get.restype   = ctypes.c_uint32
        here = os.getcwd()
        os.chdir(os.path.dirname(library))   # Where the contents of its memories are.
        self.core    = ctypes.c_void_p(self.lib.core_new(latency, stall_256))
        os.chdir(here)
        self.config  = config
        self.context = config.context_of(model.config)
        self.in_dram = not config.kv_on_chip(model.config) if in_dram is None else in_dram
        self.model   = model
        self.load(image.write_image(model))

    def load(self, data):
        """Put an image at DRAM address 0 and set the core's dimensions from its header."""
        h, c = image.read_header(data), self.model.config
        self.lib.core_load(self.core, data, ctypes.c_size_t(len(data)))
        fp   = lambda v: int(np.float32(v).view(np.uint32))
        rows = -(-self.context//32)*32
        size = self.config.kv_heads(c)*rows
        # Regions of a cache in DRAM behind the image: keys, values, scales of both.
        ends = np.cumsum([-(-len(data)//4096)*4096, size*c.head_blocks*32, size*c.head_blocks*32, size*2, size*2])
        self.regions = dict(zip(("keys", "values", "key_scales", "value_scales"), map(int, ends)))
        inv_dim, eps, score_scale = image.constants(c)
        for name, value in dict(
            dim_blocks=c.dim_blocks, hidden_blocks=c.hidden_blocks, head_blocks=c.head_blocks,
            q_blocks=c.n_heads*c.head_blocks, kv_blocks=c.n_kv_heads*c.head_blocks, heads=c.n_heads, group=c.group,
            layers=c.n_layers, vocab=c.vocab, context=rows, kv_stride=rows*c.head_blocks*32,
            kv_dram=int(self.in_dram), **{f"{n}_base": self.regions[r]//UNIT_BYTES for n, r in (("k", "keys"), ("v", "values"),
                ("k_scale", "key_scales"), ("v_scale", "value_scales"))}, first_units=h.first_bytes//UNIT_BYTES,
            inv_dim=fp(inv_dim), eps=fp(eps), score_scale=fp(score_scale), stream_base=h.stream_offset//UNIT_BYTES,
            layers_units=h.layers_bytes//UNIT_BYTES, stream_units=h.stream_bytes//UNIT_BYTES,
            embed_base=h.embed_offset//UNIT_BYTES + MATRIX.size//UNIT_BYTES, embed_type=h.embed_type,
            rope_base=h.rope_offset//UNIT_BYTES, topk=min(64, c.vocab)).items():
            self.set("dims_" + name, value)

    def set(self, name, value):
        self.lib.core_set(self.core, self.index[name], ctypes.c_uint32(value))

    def get(self, name):
        return self.lib.core_get(self.core, self.index[name])

    def begin(self, token, position, logits=True):
        """Start a pass, and stop after its first clock."""
        for name, value in dict(token=token, position=position, want_logits=int(logits), start=1).items():
            self.set(name, value)
        self.lib.core_steps(self.core, 1)
        self.set("start", 0)

    def abort(self, token, position, clocks, limit=20_000):
        """Start a pass, reset it after `clocks`, wait until the core is idle."""
        self.begin(token, position)
        self.lib.core_steps(self.core, clocks - 1)
        self.set("reset", 1)
        self.lib.core_steps(self.core, 1)
        self.set("reset", 0)
        assert self.lib.core_until(self.core, self.index["busy"], 0, ctypes.c_uint64(limit)) > 0, f"busy {limit} cycles after a reset"

    def step(self, token, position, logits=True, limit=200_000):
        """Run one pass; returns its cycles. AssertionError where it does not end."""
        self.begin(token, position, logits)
        cycles = self.lib.core_until(self.core, self.index["done"], 1, ctypes.c_uint64(limit))
        assert cycles > 0, f"no end after {limit} cycles"
        self.lib.core_steps(self.core, 3)
        return cycles

    def scan(self, base, units, reset_after=None, limit=200_000):
        """Read `units` units of 32 bytes from unit `base` on, without decoding: (cycles, signature as a list of words).
        reset_after: clocks to a reset."""
        pulse  = lambda name: [(self.set(name, value), self.lib.core_steps(self.core, 1 - i)) for i, value in enumerate((1, 0))]
        before = {name: self.get(name) for name in ("dims_stream_base", "dims_stream_units")}
        self.set("dims_stream_base", base)
        self.set("dims_stream_units", units)
        pulse("scan")
        if reset_after is not None:
            self.lib.core_steps(self.core, reset_after)
            assert self.get("busy")
            pulse("reset")
        cycles = self.lib.core_until(self.core, self.index["done"], 1, ctypes.c_uint64(limit))
        assert cycles > 0, f"no end after {limit} cycles"
        self.lib.core_steps(self.core, 3)
        words = []
        for i in range(self.config.beat_bytes//4):
            self.set("counter_select", len(COUNTERS) + i)
            self.lib.core_steps(self.core, 3)
            words.append(self.get("counter_value"))
        for name, value in before.items():
            self.set(name, value)
        return cycles, words

    def topk(self):
        """(ids, fp32 logits) that the hardware kept, best first."""
        out = []
        for i in range(self.get("topk_count")):
            self.set("topk_select", i)
            self.lib.core_steps(self.core, 4)
            out.append((self.get("topk_id"), self.get("topk_logit")))
        ids, logits = zip(*out)
        return list(ids), np.array(logits, np.uint32).view(np.float32)

    def counters(self, names):
        """Performance counters of the last pass."""
        out = {}
        for i, name in enumerate(names):
            self.set("counter_select", i)
            self.lib.core_steps(self.core, 3)
            out[name] = self.get("counter_value")
        return out

    def cache(self, layer, head, positions):
        """Keys, values (positions, n) int8, and their scales (positions,) uint16, of one KV head, from where they are."""
        c, n = self.model.config, self.model.config.head_blocks*32
        rows = -(-self.context//32)*32
        at   = (layer*c.n_kv_heads + head)*rows
        if self.in_dram:
            def read(region, byte, size):
                out = np.empty(size, np.uint8)
                self.lib.core_read(self.core, ctypes.c_size_t(self.regions[region] + byte), ctypes.c_size_t(size),
                    out.ctypes.data_as(ctypes.c_void_p))
                return out
            keys, values = (read(r, at*n, rows*n).view(np.int8) for r in ("keys", "values"))
            scales       = [read(r, 2*at, 2*rows).view(np.uint16) for r in ("key_scales", "value_scales")]
        else:
            keys, values = (self.peek(r, at*n//4, rows*n//4).view(np.int8) for r in ("keys", "values"))
            scales       = [self.peek(r, at, rows).astype(np.uint16) for r in ("key_scales", "value_scales")]
        values = values.reshape(-1, n, 32).transpose(0, 2, 1).reshape(-1, n)
        return keys.reshape(-1, n)[:positions], values[:positions], *(s[:positions] for s in scales)

    def store(self, layer, head, k, v, k_scale, v_scale):
        """Put the first positions of one KV head into a cache in DRAM: what `cache` gives."""
        assert self.in_dram
        n, rows = self.model.config.head_blocks*32, -(-self.context//32)*32
        at      = (layer*self.model.config.n_kv_heads + head)*rows
        tiles   = np.zeros((-(-len(v)//32)*32, n), np.int8)
        tiles[:len(v)] = v
        tiles   = tiles.reshape(-1, 32, n).transpose(0, 2, 1)
        for region, byte, data in (("keys", at*n, k), ("values", at*n, tiles), ("key_scales", 2*at, k_scale),
                ("value_scales", 2*at, v_scale)):
            data = np.ascontiguousarray(data).tobytes()
            self.lib.core_write(self.core, ctypes.c_size_t(self.regions[region] + byte), ctypes.c_size_t(len(data)), data)

    def peek(self, region, word, n=1):
        """`n` words of a debug region, as uint32."""
        out = np.empty(n, np.uint32)
        for i in range(n):
            self.set("bus_adr", DEBUG_REGIONS.index(region)*DEBUG_REGION_WORDS + word + i)
            self.set("bus_cyc", 1)
            self.set("bus_stb", 1)
            assert self.lib.core_until(self.core, self.index["bus_ack"], 1, ctypes.c_uint64(100)) > 0
            out[i] = self.get("bus_dat_r")
            self.set("bus_cyc", 0)
            self.set("bus_stb", 0)
            self.lib.core_steps(self.core, 2)
        return out
