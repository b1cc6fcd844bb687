# SPDX-License-Identifier: BSD-2-Clause
"""The user's cache of built things: each is built once, by whoever comes first, and never seen half done."""

from contextlib import contextmanager
import fcntl
import hashlib
import os
from pathlib import Path
import shutil

_COMPLETE = ".complete"


def cache_folder():
    """$LITELLAMA_CACHE, or the user's cache folder's `litellama`."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home()/".cache")/"litellama"
    return Path(os.environ.get("LITELLAMA_CACHE") or default).absolute()


def digest(*parts):
    """Short hash of strings, bytes and files (Path: name and contents)."""
    h = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        name = part.name.encode() if isinstance(part, Path) else b""
        h.update(b"%d,%d:" % (len(name), len(data)) + name + data)
    return h.hexdigest()[:16]


def fresh_names():
    """Have Migen number the names of what is described from here on as in a new process: call it before a design whose Verilog
    is a key of the cache. Its counts go on from design to design, so that the second one of a process would be another text."""
    from migen.fhdl import tracer
    tracer.name_to_idx.clear()
    tracer.classname_to_objs.clear()


@contextmanager
def locked(path, waits=lambda: None):
    """Hold an exclusive lock; it ends with the process that holds it, however that ends, and with the children that are given its open
    files (soc/sim.py's compilers). waits(): called if another process has it."""
    with open(path, "w") as f:
        os.set_inheritable(f.fileno(), True)
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def cached(kind, key, build):
    """Folder `<kind>-<key>` of the cache, filled by build(folder) unless it is there already.

    Built in place, since LiteX writes absolute paths into what it generates, under a lock; the last thing written is the
    mark without which the next to come starts over. Concurrent processes wait for the first.
    """
    folder = cache_folder()/f"{kind}-{key}"
    if not (folder/_COMPLETE).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not (folder/_COMPLETE).exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                try:
                    build(folder)
                except (KeyboardInterrupt, SystemExit):   # (After an error its logs stay.)
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                (folder/_COMPLETE).touch()
    return folder
