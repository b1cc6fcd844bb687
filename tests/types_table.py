# SPDX-License-Identifier: BSD-2-Clause
"""What types cost SmolLM2-135M-Instruct: the table of accel/README.md ("What a type costs"), made anew from the published file.

Usage: `python tests/types_table.py [ROW ...]`, rows as TYPE/HEAD (`keep/q4_1`; all of ROWS unless given; TYPE/ is `--type` alone). It
fetches what is missing and takes one to two minutes a row on one core. Perplexity: `float` device, the first N_TOKENS tokens of
data/alice.txt, the first of which is not scored. Plain: the same with scales as llama.cpp's reference takes them.
"""

import sys
from pathlib import Path
from unittest import mock

import numpy as np

from litellama.accel import image
from litellama.accel.config import CoreConfig
from litellama.host import quantise
from litellama.host.fetch import fetch_file
from litellama.host.importers import load_model
from litellama.host.measure import token_bytes
from litellama.host.score import make_decoder, score_tokens
from litellama.host.tokenizer import Tokenizer

TEXT     = Path(__file__).parent/"data"/"alice.txt"
N_TOKENS = 1530
CONTEXT  = 256   # Positions whose keys and values a token reads.
ROWS     = ("keep/keep", "keep/q4_1", "keep/q4_0", "q4_0/q8_0", "q4_0/q4_1", "q4_0/", "q4_1/", "q8_0/")

# Share of the pins' bytes that a token uses, measured: `litellama bench --shape smollm2-135m --layers 8 --type X`, DDR3 x16, two ports.
MEASURED = {("q4_1", "q8_0", "q8_0"): 0.9425, ("q4_0", "q4_0", "q4_0"): 0.943}


def no_search(b, type):
    """In place of best_scales: finds nothing."""
    return np.zeros(len(b), np.float16), np.zeros(len(b), np.float16) if type == image.Q4_1 else None


def convert(path, row, search=True):
    """Model of the file `path` in the types of `row`, with or without the search for scales."""
    type, head = (name or None for name in row.split("/"))
    with mock.patch.object(quantise, "best_scales", quantise.best_scales if search else no_search):
        return load_model(path, type=type, head=head)[0]


def types(model):
    """(type of the layers' matrices, of the classifier, of the embedding), by name."""
    return tuple(image.TYPE_NAMES[w.type] for w in (model.layers[0].w13, model.classifier, model.embedding))


def perplexity(model):
    """Of the beginning of the text."""
    tokens = Tokenizer.from_bytes(model.tokenizer).encode(TEXT.read_text("utf-8"))[:N_TOKENS]
    return score_tokens(make_decoder(model, "float"), tokens, None).perplexity


def line(names, size, searched, plain):
    """A row of the table: types, bytes a token, perplexities (plain is None where no scale was chosen), tokens/s per GB/s."""
    share, speed = MEASURED.get(names), 1e9/size
    cells = [*(n.upper() for n in names), f"{size:,}", f"{searched:.2f}", "" if plain is None else f"{plain:.2f}", f"{speed:.2f}",
        "" if share is None else f"{share*speed:.2f} ({100*share:.2f} %)"]
    return f"| {' | '.join(cells)} |"


def main(rows):
    """Print the table."""
    path = fetch_file("smollm2")
    for row in rows:
        model  = convert(path, row)
        header = image.read_header(image.write_image(model))
        plain  = None if row == "keep/keep" else perplexity(convert(path, row, search=False))
        print(line(types(model), token_bytes(header, CoreConfig(), CONTEXT, model.config.n_layers), perplexity(model), plain), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ROWS)
