# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's walk through an image's stream, its own embedding, and the check of contents."""

import struct
import zlib

import pytest

from firmware_host import Firmware, Port
from litellama.accel.image import HEADER, SECTION, read_header, write_image
from litellama.firmware import constants as c
from litellama.host.protocol import Client, unpack, words
from litellama.host.random_model import random_model
from test_firmware import FIELD, H, IMAGE, MODEL, SMALL, error_number, patched

OWN    = write_image(random_model(SMALL, layers="q4_1", tied=False))
OWN_H  = read_header(OWN)
NORM   = 32 + 4*SMALL.dim                            # Bytes of a norm, its header first.
WK     = H.stream_offset + NORM                      # The first matrix's header.
HEAD   = H.embed_offset - H.stream_offset            # That of the classifier, the stream's last.
TYPE, KIND, LAYER, ROWS = 2, 4, 6, 8                 # Bytes of a matrix header.


def client(firmware):
    return Client(Port(firmware), timeout=30.0)


def error_of(image):
    hello = client(Firmware(MODEL, image=image)).hello()
    return hello.image_error, hello.image_value, hello.image_limit


def of_length(name, n, image=IMAGE):
    """`image` whose section `name` is told to have n bytes."""
    names = list(read_header(image).sections)
    data  = bytearray(image)
    struct.pack_into("<I", data, HEADER.size + names.index(name)*SECTION.size + 8, n)
    if name == "STRM":
        struct.pack_into("<I", data, FIELD["stream_bytes"], n)
    end   = HEADER.size + len(names)*SECTION.size
    struct.pack_into("<I", data, end, zlib.crc32(data[:end]))
    return bytes(data)


@pytest.mark.parametrize("at, byte, value, what", [(WK, TYPE, 0, 0), (WK, TYPE, 4, 0), (WK, TYPE, 255, 0), (H.stream_offset, TYPE, 1, 0),
    (WK, KIND, 77, 1), (WK, LAYER, 1, 1), (WK, ROWS, 1, 2), (WK, 0, 0, 0)])
def test_every_field_of_a_matrix_header_is_looked_at(at, byte, value, what):
    assert IMAGE[at + byte] != value
    assert error_of(patched(at + byte, bytes([value]))) == (error_number("STREAM"), at - H.stream_offset, what)


@pytest.mark.parametrize("length, limit", [(HEAD, HEAD + 32), (HEAD + 31, HEAD + 32), (HEAD + 32, H.stream_bytes),
    (H.stream_bytes - 1, H.stream_bytes), (H.stream_bytes + 1, H.stream_bytes), (NORM, NORM + 32),
    (NORM + 40, NORM + 32 + 64*2*20)])   # WK has 64 rows of two blocks of 20 bytes.
def test_a_stream_of_another_length_than_its_matrices(length, limit):
    assert error_of(of_length("STRM", length)) == (error_number("STREAM_BYTES"), length, limit)


@pytest.mark.parametrize("byte, value", [(TYPE, 4), (KIND, 77), (ROWS, 1), (0, 0)])
def test_an_embedding_of_its_own_is_looked_at(byte, value):
    at = OWN_H.embed_offset + byte
    assert "EMBD" in OWN_H.sections and error_of(OWN)[0] == 0 and OWN[at] != value
    assert error_of(OWN[:at] + bytes([value]) + OWN[at + 1:])[0] == error_number("EMBEDDING")


@pytest.mark.parametrize("length", [0, 31, 32, OWN_H.sections["EMBD"][1] - 1])
def test_an_embedding_of_its_own_is_whole(length):
    assert error_of(of_length("EMBD", length, OWN))[0] == error_number("EMBEDDING")


def test_progress_of_the_check_of_contents():
    """In steps of 64 KiB at most, from which an ABORT is looked for."""
    firmware, seen = Firmware(MODEL), []
    port = client(firmware)
    port.request(c.VERIFY, words(1), lambda f: seen.append(unpack(c.PROGRESS_FIELDS, f.payload)))
    lengths = [n for _, n, _ in H.sections.values()]
    want    = []
    for i, n in enumerate(lengths):
        want += [sum(lengths[:i]) + min(n, at + 65536) for at in range(0, n, 65536)]
    assert max(lengths) > 65536 and [p.done for p in seen] == want and {p.total for p in seen} == {sum(lengths)}


def test_what_was_checked_is_told():
    port = client(Firmware(MODEL))
    assert port.hello().sections_checked == 0
    for contents in (True, False, True):
        port.verify(contents)
        assert port.hello().sections_checked == contents
    port.request(c.LOAD, words(0) + IMAGE[:4])
    assert port.hello().sections_checked == 0
