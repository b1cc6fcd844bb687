# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's C sources, compiled by the host's gcc: sampler, image checks, session, driver, plain C decoder."""

import ctypes
from dataclasses import replace
import struct
import zlib

import numpy as np
import pytest

from firmware_host import Firmware, Port, library
from litellama.accel import image as image_format
from litellama.accel.config import CoreConfig, ModelConfig
from litellama.accel.image import HEADER, SECTION, read_header, write_image
from litellama.accel.numerics import Decoder, exp2_neg
from litellama.firmware import constants as c
from litellama.firmware.generate import IMAGE_FIELDS
from litellama.host.protocol import Client, Refused
from litellama.host.random_model import odd_configs, random_model
from litellama.host.sampler import Sampler, SamplerParams, logit_fixed, top_candidates

SMALL = ModelConfig(64, 96, 2, 4, 2, 16, 300, 64)


def client(firmware):
    return Client(Port(firmware), timeout=30.0)


def error_number(name):
    return c.ERRORS[name][0]


# Sampler --------------------------------------------------------------------------------------------

class _Sampler(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_uint32) for name in ("inv_temperature", "top_k", "top_p_q16", "min_p_q16", "penalty_q16", "last_n",
        "inverse_q32", "n_recent")), ("recent", ctypes.c_uint32*c.REPEAT_LAST_MAX), ("state", ctypes.c_uint64)]


def c_sampler(lib, params, recent=()):
    """Function from all logits to a token, as the firmware samples."""
    s = _Sampler(params.inv_temperature, params.top_k, params.top_p_q16, params.min_p_q16, params.repeat_penalty_q16,
        params.repeat_last_n, n_recent=5)   # Whatever was there before.
    lib.sampler_start(ctypes.byref(s), ctypes.c_uint64(params.seed))
    for token in recent:
        lib.sampler_accept(ctypes.byref(s), int(token))
    def pick(logits):
        n = lib.sampler_candidates(ctypes.byref(s), len(logits))
        ids, values = top_candidates(logits, n)
        bits   = values.view(np.uint32)
        get    = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)
        token  = int(ids[lib.sampler_choose(ctypes.byref(s), n, get(lambda i: int(ids[i])), get(lambda i: int(bits[i])))])
        lib.sampler_accept(ctypes.byref(s), token)
        return token
    return pick


def test_exp2_equals_the_twin():
    lib = library()
    u   = np.unique(np.concatenate([np.arange(0, 19 << 16, 61), np.arange(17 << 16, (17 << 16) + 300), [2**31 - 1, 2**32 - 1]]))
    assert [lib.exp2_neg(ctypes.c_uint32(int(i))) for i in u] == exp2_neg(u).tolist()


def test_logits_in_fixed_point_equal_the_twin():
    lib   = library()
    bits  = np.random.default_rng(1).integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32)
    bits  = bits[(bits >> 23 & 255) != 255]
    bits  = np.concatenate([bits, np.array([0, 1.5, -1.5, 32768, -32768, 32767.998, 1e-6, -1e-39, 3e38], np.float32).view(np.uint32)])
    assert [lib.sampler_fixed(ctypes.c_uint32(int(b))) for b in bits] == logit_fixed(bits.view(np.float32)).tolist()


@pytest.mark.parametrize("params", [SamplerParams(), SamplerParams(0.8, 40, 0.95, 2024), SamplerParams(1.0, 0, 1.0, 0),
    SamplerParams(0.05, 5, 0.5, 2**64 - 1), SamplerParams(100.0, 64, 0.0, 3), SamplerParams(1e-5, 0, 0.9, 4), SamplerParams(2.0, 1, 1.0, 5),
    SamplerParams(1.0, 0, 1.0, 2**64 - 0x9E3779B97F4A7C15)])   # The last one: a state of 0 if nothing were done about it.
def test_sampler_equals_the_twin(params):
    pick, twin, rng = c_sampler(library(), params), Sampler(params), np.random.default_rng(params.seed % 1000)
    for n, spread in ((512, 2), (64, 8), (40, 0.1), (3, 1), (1, 1), (1000, 100), (512, 1e6)):
        for _ in range(20):
            logits = (rng.standard_normal(n)*spread).astype(np.float32)
            assert pick(logits) == twin.pick(logits)


def test_sampler_gives_the_published_sequence():
    from test_sampler import PUBLISHED
    logits = (np.arange(100)*37 % 101).astype(np.float32)/8
    pick   = c_sampler(library(), SamplerParams(temperature=0.8, top_k=40, top_p=0.95, seed=2024))
    assert [pick(logits) for _ in range(16)] == PUBLISHED


# Image ----------------------------------------------------------------------------------------------

MODEL = random_model(SMALL, layers="q4_1")
IMAGE = write_image(MODEL)
FIELD = {name: 8 + 4*i for i, name in enumerate(IMAGE_FIELDS)}


def changed(**fields):
    """IMAGE with header fields replaced and the header's CRC-32 made right again."""
    data = bytearray(IMAGE)
    for name, value in fields.items():
        struct.pack_into("<I", data, FIELD[name], value & 0xFFFFFFFF)
    n_sections = min(struct.unpack_from("<I", data, FIELD["n_sections"])[0], 16)
    end = HEADER.size + n_sections*SECTION.size
    struct.pack_into("<I", data, end, zlib.crc32(data[:end]))
    return bytes(data)


def changed_section(index, **fields):
    """IMAGE with fields of a section's row replaced."""
    data, at = bytearray(IMAGE), HEADER.size + index*SECTION.size
    row      = dict(zip(("name", "offset", "length", "crc"), SECTION.unpack_from(data, at))) | fields
    SECTION.pack_into(data, at, *row.values())
    end = HEADER.size + struct.unpack_from("<I", data, FIELD["n_sections"])[0]*SECTION.size
    struct.pack_into("<I", data, end, zlib.crc32(data[:end]))
    return bytes(data)


def with_sections(n):
    """IMAGE with so many sections: those that are more are empty."""
    data   = bytearray(IMAGE)
    struct.pack_into("<I", data, FIELD["n_sections"], n)
    before = struct.unpack_from("<I", IMAGE, FIELD["n_sections"])[0]
    for i in range(before, n):
        SECTION.pack_into(data, HEADER.size + i*SECTION.size, b"MORE", 4096, 0, 0)
    end = HEADER.size + n*SECTION.size
    struct.pack_into("<I", data, end, zlib.crc32(data[:end]))
    return bytes(data)


def patched(offset, data):
    return IMAGE[:offset] + data + IMAGE[offset + len(data):]


H = read_header(IMAGE)

BAD_IMAGES = [
    ("MAGIC",          b"",                                     (0, None)),
    ("MAGIC",          b"GGUF" + IMAGE[4:],                     (int.from_bytes(b"GGUF", "little"), None)),
    ("VERSION",        changed(version=3),                      (3, 2)),
    ("HEADER_BYTES",   changed(header_bytes=128),               (128, HEADER.size)),
    ("SECTIONS",       changed(n_sections=17),                  (17, 16)),
    ("SECTIONS",       changed(n_sections=0),                   (0, 16)),
    ("HEADER_CRC",     patched(FIELD["vocab"], b"\x55"),        None),
    ("IMAGE_BYTES",    changed(image_bytes=0xFFFFF000),         (0xFFFFF000, (1 << 24) - 0x1000)),
    ("SECTION_BOUNDS", changed_section(0, length=0xFFFFFFF0),   (0, H.image_bytes)),
    ("SECTION_BOUNDS", changed_section(1, offset=0xFFFFF000),   (1, H.image_bytes)),
    ("SECTION_BOUNDS", changed_section(2, offset=4100),         (2, H.image_bytes)),
    ("SECTION_NONE",   changed_section(0, name=b"XXXX"),        None),
    ("SECTION_NONE",   changed_section(1, name=b"XXXX"),        None),
    ("DIM",            changed(dim=0),                          (0, 1 << 14)),
    ("DIM",            changed(dim=1 << 31),                    (1 << 31, 1 << 14)),
    ("HIDDEN",         changed(hidden=1 << 20),                 (1 << 20, 1 << 15)),
    ("N_LAYERS",       changed(n_layers=257),                   (257, 256)),
    ("N_HEADS",        changed(n_heads=0),                      (0, 256)),
    ("N_KV_HEADS",     changed(n_kv_heads=3),                   (3, 4)),
    ("N_KV_HEADS",     changed(n_kv_heads=8),                   (8, 4)),
    ("HEAD_DIM",       changed(head_dim=15),                    (15, 256)),
    ("VOCAB",          changed(vocab=1 << 19),                  (1 << 19, 1 << 18)),
    ("MODEL_CONTEXT",  changed(context=0),                      (0, 1 << 17)),
    ("BLOCKS",         changed(dim_blocks=3),                   (3, 2)),
    ("BLOCKS",         changed(hidden_blocks=2),                (2, 3)),
    ("ROPE_BYTES",     changed(context=65),                     (64*32*4, 65*32*4)),
    ("ROPE_BYTES",     changed(rope_offset=0),                  None),
    ("STREAM_BYTES",   changed(stream_bytes=H.stream_bytes - 32), (H.stream_bytes - 32, H.stream_bytes)),
    ("STREAM_BYTES",   changed(stream_offset=8192),             None),
    ("LAYERS_BYTES",   changed(layers_bytes=H.layers_bytes + 32), (H.layers_bytes + 32, H.layers_bytes)),
    ("PIECE_BYTES",    changed(first_bytes=H.first_bytes - 32), (H.first_bytes - 32, H.first_bytes)),
    ("PIECE_BYTES",    patched(H.stream_offset + 16, b"\1\0\0\0"), (32, None)),
    ("EMBEDDING",      changed(embed_offset=0x7FFFFF00),        (0x7FFFFF00, H.embed_offset)),
    ("EMBEDDING",      changed(embed_type=1),                   None),
    ("STREAM",         changed(vocab=299),                      (H.embed_offset - H.stream_offset, 2)),
    ("PIECE_BYTES",    changed(n_layers=1),                     None),
    ("STREAM",         changed(n_layers=3),                     (H.layers_bytes, 1)),
    ("STREAM",         patched(H.stream_offset, b"\0\0"),       (0, 0)),
    ("STREAM",         patched(H.stream_offset + 2, b"\x04"),   (0, 0)),
    ("STREAM",         patched(H.stream_offset + 12, b"\xff\xff\xff\xff"), (0, 3)),
]

BITS = {name: struct.unpack_from("<I", IMAGE, FIELD[name])[0] for name in ("inv_dim", "eps", "eps_core", "score_scale", "rope_base")}
WRONG_FLOATS = dict(zero=0, minus_zero=1 << 31, least_subnormal=1, last_subnormal=0x7FFFFF, infinity=0x7F800000, minus_infinity=0xFF800000,
    not_a_number=0x7FC00000, signalling=0x7F800001, all_ones=0xFFFFFFFF)
BAD_IMAGES += [(error, changed(**{name: bits}), (bits, limit)) for name, error, limit in (("inv_dim", "INV_DIM", BITS["inv_dim"]),
    ("eps", "EPS", 0x3F7FFFFF), ("eps_core", "EPS", BITS["eps"]), ("score_scale", "SCORE_SCALE", 0x3FFFFFFF), ("rope_base", "ROPE_BASE", 0x7F7FFFFF))
    for bits in (*WRONG_FLOATS.values(), BITS[name] | 1 << 31)]
BAD_IMAGES += [("INV_DIM", changed(inv_dim=BITS["inv_dim"] + d), (BITS["inv_dim"] + d, BITS["inv_dim"])) for d in (-1, 1)]
BAD_IMAGES += [("EPS", changed(eps=0x3F800000, eps_core=0x3F800000), (0x3F800000, 0x3F7FFFFF)),
    ("EPS", changed(eps_core=BITS["eps"] + 1), (BITS["eps"] + 1, BITS["eps"])), ("SCORE_SCALE", changed(score_scale=0x40000000), (0x40000000, 0x3FFFFFFF))]
BAD_IMAGES += [("SPECIAL", changed(**{name: id}), (id, 300)) for name in ("bos", "eos") for id in (300, 0xFFFFFFFE)]
# The borders of every dimension and of every other field.
BAD_IMAGES += [
    ("MAGIC",          b"LITELLAX" + IMAGE[8:],                 None),
    ("DIM",            changed(dim=(1 << 14) + 1),              ((1 << 14) + 1, 1 << 14)),
    ("HIDDEN",         changed(hidden=0),                       (0, 1 << 15)),
    ("HIDDEN",         changed(hidden=(1 << 15) + 1),           ((1 << 15) + 1, 1 << 15)),
    ("N_LAYERS",       changed(n_layers=0),                     (0, 256)),
    ("N_HEADS",        changed(n_heads=257),                    (257, 256)),
    ("N_KV_HEADS",     changed(n_kv_heads=0),                   (0, 4)),
    ("N_KV_HEADS",     changed(n_kv_heads=5),                   (5, 4)),
    ("HEAD_DIM",       changed(head_dim=0),                     (0, 256)),
    ("HEAD_DIM",       changed(head_dim=258),                   (258, 256)),
    ("VOCAB",          changed(vocab=0),                        (0, 1 << 18)),
    ("VOCAB",          changed(vocab=(1 << 18) + 1),            ((1 << 18) + 1, 1 << 18)),
    ("MODEL_CONTEXT",  changed(context=(1 << 17) + 1),          ((1 << 17) + 1, 1 << 17)),
    ("BLOCKS",         changed(dim_blocks=1),                   (1, 2)),
    ("BLOCKS",         changed(hidden_blocks=4),                (4, 3)),
    ("BLOCKS",         changed(head_blocks=0),                  (0, 1)),
    ("BLOCKS",         changed(head_blocks=2),                  (2, 1)),
    ("IMAGE_BYTES",    changed(image_bytes=4095),               (4095, (1 << 24) - 0x1000)),
    ("IMAGE_BYTES",    changed(image_bytes=(1 << 24) - 0xFFF),  ((1 << 24) - 0xFFF, (1 << 24) - 0x1000)),
    ("SECTION_BOUNDS", changed_section(4, offset=H.image_bytes + 4096, length=0), (4, H.image_bytes)),
    ("SECTION_BOUNDS", changed_section(4, offset=H.image_bytes, length=1), (4, H.image_bytes)),
    ("ROPE_BYTES",     changed_section(1, length=H.sections["ROPE"][1] - 4), None),
    ("STREAM_BYTES",   changed_section(0, length=H.stream_bytes - 32), None),
    ("PIECE_BYTES",    patched(H.stream_offset + 16, struct.pack("<I", struct.unpack_from("<I", IMAGE, H.stream_offset + 16)[0] + 1)), None),
]


@pytest.mark.parametrize("name,data,detail", BAD_IMAGES, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD_IMAGES)])
def test_bad_images_are_refused_by_number_value_and_limit(name, data, detail):
    hello = client(Firmware(MODEL, image=data)).hello()
    assert hello.image_error == error_number(name)
    if detail is not None:
        assert hello.image_value == detail[0] and detail[1] in (None, hello.image_limit)
    assert hello.context == 0


def test_what_may_be_missing_or_extreme_is_taken():
    for fields in (dict(bos=0xFFFFFFFF, eos=0xFFFFFFFF), dict(bos=299, eos=299), dict(eps=0x00800000, eps_core=0x00800000), dict(score_scale=0x3FFFFFFF),
            dict(eps=0x3F7FFFFF, eps_core=0x3F7FFFFF), dict(score_scale=0x00800000), dict(rope_base=0x00800000), dict(rope_base=0x7F7FFFFF)):
        assert client(Firmware(MODEL, image=changed(**fields))).hello().image_error == 0, fields
    for image in (changed_section(4, offset=H.image_bytes, length=0), with_sections(16)):
        assert client(Firmware(MODEL, image=image)).hello().image_error == 0
    assert client(Firmware(MODEL, ram_bytes=0x1000 + H.image_bytes)).hello().image_error == 0


def test_the_inverse_of_every_dim_is_known():
    """What is refused next is another field: the table of the RoPE fits no more, as head_blocks or the stream."""
    firmware = Firmware(MODEL)
    error    = (ctypes.c_uint32*3).in_dll(firmware.lib, "image_error")
    for dim in (*range(1, 400), *range(401, 1 << 14, 37), *(2**k + d for k in range(9, 15) for d in (-1, 0)), (1 << 14) - 3):
        bits = int((np.float32(1)/np.float32(dim)).view(np.uint32))
        for d in (0, 1, -1):
            firmware.put_image(changed(dim=dim, dim_blocks=-(-dim//32), inv_dim=bits + d)[:1024])
            firmware.lib.image_check(0, None)
            assert (error[0] == error_number("INV_DIM")) == (d != 0), (dim, d)
        assert error[2] == bits


def test_random_damage_never_crashes_nor_passes_the_contents_check():
    firmware, rng = Firmware(MODEL), np.random.default_rng(7)
    port          = client(firmware)
    for _ in range(150):
        data = bytearray(IMAGE)
        at   = int(rng.integers(0, 400) if rng.random() < 0.5 else rng.integers(0, H.image_bytes))
        data[at] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.7:   # A liar with a right CRC-32.
            end = HEADER.size + min(struct.unpack_from("<I", data, FIELD["n_sections"])[0], 16)*SECTION.size
            struct.pack_into("<I", data, end, zlib.crc32(data[:end]))
        firmware.put_image(bytes(data))
        covered = any(o <= at < o + n for o, n, _ in H.sections.values())
        try:
            port.verify(contents=True)
            assert not covered
        except Refused as error:
            assert error.number in {n for n, _ in c.ERRORS.values()} and "error" not in str(error)


def test_contents_are_checked_on_request():
    damaged  = patched(H.stream_offset + 1000, bytes([IMAGE[H.stream_offset + 1000] ^ 1]))
    port     = client(Firmware(MODEL, image=damaged))
    assert port.hello().image_error == 0   # Not read at start: it would cost seconds of simulation.
    with pytest.raises(Refused, match="section 0 of the image is corrupt"):
        port.verify(contents=True)
    with pytest.raises(Refused, match="section 0"):
        port.prefill(0, [1])
    good = client(Firmware(MODEL))
    good.verify(contents=True)
    assert good.hello().sections_checked == 1


CORES = [
    ("MAX_DIM",       CoreConfig(max_dim=32),                       (64, 32)),
    ("MAX_HIDDEN",    CoreConfig(max_hidden=64),                    (96, 64)),
    ("MAX_HEADS_DIM", CoreConfig(max_heads_dim=96),                 (128, 96)),
]
# The most that a core takes: the model's own dimensions.
EXACT = CoreConfig(max_dim=64, max_hidden=96, max_heads_dim=128, max_head_dim=32, kv_bytes=2*2*64*32, kv_scales=2*2*64, max_context=64)


@pytest.mark.parametrize("name,core,detail", CORES, ids=[x[0] for x in CORES])
def test_models_beyond_the_core_are_refused(name, core, detail):
    with pytest.raises(ValueError):
        core.check_model(SMALL)
    hello = client(Firmware(MODEL, config=core)).hello()
    assert (hello.image_error, hello.image_value, hello.image_limit) == (error_number(name), *detail)


def test_a_core_that_fits_exactly_is_enough():
    firmware = Firmware(MODEL, config=EXACT)
    hello    = client(firmware).hello()
    assert (hello.image_error, hello.context, firmware.register("kv_dram")) == (0, 64, 0)
    for name in ("kv_bytes", "kv_scales"):   # Less: the cache is in DRAM.
        firmware = Firmware(MODEL, config=replace(EXACT, **{name: getattr(EXACT, name)//2}))
        assert client(firmware).hello().context == 64 and firmware.register("kv_dram") == 1
    wide = random_model(ModelConfig(64, 96, 2, 4, 2, 48, 300, 64))
    core = CoreConfig(max_head_dim=32)
    with pytest.raises(ValueError):
        core.check_model(wide.config)
    hello = client(Firmware(wide, config=core)).hello()
    assert (hello.image_error, hello.image_value, hello.image_limit) == (error_number("MAX_HEAD_DIM"), 64, 32)


@pytest.mark.parametrize("core", [CoreConfig(), CoreConfig(kv_bytes=4096), CoreConfig(kv_scales=160, max_context=160),
    CoreConfig(max_context=32)])
@pytest.mark.parametrize("context", [20, 33, 64, 100])
def test_context_is_what_the_configuration_says(core, context):
    m        = ModelConfig(64, 96, 2, 4, 2, 16, 300, context)
    firmware = Firmware(random_model(m), config=core)
    assert client(firmware).hello().context == core.context_of(m)
    assert firmware.register("context") == -(-core.context_of(m)//32)*32
    assert firmware.register("kv_stride") == firmware.register("context")*32
    assert firmware.register("kv_dram") == int(not core.kv_on_chip(m))


@pytest.mark.parametrize("blocks", [0, 1, 3, 50])
def test_cache_in_dram_is_behind_the_image_and_as_long_as_there_is_room(blocks):
    """Room for `blocks` blocks of 32 positions and a bit behind the image: the context, and where everything is."""
    m, core  = ModelConfig(64, 96, 2, 4, 2, 16, 300, 100), CoreConfig(kv_bytes=32)
    model    = random_model(m)
    image    = write_image(model)
    base     = 0x1000 + -(-len(image)//4096)*4096
    firmware = Firmware(model, config=core, ram_bytes=base + blocks*core.kv_dram_bytes(m, 32) + 60)
    hello    = client(firmware).hello()
    if not blocks:
        assert (hello.image_error, hello.image_value) == (error_number("KV_BYTES"), core.kv_dram_bytes(m, 32))
        assert hello.image_limit == 60
        return
    rows = min(blocks, 4)*32
    assert hello.context == min(100, rows) == core.context_of(m, blocks*core.kv_dram_bytes(m, 32) + 60)
    assert firmware.register("context") == rows and firmware.register("kv_dram") == 1
    keys = 4*rows*32
    assert [firmware.register(n) for n in ("k_base", "v_base", "k_scale_base", "v_scale_base")] == [base, base + keys,
        base + 2*keys, base + 2*keys + 4*rows*2]


def test_the_cache_begins_at_a_page_and_may_end_with_the_dram():
    """Behind an image whose length is no multiple of a page, too."""
    core, short = CoreConfig(kv_bytes=4096), H.image_bytes - 60
    one         = core.kv_dram_bytes(SMALL, 32)
    image       = changed(image_bytes=short)[:short]
    def told(ram_bytes):
        firmware = Firmware(MODEL, image=image, config=core, ram_bytes=ram_bytes)
        hello    = client(firmware).hello()
        return firmware, (hello.image_error, hello.image_value, hello.image_limit), hello.context
    firmware, _, context = told(0x1000 + H.image_bytes + one)
    assert context == 32 and firmware.register("k_base") == 0x1000 + H.image_bytes
    assert told(0x1000 + H.image_bytes + one - 1)[1] == (error_number("KV_BYTES"), one, one - 1)
    assert told(0x1000 + short)[1] == (error_number("KV_BYTES"), one, 0)


def test_registers_hold_what_the_image_says():
    for name, config, tied in odd_configs():
        model    = random_model(config, layers="q4_0", classifier="q8_0", tied=tied)
        firmware = Firmware(model)
        h        = read_header(write_image(model))
        at       = 0x1000
        consts   = [int(np.float32(x).view(np.uint32)) for x in image_format.constants(config)]
        want = dict(dim_blocks=config.dim_blocks, hidden_blocks=config.hidden_blocks, head_blocks=config.head_blocks,
            heads=config.n_heads, group=config.group, q_blocks=config.n_heads*config.head_blocks,
            kv_blocks=config.n_kv_heads*config.head_blocks, layers=config.n_layers, vocab=config.vocab, inv_dim=consts[0],
            eps=consts[1], score_scale=consts[2], stream_base=at + h.stream_offset, embed_base=at + h.embed_offset + 32,
            rope_base=at + h.rope_offset, first_bytes=h.first_bytes, layers_bytes=h.layers_bytes, stream_bytes=h.stream_bytes, embed_type=h.embed_type)
        assert {k: firmware.register(k) for k in want} == want, name


# Session --------------------------------------------------------------------------------------------

def test_probe_runs_one_pass_anywhere_and_cuts_the_session():
    port = client(firmware := Firmware(MODEL))
    port.prefill(0, [1, 2, 3, 4])
    firmware.passes.clear()
    probe = port.probe(9, 2, 1)
    assert firmware.passes == [(9, 2, 0)] and port.hello().position == 2 and probe.cycles > 0
    assert firmware.register("layers") == SMALL.n_layers
    port.probe(9, 1, SMALL.n_layers, 5)
    assert firmware.passes[1:] == [(9, 1, 5)] and port.hello().position == 1
    for arguments, name, value, limit in (((300, 0, 1), "TOKEN", 300, 300), ((1, 64, 1), "CONTEXT", 65, 64), ((1, 0, 0), "LAYERS", 0, 2),
            ((1, 0, 3), "LAYERS", 3, 2), ((1, 0, 1, 5), "LAYERS", 1, 2), ((1, 0, 2, 65), "TOP_K", 65, 64)):
        with pytest.raises(Refused) as refused:
            port.probe(*arguments)
        assert (refused.value.number, refused.value.value, refused.value.limit) == (error_number(name), value, limit)


def reference(model, tokens, params, n, context=None):
    """Tokens that the twin generates."""
    decoder, sampler, out = Decoder(model), Sampler(params), []
    logits = decoder.forward(tokens)
    while True:
        out.append(sampler.pick(logits))
        if len(out) == n or decoder.position == (context or decoder.context):
            return out
        logits = decoder.forward([out[-1]])


def test_only_new_tokens_are_computed_and_logits_only_where_needed():
    firmware = Firmware(MODEL)
    port     = client(firmware)
    params   = SamplerParams(0.9, 20, 0.95, 3)
    done, tokens = port.generate(0, [1, 7, 8], params, 4)
    ids = [t.id for t in tokens]
    assert ids == reference(MODEL, [1, 7, 8], params, 4)
    assert firmware.passes == [(1, 0, 0), (7, 1, 0), (8, 2, 20), *[(ids[i], 3 + i, 20) for i in range(3)]]
    assert (done.reason, done.position, done.n_prompt, done.n_tokens) == (c.REASON_LENGTH, 6, 3, 4)
    assert done.counters == [1000*i + 5 for i in range(16)]
    assert done.pass_cycles == 3 + 4 + 5 <= done.decode_cycles   # (A pass of the stub "takes" its position.)
    done, more = port.generate(6, [ids[-1], 9], params, 3)   # The next turn: the RNG starts anew.
    assert firmware.passes[6:8] == [(ids[-1], 6, 0), (9, 7, 20)]
    assert [t.id for t in more] == reference(MODEL, [1, 7, 8, *ids, 9], params, 3)
    assert done.position == 10
    port.reset(6)
    assert [t.id for t in port.generate(6, [ids[-1], 9], params, 3)[1]] == [t.id for t in more]
    with pytest.raises(Refused, match="position 11"):
        port.reset(11)
    port.reset()
    assert port.hello().position == 0


def test_stop_ids_and_full_context_end_a_run():
    port   = client(Firmware(MODEL))
    params = SamplerParams(0.9, 0, 1.0, 11)
    want   = reference(MODEL, [1, 2], params, 100)
    assert len(want) == SMALL.context - 1
    done, tokens = port.generate(0, [1, 2], params, 100)
    assert [t.id for t in tokens] == want and done.reason == c.REASON_LENGTH and done.position == SMALL.context
    with pytest.raises(Refused, match="65 positions were asked for, the context holds 64"):
        port.generate(SMALL.context, [1], params, 1)
    port.reset()
    first = want.index(want[5])
    done, tokens = port.generate(0, [1, 2], params, 100, stop_ids=[299, want[5]])
    assert [t.id for t in tokens] == want[:first + 1] and done.reason == c.REASON_STOP and done.position == 2 + first


def test_greedy_asks_for_one_candidate_and_logits_are_reported():
    firmware = Firmware(MODEL)
    _, tokens = client(firmware).generate(0, [1], SamplerParams(), 2)
    assert [p[2] for p in firmware.passes] == [1, 1]
    logits = Decoder(MODEL).forward([1])
    assert tokens[0].logit == int(logits.max().view(np.uint32))


@pytest.mark.parametrize("error,name,limit", [(1, "CORE_STREAM", 1), (2, "CORE_DIMENSION", 2), (-1, "CORE_TIMEOUT", None)])
def test_errors_of_the_core_are_reported_and_leave_the_session_usable(error, name, limit):
    firmware = Firmware(MODEL)
    port     = client(firmware)
    port.prefill(0, [1, 2, 3])
    firmware.error = error
    with pytest.raises(Refused) as caught:
        port.generate(3, [4], SamplerParams(), 5)
    assert caught.value.number == error_number(name) and caught.value.value == 3 and limit in (None, caught.value.limit)
    firmware.error = 0
    assert port.hello().position == 3
    assert [t.id for t in port.generate(3, [4], SamplerParams(), 5)[1]] == reference(MODEL, [1, 2, 3, 4], SamplerParams(), 5)


# Plain C decoder ------------------------------------------------------------------------------------

@pytest.mark.parametrize("type", ["q4_0", "q4_1", "q8_0"])
@pytest.mark.parametrize("which", range(3))
def test_plain_c_decoder_computes_the_same_model(which, type):
    """It is a yardstick only if it does the work: on random weights, the same first choice nearly always, its logit close."""
    _, config, tied = odd_configs()[which]
    model   = random_model(config, layers=type, tied=tied)
    port    = client(Firmware(model))
    decoder = Decoder(model)
    tokens  = np.random.default_rng(which).integers(0, config.vocab, 40)
    same, error = 0, 0.0
    for position, token in enumerate(map(int, tokens)):
        logits = decoder.forward([token])
        result = port.baseline(token, position)
        same  += result.token == int(logits.argmax())
        error += abs(result.logit_q16/65536 - float(logits[result.token]))/len(tokens)
    assert same >= 32 and error < 0.1*float(logits.std()), (same, error)


def test_plain_c_decoder_refuses_what_it_cannot_do():
    port = client(Firmware(MODEL, ram_bytes=0x1000 + len(IMAGE) + 20000))
    with pytest.raises(Refused, match="bytes of DRAM behind the image, there are 20000"):
        port.baseline(1)
    port = client(Firmware(MODEL))
    with pytest.raises(Refused, match="outside the vocabulary"):
        port.baseline(300)
    with pytest.raises(Refused, match="65 positions"):
        port.baseline(1, 64)
    with pytest.raises(Refused, match="no image"):
        client(Firmware()).baseline(1)
