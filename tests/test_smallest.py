# SPDX-License-Identifier: BSD-2-Clause
"""The LFE5U-25F's SoC in simulation: its core, CPU without data cache, no L2, shallow DRAM queues."""

from litellama.accel.config import CoreConfig
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.sim import SimDevice
from litellama.host.importers import load_model, resolve
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
