# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's sources under gcc's address and undefined-behaviour sanitisers: what is sent to it, loaded into it and read back at its limits,
in another process, since that library has to be loaded first."""

import os
from pathlib import Path
import subprocess
import sys

from litellama.firmware import constants as c

HERE  = Path(__file__).parent
TESTS = ("test_firmware_state.py::test_the_longest_payload_is_taken_and_a_longer_one_is_not",
    "test_firmware_state.py::test_a_full_ring_counts_what_is_lost", "test_firmware_state.py::test_a_name_is_cut_where_it_ends",
    "test_firmware.py::test_random_damage_never_crashes_nor_passes_the_contents_check",
    "test_protocol.py::test_firmware_finds_requests_between_garbage",
    f"test_line.py::test_all_tokens_of_a_long_answer_can_be_had_again[{c.RECALL_TOKENS + 40}]")

# The tests; after them a word behind a buffer of the firmware, which the sanitiser has to notice.
RUN = """
import ctypes, sys, pytest
print("status", int(pytest.main(["-q", "-x", "-s", "-p", "no:faulthandler", "-p", "no:cacheprovider", *sys.argv[1:]])), flush=True)
import firmware_host
lib = firmware_host.library()
lib.crc32(0, ctypes.addressof((ctypes.c_uint32*1).in_dll(lib, "protocol_bad_frames")) + 4, 64)
print("went on", flush=True)
"""


def test_nothing_is_read_or_written_outside():
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    assert os.path.isabs(library), "gcc has no address sanitiser: apt-get install libgcc-dev of its version"
    done = subprocess.run([sys.executable, "-c", RUN, *TESTS], capture_output=True, text=True, cwd=HERE, timeout=1800,
        env=os.environ | dict(LD_PRELOAD=library, ASAN_OPTIONS="detect_leaks=0:halt_on_error=1", PYTHONMALLOC="malloc"))
    out  = done.stdout + done.stderr
    assert "status 0\n" in done.stdout, out[-6000:]
    assert done.returncode != 0 and "went on" not in out and "AddressSanitizer" in done.stderr, out[-6000:]
