# SPDX-License-Identifier: BSD-2-Clause
"""Tokenizers of GGUF files: the fields `tokenizer.*`, whose meaning is what llama.cpp makes of them (host/importers/tokenizers.md
has the table). Errors are ValueError."""

import numpy as np

from ...accel.config import check
from .. import pretokenizers
from ..added import end_of_turn
from ..tokenizer import Tokenizer

TOKEN_TYPES = {1: "n", 2: "u", 3: "c", 4: "d", 5: "x", 6: "b"}
PREFIX      = "tokenizer.ggml."
NO_TOKEN    = 0xFFFFFFFF   # How some writers say that there is none.
# Special tokens where a file names none, as llama.cpp has them.
DEFAULTS    = {"llama": dict(bos=1, eos=2, unknown=0), "gpt2": dict(bos=11, eos=11)}
_STOPS      = ("eot", "eom", "fim_pad", "fim_rep", "fim_sep")
# Fields that are used, or say nothing that a chat needs; what else has no effect is told in notes.
_SILENT     = ("model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token", "add_space_prefix",
    *(f"{n}_token_id" for n in ("bos", "eos", "unknown", *_STOPS,
        "seperator", "padding", "cls", "mask", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid")))


def _special(get, n, model, notes):
    """{name: id or None} of the special tokens; ids outside the `n` pieces are llama.cpp's defaults, with a note."""
    found = {}
    for name in ("bos", "eos", "unknown", *_STOPS):
        usual = DEFAULTS[model].get(name)
        usual = usual if usual is not None and usual < n else None
        id    = get(f"{name}_token_id", int, None)
        if id is not None and id >= n or name == "eos" and id is None:
            said = "no" if id is None else "none (0xFFFFFFFF) as" if id == NO_TOKEN else f"{id}, outside its {n} pieces, as"
            notes.append(f"tokenizer: the file names {said} {name} token: {'none is used' if usual is None else f'{usual} is used'}")
        found[name] = id if id is not None and id < n else usual
    return found


def _notes(g, get, model):
    """What the file says besides and is not used."""
    notes = []
    if get("add_eos_token", bool, False):
        notes.append("tokenizer: the file wants EOS after a text (add_eos_token); a prompt goes on, so none is added")
    known = {"add_eos_token", "add_sep_token", "remove_extra_whitespaces", "precompiled_charsmap", "token_type_count",
        "suppress_tokens", "normalizer.lowercase", "normalizer.strip_accents"}
    for key in g.fields:
        name = key.removeprefix(PREFIX)
        if not key.startswith("tokenizer.") or key.startswith("tokenizer.chat_template") or name in _SILENT or \
                name == "add_eos_token" or g.fields[key] is False:
            continue
        why = f"kind {model} has no use for it" if name in known else "tokenizer.ggml's fields say it all" \
            if name in ("tokenizer.huggingface.json", "tokenizer.rwkv.world") else "it is not known here"
        notes.append(f"tokenizer: field {key[:80]} is not used: {why}")
    if model == "gpt2" and get("add_space_prefix", bool, False):
        notes.append("tokenizer: field tokenizer.ggml.add_space_prefix is not used: kind gpt2 puts no space before a text")
    return notes


def read_tokenizer(g, vocab):
    """(Tokenizer, notes) of an opened GGUF file."""
    get    = lambda key, *kind: g.field(PREFIX + key, *kind)
    model  = get("model", str)
    check(model in DEFAULTS, f"GGUF tokenizer is {model[:40]!r}, supported are {', '.join(DEFAULTS)}")
    pieces = g.fields.get(PREFIX + "tokens")
    check(isinstance(pieces, list) and len(pieces) == vocab and all(isinstance(p, str) for p in pieces),
        f"GGUF tokenizer's pieces must be {vocab} strings")
    def column(name, default):
        values = g.fields.get(PREFIX + name, np.full(vocab, default))
        check(isinstance(values, np.ndarray) and len(values) == vocab, f"GGUF tokenizer's {name} must be {vocab} numbers")
        return values.tolist()
    given   = "".join(TOKEN_TYPES.get(t, "n") for t in column("token_type", 1))
    notes   = _notes(g, get, model)
    special = _special(get, vocab, model, notes)
    types, stop = end_of_turn(pieces, given)
    changed = [p for p, a, b in zip(pieces, given, types) if a != b]
    if changed:
        notes.append(f"tokenizer: {', '.join(changed)[:100]} is taken as a control token: its name says so, its type does not")
    eos     = special["eos"] if special["eos"] is not None else 0
    bos     = special["bos"] if special["bos"] is not None else eos
    stop    = [*(special[n] for n in _STOPS if special[n] is not None), *stop]
    # llama.cpp knows by the model's name alone that these take the white space after them.
    phi3    = any(n in g.field("general.name", str, "").lower() for n in ("phi-3", "phi3"))
    rstrip  = [i for i, (p, t) in enumerate(zip(pieces, types)) if phi3 and t in "cd" and p not in ("<unk>", "<s>", "<|endoftext|>")]
    common  = dict(unknown=special["unknown"] or 0, stop=stop, rstrip=rstrip)
    if model == "llama":
        return Tokenizer("spm", pieces, types, bos, eos, add_bos=get("add_bos_token", bool, True),
            add_space=get("add_space_prefix", bool, True), scores=column("scores", 0.0), **common), notes
    merges = g.fields.get(PREFIX + "merges")
    check(isinstance(merges, list) and all(isinstance(m, str) for m in merges), "GGUF tokenizer has no list of merges")
    pre    = get("pre", str, "")
    if pre in ("", "default"):
        notes.append("tokenizer: the file names no pre-tokenizer: llama.cpp's default splits text into words, which may not be how "
            "the model learned it")
    steps, add_bos = pretokenizers.steps(pre or "default")
    t = Tokenizer("bpe", pieces, types, bos, eos, add_bos=get("add_bos_token", bool, add_bos), merges=merges, steps=steps,
        decode="bytes", **common)
    t.probe()
    return t, notes
