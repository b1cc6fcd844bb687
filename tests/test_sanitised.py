# SPDX-License-Identifier: BSD-2-Clause
"""The firmware's sources under gcc's address and undefined-behaviour sanitisers: what is sent to it, loaded into it and read back at its limits,
in another process, since that library has to be loaded first."""

import os
from pathlib import Path
import subprocess
import sys

HERE  = Path(__file__).parent
TESTS = ("test_firmware_state.py", "test_firmware.py", "test_protocol.py", "test_line.py")
NAMES = "longest or garbage or all_tokens or random_damage or full_ring or name_is_cut"


def run(*command):
    """Its exit status and output, with the sanitiser's library loaded."""
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    assert os.path.isabs(library), "gcc has no address sanitiser: apt-get install libgcc-dev of its version"
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=HERE, timeout=600,
        env=os.environ | dict(LD_PRELOAD=library, ASAN_OPTIONS="detect_leaks=0:halt_on_error=1", PYTHONMALLOC="malloc"))
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_read_or_written_outside():
    status, out = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS, "-k", NAMES)
    assert status == 0 and "AddressSanitizer" not in out, out[-3000:]


def test_the_sanitiser_is_there():
    """A word behind a buffer of the firmware is noticed."""
    status, out = run("-c", "import ctypes, firmware_host as f; s = (ctypes.c_uint32*1).in_dll(f.library(), 'protocol_bad_frames'); "
        "f.library().crc32(0, ctypes.addressof(s) + 4, 64)")
    assert status != 0 and "AddressSanitizer" in out, out[-500:]
