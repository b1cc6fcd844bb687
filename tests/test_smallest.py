# SPDX-License-Identifier: BSD-2-Clause
"""The LFE5U-25F's SoC in simulation: its core, CPU without data cache, no L2, shallow DRAM queues."""

from litellama.accel.config import CoreConfig
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.sim import SimDevice
from litellama.host.importers import load_model, resolve
from litellama.host.measure import measure
from litellama.host.sampler import SamplerParams
from litellama.soc.boards import get_board


def test_smallest_soc_answers_as_the_reference():
    """Tokens of the default model are those of the bit-exact twin."""
    board    = get_board("gsd_orangecrab")
    model, _ = load_model(resolve("default"))
    answers  = []
    for device in (SimDevice(CoreConfig(**board.fit("25F").core), board.memory, **board.simulated("25F")), ReferenceDevice()):
        with device:
            device.load(model)
            answers.append(device.generate([1, 2, 3, 4, 5], SamplerParams(0.0, 0, 1.0, 1), 12).tokens)
    assert answers[0] == answers[1] and len(answers[0]) == 12


def test_its_tokens_a_second():
    """`bench --board` measures the board's core in a SoC like the board's, at the board's clock."""
    board    = get_board("gsd_orangecrab")
    model, _ = load_model(resolve("default"))
    report   = measure(model, model.config.n_layers, board.memory, 32, board=(board, "25F"))
    assert (report["board"], report["lanes"], report["columns"], report["clk_freq"]) == ("gsd_orangecrab 25F", 8, 1, 48e6)
    assert abs(report["tokens_per_second"]*report["cycles_per_token"]/48e6 - 1) < 1e-3
    assert 0.2 < report["mbu"] < report["ceiling"]*1.01 < 1
