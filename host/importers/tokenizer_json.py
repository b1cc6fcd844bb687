# SPDX-License-Identifier: BSD-2-Clause
"""tokenizer.json (the `tokenizers` library's own format), with tokenizer_config.json and special_tokens_map.json beside it, to our
Tokenizer: BPE and unigram models with whatever normaliser and pre-tokenizer the library has, which does that part of the work
(host/library.py). Decoders are told apart here (host/importers/tokenizers.md has the table). Errors are ValueError."""

import os

from ...accel.config import LIMITS, check
from .. import guard
from ..added import FLAGS, end_of_turn
from ..library import flat
from ..spm import SPACE
from ..tokenizer import BYTE, Tokenizer
from .safetensors_file import read_json

SIZE_MAX = 1 << 27   # Bytes of a tokenizer.json.
OPTIONS  = {"BPE": ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"),
    "Unigram": ("byte_fallback",)}
_KEYS    = ("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
# Names of special tokens in tokenizer_config.json and special_tokens_map.json.
NAMED    = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
EXTRA    = ("additional_special_tokens", "extra_special_tokens")
OTHERS   = ("tokenizer.model", "tekken.json", "tiktoken.model", "vocab.json", "vocab.txt", "spiece.model")   # Files that are not read.
# Keys of those two files that are used, or have no meaning for ids and texts.
_KNOWN   = {*NAMED, *EXTRA, "added_tokens_decoder", "add_bos_token", "add_eos_token", "chat_template", "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "split_special_tokens", "tokenizer_class", "legacy",
    "add_prefix_space", "from_slow", "model_max_length", "max_length", "padding_side", "truncation_side", "truncation_strategy",
    "stride", "pad_to_multiple_of", "pad_token_type_id", "padding", "truncation", "model_input_names", "name_or_path", "backend",
    "is_local", "local_files_only", "processor_class", "special_tokens_map_file", "tokenizer_file", "vocab_file", "merges_file",
    "use_default_system_prompt", "sp_model_kwargs", "spaces_between_special_tokens", "errors", "trim_offsets", "use_fast",
    "return_token_type_ids", "token_type_ids_pattern", "token_type_ids_include_special_tokens", "model_specific_special_tokens",
    "image_token", "audio_token", "boi_token", "eoi_token", "auto_map", "device_map", "init_inputs", "model_type",
    "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "vocab_size", "revision", "cache_dir"}


def _content(value):
    """Text of a special token: a string, or an object with its content."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _flags(token):
    """Letters of added.FLAGS for an added token's object."""
    for name in FLAGS.values():
        check(type(token.get(name, False)) is bool, f"tokenizer.json is corrupt: {name} of an added token is no boolean")
    return "".join(letter for letter, name in FLAGS.items() if token.get(name, False))


def _added_tokens(d, settings):
    """List of added tokens' objects: tokenizer.json's, and those that tokenizer_config.json has besides (added_tokens_decoder)."""
    added = d.get("added_tokens") or []
    check(isinstance(added, list) and all(isinstance(t, dict) for t in added),
        "tokenizer.json is corrupt: an added token that is no object")
    more  = settings.get("added_tokens_decoder") or {}
    check(isinstance(more, dict) and all(isinstance(t, dict) for t in more.values()),
        "added_tokens_decoder in tokenizer_config.json must hold objects by id")
    known = {t.get("content") for t in added}
    return added + [t | dict(id=int(id)) for id, t in more.items() if id.isdecimal() and len(id) < 10 and t.get("content") not in known]


def _pieces(d, model, vocab, settings, notes):
    """(pieces, types, {id: letters}) of all ids up to `vocab`; ids that no piece has are empty and unused."""
    fallback      = any(s["type"] == "ByteFallback" for s in flat(d.get("decoder"), "decoders")) or not d.get("decoder")
    names         = model.get("vocab")
    unigram       = model.get("type") == "Unigram"
    bytes_        = model.get("byte_fallback") is True
    check(isinstance(names, list if unigram else dict), "tokenizer.json has no vocabulary")
    if unigram:
        check(all(isinstance(p, list) and len(p) == 2 for p in names), "tokenizer.json has a piece without a score")
        unknown = model.get("unk_id")
        check(type(unknown) is int and 0 <= unknown < len(names), "tokenizer.json's unigram model has no unknown piece")
        unknown = names[unknown][0]
        names   = [(p, i) for i, (p, _) in enumerate(names)]
    else:
        unknown, names = model.get("unk_token"), list(names.items())
    pieces, types, flags = [""]*vocab, ["x"]*vocab, {}
    def put(piece, id, letter):
        check(isinstance(piece, str) and type(id) is int and 0 <= id < vocab,
            f"tokenizer.json has piece {str(piece)[:40]!r} with id {str(id)[:20]}, the model's vocabulary is {vocab}")
        pieces[id], types[id] = piece, letter
    for piece, id in names:
        put(piece, id, "b" if fallback and bytes_ and isinstance(piece, str) and BYTE.match(piece) else "u" if piece == unknown else "n")
    own = {p for p, _ in names}
    for token in _added_tokens(d, settings):
        piece, id = token.get("content"), token.get("id")
        other     = pieces[id] if type(id) is int and 0 <= id < vocab else ""
        if other not in ("", piece):
            text = f"id {id} is {other[:40]!r} in tokenizer.json"
            check(token not in (d.get("added_tokens") or []), f"{text} and its added token {str(piece)[:40]!r}, too")
            notes.append(f"tokenizer: {text} and {str(piece)[:40]!r} in tokenizer_config.json, which is used")
        put(piece, token.get("id"), "u" if piece == unknown else "c" if token.get("special") else "d" if piece in own else "a")
        flags[token["id"]] = _flags(token)
    return pieces, "".join(types), flags


def _specials(pieces, types, settings):
    """`types` with the tokens that the settings call special as control tokens."""
    wanted = {_content(settings.get(name)) for name in NAMED}
    for name in EXTRA:
        value   = settings.get(name) or []
        wanted |= {_content(v) for v in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else [])}
    return "".join("c" if t in "nda" and p in wanted else t for p, t in zip(pieces, types))


def _merges(model):
    """List of "left right", or [left, right] where a part has a space."""
    merges = model.get("merges")
    check(isinstance(merges, list), "tokenizer.json has no merges")
    pairs  = [m.split(" ") if isinstance(m, str) else m for m in merges]
    check(all(isinstance(m, list) and len(m) == 2 and all(isinstance(p, str) for p in m) for m in pairs),
        "tokenizer.json has a merge that is no pair of pieces")
    return [m if " " in m[0] + m[1] else " ".join(m) for m in pairs]


def _model(model):
    """(kind, options) of the model's object."""
    kind = model.get("type", "BPE")
    check(kind in OPTIONS, f"tokenizer.json is of kind {str(kind)[:40]}, supported are {', '.join(OPTIONS)}")
    check(not model.get("dropout"), f"tokenizer.json has a dropout of {str(model.get('dropout'))[:20]}: its tokens are random")
    other = sorted(set(model) - {"type", "vocab", "merges", "dropout", "unk_id", *OPTIONS[kind]})
    check(not other, f"tokenizer.json's model has {other[0][:40] if other else ''!r}, which is not supported")
    options = {k: model[k] for k in OPTIONS[kind] if model.get(k) is not None}
    for key, value in options.items():
        want = bool if key in ("fuse_unk", "byte_fallback", "ignore_merges") else str
        check(type(value) is want, f"tokenizer.json's {key} is {str(value)[:40]!r}, must be {want.__name__}")
    check(not options.get("end_of_word_suffix"), "tokenizer.json has an end_of_word_suffix, which is not supported")
    check(not options.get("continuing_subword_prefix"), "tokenizer.json has a continuing_subword_prefix, which is not supported")
    return "bpe" if kind == "BPE" else "unigram", {k: v for k, v in options.items() if v != ""}


def _decoder(d, notes):
    """(decode, strip) of a Tokenizer for a tokenizer.json's decoder, or for its other steps where it has none."""
    steps = flat(d.get("decoder"), "decoders")
    if not steps:
        byte = any(s["type"] == "ByteLevel" for s in flat(d.get("pre_tokenizer"), "pretokenizers"))
        notes.append("tokenizer: tokenizer.json has no decoder: pieces are taken as "
            f"{'bytes' if byte else 'text'} and put together")
        return ("bytes", 0) if byte else ("spaces", 0)
    kinds, strip = [s["type"] for s in steps], 0
    if kinds == ["ByteLevel"]:
        return "bytes", 0
    for s in steps:
        if s["type"] == "Strip" and s.get("content") == " " and not s.get("stop") and type(s.get("start")) is int:
            strip = max(0, s["start"])
        elif s["type"] == "Metaspace" and s.get("replacement") == SPACE:
            strip = 0 if s.get("prepend_scheme", "always") == "never" else -1
        else:
            check(s["type"] in ("ByteFallback", "Fuse") or s["type"] == "Replace" and s.get("content") == " "
                and s.get("pattern") == dict(String=SPACE), f"tokenizer.json has a decoder that is not supported: {s['type'][:40]}")
    check("Replace" in kinds or "Metaspace" in kinds,
        f"tokenizer.json has a decoder that is not supported: {', '.join(kinds)[:100]} without spaces")
    return "spaces", strip


def _begins_with(d, settings, pieces, bos, notes):
    """Whether BOS goes before a text: the post-processor's word. Beside a tokenizer.json transformers reads add_bos_token and
    add_eos_token of tokenizer_config.json no more."""
    steps = flat(d.get("post_processor"), "processors")
    ids, before, after = {p: i for i, p in enumerate(pieces) if p}, [], []
    for s in steps:
        check(s["type"] in ("ByteLevel", "TemplateProcessing", "BertProcessing", "RobertaProcessing"),
            f"tokenizer.json has a post-processor that is not supported: {s['type'][:40]}")
        if s["type"] == "TemplateProcessing":
            names  = [(x.get("SpecialToken") or {}).get("id") for x in s.get("single", []) if isinstance(x, dict)]
            check(None in names, "tokenizer.json's post-processor has no place for the text")
            before, after = names[:names.index(None)], names[names.index(None) + 1:]
            table  = s.get("special_tokens") or {}
            number = lambda n: (table.get(n) or {}).get("ids", [ids.get(n)])
            before, after = [i for n in before for i in number(n)], [i for n in after for i in number(n)]
        elif s["type"] != "ByteLevel":
            before, after = [s["cls"][1]], [s["sep"][1]]
    for key, there in (("add_bos_token", bool(before)), ("add_eos_token", bool(after))):
        if key in settings and bool(settings[key]) != there:
            notes.append(f"tokenizer: {key} of tokenizer_config.json is not used: tokenizer.json's post-processor says otherwise")
    if after:
        notes.append("tokenizer: tokenizer.json puts a token after a text; a prompt goes on, so none is added")
    check(before in ([], [bos]), f"tokenizer.json puts tokens {before} before a text, only BOS ({bos}) is supported")
    return before == [bos]


def _ends(settings, config, generation, pieces, begin, notes):
    """(bos, eos, stop ids): by name from tokenizer_config.json, else by id from the configurations."""
    ids = {p: i for i, p in reversed(list(enumerate(pieces))) if p}
    def numbered(d, key, where="config.json"):
        value = d.get(key)
        found = value if isinstance(value, list) else [] if value is None else [value]
        good  = [i for i in found if type(i) is int and 0 <= i < len(pieces)]
        notes.extend(f"tokenizer: {key} {repr(i)[:40]} of {where} is not used: it is no token of the {len(pieces)}" for i in found
            if i not in good)
        return good
    notes.extend(f"tokenizer: {key} {_content(settings[key])[:40]!r} is not used: it is none of the pieces" for key in ("bos_token", "eos_token")
        if _content(settings.get(key)) not in (None, "", *ids))
    stop = numbered(config, "eos_token_id") + numbered(generation, "eos_token_id", "generation_config.json")
    begin = begin + numbered(config, "bos_token_id")
    eos  = ids.get(_content(settings.get("eos_token")))
    eos  = eos if eos is not None else (stop or [0])[0]
    bos  = ids.get(_content(settings.get("bos_token")))
    bos  = bos if bos is not None else (begin or [eos])[0]
    return bos, eos, stop


def _template_bos(d):
    """[id] of the token that the post-processor puts first, or []."""
    for s in flat(d.get("post_processor"), "processors"):
        first = (s.get("single") or [{}])[0]
        name  = (first.get("SpecialToken") or {}).get("id") if isinstance(first, dict) else None
        ids   = ((s.get("special_tokens") or {}).get(name) or {}).get("ids")
        if isinstance(ids, list) and ids and type(ids[0]) is int:
            return ids[:1]
    return []


def _notes(d, settings, kind, flags, pieces, types):
    """What the files say besides and is not used."""
    notes = [f"tokenizer: {key} of tokenizer.json is not used: prompts are of any length" for key in ("truncation", "padding")
        if d.get(key)]
    notes += [f"tokenizer: tokenizer.json's key {key[:40]!r} is not known here" for key in d if key not in _KEYS]
    steps = flat(d.get("normalizer"), "normalizers")
    odd   = [pieces[i] for i, f in flags.items() if "n" in f and types[i] == "c" and steps]
    if odd:
        notes.append(f"tokenizer: {', '.join(odd)[:100]} is looked for in the text as it is, not in the normalised one")
    if str(settings.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer" and \
            (steps or settings.get("legacy") or settings.get("add_prefix_space") is False):
        notes.append("tokenizer: tokenizer.json's own steps are used, not those that transformers builds for tokenizer_class "
            "LlamaTokenizer")
    if settings.get("clean_up_tokenization_spaces") and kind != "bpe" or \
            settings.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"):
        notes.append("tokenizer: clean_up_tokenization_spaces is not used: spaces before punctuation stay")
    notes += [f"tokenizer: key {key[:40]!r} beside tokenizer.json is not known here" for key in settings if key not in _KNOWN]
    if settings.get("split_special_tokens"):
        notes.append("tokenizer: split_special_tokens is not used: names of control tokens in a template become them")
    return notes


def read_tokenizer(path, vocab, settings, config, generation):
    """(Tokenizer, notes) of file `path` for a model of `vocab` tokens; settings, config, generation: objects of
    tokenizer_config.json, config.json, generation_config.json."""
    there    = [n for n in OTHERS if os.path.isfile(os.path.join(os.path.dirname(path), n))]
    check(os.path.isfile(path), f"there is no tokenizer.json in it{f', only {there[0]}' if there else ''}: save_pretrained of "
        "transformers writes one, or take a GGUF file of the model")
    check(1 <= vocab <= LIMITS["vocab"], f"vocab is {vocab}, must be 1 to {LIMITS['vocab']}")
    d        = read_json(path, SIZE_MAX)
    beside   = os.path.join(os.path.dirname(path), "special_tokens_map.json")
    settings = (read_json(beside) if os.path.isfile(beside) else {}) | settings
    model    = d.get("model")
    check(isinstance(model, dict), "tokenizer.json has no model")
    kind, options        = _model(model)
    renamed              = []
    pieces, types, flags = _pieces(d, model, vocab, settings, renamed)
    types, stops         = end_of_turn(pieces, _specials(pieces, types, settings))
    notes                = renamed + _notes(d, settings, kind, flags, pieces, types)
    bos, eos, stop       = _ends(settings, config, generation, pieces, _template_bos(d), notes)
    add_bos              = _begins_with(d, settings, pieces, bos, notes)
    decode, strip        = _decoder(d, notes)
    steps  = dict(normalizer=d.get("normalizer"), pre_tokenizer=d.get("pre_tokenizer"), model=options)
    scores = dict(scores=[s for _, s in model["vocab"]]) if kind == "unigram" else {}
    if scores:
        check(all(type(s) in (int, float) for s in scores["scores"]), "tokenizer.json has a piece without a score")
        scores["scores"] += [0.0]*(vocab - len(scores["scores"]))
    t = Tokenizer(kind, pieces, types, bos, eos, unknown=max(types.find("u"), 0), stop=[*stop, *stops], add_bos=add_bos,
        merges=_merges(model) if kind == "bpe" else None, steps=steps, decode=decode, strip=strip,
        added={i: f for i, f in flags.items() if f}, **scores)
    try:
        t.probe()
    except ValueError as e:
        raise ValueError(f"tokenizer.json cannot be used: {e}") from None
    return t, notes
