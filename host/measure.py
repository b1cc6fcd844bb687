# SPDX-License-Identifier: BSD-2-Clause
"""What one decoded token costs on the simulated SoC.

Passes are run one by one at any position (protocol: PROBE) and read from the core's own counters. Their time does not depend on
weights or on what the cache holds, so random weights of few layers tell what a whole model costs: a layer's cycles are the
difference of two numbers of layers, the classifier's that of a pass with and one without.
"""

from dataclasses import replace

from ..accel import image
from ..accel.config import BLOCK, ModelConfig, check
from ..accel.counters import COUNTERS, STAGES
from ..soc.memory import get_memory, suited_config
from .devices.sim import SimDevice
from .inspect_image import token_parts
from .random_model import random_model
from .sampler import SamplerParams

# Dimensions of known models: dim, hidden, layers, heads, KV heads, head_dim, vocab, context.
SHAPES = {
    "smollm2-135m":   (576, 1536, 30, 9, 3, 64, 49152, 2048),
    "stories15m":     (288, 768, 6, 6, 6, 48, 32000, 256),
    "stories110m":    (768, 2048, 12, 12, 12, 64, 32000, 1024),
    "tinyllama-1.1b": (2048, 5632, 22, 32, 4, 64, 32000, 2048),
}
HEADS          = {"q4_0": "q4_0", "q4_1": "q8_0", "q8_0": "q8_0"}   # By type of the layers; of the head unless given.
# Perplexity of a shape's model, published and in a type, by (shape, type of layers, of head): tests/types_table.py measures them.
MODELS     = {"smollm2-135m": "SmolLM2-135M-Instruct"}
PERPLEXITY = {("smollm2-135m", *types): p for types, p in {("q4_1", "q8_0"): 24.92, ("q4_1", "q4_1"): 26.35, ("q4_1", "q4_0"): 27.36,
    ("q4_0", "q8_0"): 28.94, ("q4_0", "q4_1"): 30.85, ("q4_0", "q4_0"): 32.25, ("q8_0", "q8_0"): 25.00}.items()}
PUBLISHED  = ("q4_1", "q8_0")
CONTEXT        = 256    # Measured unless asked otherwise.
FIRMWARE_AFTER = 9      # Tokens that are generated to see what the firmware adds.
CEILING_BYTES  = 2 << 20   # Of the sequential read that is the ceiling, where the DRAM has that many behind the image's start.


def parse_shape(text):
    """ModelConfig of a name of SHAPES, or of NAME:dim,hidden,layers,heads,kv_heads,head_dim,vocab."""
    name, _, dims = text.partition(":")
    if not dims:
        check(name in SHAPES, f"shape is {name!r}, must be {', '.join(SHAPES)}, or NAME:dim,hidden,layers,heads,kv_heads,head_dim,vocab")
        return ModelConfig(*SHAPES[name])
    try:
        numbers = [int(n) for n in dims.split(",")]
    except ValueError:
        numbers = []
    check(len(numbers) == 7, f"dimensions are {dims!r}, must be seven numbers: dim,hidden,layers,heads,kv_heads,head_dim,vocab")
    return ModelConfig(*numbers, 2048)


def shape_model(config, type, layers=None, head=None):
    """Random accel.image.Model of `config` with `layers` of its layers (default 2), matrices of `type`, the classifier of `head`
    (default: HEADS[type])."""
    layers = min(layers or 2, config.n_layers)
    check(1 <= layers, f"layers is {layers}, must be 1 to {config.n_layers}")
    check(layers > 1 or config.n_layers == 1, "layers is 1: a layer's own share needs 2 or more")
    return random_model(replace(config, n_layers=layers), type, head or HEADS[type], seed=1)


def accuracy(shape, type, head):
    """(what there is to say about the text that a shape in these types makes, perplexity of the shape's model in them or None)."""
    perplexity = PERPLEXITY.get((shape, type, head))
    if perplexity is None:
        return "a shape with random weights: no accuracy; what these types cost a model's, `litellama score` tells", None
    return (f"a shape with random weights; {MODELS[shape]} made in these types has a perplexity of {perplexity:.2f}, as published "
        f"{PERPLEXITY[shape, *PUBLISHED]:.2f} (accel/README.md)"), perplexity


def core_for(model, dram, options):
    """What suits `dram` (soc.memory.DRAM), with `options`, and limits raised to what `model` (ModelConfig) needs."""
    core   = suited_config(dram.phy_settings(), **options)
    padded = dict(max_dim=model.dim_blocks, max_hidden=model.hidden_blocks, max_heads_dim=model.n_heads*model.head_blocks,
        max_head_dim=model.head_blocks)
    return replace(core, **{name: max(getattr(core, name), blocks*BLOCK) for name, blocks in padded.items()})


def token_bytes(header, core, context, n_layers):
    """Bytes that the core must read for a token of the model of `header` (ImageHeader), with `n_layers` layers, at `context`
    positions: stream, embedding row, RoPE row, and a cache in DRAM once per KV head."""
    c      = header.config
    parts  = token_parts(header)
    layers = header.layers_bytes//c.n_layers*n_layers - header.layers_bytes
    kv     = 0 if core.kv_on_chip(replace(c, n_layers=n_layers)) else n_layers*c.n_kv_heads*context*2*(c.head_blocks*BLOCK + 2)
    return layers + sum(parts.values()) + kv


def measure_ceiling(device, peak_bytes):
    """Share of `peak_bytes` a cycle that sequential reads through the core's own ports reach, with nothing else to do."""
    n_bytes = min(CEILING_BYTES, device.hello.main_ram_bytes - device.hello.image_offset)
    return n_bytes/(_named(device.scan(n_bytes))["total"]*peak_bytes)


def firmware_cycles(timings):
    """Cycles from one pass to the next, per token, of a generate's Timings: what of its decode_cycles was no pass."""
    return round((timings.decode_cycles - timings.pass_cycles)/timings.decode_tokens)


def _named(done):
    """Counters of a probe or scan, by name."""
    return dict(zip(COUNTERS, done.counters))


def _pass(device, position, layers, candidates):
    """Counters of one pass, by name."""
    return _named(device.probe(1, position, layers, candidates))


def measure(model, n_layers, memory="ddr3x16", context=None, options=None, vs_cpu=False, board=None):
    """Decode on the simulated SoC with `model` (accel.image.Model), whose layers stand for `n_layers` like them: a dict.

    options: of CoreConfig. board: (soc.boards.Board, FPGA or None), whose core and SoC are simulated; adds board, clk_freq, tokens_per_second.
    cycles_per_token: all of it; bytes_per_token: see token_bytes; peak_bytes_per_cycle: of the DRAM's pins;
    mbu: bytes over cycles times peak; ceiling: the same of sequential reads, see measure_ceiling. stalls: cycles by what the
    stream did, and the firmware's; stages: by the core's stage, and the firmware's; both add up to cycles_per_token. vs_cpu:
    cpu_cycles_per_token (plain C, int8, -O3, on the same SoC's CPU) and speed_up.
    """
    c, dram = model.config, get_memory(memory)
    if board:
        target, fpga = board
        core, around = suited_config(dram.phy_settings(), **target.fit(fpga).core | (options or {})), target.simulated(fpga)
        core.check_model(c)
    else:
        core, around = core_for(c, dram, options or {}), {}
    header  = image.read_header(image.write_image(model))
    whole   = replace(c, n_layers=n_layers)
    while not core.kv_on_chip(whole) and core.kv_on_chip(c):   # Few layers' cache would fit where that of all does not.
        core = replace(core, kv_bytes=core.kv_bytes//2)
    with SimDevice(core, memory, **around) as device:
        device.load(model)
        context = min(context or CONTEXT, device.context)
        counts  = _pass(device, context - 1, c.n_layers, 1)
        if n_layers != c.n_layers:
            one, all_ = (_pass(device, context - 1, n, 0) for n in (1, c.n_layers))
            for name in counts:
                counts[name] += round((all_[name] - one[name])*(n_layers - c.n_layers)/(c.n_layers - 1))
            counts["total"] = sum(counts[name] for name in STAGES)   # As rounded.
        device.reset()
        firmware = firmware_cycles(device.generate([model.bos], SamplerParams(), FIRMWARE_AFTER).timings)
        cycles   = counts["total"] + firmware
        size     = token_bytes(header, core, context, n_layers)
        stream   = {n: counts[n] for n in ("beats", "no_data", "no_room")}
        report   = dict(memory=memory, context=context, layers=n_layers, layers_measured=c.n_layers, lanes=core.lanes,
            columns=core.columns, ports=core.ports, cycles_per_token=cycles, bytes_per_token=size,
            peak_bytes_per_cycle=dram.peak_bytes, mbu=round(size/cycles/dram.peak_bytes, 4),
            ceiling=round(measure_ceiling(device, dram.peak_bytes), 4),
            tokens_per_second_per_gbps=round(1e9/cycles/dram.peak_bytes, 3),
            stalls=stream | dict(idle=counts["total"] - sum(stream.values()), firmware=firmware),
            stages={n: counts[n] for n in STAGES} | dict(firmware=firmware))
        if board:
            clk_freq = target.defaults(fpga)["sys_clk_freq"]
            report  |= dict(board=" ".join(filter(None, (target.name, fpga))), clk_freq=clk_freq,
                tokens_per_second=round(clk_freq/cycles, 3))
        if vs_cpu:
            report["cpu_cycles_per_token"] = device.baseline(1, context - 1).cycles
            report["speed_up"]             = round(report["cpu_cycles_per_token"]/cycles, 1)
    return report
