# SPDX-License-Identifier: BSD-2-Clause
"""What the firmware keeps and forgets from one request to the next, and what it writes to the core's registers when."""

import struct
import zlib

import numpy as np
import pytest

from firmware_host import IMAGE_OFFSET, Firmware, Port
from litellama.accel.config import CoreConfig, ModelConfig
from litellama.accel.image import write_image
from litellama.firmware import constants as c
from litellama.host.protocol import Client, FrameReader, Refused, encode, words
from litellama.host.random_model import random_model
from litellama.host.sampler import SamplerParams
from test_firmware import IMAGE, MODEL, SMALL, changed, error_number
from test_line import Fast, answers, fast_tokens
from test_protocol import generate_payload

GREEDY = SamplerParams()
OTHER  = random_model(SMALL, layers="q4_1", seed=5)
RESET, START = 2, 1   # Of the core's register `control`.


def client(firmware):
    return Client(Port(firmware), timeout=30.0)


def raw(type, sequence, payload):
    """A frame of any length, its CRC right."""
    body = struct.pack("<4B2H", c.SYNC0, c.SYNC1, type, sequence, len(payload), len(payload) ^ 0xFFFF) + payload
    return body + struct.pack("<I", zlib.crc32(body[2:]))


def test_the_longest_payload_is_taken_and_a_longer_one_is_not():
    firmware = Firmware(MODEL)
    free     = (1 << 24) - IMAGE_OFFSET - 4096
    data     = bytes(i*7 % 251 for i in range(c.PAYLOAD_MAX - 4))
    firmware.send(raw(c.LOAD, 5, words(free) + data))
    assert [(f.type, f.sequence) for f in answers(firmware)] == [(c.LOAD | c.ANSWER, 5)]
    assert firmware.ram[-4096:-4096 + len(data)].tobytes() == data
    for more in (1, 4, 5, 2048, 0xFFFF - c.PAYLOAD_MAX):
        firmware.send(raw(c.LOAD, 6, words(free) + bytes(c.PAYLOAD_MAX - 4 + more)))
        firmware.poll()
        firmware.lib.stub_advance(100_000_000)
        assert answers(firmware) == []
        firmware.send(encode(c.STATS, 7))
        assert [(f.type, f.sequence) for f in answers(firmware)] == [(c.STATS | c.ANSWER, 7)]
        reader = FrameReader()
        assert reader.feed(raw(c.LOAD, 6, bytes(c.PAYLOAD_MAX + more)) + encode(c.HELLO, 8)) == [(c.HELLO, 8, b"")]
    assert firmware.ram[-4096:-4096 + len(data)].tobytes() == data


def test_verify_forgets_session_recall_and_the_plain_decoder_s_model():
    firmware = Firmware(MODEL)
    port     = client(firmware)
    port.generate(0, [1, 2, 3], GREEDY, 3)
    first    = port.baseline(7)
    firmware.put_image(write_image(OTHER))
    port.verify()
    firmware.model, firmware.decoder = OTHER, None
    assert port.hello().position == 0
    with pytest.raises(Refused, match="token 1 of the last answer was asked for, 0 are kept"):
        port.request(c.RECALL, words(1))
    assert port.baseline(7).logit_q16 == client(Firmware(OTHER)).baseline(7).logit_q16 != first.logit_q16
    port.prefill(0, [1, 2])
    firmware.put_image(changed(dim=0))
    with pytest.raises(Refused, match="dim is 0"):
        port.verify()
    hello = port.hello()
    assert (hello.position, hello.context, hello.vocab, hello.image_crc, hello.name) == (0, 0, 0, hello.image_crc, "")


def test_fill_and_load_forget_what_they_touch():
    firmware = Firmware(MODEL)
    port     = client(firmware)
    behind   = -(-(IMAGE_OFFSET + len(IMAGE))//4096)*4096
    first    = port.baseline(7)
    port.prefill(0, [1, 2])
    port.fill(behind, 1 << 20, c.PATTERN_MIXED, 1, compare=True)
    assert port.hello().position == 2
    port.fill(behind, 1 << 20, c.PATTERN_MIXED, 1)
    assert port.hello().position == 0
    again = port.baseline(7)   # It prepares its model anew, over the pattern.
    assert (again.logit_q16, again.token) == (first.logit_q16, first.token)
    port.prefill(0, [1, 2])
    port.request(c.LOAD, words(0) + IMAGE[:4])
    assert port.hello().image_error == error_number("UNVERIFIED")
    port.verify()
    assert port.hello().position == 0


def test_the_plain_decoder_leaves_the_cache_in_dram_alone():
    core     = CoreConfig(kv_bytes=4096)
    firmware = Firmware(MODEL, config=core)
    cache    = firmware.ram[firmware.register("k_base"):][:core.kv_dram_bytes(SMALL, SMALL.context)]
    cache[:] = 0xA5
    assert firmware.register("kv_dram") == 1 and client(firmware).baseline(7).memory_bytes > 0
    assert np.all(cache == 0xA5)


def test_the_core_is_reset_after_a_probe_of_some_layers_alone():
    """It has read ahead of them."""
    firmware = Firmware(MODEL)
    port     = client(firmware)
    port.probe(1, 0, 1)
    assert firmware.register("control") == RESET and firmware.register("layers") == SMALL.n_layers
    port.probe(1, 0, SMALL.n_layers)
    assert firmware.register("control") == START
    port.probe(1, 0, SMALL.n_layers, 3)
    assert firmware.register("control") == START and firmware.register("flags") == 1 and firmware.register("topk") == 3
    port.prefill(0, [1])
    assert firmware.register("control") == START and firmware.register("flags") == 0


def test_the_core_is_reset_after_an_error_and_for_a_new_image():
    firmware = Firmware(MODEL)
    port     = client(firmware)
    assert firmware.register("control") == RESET
    for error in (1, 2, 7, -1):
        port.prefill(port.hello().position, [1])
        assert firmware.register("control") == START
        firmware.error = error
        with pytest.raises(Refused):
            port.prefill(port.hello().position, [1])
        firmware.error = 0
        assert firmware.register("control") == RESET
    port.prefill(port.hello().position, [1])
    port.verify()
    assert firmware.register("control") == RESET


def test_a_scan_leaves_the_stream_as_it_was():
    firmware = Firmware(MODEL)
    port     = client(firmware)
    before   = [firmware.register(name) for name in ("stream_base", "stream_bytes")]
    assert port.generate(0, [1, 2], GREEDY, 2)[0].position == 3
    passes   = port.stats().passes
    port.scan(c.SCAN_IMAGE, 0, 4096)
    assert [firmware.register(name) for name in ("stream_base", "stream_bytes")] == before
    assert port.hello().position == 3 and port.stats().passes == passes == 3
    with pytest.raises(Refused, match="did not read 64 bytes"):
        firmware.error = -1
        port.scan(c.SCAN_MAIN_RAM, 0, 64)
    firmware.error = 0
    assert [firmware.register(name) for name in ("stream_base", "stream_bytes")] == before
    assert firmware.register("control") == RESET and port.generate(3, [5], GREEDY, 1)[0].position == 4


def test_candidates_that_are_missing_are_told():
    firmware = Firmware(MODEL)
    port     = client(firmware)
    firmware.lib.stub_short(1)
    with pytest.raises(Refused) as refused:
        port.generate(0, [1], SamplerParams(1.0), 2)
    assert (refused.value.number, refused.value.value, refused.value.limit) == (error_number("CORE_TOPK"), 63, 64)
    firmware.lib.stub_short(0)
    assert port.prefill(0, [1]).position == 1


class Clock(Fast):
    """Passes of `cycles` each, of which the core counts as many."""

    def __init__(self, cycles, **options):
        super().__init__(MODEL, pace=(1, cycles), **options)


@pytest.mark.parametrize("cycles", [100_000, 2**32 - 1])
def test_times_of_an_answer_add_up(cycles):
    """Prompt to the first token, each token from the one before, and in all: 64 bits."""
    firmware = Clock(cycles)
    port     = client(firmware)
    seen     = []
    done, tokens = port.generate(0, [1, 2, 3], GREEDY, 4)
    slack    = 5000
    assert 3*cycles <= done.prompt_cycles < 3*cycles + slack and 3*cycles <= done.decode_cycles < 3*cycles + slack
    if cycles < 2**31:
        assert tokens[0].cycles == done.prompt_cycles and sum(t.cycles for t in tokens[1:]) == done.decode_cycles
        assert all(cycles <= t.cycles < cycles + slack for t in tokens[1:])
    assert done.pass_cycles == 3 + 4 + 5   # (The stub's core counts its position.)
    assert done.counters == [1000*i + 5 for i in range(c.N_COUNTERS)]
    one = port.prefill(6, [4])
    assert (one.n_prompt, one.n_tokens, one.reason, one.decode_cycles, one.pass_cycles) == (1, 0, c.REASON_LENGTH, 0, 0)
    assert cycles <= one.prompt_cycles < cycles + slack
    assert port.stats().cycles > 7*cycles and port.stats().passes == 7


def test_only_the_last_token_of_a_prompt_has_candidates():
    firmware = Fast(MODEL)
    client(firmware).generate(0, [5, 6, 7], SamplerParams(1.0, top_k=4, seed=1), 2)
    assert [p[2] for p in firmware.passes] == [0, 0, 4, 4] and [p[1] for p in firmware.passes] == [0, 1, 2, 3]


@pytest.mark.parametrize("stops", range(1, c.STOP_MAX + 1))
def test_any_number_of_stop_ids_up_to_the_last(stops):
    said = fast_tokens(1, 6)
    ids  = [i for i in range(300) if i not in said][:stops - 1] + [said[4]]
    done, tokens = client(Fast(MODEL)).generate(0, [1], GREEDY, 20, ids)
    assert done.reason == c.REASON_STOP and [t.id for t in tokens] == said[:said.index(said[4]) + 1]


def test_limits_of_a_run_are_exact():
    """One less than what is refused is taken: context, vocabulary, tokens of a frame, top-k of core and vocabulary, kept positions."""
    firmware = Fast(MODEL)
    port     = client(firmware)
    assert port.prefill(0, [299]*64).position == 64
    port.reset(64)
    port.reset(63)
    assert port.generate(63, [299], GREEDY, 5)[0].n_tokens == 1
    with pytest.raises(Refused, match="position 65, the session is at 64"):
        port.reset(65)
    port.probe(299, 63, 2, 64)
    with pytest.raises(Refused, match="65 positions"):
        port.probe(299, 64, 2, 64)
    assert port.hello().position == 63
    small = client(Fast(random_model(ModelConfig(32, 32, 1, 1, 1, 16, 262, 400), layers="q8_0"), config=CoreConfig(max_context=416, kv_scales=2048)))
    assert small.prefill(0, [1]*c.TOKENS_MAX).position == c.TOKENS_MAX
    with pytest.raises(Refused) as refused:
        small.request(c.PREFILL, words(c.TOKENS_MAX, c.TOKENS_MAX + 1, *[1]*(c.TOKENS_MAX + 1)))
    assert refused.value.number == error_number("N_TOKENS")
    with pytest.raises(Refused) as refused:
        small.probe(1, 0, 1, 65)
    assert refused.value.limit == 64
    with pytest.raises(Refused) as refused:   # Counted once, where the core starts.
        small.request(c.GENERATE, generate_payload(position=c.TOKENS_MAX, tokens=(262,)))
    assert (refused.value.number, refused.value.value, refused.value.limit) == (error_number("TOKEN"), 262, 262)


def test_a_seed_has_64_bits():
    said = {client(Fast(MODEL)).generate(0, [1], SamplerParams(1.0, seed=seed), 12)[1][-1].id for seed in (1, 1 + (1 << 32), 1 + (1 << 63), 2)}
    assert len(said) > 2


def test_a_name_is_cut_where_it_ends():
    for name, want in (("x"*c.NAME_MAX, "x"*c.NAME_MAX), ("x"*(c.NAME_MAX + 9), "x"*c.NAME_MAX), ('a"b', "a"), ("", "")):
        model      = random_model(SMALL, layers="q4_1")
        model.meta = dict(name=name)
        assert client(Firmware(model)).hello().name == want
    model.meta = dict(other=1)
    assert client(Firmware(model)).hello().name == ""


def test_a_full_ring_counts_what_is_lost():
    """While a pass runs nothing is read: a ring of bytes is kept, and the rest is counted."""
    firmware = Fast(MODEL)
    firmware.after_pass = lambda f: len(f.passes) == 1 and f.send(bytes(c.RING_BYTES + 100)) and None
    port     = client(firmware)
    port.prefill(0, [1, 2])
    stats    = port.stats()
    assert stats.overruns == 100 and stats.dropped_bytes >= c.RING_BYTES - c.HEADER_BYTES
    assert np.all(np.array(stats.counters) >= 0)
