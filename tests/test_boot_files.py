# SPDX-License-Identifier: BSD-2-Clause
"""Files for LiteX's BIOS: its own JSON parser finds every part and where it belongs, and the firmware last."""

import ctypes
import json
from pathlib import Path
import subprocess

import litex
import pytest

from litellama.accel import image
from litellama.accel.config import CoreConfig, ModelConfig
from litellama.host import boot_files, cli
from litellama.host.boot_files import write_boot_files
from litellama.host.random_model import random_model

SOFTWARE = Path(litex.__file__).parent/"soc/software"
BASE     = 0x40000000
OFFSET   = 0x400000
CONFIG   = ModelConfig(64, 96, 2, 2, 1, 32, 300, 64)
# What boot.c does with boot.json, from an SD card or by TFTP, with its limits: 1,024 bytes, 32 tokens, names of 31 characters.
PARSER   = """
#include <string.h>
#include <stdlib.h>
#include <libbase/jsmn.h>
int entries(const char *text, char names[16][32], unsigned long *places)
{
	jsmntok_t t[32];
	jsmn_parser p;
	jsmn_init(&p);
	int n = 0, count = jsmn_parse(&p, text, strlen(text), t, 32);
	for (int i = 0; i < count - 1; i++)
		if (t[i].type == JSMN_STRING && t[i].size == 1) {
			memcpy(names[n], text + t[i].start, t[i].end - t[i].start);
			places[n++] = strtoul(text + t[i + 1].start, NULL, 0);
		}
	return count < 0 ? count : n;
}
"""


@pytest.fixture(scope="module")
def parse(tmp_path_factory):
    """Function: {name: address} of a boot.json as the BIOS reads it."""
    folder = tmp_path_factory.mktemp("jsmn")
    (folder/"parser.c").write_text(PARSER)
    subprocess.run(["gcc", "-shared", "-fPIC", f"-I{SOFTWARE}", folder/"parser.c", "-o", folder/"parser.so"], check=True)
    library = ctypes.CDLL(folder/"parser.so")

    def read(path):
        text = path.read_bytes()
        assert len(text) < 1024
        names, places = (ctypes.c_char*32*16)(), (ctypes.c_ulong*16)()
        n = library.entries(text, names, places)
        assert n > 0, n
        return {names[i].value.decode(): places[i] for i in range(n)}
    return read


@pytest.fixture
def build(tmp_path):
    """The files of a `litellama build` that count here."""
    folder = tmp_path/"build"
    (folder/"firmware").mkdir(parents=True)
    (folder/"firmware"/"fw.bin").write_bytes(b"firmware")
    core = {f"llama_{name}": value for name, value in vars(CoreConfig()).items()}
    (folder/"csr.json").write_text(json.dumps(dict(constants=core | dict(llama_image_offset=OFFSET),
        memories=dict(main_ram=dict(base=BASE, size=OFFSET + (64 << 20))))))
    return folder


@pytest.mark.parametrize("text, message", (("{}", "csr.json has no constants"), ("{", "csr.json is no JSON")))
def test_a_broken_build(text, message, build, tmp_path):
    (build/"csr.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        write_boot_files(b"", CONFIG, build, tmp_path/"card")


@pytest.mark.parametrize("part_bytes", (boot_files.PART_BYTES, 1 << 14))
def test_the_bios_puts_the_image_where_the_firmware_looks(part_bytes, build, tmp_path, parse, monkeypatch):
    monkeypatch.setattr(boot_files, "PART_BYTES", part_bytes)
    data    = image.write_image(random_model(CONFIG))
    paths   = write_boot_files(data, CONFIG, build, tmp_path/"card")
    entries = parse(tmp_path/"card"/"boot.json")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path/"card").iterdir())
    assert list(entries)[-1] == "fw.bin" and entries["fw.bin"] == BASE
    dram = bytearray(len(data))
    for name, place in list(entries.items())[:-1]:
        part  = (tmp_path/"card"/name).read_bytes()
        start = place - BASE - OFFSET
        assert len(part) <= part_bytes
        dram[start:start + len(part)] = part
    assert dram == data and len(entries) == 1 + -(-len(data)//part_bytes)


def test_as_many_parts_as_the_bios_takes(build, tmp_path, parse, monkeypatch):
    """14 and the firmware; one more is refused."""
    data = bytes(14*1024)
    monkeypatch.setattr(boot_files, "PART_BYTES", 1024)
    write_boot_files(data, CONFIG, build, tmp_path/"card")
    assert len(parse(tmp_path/"card"/"boot.json")) == 15
    with pytest.raises(ValueError, match="image has 14337 bytes, the BIOS loads at most 14336"):
        write_boot_files(data + b"x", CONFIG, build, tmp_path/"card")


def test_part_is_shorter_than_tftp_counts():
    """65,535 blocks of 1,024 bytes, the last of them not full."""
    source = (SOFTWARE/"libliteeth/tftp.c").read_text()
    assert "uint16_t block;" in source and "BLOCK_SIZE	1024" in source
    assert boot_files.PART_BYTES < 65535*1024


def test_what_the_board_cannot_run_is_refused(build, tmp_path, capsys):
    with pytest.raises(ValueError, match="image has 67108865 bytes, the board has room for 67108864"):
        write_boot_files(bytes((64 << 20) + 1), CONFIG, build, tmp_path/"card")
    with pytest.raises(ValueError, match="built for at most"):
        write_boot_files(bytes(64), ModelConfig(4096, 96, 2, 2, 1, 32, 300, 64), build, tmp_path/"card")
    assert cli.main(["boot-files", "default", "--build", str(tmp_path), "-o", str(tmp_path/"card")]) == 1
    assert "it must be an output folder of `litellama build`" in capsys.readouterr().err
    text = (build/"csr.json").read_text()
    (build/"csr.json").write_text(text.replace("llama_lanes", "lanes"))
    with pytest.raises(ValueError, match="has no llama_lanes: the core is not in it, or of another version"):
        write_boot_files(bytes(64), CONFIG, build, tmp_path/"card")
    assert not (tmp_path/"card").exists()
