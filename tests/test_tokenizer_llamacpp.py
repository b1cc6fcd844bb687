# SPDX-License-Identifier: BSD-2-Clause
"""GGUF's tokenizers against llama.cpp itself: the same ids on the same files, for every pre-tokenizer and SentencePiece's kind."""

import functools
import itertools
import json
import unicodedata

import numpy as np
import pytest
import tokenizers
from tokenizers import models, trainers

from litellama.host import bytelevel, pretokenizers
from litellama.host.importers.gguf_file import GGUF
from litellama.host.importers.gguf_tokenizer import read_tokenizer
from litellama.host.tokenizer import SPACE

from llamacpp import LlamaCpp, write_vocabulary
from test_tokenizer import TRICKY, texts

# Borders that pre-tokenizers differ in, besides TRICKY.
BORDERS = ["a1b22c333d4444e55555", "12 345 6789 0", "!!!a ??b ...c $$ d+e=f<g>h^i~j|k`l", "HELLOWorld helloWORLD McDonald's ÉCOLEÉcole",
    "It's I'LL we'Re they'VE 'tis 'ſ don't'", "x\n\n\ny\r\n\r\nz \n \n w\t\t v   ", "  \n  a   b", "\u3000全角　スペース！？、。", "漢字かなカナ한글ㄱㄴㄷ",
    "กำลัง ไทย हिन्दी বাংলা", "e\u0301e\u0301 a\u0308o", "/path/to//file.py\n/x", "x=1;y=2;\n\tif(z){w}", "Ωmega ßtraße ǅ ŉ ʻokina", "①②③ ½ Ⅷ ٣٤٥",
    "a\u00a0b\u2003c\u2028d\u0085e", "'''\"\"\"---___", " leading", "trailing ", "\n", "   ", "a  b   c    d", "12345678901234567890",
    "<sentinel:12>IMGIMGABCZ", "foo_bar-baz.qux", "€100 £2 ¥3 ©®™", "\ufffd\u200b\ufeff", "mixed日本語and한국어text123"]
ALL = TRICKY + BORDERS


@functools.cache
def byte_pieces():
    """(pieces, types, merges) of a byte-level BPE that was trained without any splitting, so that its merges cross every border."""
    t = tokenizers.Tokenizer(models.BPE())
    lines = ["".join(bytelevel.ALPHABET[b] for b in x.encode()) for x in BORDERS*2 + TRICKY + texts(60)]
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=2500, show_progress=False,
        initial_alphabet=sorted(bytelevel.ALPHABET.values()), max_token_length=12))
    data   = json.loads(t.to_str())["model"]
    pieces = sorted(data["vocab"], key=data["vocab"].get)
    extra  = ["<|im_end|>", "<s>", "<|im_start|>", "[tag]"]
    return pieces + extra, "n"*len(pieces) + "cccd", [" ".join(m) for m in data["merges"]]


def ours(path):
    """(Tokenizer, notes) of a GGUF file."""
    g = GGUF(np.fromfile(path, np.uint8))
    return read_tokenizer(g, len(g.fields["tokenizer.ggml.tokens"]))


FIRST = {k: name for name, k in reversed(pretokenizers.KINDS.items())}   # One name of each kind.


@pytest.mark.parametrize("pre", [None, *(n for n in pretokenizers.KINDS if n != "gpt2")])   # That one is ours alone.
def test_pre_tokenizers(tmp_path, pre):
    pieces, types, merges = byte_pieces()
    n    = len(pieces)
    path = write_vocabulary(tmp_path/"m.gguf", "gpt2", pieces, types, merges=merges, pre=pre,
        change=lambda w: (w.add_eos_token_id(n - 4), w.add_bos_token_id(n - 3)))
    t, notes = ours(path)
    theirs   = LlamaCpp(path)
    for x in ALL if pre in FIRST.values() else [" ".join(ALL)]:
        assert t.encode(x) == theirs.encode(x), repr(x)
    for x in ("<|im_start|>user\nhi there<|im_end|>\n", "a[tag]b <s> c[tag] [tag]\n<s><s>"):
        assert t.encode_prompt(x) == theirs.encode(x, special=True), x
    assert ([t.bos] if t.add_bos else []) + t.encode("a") == theirs.encode("a", bos=True)
    assert any("names no pre-tokenizer" in x for x in notes) == (pre in (None, "default"))
    assert t.decode(t.encode("".join(ALL))) == "".join(ALL)


def test_unknown_pre_tokenizers(tmp_path):
    pieces, types, merges = byte_pieces()
    for pre in (*pretokenizers.OTHERS, "qwen99", "\x1b[2J"):
        path = write_vocabulary(tmp_path/"m.gguf", "gpt2", pieces, types, merges=merges, pre=pre)
        with pytest.raises(ValueError, match="pre-tokenizer") as e:
            ours(path)
        assert "\n" not in str(e.value) and "\x1b" not in str(e.value)


# SentencePiece's kind -----------------------------------------------------------------------------

def sentencepiece_pieces():
    """(pieces, types, scores): bytes, characters and words, a control, a user-defined and an unused token among them."""
    words  = ["he", "ll", "hell", "hello", SPACE + "hello", "us", "er", "user", SPACE + "us", SPACE + "user", SPACE*2, SPACE*3,
        SPACE + "a", "a" + SPACE, "ab", "bc", "abc", "\n\n", "日本", "é", "e\u0301", "it", "'s", "it's", SPACE + "it", "12", "123"]
    chars  = sorted({c for x in ALL for c in x if c.isascii() and c.isprintable()} | {SPACE, "日", "本", "\u0301", "\n"} - {" "})
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *chars, *words]
    types  = "ucc" + "b"*256 + "n"*(len(chars) + len(words))
    scores = [0.0]*259 + [-1e3]*len(chars) + [-float(i % 11) for i in range(len(words))]   # Ties among them.
    return [*pieces, "[tag]", "[tag]user", "<|im_end|>", "<pad>"], types + "ddcx", scores + [0.0]*4


PROMPTS = ["[tag]user", "[tag] user", "a[tag]user hello", "[tag][tag]a", "<s>[tag]a</s>a", "<s> hello", "hello<|im_end|>\n hello",
    "<s>hello[tag]user it's", "[tag]us", "<pad> a", "a<unk>a", "  [tag]  a", "<|im_end|><|im_end|>a"]


@pytest.mark.parametrize("change", [None, "no_space", "no_bos", "phi-3"])
def test_sentencepiece_kind(tmp_path, change):
    pieces, types, scores = sentencepiece_pieces()
    def fields(w):
        w.add_bos_token_id(1), w.add_eos_token_id(2)
        if change == "no_space":
            w.add_add_space_prefix(False)
        if change == "no_bos":
            w.add_add_bos_token(False)
        if change == "phi-3":
            w.add_name("My Phi-3 mini")
    if change == "phi-3":   # llama.cpp wants it there.
        pieces, types, scores = [*pieces, "<|endoftext|>"], types + "c", [*scores, 0.0]
    path     = write_vocabulary(tmp_path/"m.gguf", "llama", pieces, types, scores=scores, change=fields)
    t, notes = ours(path)
    theirs   = LlamaCpp(path)
    for x in ALL + PROMPTS:
        if "[tag]" in x or not any(n in x for n in t.control):
            assert t.encode(x) == theirs.encode(x), repr(x)
        if "<unk>" not in x:   # A template cannot write that one here.
            assert t.encode_prompt(x) == theirs.encode(x, special=True), repr(x)
    assert ([t.bos] if t.add_bos else []) + t.encode("a") == theirs.encode("a", bos=True)
    assert not notes


def test_sentencepiece_kind_decodes(tmp_path):
    pieces, types, scores = sentencepiece_pieces()
    path   = write_vocabulary(tmp_path/"m.gguf", "llama", pieces, types, scores=scores)
    t, _   = ours(path)
    theirs = LlamaCpp(path)
    rng    = np.random.default_rng(1)
    normal = [i for i, c in enumerate(types) if c in "nd"]
    for _ in range(60):   # Bytes that are no UTF-8 are not in JSON.
        ids = rng.choice(normal, 12).tolist()
        assert t.decode(ids) == theirs.decode(ids).removeprefix(" "), ids   # Its server keeps the space, its library does not.
        d = t.decoder()
        assert "".join(map(d.feed, ids)) + d.flush() == t.decode(ids)
    space = pieces.index(SPACE + "a")
    assert t.decode([space, 2, space]) == "a a"   # The space at the text's start alone is not the text's.
    assert t.decode([pieces.index("<0xF0>"), pieces.index("<0x9F>"), space]) == "\ufffd a"


# Special tokens -----------------------------------------------------------------------------------

def vocabulary(tmp_path, names, types, model="gpt2", change=None):
    """(Tokenizer, notes, path) of a file with bytes, a word and `names`, whose first id is 257."""
    byte   = [bytelevel.ALPHABET[b] for b in range(256)] if model == "gpt2" else [f"<0x{b:02X}>" for b in range(256)]
    pieces = [*byte, "ab", *names]
    path   = write_vocabulary(tmp_path/"m.gguf", model, pieces, ("n" if model == "gpt2" else "b")*256 + "n" + types, pre="qwen2",
        scores=[0.0]*len(pieces), merges=["a b"], change=change)
    return *ours(path), path


def ends(path, n):
    """Ids from 257 to `n` at which llama.cpp ends an answer: the model is made to say them, one after another."""
    server, found = LlamaCpp(path), []
    for id in range(257, n):
        answer = server._post("/completion", prompt=[97], n_predict=2, temperature=0.0, logit_bias=[[id, 1e4]])
        found += [id] if answer["stop_type"] == "eos" else []
    return found


NAMES = ("<|im_end|>", "</s>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|fim_pad|>", "<|file_sep|>", "<|fim_middle|>", "[EOS]",
    "<turn|>", "<|user|>", "[tag]", "x>y", "<eot>")


@pytest.mark.parametrize("types", ["d", "n", "c"])
def test_ends_of_turns(tmp_path, types):
    """Known names are control tokens and end an answer, whatever their type says."""
    t, notes, path = vocabulary(tmp_path, NAMES, types*len(NAMES), change=lambda w: w.add_eos_token_id(257 + NAMES.index("x>y")))
    assert sorted(t.stop) == ends(path, 257 + len(NAMES))
    theirs = LlamaCpp(path)
    for x in NAMES:
        assert t.encode(x) == theirs.encode(x) and t.encode_prompt(x) == theirs.encode(x, special=True), x
    assert sum("<|im_end|>" in n for n in notes) == (types != "c")


def test_messages_that_end_no_turn(tmp_path):
    for names in (("<|end|>", "<|return|>", "<|call|>"), ("<|end|>", "<|flush|>", "<|calls|>"), ("<|tool_response>", "</s>"),
            ("<|end|>", "<|return|>")):
        names      = ("<e>", *names)
        t, _, path = vocabulary(tmp_path, names, "c"*len(names), change=lambda w: w.add_eos_token_id(257))
        assert sorted(t.stop) == ends(path, 257 + len(names)), names


def test_several_ends_and_ids_that_are_none(tmp_path):
    def fields(w):
        w.add_bos_token_id(0xFFFFFFFF), w.add_eos_token_id(257), w.add_eot_token_id(258), w.add_eom_token_id(259)
        w.add_uint32("tokenizer.ggml.fim_pad_token_id", 260), w.add_add_bos_token(False)
        w.add_uint32("tokenizer.ggml.fim_sep_token_id", 7777)
    names = ("<e>", "<t>", "<m>", "<p>", "<q>")
    t, notes, path = vocabulary(tmp_path, names, "ccccc", change=fields)
    assert sorted(t.stop) == [257, 258, 259, 260] == ends(path, 262)
    assert t.bos == 11 and not t.add_bos and any("0xFFFFFFFF" in n and "11" in n for n in notes)
    assert any("7777" in n and "fim_sep" in n for n in notes)
    theirs = LlamaCpp(path)
    assert theirs.encode("ab", bos=True) == t.encode("ab")
    t, notes, _ = vocabulary(tmp_path, ("<unk>",), "c", "llama")   # Nothing named at all.
    assert (t.bos, t.eos) == (1, 2) and t.add_bos and any("no eos" in n for n in notes)


def test_what_is_not_used_is_told(tmp_path):
    def fields(w):
        w.add_eos_token_id(257), w.add_add_eos_token(True), w.add_remove_extra_whitespaces(True)
        w.add_precompiled_charsmap(b"\1\0\0\0abcde"), w.add_string("tokenizer.huggingface.json", "{}")
        w.add_uint32("tokenizer.ggml.new_rule", 3), w.add_array("tokenizer.ggml.suppress_tokens", [1, 2])
        w.add_add_space_prefix(True), w.add_pad_token_id(257), w.add_mask_token_id(0), w.add_chat_template("x")
    _, notes, _ = vocabulary(tmp_path, ("<e>",), "c", change=fields)
    told = ("add_eos_token", "remove_extra_whitespaces", "precompiled_charsmap", "huggingface.json", "new_rule", "suppress_tokens",
        "add_space_prefix")
    assert len(notes) == len(told) and all(sum(x in n for n in notes) == 1 for x in told), notes
    _, notes, _ = vocabulary(tmp_path, ("<e>",), "c", change=lambda w: w.add_eos_token_id(257))
    assert notes == []
