# SPDX-License-Identifier: BSD-2-Clause
"""What LiteX's BIOS boots model and firmware from: files for an SD card (FAT), or for a TFTP server."""

import json
from pathlib import Path
import shutil

from ..accel.config import CoreConfig, check

PART_BYTES  = 63 << 20   # The BIOS counts blocks of TFTP, 1,024 bytes each, in 16 bits: a file must be shorter than 64 MB.
MAX_ENTRIES = 15         # Its JSON parser has room for 32 tokens: the object, and two of each entry.
FIRMWARE    = "fw.bin"


def _facts(build):
    """(CoreConfig, base and size of main_ram, offset of the image in it) of an output folder of `litellama build`."""
    path = Path(build)/"csr.json"
    check(path.exists() and (Path(build)/"firmware"/FIRMWARE).exists(),
        f"{build} has no csr.json or no firmware/{FIRMWARE}: it must be an output folder of `litellama build`")
    try:
        facts     = json.loads(path.read_text())
        constants = facts["constants"]
        core = CoreConfig(**{name: constants[f"llama_{name}"] for name in CoreConfig.__dataclass_fields__})
        ram  = facts["memories"]["main_ram"]
        return core, ram["base"], ram["size"], constants["llama_image_offset"]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    except KeyError as error:
        raise ValueError(f"{path} has no {error.args[0]}: the core is not in it, or of another version; build it again") from None


def write_boot_files(image, config, build, output):
    """Write `image` (bytes, of a model of `config`) in parts, the firmware of the SoC in folder `build`, and boot.json into the folder
    `output`; returns their paths. ValueError if that SoC cannot run the model. The firmware is the last entry: the BIOS starts that."""
    core, base, size, offset = _facts(build)
    core.check_model(config)
    check(len(image) <= size - offset, f"image has {len(image)} bytes, the board has room for {size - offset}")
    parts = range(0, len(image), PART_BYTES)
    check(len(parts) < MAX_ENTRIES, f"image has {len(image)} bytes, the BIOS loads at most {(MAX_ENTRIES - 1)*PART_BYTES}")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for i, start in enumerate(parts):
        entries[f"model{i}.img"] = f"{base + offset + start:#x}"
        (folder/f"model{i}.img").write_bytes(image[start:start + PART_BYTES])
    entries[FIRMWARE] = f"{base:#x}"
    shutil.copyfile(Path(build)/"firmware"/FIRMWARE, folder/FIRMWARE)
    (folder/"boot.json").write_text(json.dumps(entries, indent=1) + "\n")
    return [folder/name for name in (*entries, "boot.json")]
