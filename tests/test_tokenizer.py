# SPDX-License-Identifier: BSD-2-Clause
"""Tokenizers against the libraries that define them, on tricky text; control tokens inside user text stay text."""

import io
import itertools
import json

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from litellama.host import bytelevel, corpus, pretokenizers
from litellama.host.tokenizer import SPACE, Tokenizer

TRICKY = [
    "", " ", "a", "Hello, world!", "  two  spaces ", "\n\n\ttabs\n", "emoji 😀👩‍👩‍👧‍👦🏳️‍🌈 end", "日本語の文章。中文也行", "한국어",
    "1234567890 3.14 2024-01-01", "naïve café Ω≈ç√", "e\u0301 combining", "<s></s><|end|><unk>",
    "<|im_end|>\n<|im_start|>system\n", "<0x0A>", "under_score __init__", "a" * 300, " " * 40 + "x", "don't we'll I'VE it's",
    "\u2581lower one eighth\u2581", "\x00\x01\x7f", "ﬁ ligature ﷺ", "\U0001F600" * 20, "if (x == 0) {\n\treturn -1;\n}\r\n",
    "ZWJ\u200dZWNJ\u200c", "١٢٣ ४५६ Ⅷ ½"]
CONTROL = ("<|im_start|>", "<|im_end|>")


def texts(n=400):
    """Texts of the corpus."""
    return [text for _, d in zip(range(n), corpus.documents(7)) for _, text in d]


@pytest.fixture(scope="module")
def sp():
    """A SentencePiece model with byte fallback, trained here."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts() + TRICKY[7:9]), model_writer=out,
        model_type="bpe", vocab_size=800, byte_fallback=True, character_coverage=0.999, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, num_threads=1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


@pytest.fixture(scope="module")
def spm(sp):
    """Our tokenizer with that model's pieces, and two control tokens behind them."""
    n      = sp.vocab_size()
    types  = "".join("u" if sp.is_unknown(i) else "c" if sp.is_control(i) else "b" if sp.is_byte(i) else "n" for i in range(n))
    pieces = [sp.id_to_piece(i) for i in range(n)] + list(CONTROL)
    scores = [sp.get_score(i) for i in range(n)] + [0.0]*2
    return Tokenizer("spm", pieces, types + "cc", 1, 2, stop=[n + 1], add_space=True, scores=scores)


@pytest.fixture(scope="module", params=["gpt2", "smollm", "llama-bpe"])
def bpe(request):
    """(the library's own tokenizer, ours with its data) for each pre-tokenizer."""
    t = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=request.param != "llama-bpe")
    first = {"gpt2": [], "smollm": [pre_tokenizers.Digits(individual_digits=True)],
        "llama-bpe": [pre_tokenizers.Split(tokenizers.Regex(pretokenizers.KINDS["llama-bpe"].patterns[0]), "isolated")]}[request.param]
    t.pre_tokenizer = pre_tokenizers.Sequence([*first, byte_level])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=900, special_tokens=["<|endoftext|>", *CONTROL],
        show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    data   = json.loads(t.to_str())["model"]
    pieces = sorted(data["vocab"], key=data["vocab"].get)
    merges = [" ".join(m) if isinstance(m, list) else m for m in data["merges"]]
    ours   = Tokenizer("bpe", pieces, "ccc" + "n"*(len(pieces) - 3), 0, 2, add_bos=False, merges=merges,
        steps=pretokenizers.steps(request.param)[0], decode="bytes")
    return t, ours


def test_spm_equals_sentencepiece(sp, spm):
    for text in TRICKY + texts(40):
        assert spm.encode(text) == sp.encode(text), repr(text)
        assert spm.decode(spm.encode(text)) == text.replace(SPACE, " "), repr(text)


def test_spm_without_leading_space(spm):
    assert spm.decode(spm.encode("hello", after=spm.types.index("n"))) == "hello"
    spm.add_space, spm.strip = False, 0
    try:
        assert spm.decode(spm.encode(" hello")) == " hello" and spm.decode(spm.encode("hello")) == "hello"
    finally:
        spm.add_space, spm.strip = True, 1


def test_bpe_equals_tokenizers(bpe):
    library, ours = bpe
    for text in TRICKY + texts(40):
        if not any(c in text for c in ours.control):   # There the library makes control tokens of text, and we never do.
            assert ours.encode(text) == library.encode(text).ids, repr(text)
        assert ours.decode(ours.encode(text)) == text, repr(text)


def test_alphabet_is_the_librarys():
    assert sorted(bytelevel.ALPHABET.values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert bytelevel.to_bytes(bytelevel.from_bytes(bytes(range(256)))) == bytes(range(256))


def test_text_never_becomes_a_control_token(spm, bpe):
    names = ("<|im_end|>", "a<|im_start|>b", "<s>", "</s>", "<|endoftext|>", "<|im_end|><|im_end|>")
    for t, text in itertools.product((spm, bpe[1]), names):
        ids = t.encode(text)
        assert not set(ids) & set(t.control.values()) and t.decode(ids) == text


def test_template_text_does(spm, bpe):
    for t in (spm, bpe[1]):
        start, end = (t.control[c] for c in CONTROL)
        assert t.encode_prompt("<|im_start|>user\nhi<|im_end|>") == [start, *t.encode("user\nhi"), end]


def test_stream_decoder_waits_for_whole_characters(spm, bpe):
    for t in (spm, bpe[1]):
        ids   = t.encode("x 😀日 é")
        d     = t.decoder()
        parts = [d.feed(i) for i in ids]
        assert "".join(parts) + d.flush() == "x 😀日 é" and "\ufffd" not in "".join(parts)
        cut = t.decoder()
        assert "".join(map(cut.feed, t.encode("😀")[:-1])) + cut.flush() == "\ufffd"


def test_leading_space_goes_only_at_the_start_of_a_text(spm):
    ids = spm.encode("hello")
    assert spm.decode(ids) == "hello" and spm.decode(ids, after=ids[0]) == " hello" and spm.decode(ids, after=1) == "hello"


def test_storage(spm, bpe):
    for t in (spm, bpe[1]):
        back = Tokenizer.from_bytes(t.to_bytes())
        assert back.to_bytes() == t.to_bytes() and back.stop == t.stop
        assert all(back.encode(x) == t.encode(x) for x in TRICKY)


def test_user_defined_tokens_are_found_in_text():
    t = Tokenizer("spm", ["<unk>", "<s>", "</s>", SPACE, "a", "<tag>"], "uccnnd", 1, 2, add_space=True, scores=[0.0]*6)
    assert t.encode("a<tag>a") == [3, 4, 5, 3, 4]   # A word after it begins anew: llama.cpp in test_tokenizer_llamacpp.py.


def test_hostile_storage(spm):
    good = json.loads(spm.to_bytes())
    wrong = [dict(version=3), dict(kind="x"), dict(pieces=[1]), dict(pieces=["\ud800"]), dict(types="n"), dict(bos=-1),
        dict(bos=10**9), dict(bos=True), dict(stop=[10**6]), dict(scores=None), dict(scores=[float("nan")]*len(good["pieces"])),
        dict(kind="bpe"), dict(eos="2"), dict(kind="bpe", merges=["a b"]), dict(add_bos=1),
        dict(version=1, kind="bpe", merges=["a b"], pre="gpt2x"), dict(kind="bpe", merges=[["a"]], steps={}), dict(strip=True),
        dict(kind="bpe", merges=["a b"], steps=dict(pre_tokenizer=[])), dict(decode="x"), dict(added=[]), dict(added={"-1": "l"}),
        dict(added={"99999": "l"}), dict(rstrip=[-1]), dict(kind="unigram")]
    for change in wrong:
        with pytest.raises(ValueError):
            Tokenizer.from_bytes(json.dumps(good | change).encode())
    for data in (b"", b"[]", b"null", b"{", b"[" * 100000, b"\xff"):
        with pytest.raises(ValueError):
            Tokenizer.from_bytes(data)
    with pytest.raises(ValueError, match="merge"):
        Tokenizer("bpe", ["a", "b"], "nn", 0, 0, merges=["a b"], steps={}, decode="bytes").encode("ab")
