# SPDX-License-Identifier: BSD-2-Clause
"""Repetition penalty and min-p: the definition, the firmware's sampler against its twin, the serial device against the reference."""

import random

import numpy as np
import pytest

from firmware_host import Firmware, Port, library, serve
from litellama.accel.config import ModelConfig
from litellama.accel.numerics import Decoder
from litellama.firmware import constants as c
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.serial import SerialDevice
from litellama.host.protocol import Client
from litellama.host.random_model import random_model
from litellama.host.sampler import Sampler, SamplerParams, logit_fixed
from test_firmware import c_sampler

MODEL  = random_model(ModelConfig(64, 96, 2, 4, 2, 16, 300, 64), layers="q4_1")
LONG   = random_model(ModelConfig(32, 64, 1, 2, 1, 16, 300, 512), layers="q8_0")
SEED   = 20240229


def fp32(*values):
    return np.array(values, np.float32)


# Definition -----------------------------------------------------------------------------------------

def test_penalty_divides_what_is_positive_and_multiplies_the_rest():
    s = Sampler(SamplerParams(repeat_penalty=1.5), recent=[7, 8, 9, 10])
    ids, logits = s.penalised([7, 5, 8, 9, 10, 6], [4 << 16, 3 << 16, 3 << 16, 0, -2 << 16, -5 << 16])
    want = {7: 4*65536/1.5, 5: 3*65536, 8: 2*65536, 9: 0, 10: -3*65536, 6: -5*65536}
    assert ids == [5, 7, 8, 9, 10, 6]
    assert all(abs(l - want[i]) <= 1 for i, l in zip(ids, logits))


def test_penalty_is_exact_at_its_ends():
    s = Sampler(SamplerParams(repeat_penalty=10), recent=[1, 2, 3, 4])
    assert dict(zip(*s.penalised([1, 2, 3, 4], [2**31 - 1, 65536, -1, -2**31 + 1]))) == {
        1: (2**31 - 1)*(2**48//655360) >> 32, 2: 6553, 3: -10, 4: -2**31 + 1}


def test_greedy_takes_the_best_after_the_penalty():
    logits = fp32(1, 5, 4, 4, 3.9)
    pick   = lambda recent, **p: Sampler(SamplerParams(**p), recent).pick(logits)
    assert pick([1], repeat_penalty=1.0) == 1
    assert pick([1], repeat_penalty=1.2) == 1                     # 4.17 is still the best.
    assert pick([1], repeat_penalty=1.3) == 2                     # Of equals the lower id.
    assert pick([1], repeat_penalty=1.25) == 2                    # 5/1.25 is rounded down, below the 4 of the others.
    assert pick([1, 2, 3], repeat_penalty=2.0) == 4
    assert pick([1], repeat_penalty=1.3, top_k=1) == 1            # No other candidate.
    assert pick([1], repeat_penalty=10.0, repeat_last_n=0) == 1


def test_only_the_last_tokens_count_and_sampled_ones_do():
    logits = fp32(8, 7, 6, 5)
    pick   = lambda n, recent: Sampler(SamplerParams(repeat_penalty=2.0, repeat_last_n=n), recent).pick(logits)
    assert [pick(2, [0, 1, 2]), pick(3, [0, 1, 2]), pick(1, [0, 1, 2])] == [0, 3, 0]
    s = Sampler(SamplerParams(repeat_penalty=2.0, repeat_last_n=2))
    assert [s.pick(logits) for _ in range(5)] == [0, 1, 2, 0, 1]


def test_min_p_drops_what_is_less_probable_than_its_share_of_the_best():
    inverse = [l << 16 for l in (3, 2, 1, 0)]   # Weights 1, 1/2, 1/4, 1/8 of the best at this temperature.
    kept    = lambda **p: len(Sampler(SamplerParams(temperature=1.4426950408889634, **p)).weights(inverse))
    assert [kept(min_p=p) for p in (0, 0.125, 0.126, 0.25, 0.26, 0.5, 0.51, 1)] == [4, 4, 3, 3, 2, 2, 1, 1]
    assert kept(min_p=0.2, top_p=0.7) == 2 and kept(min_p=0.5, top_p=1.0) == 2 and kept(min_p=0, top_p=0.79) == 2
    # top-p looks at all candidates: the best one has 1/1.875 of them, though 1/1.5 of those that min-p leaves.
    assert kept(min_p=0.3, top_p=0.53) == 1 and kept(min_p=0.3, top_p=0.6) == 2


# The firmware's sampler -------------------------------------------------------------------------------

def random_case(rng):
    """(params, logits, recent): ties, both signs, extremes; recent tokens are often candidates."""
    n      = rng.choice([1, 2, 5, 40, 64, 65, 300])
    kind   = rng.randrange(6)
    spread = rng.choice([0.01, 1, 8, 100, 20000, 1e6])
    logits = np.array([rng.gauss(rng.choice([-1, 0, 1]), 1)*spread for _ in range(n)], np.float32)
    if kind == 0:
        logits = np.round(logits/spread*3).astype(np.float32)   # Many ties.
    if kind == 1:
        logits = -np.abs(logits)
    if kind == 2:
        logits[rng.randrange(n)] = rng.choice([3e38, -3e38, 32767.99, -32768, 0.0, -0.0, 1e-7, -1e-39])
    best   = np.argsort(-logits, kind="stable")[:rng.choice([1, 3, 64])]
    recent = [int(rng.choice(best)) if rng.random() < 0.6 else rng.randrange(300) for _ in range(rng.choice([0, 1, 10, 63, 64, 65, 200]))]
    params = SamplerParams(rng.choice([0, 0, 0.05, 0.7, 1.0, 5.0, 100.0]), rng.choice([0, 1, 2, 40, 64]), rng.choice([0, 0.3, 0.9, 1.0]),
        rng.randrange(2**64), rng.choice([0, 0, 1e-5, 0.05, 0.5, 1.0]), rng.choice([1.0, 1.00001, 1.1, 1.5, 3.14159, 10.0, rng.uniform(1, 10)]),
        rng.choice([0, 1, 2, 7, 63, 64]))
    return params, logits, recent


def test_random_cases_equal_the_twin():
    rng, lib = random.Random(SEED), library()
    changed  = 0
    for i in range(4000):
        params, logits, recent = random_case(rng)
        twin, plain = Sampler(params, recent), Sampler(SamplerParams(params.temperature, params.top_k, params.top_p, params.seed))
        pick = c_sampler(lib, params, recent)
        for _ in range(3):   # The sampled tokens are recent ones for the next.
            want     = twin.pick(logits)
            changed += want != plain.pick(logits)
            assert pick(logits) == want, f"seed {SEED}, case {i}: {params}"
    assert changed > 1000


def test_penalised_logits_equal_the_twin_at_random_bits():
    """Greedy over two candidates tells which logit is larger, here after the penalty."""
    rng, lib = random.Random(SEED), library()
    for i in range(3000):
        params = SamplerParams(repeat_penalty=1 + rng.random()*9)
        first  = rng.choice([1, -1])*2.0**rng.uniform(-16, 15)
        factor = params.repeat_penalty_q16/65536
        border = first/factor if first > 0 else first*factor
        pair   = sorted([(first, 0), (border + rng.randrange(-2, 3)/65536, 1)], key=lambda p: -p[0])
        if pair[0][1] == 1:   # The other one must be the candidate that is penalised.
            continue
        logits = np.array([p[0] for p in pair], np.float32)
        assert c_sampler(lib, params, [0])(logits) == Sampler(params, [0]).pick(logits), f"seed {SEED}, case {i}"


# Devices ----------------------------------------------------------------------------------------------

def both(model, script, url):
    """What script(device) gives on the reference and on the firmware at `url`."""
    reference = ReferenceDevice()
    reference.load(model)
    with SerialDevice(url) as device:
        device.load(model)
        return script(reference), script(device)


PENALTY = SamplerParams(0.0, repeat_penalty=1.8, repeat_last_n=24)
MIXED   = SamplerParams(0.9, 40, 0.95, 17, min_p=0.05, repeat_penalty=1.3, repeat_last_n=64)


@pytest.mark.parametrize("params", [PENALTY, MIXED])
def test_turns_rewinding_and_reset_equal_the_reference(params):
    def script(device):
        said, out = [1, 5, 9], []
        def turn(new, n, recent=None):
            at     = device.position
            said.extend(new)
            result = device.generate(said[at:], params, n, recent=said[max(0, at - params.window):at] if recent is None else recent)
            said.extend(result.tokens)
            out.append((result.tokens, device.position))
        turn([], 12)
        turn([17, 3], 8)
        del said[9:]
        device.reset(7)
        turn([4], 10)
        turn([8], 6, recent=[])             # Another past gives other tokens.
        device.reset()
        said[:] = [1, 5, 9]
        turn([], 12)
        return out
    with serve(Firmware(MODEL)) as url:
        want, got = both(MODEL, script, url)
    assert want == got
    assert want[0] == want[4]
    plain = ReferenceDevice()
    plain.load(MODEL)
    free  = plain.generate([1, 5, 9], SamplerParams(params.temperature, params.top_k, params.top_p, params.seed), 12).tokens
    assert free != want[0][0]


def test_the_tokens_before_are_looked_at():
    device = ReferenceDevice()
    device.load(MODEL)
    device.generate([1, 5, 9], PENALTY, 1)
    best = device.generate([17], SamplerParams(), 1).tokens[0]
    device.reset(3)
    assert device.generate([17], PENALTY, 1, recent=[best]).tokens[0] != best


def test_a_prompt_in_pieces_is_looked_back_at_as_a_whole():
    """The last piece has fewer tokens than the penalty looks at, so that the piece before counts too."""
    params, last = SamplerParams(repeat_penalty=10.0), [5, 6]
    for seed in range(50):   # Until the first piece decides.
        tokens = [int(t) for t in np.random.default_rng(seed).integers(0, 300, c.TOKENS_MAX)] + last
        logits = Decoder(LONG).forward(tokens)
        if Sampler(params, tokens).pick(logits) != Sampler(params, last).pick(logits):
            break
    else:
        pytest.fail("no such prompt")
    with serve(Firmware(LONG)) as url:
        want, got = both(LONG, lambda device: device.generate(tokens, params, 20).tokens, url)
    assert got == want


def test_an_abort_leaves_the_same_past():
    def script(device):
        seen   = []
        first  = device.generate([1, 2], PENALTY, 40, on_token=lambda t: seen.append(t) or len(seen) == 5).tokens
        said   = [1, 2, *first]
        second = device.generate([first[-1], 9], PENALTY, 12, recent=said[:-1][-PENALTY.window:]).tokens
        return first, second, device.position
    with serve(Firmware(MODEL)) as url:
        want, got = both(MODEL, script, url)
    assert want == got and len(want[0]) == 5


def test_greedy_with_penalty_asks_for_all_candidates_and_reports_the_core_s_logit():
    firmware = Firmware(MODEL)
    client   = Client(Port(firmware), timeout=30)
    logits   = Decoder(MODEL).forward([1])
    best     = int(logits.argmax())
    _, tokens = client.generate(0, [1], SamplerParams(repeat_penalty=10.0), 1, recent=[best])
    assert firmware.passes == [(1, 0, 64)] and tokens[0].id != best
    assert tokens[0].logit == int(logits[tokens[0].id].view(np.uint32))
    client.reset()
    client.generate(0, [1], SamplerParams(repeat_penalty=10.0, top_k=3), 1)
    assert firmware.passes[1] == (1, 0, 3)


def test_logits_that_differ_below_the_fixed_point_are_ties():
    """Sorted anew, they come by token id, where the core has them by logit."""
    a, b = np.float32(0.5), np.nextafter(np.float32(0.5), np.float32(1))
    assert logit_fixed([a])[0] == logit_fixed([b])[0] and b > a
    logits = np.array([a, b, -1], np.float32)
    on, off = SamplerParams(repeat_penalty=1.5), SamplerParams()
    assert Sampler(off).pick(logits) == c_sampler(library(), off)(logits) == 1
    assert Sampler(on, [2]).pick(logits) == c_sampler(library(), on, [2])(logits) == 0


def test_more_stop_ids_than_a_request_holds_are_refused_everywhere():
    with serve(Firmware(MODEL)) as url:
        def script(device):
            with pytest.raises(ValueError, match="17 stop ids, at most 16"):
                device.generate([1], SamplerParams(), 1, range(17))
            return device.generate([1], SamplerParams(), 3, range(284, 300)).tokens
        want, got = both(MODEL, script, url)
    assert want == got


@pytest.mark.parametrize("stop", range(16))
def test_each_of_16_stop_ids_ends_a_run(stop):
    free = Client(Port(Firmware(MODEL)), timeout=30).generate(0, [1, 2], SamplerParams(0.9, seed=11), 10)[1]
    ids  = [t.id for t in free]
    stops = [i for i in range(300) if i not in ids][:16]
    stops[stop] = ids[4]
    done, tokens = Client(Port(Firmware(MODEL)), timeout=30).generate(0, [1, 2], SamplerParams(0.9, seed=11), 10, stops)
    assert done.reason == c.REASON_STOP and [t.id for t in tokens] == ids[:ids.index(ids[4]) + 1]
