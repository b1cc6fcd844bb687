#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes tests/data/tokenizers.json: tiny tokenizer.json files of every structure, and the ids and texts that `transformers` makes
with them. To be run again where a structure is added: `pip install .[references]; python tests/tokenizer_references.py`."""

import json
import os
from pathlib import Path
import tempfile

SPACE   = "\u2581"
OUT     = Path(__file__).parent/"data"/"tokenizers.json"
CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<ctl>")
TEXTS   = ["", " ", "a", "Hello, world!", "  two  spaces ", "<s>[INST] Hello, user [/INST]", "<s> hello</s> hello", "<s>hello</s>user<s>",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>", "[tag]user", "[tag] user", "user[tag]user hello", "hello [tag] [tag]hello",
    "word wordy wor word", " <ctl> user <ctl>user", "user  <ctl>\n\nhello", "keyword key words", "UPPER Upper upper", "\n\n\ttabs\n",
    "日本語の文章。", "emoji 😀 end", "naïve café e\u0301", "1234567890 3.14", "don't we'll I'VE it's", "\u2581lower\u2581", "ﬁ ﷺ ½ Ⅷ",
    "x = (y == 0);\r\n\r\n", "a" * 40, " " * 12 + "x", "<unk>a", "hello\u3000user", "<s>", "</s></s> a", "hello <s> user"]
WORDS   = ["he", "ll", "hell", "hello", "us", "er", "user", "wo", "or", "rd", "word", "key", "keyword", "in", "in the", "two", "it", "'s"]


def spaced_model():
    """BPE of characters, as a conversion of a SentencePiece model has it."""
    chars  = sorted({c for t in TEXTS + WORDS for c in t if c.isascii() and c.isprintable() and c != " "} | {SPACE, "日", "é"})
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *chars]
    merges = []
    for word in [SPACE*2, SPACE*4] + [p + w for w in WORDS for p in ("", SPACE) if " " not in w]:
        parts = list(word)
        while len(parts) > 1:   # From the left.
            merges.append([parts[0], parts[1]])
            parts[:2] = ["".join(parts[:2])]
            pieces += [parts[0]] if parts[0] not in pieces else []
    merges = [list(m) for m in dict.fromkeys(map(tuple, merges))]
    return dict(type="BPE", unk_token="<unk>", fuse_unk=True, byte_fallback=True, vocab={p: i for i, p in enumerate(pieces)},
        merges=merges)


def byte_model():
    """Byte-level BPE, trained on the texts as a whole, so that merges cross the words' borders."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.train_from_iterator(TEXTS*3, trainers.BpeTrainer(vocab_size=600, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=8))
    return json.loads(t.to_str())["model"]


def unigram_model():
    """A unigram model with a charsmap, from SentencePiece's trainer."""
    import io
    import sentencepiece
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([t for t in TEXTS if t.strip()]*20), model_writer=out,
        model_type="unigram", vocab_size=200, hard_vocab_limit=False, num_threads=1, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    return dict(type="Unigram", unk_id=0, byte_fallback=False, vocab=[[sp.id_to_piece(i), sp.get_score(i)]
        for i in range(sp.vocab_size())])


def cases():
    """Of each case: name, model, changes of the model, other parts of tokenizer.json, tokenizer_config.json."""
    meta    = lambda scheme, split=False: dict(type="Metaspace", replacement=SPACE, prepend_scheme=scheme, split=split)
    replace = dict(type="Replace", pattern=dict(String=" "), content=SPACE)
    spaced  = lambda strip: dict(type="Sequence", decoders=[dict(type="Replace", pattern=dict(String=SPACE), content=" "),
        dict(type="ByteFallback"), dict(type="Fuse"), *([dict(type="Strip", content=" ", start=1, stop=0)] if strip else [])])
    legacy  = dict(type="Sequence", normalizers=[dict(type="Prepend", prepend=SPACE), replace])
    byte    = lambda prefix=False, regex=True: dict(type="ByteLevel", add_prefix_space=prefix, trim_offsets=True, use_regex=regex)
    split   = lambda p, behavior="Isolated": dict(type="Split", pattern=dict(Regex=p), behavior=behavior, invert=False)
    steps   = lambda *s: dict(type="Sequence", pretokenizers=list(s))
    bytes_  = dict(decoder=byte())
    llama3  = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    for scheme in ("first", "always", "never"):
        yield f"metaspace {scheme}", "spaced", {}, dict(pre_tokenizer=meta(scheme), decoder=spaced(scheme != "never")), {}
    yield "metaspace split", "spaced", {}, dict(pre_tokenizer=meta("always", True), decoder=meta("always", True)), {}
    yield "metaspace, as LlamaTokenizer", "spaced", {}, dict(pre_tokenizer=meta("first"), decoder=spaced(True)), \
        dict(tokenizer_class="LlamaTokenizerFast", add_bos_token=True, legacy=False)
    yield "prepend", "spaced", {}, dict(normalizer=legacy, decoder=spaced(True)), {}
    yield "no space before", "spaced", {}, dict(normalizer=replace, decoder=spaced(False)), {}
    yield "no byte fallback", "spaced", dict(byte_fallback=False, fuse_unk=False), dict(normalizer=legacy, decoder=spaced(True)), {}
    yield "fused unknowns", "spaced", dict(byte_fallback=False), dict(normalizer=legacy, decoder=spaced(True)), {}
    for flag in ("lstrip", "rstrip", "single_word", "normalized"):
        yield f"added, {flag}", "spaced", {}, dict(pre_tokenizer=meta("first"), decoder=spaced(True), flags=[flag]), {}
        yield f"added, {flag}, bytes", "byte", {}, dict(pre_tokenizer=byte(), flags=[flag], **bytes_), {}
    yield "added, normalized, prepend", "spaced", {}, dict(normalizer=legacy, decoder=spaced(True), flags=["normalized"]), {}
    yield "added, normalized, lowercase", "byte", {}, dict(normalizer=dict(type="Lowercase"), pre_tokenizer=byte(),
        flags=["normalized", "lstrip", "rstrip"], **bytes_), {}
    yield "bytes", "byte", {}, dict(pre_tokenizer=byte(), **bytes_), dict(add_bos_token=True)
    yield "bytes, prefix space", "byte", {}, dict(pre_tokenizer=byte(True), **bytes_), {}
    yield "bytes, whole words", "byte", dict(ignore_merges=True), dict(pre_tokenizer=steps(split(llama3), byte(regex=False)), **bytes_), {}
    yield "bytes, digits", "byte", {}, dict(pre_tokenizer=steps(dict(type="Digits", individual_digits=True), byte()), **bytes_), {}
    yield "bytes, punctuation", "byte", {}, dict(pre_tokenizer=steps(dict(type="Punctuation", behavior="Contiguous"),
        split(r"\d+", "MergedWithPrevious"), byte(regex=False)), **bytes_), {}
    yield "bytes, an own expression", "byte", {}, dict(pre_tokenizer=steps(split(r"\s+|\w+|[^\s\w]+"), byte(regex=False)), **bytes_), {}
    for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"):
        yield f"normaliser {name}", "byte", {}, dict(normalizer=dict(type=name), pre_tokenizer=byte(), **bytes_), {}
    yield "normaliser Strip, Replace", "byte", {}, dict(normalizer=dict(type="Sequence", normalizers=[
        dict(type="Strip", strip_left=True, strip_right=True), dict(type="Replace", pattern=dict(Regex=r" {2,}"), content=" ")]),
        pre_tokenizer=byte(), **bytes_), {}
    yield "unigram", "unigram", {}, dict(normalizer=dict(type="NFKC"), pre_tokenizer=meta("always", True),
        decoder=meta("always", True)), {}


def tokenizer_json(models, model, change, parts):
    """The object of a tokenizer.json."""
    m     = models[model] | change
    names = [p for p, _ in m["vocab"]] if model == "unigram" else list(m["vocab"])
    flags = parts.get("flags", [])
    def token(content, special, id):
        odd = special and content == "<ctl>" or not special
        return dict(id=id, content=content, special=special) | {f: odd and f in flags and not (special and f == "normalized")
            for f in ("lstrip", "rstrip", "single_word", "normalized")}
    added = [(p, True) for p in (["<unk>"] if "<unk>" in names else []) + list(CONTROL)] + [("[tag]", False), ("word", False)][:1 + bool(flags)]
    known = {p: i for i, p in enumerate(names)}
    for p, _ in added:
        known.setdefault(p, len(known))
    return dict(version="1.0", truncation=None, padding=None, added_tokens=sorted((token(p, s, known[p]) for p, s in added),
        key=lambda t: t["id"]), normalizer=parts.get("normalizer"), pre_tokenizer=parts.get("pre_tokenizer"), post_processor=None,
        decoder=parts["decoder"], model=m)


def main():
    """Write the file."""
    import tokenizers
    import transformers
    models, rows = dict(spaced=spaced_model(), byte=byte_model(), unigram=unigram_model()), []
    for name, model, change, parts, settings in cases():
        settings = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>") | settings
        with tempfile.TemporaryDirectory() as folder:
            for file, value in (("tokenizer.json", tokenizer_json(models, model, change, parts)), ("tokenizer_config.json", settings),
                    ("config.json", dict(model_type="llama"))):
                with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
                    json.dump(value, f)
            t = transformers.AutoTokenizer.from_pretrained(folder)
        ids = [t.encode(x, add_special_tokens=False) for x in TEXTS]
        rows.append(dict(name=name, model=model, change=change, parts=parts, settings=settings, ids=ids,
            begins=t.encode("a", add_special_tokens=True), decoded=[t.decode(i, skip_special_tokens=True) for i in ids]))
    about = f"made by tests/tokenizer_references.py with transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
    lines = ",\n".join(json.dumps(r) for r in rows)
    OUT.write_text(f'{{"about": {json.dumps(about)},\n"texts": {json.dumps(TEXTS)},\n"models": {json.dumps(models)},\n'
        f'"cases": [\n{lines}]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
