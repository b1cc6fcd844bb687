# SPDX-License-Identifier: BSD-2-Clause
"""The tables of keys and tensors as README.md has them: `python -m litellama.host.importers.tables` prints them."""

from .gguf_keys import GGUF_KEYS, GGUF_TENSORS
from .huggingface_keys import CONFIG_KEYS, GENERATION_KEYS, HF_TENSORS, ROPE_KEYS
from .keys import page

TABLES = (("GGUF: keys", GGUF_KEYS), ("GGUF: tensors", GGUF_TENSORS), ("Hugging Face: config.json", CONFIG_KEYS),
    ("Hugging Face: rope_parameters, or rope_scaling", ROPE_KEYS), ("Hugging Face: generation_config.json", GENERATION_KEYS),
    ("Hugging Face: tensors", HF_TENSORS))


def pages():
    """All tables, one text."""
    return "\n".join(line for title, keys in TABLES for line in page(title, keys))


if __name__ == "__main__":
    print(pages(), end="")
