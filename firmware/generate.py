# SPDX-License-Identifier: BSD-2-Clause
"""Write llama_generated.h: every number that the C sources share with Python, and the sampler's exp2 table.

Usage: python -m litellama.firmware.generate OUTPUT. The header is written at firmware build time and is not in git.
"""

import sys

from ..accel import image, numerics
from ..accel.config import BLOCK, GROUP_BLOCKS, LIMITS, TOPK_MAX, UNIT_BYTES
from . import constants

CONSTANTS = ("PROTOCOL_VERSION", "SYNC0", "SYNC1", "HEADER_BYTES", "CRC_BYTES", "PAYLOAD_MAX", "RING_BYTES", "FRAME_TIMEOUTS", "TICK_CYCLES",
    "ANSWER", "N_COUNTERS", "NAME_MAX", "PEEK_WORDS", "STOP_MAX", "TOKENS_MAX", "RECALL_TOKENS", "GREEDY",
    "INV_TEMPERATURE_MAX", "REPEAT_LAST_MAX", "REPEAT_PENALTY_MAX", "PROGRESS_CYCLES", "REASON_STOP", "REASON_LENGTH",
    "REASON_ABORT", "REGION_MAIN_RAM", "REGION_DEBUG", "SCAN_MAIN_RAM", "SCAN_IMAGE", "SIGNATURE_WORDS",
    "PATTERN_CONSTANT", "PATTERN_ADDRESS", "PATTERN_MIXED")
STRUCTS   = ("HELLO", "GENERATE", "PREFILL", "TOKEN", "DONE", "STATS", "BASELINE", "PROBE", "SCAN", "FILL", "PROGRESS", "ERROR")

# Field names of accel.image.HEADER behind magic, in order; a float is kept as its bits.
IMAGE_FIELDS = ("version", "header_bytes", "image_bytes", "n_sections", "dim", "hidden", "n_layers", "n_heads", "n_kv_heads",
    "head_dim", "vocab", "context", "eps", "rope_base", "dim_blocks", "hidden_blocks", "head_blocks", "inv_dim", "eps_core",
    "score_scale", "first_bytes", "layers_bytes", "stream_bytes", "stream_offset", "embed_offset", "embed_type", "rope_offset",
    "bos", "eos")


def _array(name, values):
    rows = [", ".join(f"{v:#x}" for v in values[i:i + 12]) for i in range(0, len(values), 12)]
    return f"static const uint32_t {name}[{len(values)}] = {{\n\t" + ",\n\t".join(rows) + "\n};\n"


def _struct(name, fields):
    plain = [f for f in fields if not f.startswith("counter_")]
    return f"struct {name} {{\n" + "".join(f"\tuint32_t {f};\n" for f in plain) + (
        "\tuint32_t counters[N_COUNTERS];\n" if len(plain) < len(fields) else "") + "};\n"


def header():
    """Text of the C header."""
    assert image.HEADER.size == 8 + 4*len(IMAGE_FIELDS)
    out = ["/* Written by firmware/generate.py: do not edit. SPDX-License-Identifier: BSD-2-Clause */",
        "#ifndef LLAMA_GENERATED_H", "#define LLAMA_GENERATED_H", "#include <stdint.h>"]
    def define(name, value):
        out.append(f"#define {name} {value:#x}u")
    for name in CONSTANTS:
        define(name, getattr(constants, name))
    for i, name in enumerate(constants.REQUEST_NAMES):
        define("REQUEST_" + name, constants.REQUESTS[i])
    define("REQUEST_LAST", constants.REQUESTS[-1])
    for name in ("TOKEN", "PROGRESS", "ERROR"):
        define("FRAME_" + name, getattr(constants, name))
    for name, (number, _) in constants.ERRORS.items():
        define("ERROR_" + name, number)
    define("BLOCK", BLOCK)
    define("GROUP_BLOCKS", GROUP_BLOCKS)
    define("UNIT_BYTES", UNIT_BYTES)
    define("TOPK_MAX", TOPK_MAX)
    for name, value in LIMITS.items():
        define("LIMIT_" + name.upper(), value)
    define("IMAGE_MAGIC_LOW", int.from_bytes(image.MAGIC[:4], "little"))
    define("IMAGE_MAGIC_HIGH", int.from_bytes(image.MAGIC[4:], "little"))
    define("IMAGE_VERSION", image.VERSION)
    define("IMAGE_HEADER_BYTES", image.HEADER.size)
    define("SECTION_ALIGN", image.SECTION_ALIGN)
    define("MATRIX_MAGIC", image.MATRIX_MAGIC)
    for name in ("STRM", "EMBD", "ROPE", "TOKN", "TMPL", "META"):
        define("SECTION_" + name, int.from_bytes(name.encode(), "little"))
    for i, name in image.TYPE_NAMES.items():
        define("TYPE_" + name.upper(), i)
        if i in image.GROUP_BYTES:
            define(f"GROUP_BYTES_{name.upper()}", image.GROUP_BYTES[i])
    for i, name in enumerate(image.KIND_NAMES):
        define("KIND_" + name.upper(), i)
    out.append(_struct("image_header", ("magic_low", "magic_high", *IMAGE_FIELDS)))
    out.append(_struct("image_section", ("name", "offset", "length", "crc")))
    for name in STRUCTS:
        out.append(_struct("wire_" + name.lower(), getattr(constants, name + "_FIELDS")))
    first = numerics.TABLE_BASE[numerics.EXP2]
    out.append("#ifdef LLAMA_WANT_EXP2")
    y0, dy = (table[first:first + 256].tolist() for table in (numerics.TABLE_Y0, numerics.TABLE_DY))
    assert all(y0[i] - dy[i] == y0[i + 1] for i in range(255))
    out.append(_array("exp2_table", y0 + [y0[-1] - dy[-1]]))   # One more: a step is the difference of two neighbours.
    out += ["#endif", "#endif", ""]
    return "\n".join(out)


if __name__ == "__main__":
    with open(sys.argv[1], "w") as f:
        f.write(header())
