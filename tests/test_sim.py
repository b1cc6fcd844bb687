# SPDX-License-Identifier: BSD-2-Clause
"""The whole machine: model file, image, DRAM of the simulated SoC, core, firmware, UART, client. Tokens against the twin's."""

import json
import subprocess
import sys

import pytest

from litellama.accel.image import write_image
from litellama.accel.scan import signature
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.sim import SimDevice
from litellama.host.importers import load_model, resolve
from litellama.host.measure import measure, parse_shape, shape_model
from litellama.host.protocol import Refused
from litellama.host.random_model import llama2c_bytes, odd_configs, random_model
from litellama.host.sampler import SamplerParams


def litellama(*args, stdin=None):
    """Run the command line as a user does: (stdout, stderr)."""
    done = subprocess.run([sys.executable, "-m", "litellama.host", *args], input=stdin, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("temperature", ("0", "0.8"))
def test_run_gives_the_same_tokens_on_sim_and_reference(temperature):
    """Default model, 64 tokens: gateware and twin agree token for token, greedy and sampled."""
    options = ("run", "Tell me a story about a fox named Tilda.", "--chat", "--tokens", "64", "--seed", "7", "--temperature",
        temperature, "--json")
    sim, reference = (json.loads(litellama(*options, "--device", d)[0]) for d in ("sim", "reference"))
    assert len(reference["token_ids"]) > 20
    for key in ("text", "token_ids", "prompt_token_ids", "finish_reason"):
        assert sim[key] == reference[key]
    assert 0.5 < sim["timings"]["mbu"] < 1
    assert sim["timings"]["decode_cycles_per_token"] < 60000


@pytest.mark.parametrize("name, config, tied", odd_configs(), ids=[name for name, *_ in odd_configs()])
def test_odd_dimensions(name, config, tied, tmp_path):
    """Random models of odd dimensions, through the llama2.c importer: same tokens on sim and reference."""
    checkpoint, tokenizer = llama2c_bytes(config, seed=11, tied=tied)
    (tmp_path/"model.bin").write_bytes(checkpoint)
    (tmp_path/"tokenizer.bin").write_bytes(tokenizer)
    model, _ = load_model(tmp_path/"model.bin")
    results  = []
    for device in (SimDevice(), ReferenceDevice()):
        with device:
            device.load(model)
            # Two requests, the second on top of the first one's cache.
            first  = device.generate([1, 5, 9], SamplerParams(0.8, 40, 0.95, 3), 12)
            second = device.generate([first.tokens[-1], 17], SamplerParams(0.0), 12)
            results.append((first.tokens, second.tokens, device.position))
    assert results[0] == results[1]


def test_chat_remembers():
    """Three turns of chat on the simulated SoC; the third uses what the first one said."""
    answers = [litellama("chat", "--device", d, stdin="Hello!\nMy name is Anna.\nWhat is my name?\n")[0] for d in ("sim", "reference")]
    assert answers[0] == answers[1]
    assert "Anna" in answers[0].strip().splitlines()[-1]


def test_scan_reads_what_was_loaded():
    """The core's signature of the image, and of parts of it, is the twin's; tokens after it are as before."""
    model = random_model(odd_configs()[0][1], seed=3)
    data  = write_image(model)
    with SimDevice() as device:
        device.load(model)
        before = device.generate([1, 5], SamplerParams(), 4).tokens
        for offset, n in ((0, len(data)//32*32), (32, 32), (4064, 2080)):
            done = device.scan(n, offset)
            assert done.signature == signature(data[offset:offset + n], device.config.beat_bytes).tolist()
        assert n/16 < done.counters[0] <= done.cycles
        with pytest.raises(Refused, match="must be 32 to"):
            device.scan(0)
        device.reset()
        assert device.generate([1, 5], SamplerParams(), 4).tokens == before


def test_bench_compares_with_the_cpu():
    """The core needs at most a hundredth of the cycles of plain C on the same SoC's CPU, and the stage table adds up."""
    model  = load_model(resolve("default"))[0]
    report = measure(model, model.config.n_layers, context=64, vs_cpu=True)
    assert report["cpu_cycles_per_token"] >= 100*report["cycles_per_token"]
    assert sum(report["stages"].values()) == sum(report["stalls"].values()) == report["cycles_per_token"]
    assert report["mbu"] > 0.74


def test_share_of_the_bandwidth_does_not_fall():
    """A model of 4.6 MB with its cache in DRAM: how near it comes to the memory's peak, and to what sequential reads reach. All
    cycles are accounted for. Raise a floor when it gets better."""
    shape  = parse_shape("mini:512,1536,2,8,2,64,4096")
    report = measure(shape_model(shape, "q4_0"), shape.n_layers, context=128)
    cycles = report["cycles_per_token"]
    assert sum(report["stages"].values()) == sum(report["stalls"].values()) == cycles
    assert min(*report["stages"].values(), *report["stalls"].values()) >= 0
    assert report["mbu"] == pytest.approx(report["bytes_per_token"]/cycles/16, abs=1e-4)
    assert 0.938 < report["ceiling"] < 0.95
    assert report["mbu"] > 0.92
    assert 0.975 < report["mbu"]/report["ceiling"] < 1
    assert 0 < report["stalls"]["firmware"] < 1500
