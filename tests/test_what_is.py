# SPDX-License-Identifier: BSD-2-Clause
"""What is no model, or not the whole of one, is called what it is; images whose parts contradict each other are refused."""

import dataclasses
import json
import struct
import zlib

import numpy as np
import pytest

from litellama.accel import image
from litellama.host.importers import load_model
from litellama.host.random_model import llama2c_bytes, random_model

from exact_models import CONFIG, hf_config, hf_tensors, safetensors_bytes, tokenizer_json, write_folder, write_gguf
from test_importers import SMALL, refused, repair

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234567\n"


@pytest.mark.parametrize("data,what", [
    (POINTER, "this is a pointer of Git LFS"), (b"<!DOCTYPE html>\n<html><body>404</body></html>", "this is a web page"),
    (b"  <html lang=en>Not found, sorry</html>", "this is a web page"), (b"<?xml version='1.0'?><Error/>", "this is a web page"),
    (json.dumps(dict(metadata={}, weight_map={})).encode(), "this is the index of a Hugging Face model: name the folder"),
    (json.dumps(hf_config()).encode(), "this is the configuration of a Hugging Face model"),
    (b'{"architectures": ["X"]}', "this is the configuration of a Hugging Face model"),
    (tokenizer_json().encode(), "this is a Hugging Face tokenizer"),
    (b'{"peft_type": "LORA"}', "this is the configuration of an adapter"),
    (b'{"error": "Repository not found"}', "this is a JSON file"), (b"[1, 2, 3, 4]", "this is a JSON file"),
    (b'{"error": ', "this is a text file"),
    (b"hello, this is a text\n"*9, "this is a text file"), ("Grüße an alle".encode()*20, "this is a text file"),
    (b"#!/bin/sh\necho model\n", "this is a script"), (safetensors_bytes(hf_tensors()), "this is a part of a Hugging Face model"),
    (b"PK\x03\x04" + bytes(99), "zip archive"), (b"\x80\x02}q\0" + bytes(99), "pickle"), (b"\x80\x04}q\0" + bytes(99), "pickle"),
    (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"), (b"\xff\xd8\xff\xe0" + bytes(99), "JPEG"), (b"GIF89a" + bytes(99), "GIF"),
    (b"%PDF-1.7\n", "PDF"), (b"\x7fELF" + bytes(99), "a program"), (b"MZ\x90\0" + bytes(99), "a program"),
    (b"\x1f\x8b\x08" + bytes(99), "gzip"), (b"BZh9" + bytes(99), "bzip2"), (b"\xfd7zXZ\0" + bytes(99), "xz"),
    (b"\x28\xb5\x2f\xfd" + bytes(99), "zstd"), (bytes(257) + b"ustar" + bytes(300), "tar archive"),
    (b"\x93NUMPY\1\0" + bytes(99), "NumPy"), (b"\x89HDF\r\n" + bytes(99), "HDF5"), (b"24ka" + bytes(252), "--version 0"),
    (b"fmgg" + bytes(99), "old GGML"),
    (b"tjgg" + bytes(99), "old GGML"), (b"FUGG" + bytes(99), "big-endian"),
    (b"\n\x0e\n\x05<unk>" + bytes(99), "SentencePiece tokenizer"),
    (llama2c_bytes(SMALL)[1], "a tokenizer of llama2.c"), (b"RIFF\0\0\0\0WEBP" + bytes(99), "media file"),
    (b"7z\xbc\xaf" + bytes(99), "7z"), (b"Rar!\x1a" + bytes(99), "RAR"), (b"BM" + bytes(99), "BMP"),
    (b"x", "1 bytes: no model"), (bytes(1000), "no model that is known here"),
    (bytes(range(256))*8, "no model that is known here"), (b"\xff"*999, "no model that is known here")])
def test_files_that_are_no_model(tmp_path, data, what):
    (tmp_path/"model").write_bytes(data)
    assert what in refused(tmp_path/"model")


def test_a_damaged_checkpoint_is_still_one(tmp_path):
    """Of a known format, but not whole."""
    data, tokenizer = llama2c_bytes(SMALL)
    (tmp_path/"tokenizer.bin").write_bytes(tokenizer)
    for x, what in ((data[:-4], "is truncated"), (data + b"\0\0\0\0", "damaged"), (data[:28], "is truncated"),
            (struct.pack("<i", 65) + data[4:], "dim is 65, must be a multiple of its 2 heads"),
            (data[:20] + struct.pack("<i", 2) + data[24:], "vocabulary is 2, must hold")):
        (tmp_path/"m.bin").write_bytes(x)
        assert what in refused(tmp_path/"m.bin"), what
    (tmp_path/"m.bin").write_bytes(data)
    for x, what in ((tokenizer + b"\0", "1 bytes more than the 300 pieces"), (tokenizer[:-1], "corrupt|claims"),
            (tokenizer[:3], "truncated")):
        (tmp_path/"tokenizer.bin").write_bytes(x)
        text = refused(tmp_path/"m.bin")
        assert any(w in text for w in what.split("|")), text
    (tmp_path/"tokenizer.bin").unlink()
    assert "name it with --tokenizer" in refused(tmp_path/"m.bin")


def test_rope_tables_of_a_checkpoint(tmp_path):
    """run.c computes its own, so do we; others are told."""
    data, tokenizer = llama2c_bytes(SMALL)
    (tmp_path/"tokenizer.bin").write_bytes(tokenizer)
    size  = SMALL.context*SMALL.head_dim//2*4
    table = image.rope_table(SMALL.head_dim, SMALL.context, 500.0)
    parts = {0: table[..., 0].astype("<f4").tobytes(), 1: table[..., 1].astype("<f4").tobytes()}
    notes = {}
    for change in ((), (0,), (1,)):
        x  = bytearray(data)
        at = len(data) - 2*size
        for i in change:
            x[at + i*size:at + (i + 1)*size] = parts[i]
        (tmp_path/"m.bin").write_bytes(x)
        model, notes[change] = load_model(str(tmp_path/"m.bin"))
        assert np.array_equal(model.rope, image.rope_table(SMALL.head_dim, SMALL.context))
    assert [any("RoPE tables" in n for n in notes[c]) for c in ((), (0,), (1,))] == [False, True, True]


def test_parts_of_gguf_models(tmp_path):
    for changes, what in ((dict(split__no=1, split__count=3), "part 2 of the 3 of a split GGUF file"),
            (dict(general__type="adapter"), "'adapter': no model"), (dict(general__type="mmproj"), "'mmproj': no model"),
            (dict(general__architecture="qwen2"), "'qwen2', only llama"),
            (dict(llama__expert_count=8), "llama.expert_count is 8: mixture")):
        assert what in refused(write_gguf(tmp_path/"m.gguf", **changes))
    assert load_model(write_gguf(tmp_path/"m.gguf", split__count=1, split__no=0, general__type="model"))[1] != []
    good = (tmp_path/"m.gguf").read_bytes()
    for version, what in ((b"\0\0\0\3", "big-endian"), (b"\1\0\0\0", "version is 0x1"), (b"\4\0\0\0", "version is 0x4")):
        (tmp_path/"m.gguf").write_bytes(good[:4] + version + good[8:])
        assert what in refused(tmp_path/"m.gguf")


def test_folders_that_are_no_model(tmp_path):
    (tmp_path/"m.gguf").write_bytes(b"GGUF")
    assert "GGUF files: name one of them, 'm.gguf'" in refused(tmp_path)
    (tmp_path/"m.gguf").unlink()
    assert "no config.json: not a Hugging Face model" in refused(tmp_path)
    (tmp_path/"params.json").write_text("{}")
    assert "Meta's or Mistral's own format" in refused(tmp_path)
    (tmp_path/"adapter_config.json").write_text("{}")
    assert "adapter (LoRA)" in refused(tmp_path)
    folder = write_folder(tmp_path/"m")
    (tmp_path/"m"/"adapter_config.json").write_text("{}")   # transformers would apply it.
    assert "adapter (LoRA)" in refused(folder)


def test_one_file_counts_before_an_index(tmp_path):
    tensors = hf_tensors()
    index   = json.dumps(dict(weight_map={n: "part" for n in tensors}))
    folder  = write_folder(tmp_path/"m", files={"model.safetensors.index.json": index, "part": b""})
    assert any("model.safetensors is used, not the parts" in n for n in load_model(folder)[1])
    (tmp_path/"m"/"part").write_bytes(safetensors_bytes(tensors))
    (tmp_path/"m"/"model.safetensors").unlink()
    assert not any("is used, not" in n for n in load_model(folder)[1])
    (tmp_path/"m"/"part").write_bytes(safetensors_bytes(tensors | {"lm_head.weight": np.zeros((300, 64), np.float32)}))
    assert "part has a tensor 'lm_head.weight', which the index does not have" in refused(folder)
    (tmp_path/"m"/"model.safetensors.index.json").unlink()
    (tmp_path/"m"/"model-00001-of-00002.safetensors").write_bytes(b"")
    assert "neither model.safetensors nor model.safetensors.index.json" in refused(folder)


def test_transposed_tensors_are_refused(tmp_path):
    for form, good in (("tf", False), ("flax", False), ("mlx", True), (None, True)):
        data   = safetensors_bytes(hf_tensors(), None if form is None else dict(format=form))
        folder = write_folder(tmp_path/"m", files={"model.safetensors": data})
        if good:
            load_model(folder)
        else:
            assert f"format '{form}'" in refused(folder)


# Images -------------------------------------------------------------------------------------------

UNTIED = dataclasses.replace(SMALL, n_layers=2)


def changed_header(data, field, value):
    """The image with field number `field` of its header replaced, its CRC right."""
    f = list(image.HEADER.unpack_from(data, 0))
    f[field] = value
    x = bytearray(data)
    image.HEADER.pack_into(x, 0, *f)
    repair(x)
    return bytes(x)


@pytest.mark.parametrize("field,value,what", [(15, 3, "dim_blocks"), (16, 4, "hidden_blocks"), (17, 2, "head_blocks"),
    (18, 0.0, "1/dim"),
    (18, float("nan"), "1/dim"), (19, 1.0, "eps"), (19, float("inf"), "eps"), (20, 0.5, "score scale"), (21, 64, "first_bytes"),
    (22, 64, "layers_bytes"), (23, 64, "stream_bytes"), (24, 8192, "stream_offset"), (25, 4096, "embed_offset"),
    (26, 1, "embed_type"),
    (27, 4096, "rope_offset"), (13, float("nan"), "eps"), (13, 0.25, "eps")])
def test_headers_of_images_are_consistent(tmp_path, field, value, what):
    data = image.write_image(random_model(UNTIED, "q4_0", tied=False))
    assert value != image.HEADER.unpack_from(data, 0)[field]
    (tmp_path/"m.img").write_bytes(changed_header(data, field, value))
    assert what in refused(tmp_path/"m.img")


def rebuilt(model, more=(), **sections):
    """Image of `model` with sections replaced ({name: bytes}, None: left out); more: further (name, bytes)."""
    data  = image.write_image(model)
    h     = image.read_header(data)
    parts = [(n, sections.get(n, bytes(image.section(data, h, n)))) for n in h.sections]
    parts = [(n, part) for n, part in parts if part is not None] + list(more)
    table, body, offset = b"", b"", 4096
    for name, part in parts:
        table  += image.SECTION.pack(name.encode(), offset, len(part), zlib.crc32(part))
        body   += part + bytes(-len(part) % 4096)
        offset  = 4096 + len(body)
    f = list(image.HEADER.unpack_from(data, 0))
    f[3], f[4] = offset, len(parts)
    out = image.HEADER.pack(*f) + table
    out = bytearray(out + bytes(4096 - len(out)) + body)
    repair(out)
    return bytes(out)


def test_sections_of_images(tmp_path):
    model = random_model(UNTIED, "q4_0", tied=False)
    data  = image.write_image(model)
    assert rebuilt(model) == data
    h     = image.read_header(data)
    strm, embd = (bytes(image.section(data, h, n)) for n in ("STRM", "EMBD"))
    other = bytearray(embd)
    other[4] = image.CLASSIFIER
    wrong = dict(META=[b"[]", b"3", b"null", b"{", b"\xff", b"["*10**5], STRM=[strm[:-32], strm + bytes(32)], TMPL=[None],
        EMBD=[embd + bytes(32), bytes(other), embd[:64], image.pack_norm(model.norm_final, image.EMBEDDING, 0)], TOKN=[None, b"x"],
        ROPE=[None, b""])
    for name, values in wrong.items():
        for value in values:
            (tmp_path/"m.img").write_bytes(rebuilt(model, **{name: value}))
            assert (text := refused(tmp_path/"m.img")) and "corrupt (" not in text, (name, value and value[:20])
    for name in ("XTRA", "STRM"):
        (tmp_path/"m.img").write_bytes(rebuilt(model, [(name, strm)]))
        assert "unknown or there twice" in refused(tmp_path/"m.img")


def test_overlapping_sections(tmp_path):
    data = bytearray(image.write_image(random_model(UNTIED, "q4_0")))
    name, offset, length, crc = image.SECTION.unpack_from(data, image.HEADER.size)
    at = image.HEADER.size + 3*image.SECTION.size   # TMPL: empty, so its CRC stays right.
    image.SECTION.pack_into(data, at, b"TMPL", offset, 0, 0)
    repair(data)
    (tmp_path/"m.img").write_bytes(data)
    assert "overlaps" in refused(tmp_path/"m.img")


@pytest.mark.parametrize("kind,field,value", [(image.NORM1, 8, 5), (image.WK, 2, 3), (image.W13, 2, 3), (image.CLASSIFIER, 2, 3),
    (image.WO, 8, 5), (image.WQ, 3, image.WK), (image.WQ, 5, 1), (image.NORM2, 1, image.Q8_0), (image.WV, 6, 31)])
def test_headers_of_matrices(tmp_path, kind, field, value):
    """Each field of a matrix' header is the matrix' own."""
    model = random_model(UNTIED, "q4_0", tied=False)
    data  = image.write_image(model)
    h     = image.read_header(data)
    strm  = bytearray(image.section(data, h, "STRM"))
    at    = 0
    while image.MATRIX.unpack_from(strm, at)[3] != kind:
        at = image.unpack_matrix(bytes(strm), at)[3]
    fields = list(image.MATRIX.unpack_from(strm, at))
    assert fields[field] != value
    fields[field] = value
    image.MATRIX.pack_into(strm, at, *fields)
    (tmp_path/"m.img").write_bytes(rebuilt(model, STRM=bytes(strm)))
    assert refused(tmp_path/"m.img")
