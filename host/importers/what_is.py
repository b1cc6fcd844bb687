# SPDX-License-Identifier: BSD-2-Clause
"""Says what a file is that is no model, or not the file to name: for error messages alone."""

import json

_BEGINNINGS = (
    (b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint: export it to GGUF or llama2.c's format"),
    (b"24ka", "a llama2.c checkpoint of version 1 or 2: export it with --version 0"),
    (b"fmgg", "an old GGML file: convert it to GGUF"), (b"tjgg", "an old GGML file: convert it to GGUF"),
    (b"lmgg", "an old GGML file: convert it to GGUF"), (b"FUGG", "a big-endian GGUF file: readable are little-endian ones"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: fetch that with `git lfs pull`"),
    (b"\x80\x02", "a Python pickle, perhaps a PyTorch checkpoint: export it to GGUF or safetensors"),
    (b"\x80\x04", "a Python pickle: export it to GGUF or safetensors"),
    (b"\x89HDF\r\n", "an HDF5 file: export it to GGUF or safetensors"), (b"\x93NUMPY", "a NumPy array"),
    (b"\n\x0e\n\x05<unk>", "a SentencePiece tokenizer (tokenizer.model), not a model"),
    (b"\x89PNG", "a picture (PNG)"), (b"\xff\xd8\xff", "a picture (JPEG)"), (b"GIF8", "a picture (GIF)"), (b"BM", "a picture (BMP)"),
    (b"RIFF", "a media file (RIFF)"), (b"%PDF", "a PDF document"), (b"\x7fELF", "a program"), (b"MZ", "a program for Windows"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"), (b"BZh", "compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed with xz: unpack it first"), (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"), (b"Rar!", "a RAR archive: unpack it first"), (b"#!", "a script"),
)
_JSON = (("weight_map", "the index of a Hugging Face model: name the folder it is in"),
    ("model_type", "the configuration of a Hugging Face model: name the folder it is in"),
    ("architectures", "the configuration of a Hugging Face model: name the folder it is in"),
    ("peft_type", "the configuration of an adapter (LoRA): merge it into its model first"),
    ("added_tokens", "a Hugging Face tokenizer: name the folder of its model"),
    ("tokenizer_class", "the configuration of a Hugging Face tokenizer: name the folder of its model"))
_SAFETENSORS = "a part of a Hugging Face model (safetensors): name the folder it is in"
_BEGIN = 4096   # Bytes that tell.


def what_is(data):
    """What the bytes `data` (uint8 array) are, for "this is ...", or None if that cannot be told."""
    head = bytes(data[:_BEGIN])
    if 0 < int.from_bytes(head[:8], "little") < 1 << 32 and head[8:10] in (b'{"', b"{ ", b"{}"):
        return _SAFETENSORS
    if head[12:17] == b"<unk>":
        return "a tokenizer of llama2.c (tokenizer.bin), not its checkpoint"
    if len(data) > 262 and bytes(data[257:262]) == b"ustar":
        return "a tar archive: unpack it first"
    for beginning, text in _BEGINNINGS:
        if head.startswith(beginning):
            return text
    text = head.decode("utf-8", "replace")
    if len(head) < 8 or sum(c != "\ufffd" and (c.isprintable() or c in "\ufeff\t\r\n\f") for c in text) < 0.95*len(text):
        return None
    text = text.lstrip("\ufeff \t\r\n")
    if text[:1] == "<" and text[:100].lower().startswith(("<!doctype", "<html", "<head", "<?xml")):
        return "a web page, not the file itself: the download went wrong"
    return _json(data) if text[:1] in "{[" else "a text file"


def _json(data):
    try:
        d = json.loads(bytes(data[:1 << 27]))
    except (ValueError, RecursionError):
        return "a text file"
    return next((text for key, text in _JSON if isinstance(d, dict) and key in d), "a JSON file")
