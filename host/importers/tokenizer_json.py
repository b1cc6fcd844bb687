# SPDX-License-Identifier: BSD-2-Clause
"""tokenizer.json (the `tokenizers` library's own format) to our Tokenizer: byte-level BPE, and SentencePiece-like BPE as Llama 2
has it. Whatever else a file asks for (normalisers, other splits) would change text silently, so the result must give the same
ids as the library on PROBES. Errors are ValueError."""

import os

from ...accel.config import LIMITS, check
from .. import bytelevel
from ..tokenizer import BYTE, SPACE, Tokenizer, end_of_turn_ids
from .safetensors_file import read_json

SIZE_MAX = 1 << 27   # Bytes of a tokenizer.json.
PROBES   = ("Hello, world!", "The quick brown fox can't jump over 12345 lazy dogs; it's 3.14 o'clock, isn't it?", "a  b   c",
    "def f(x):\n    return x + 1\n\n\n# done\t", "a")
UNUSUAL  = (" starts with a space", "na\u00efve caf\u00e9", "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002", "\U0001F600\U0001F680 \u0661\u0662",
    "e\u0301\r\n")


def _parts(step, key):
    """Steps of a normaliser or pre-tokeniser, sequences flattened."""
    if step is None:
        return []
    check(isinstance(step, dict) and isinstance(step.get("type"), str), "tokenizer.json is corrupt: a step without a type")
    if step["type"] != "Sequence":
        return [step]
    check(isinstance(step.get(key), list), "tokenizer.json is corrupt: an empty sequence")
    return [part for s in step[key] for part in _parts(s, key)]


def pre_name(steps, whole):
    """`pre` of a Tokenizer (see bytelevel) for a byte-level tokenizer.json's steps; whole: its words that are pieces stay so."""
    *first, last = steps
    kinds        = [s["type"] for s in first]
    plain        = last.get("use_regex", True) and not whole
    check(last["type"] == "ByteLevel" and not last.get("add_prefix_space", True),
        "tokenizer.json has a pre-tokenizer that is not supported: text must end in ByteLevel without a prefix space")
    if kinds == [] and plain:
        return "gpt2"
    if kinds == ["Digits"] and first[0].get("individual_digits") and plain:
        return "smollm"
    pattern = first[0].get("pattern") if kinds == ["Split"] else None
    pattern = pattern.get("Regex") if isinstance(pattern, dict) else None
    check(isinstance(pattern, str) and first[0].get("behavior") == "Isolated" and not first[0].get("invert")
        and not last.get("use_regex", True),
        f"tokenizer.json has a pre-tokenizer that is not supported: {', '.join([*kinds, last['type']])[:100]}")
    return "llama3" if whole and pattern == bytelevel.LLAMA3 else (bytelevel.WORDS if whole else bytelevel.SPLIT) + pattern


def _pieces(d, model, vocab):
    """(pieces, types) of all ids up to `vocab`; ids that no piece has are empty and unused."""
    fallback    = model.get("byte_fallback") is True
    names       = model.get("vocab")
    added       = d.get("added_tokens") or []
    check(isinstance(names, dict) and isinstance(added, list), "tokenizer.json has no vocabulary")
    pieces, types = [""]*vocab, ["x"]*vocab
    def put(piece, id, letter):
        check(isinstance(piece, str) and type(id) is int and 0 <= id < vocab,
            f"tokenizer.json has piece {str(piece)[:40]!r} with id {str(id)[:20]}, the model's vocabulary is {vocab}")
        pieces[id], types[id] = piece, letter
    for piece, id in names.items():
        put(piece, id, "b" if fallback and BYTE.match(piece) else "u" if piece == model.get("unk_token") else "n")
    for token in added:
        check(isinstance(token, dict), "tokenizer.json is corrupt: an added token that is no object")
        unknown = token.get("content") == model.get("unk_token")
        put(token.get("content"), token.get("id"), "u" if unknown else "c" if token.get("special") else "d")
    return pieces, "".join(types)


def _merges(model):
    """List of "left right"."""
    merges = model.get("merges")
    check(isinstance(merges, list), "tokenizer.json has no merges")
    merges = [" ".join(m) if isinstance(m, list) and all(isinstance(p, str) for p in m) else m for m in merges]
    check(all(isinstance(m, str) and m.count(" ") == 1 for m in merges), "tokenizer.json has a merge that is no pair of pieces")
    return merges


class _Library:
    """The library's own tokenizer of a file, with its errors as ValueError."""

    def __init__(self, path):
        import tokenizers
        self._tokenizer = self._call(tokenizers.Tokenizer.from_file, path)

    def _call(self, function, *arguments, **options):
        try:
            return function(*arguments, **options)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as e:   # The library raises Exception itself, and its panics are not even that.
            raise ValueError(f"tokenizer.json cannot be used: {' '.join(str(e).split())[:200]}") from None

    def encode(self, text, special=False):
        """Ids of `text`; special: with what the file puts around it."""
        return self._call(self._tokenizer.encode, text, add_special_tokens=special).ids


def _special(begin, settings, config, generation, pieces):
    """(bos, eos, stop ids): by name from tokenizer_config.json, else by id from the configurations."""
    ids = {p: i for i, p in reversed(list(enumerate(pieces))) if p}
    def named(key):
        value = settings.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        return ids.get(value) if isinstance(value, str) else None
    def numbered(d, key):
        value = d.get(key)
        return [i for i in (value if isinstance(value, list) else [value]) if type(i) is int and 0 <= i < len(pieces)]
    stop = numbered(config, "eos_token_id") + numbered(generation, "eos_token_id")
    eos  = named("eos_token")
    eos  = eos if eos is not None else (stop or [0])[0]
    bos  = named("bos_token")
    bos  = bos if bos is not None else (begin or numbered(config, "bos_token_id") or [eos])[0]
    return bos, eos, stop


def read_tokenizer(path, vocab, settings, config, generation):
    """(Tokenizer, notes) of file `path` for a model of `vocab` tokens; settings, config, generation: objects of
    tokenizer_config.json, config.json, generation_config.json."""
    check(os.path.isfile(path), "there is no tokenizer.json in it")
    check(1 <= vocab <= LIMITS["vocab"], f"vocab is {vocab}, must be 1 to {LIMITS['vocab']}")
    d     = read_json(path, SIZE_MAX)
    model = d.get("model")
    check(isinstance(model, dict) and model.get("type", "BPE") == "BPE",
        f"tokenizer.json is of kind {str(model.get('type') if isinstance(model, dict) else model)[:40]}, only BPE is supported")
    pieces, types = _pieces(d, model, vocab)
    library        = _Library(path)
    plain, whole   = library.encode("a"), library.encode("a", special=True)
    begin          = whole[:1] if whole[1:1 + len(plain)] == plain else []   # BOS, where the file adds one.
    bos, eos, stop = _special(begin, settings, config, generation, pieces)
    steps   = _parts(d.get("pre_tokenizer"), "pretokenizers")
    common  = dict(unknown=max(types.find("u"), 0), stop=[*stop, *end_of_turn_ids(pieces, types)], add_bos=begin == [bos],
        merges=_merges(model))
    if any(s["type"] == "ByteLevel" for s in steps):
        t = Tokenizer("bpe", pieces, types, bos, eos, pre=pre_name(steps, model.get("ignore_merges") is True), **common)
    else:
        space = bool(plain) and plain[0] < vocab and pieces[plain[0]].startswith(SPACE)
        t     = Tokenizer("spm", pieces, types, bos, eos, add_space=space, **common)
    wrong = [p for p in PROBES + UNUSUAL if t.encode(p) != library.encode(p)]
    check(not set(wrong) & set(PROBES), "tokenizer.json asks for something that is not supported: "
        f"{wrong[0] if wrong else ''!r} becomes other tokens")
    return t, [f"tokenizer: text like {p!r} becomes other tokens than tokenizer.json makes" for p in wrong]
