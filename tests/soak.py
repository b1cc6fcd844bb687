# SPDX-License-Identifier: BSD-2-Clause
"""Long runs on the simulated SoC against the twin: `make soak`, or `python tests/soak.py [PART ..]`. Exit status 1 if any bit
or token differs.

chat:   SmolLM2 answers two questions (the capital of Japan, counting to 10), on the reference and on the SoC: same token ids.
layers: SmolLM2 with its cache in DRAM, positions 0 to 40: the residual stream after every pass, and at the last position after
        every layer (PROBE, debug window), bit for bit.
far:    a random model of SmolLM2's dimensions with 2 layers, positions 0 to 1,010: from 1,000 on the residual stream after
        each layer and the best logit, bit for bit.

Each part takes 15 to 50 minutes.
"""

import argparse
import sys
import time

import numpy as np

from litellama.accel import image, numerics
from litellama.accel.config import BLOCK, ModelConfig
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.sim import SimDevice
from litellama.host.importers import load_model, resolve
from litellama.host.random_model import random_model
from litellama.host.sampler import SamplerParams
from litellama.host.session import Session

QUESTIONS = {"What is the capital of Japan?": "The capital of Japan is Tokyo.", "Count from 1 to 10": "10"}
LAST      = 40
FAR       = range(1000, 1011)


def say(text):
    """A line with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def same(what, device, taps, layer):
    """Compare the SoC's residual stream with the twin's after `layer`; whether they are the same."""
    want = numerics.bits(taps["layer", layer][-1])
    got  = np.array(device.peek("x", 0, len(want)), np.uint32)
    good = bool((got == want).all())
    if not good:
        say(f"{what}: {int((got != want).sum())} of {len(want)} elements differ")
    return good


def every_layer(device, twin, token, position):
    """PROBE each layer of a position that the twin (with taps) has just decoded; number of layers that differ."""
    n = twin.config.n_layers
    bad = 0
    for layers in range(1, n + 1):
        device.probe(token, position, layers)
        bad += not same(f"position {position}, layer {layers - 1}", device, twin.taps, layers - 1)
    say(f"position {position}: {n - bad} of {n} layers equal")
    return bad


def chat():
    """See the module."""
    bad, model = 0, load_model(resolve("smollm2"))[0]
    for question, wanted in QUESTIONS.items():
        replies = []
        for device in (ReferenceDevice(), SimDevice()):
            with device:
                replies.append(Session(device, model).ask(question, SamplerParams(), 80))
        reference, sim = replies
        equal = reference.token_ids == sim.token_ids and reference.prompt_token_ids == sim.prompt_token_ids
        right = wanted in sim.text
        bad  += not (equal and right)
        say(f"{question} -> {sim.text!r}: {len(sim.prompt_token_ids)} and {len(sim.token_ids)} tokens, "
            f"{'same ids' if equal else 'ids DIFFER'}, {'right' if right else 'WRONG'}, {sim.finish_reason}, "
            f"{sim.timings.decode_cycles_per_token:.0f} cycles a token, MBU {sim.timings.mbu:.4f}")
    return bad


def layers():
    """See the module."""
    model  = load_model(resolve("smollm2"))[0]
    twin   = numerics.Decoder(model, taps={})
    with SimDevice() as device:
        device.load(model)
        tokens = Session(ReferenceDevice(), model).template.encode("Once upon a time, in a land far away, there lived a fox. "*6)
        bad    = 0
        for position, token in enumerate(tokens[:LAST + 1]):
            twin.forward([token])
            device.generate([token], SamplerParams(), 1)
            bad += not same(f"position {position}", device, twin.taps, model.config.n_layers - 1)
            if position % 10 == 0:
                say(f"positions to {position}: {bad} differ")
        bad += every_layer(device, twin, tokens[LAST], LAST)
    return bad


def far():
    """See the module."""
    config = ModelConfig(576, 1536, 2, 9, 3, 64, 49152, 2048, rope_base=100000.0)
    model  = random_model(config, image.Q4_1, image.Q8_0, seed=3)
    twin   = numerics.Decoder(model, taps={})
    tokens = np.random.default_rng(4).integers(0, config.vocab, FAR.stop).tolist()
    greedy = SamplerParams()
    with SimDevice() as device:
        device.load(model)
        device.generate(tokens[:FAR.start], greedy, 1, on_progress=lambda done, total, *_: done % 100 or say(f"{done} of {total}"))
        twin.forward(tokens[:FAR.start], None)
        bad = 0
        for position in FAR:
            token  = tokens[position] if position < len(tokens) else 0
            logits = twin.forward([token])
            chosen = device.generate([token], greedy, 1).tokens[0]
            bad   += chosen != int(numerics.topk(logits, 1)[0])
            bad   += every_layer(device, twin, token, position)
            device.generate([token], greedy, 1)   # PROBE cut the session: once more, for good.
    say(f"far: {bad} differences, {config.n_heads*config.head_blocks*BLOCK} query elements, context {FAR.stop}")
    return bad


PARTS = dict(chat=chat, layers=layers, far=far)


def main():
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    failed = [name for name in parser.parse_args().parts or PARTS if say(f"{name} begins") or PARTS[name]()]
    say(f"failed: {', '.join(failed)}" if failed else "all equal")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
