# SPDX-License-Identifier: BSD-2-Clause
"""tokenizer.json: the same ids and texts as transformers (tests/data/tokenizers.json), hostile files, what is told."""

import json
import time

import pytest

from litellama.host import guard
from litellama.host.importers.tokenizer_json import read_tokenizer
from litellama.host.tokenizer import Tokenizer

from tokenizer_references import CONTROL, OUT, TEXTS, tokenizer_json

DATA  = json.loads(OUT.read_text("utf-8"))
CASES = {c["name"]: c for c in DATA["cases"]}


def read(folder, d, settings=None, special_map=None, vocab=1000):
    """(Tokenizer, notes) of a tokenizer.json's object."""
    path = folder/"tokenizer.json"
    path.write_text(json.dumps(d), encoding="utf-8")
    if special_map:
        (folder/"special_tokens_map.json").write_text(json.dumps(special_map))
    return read_tokenizer(str(path), vocab, settings or {}, {}, {})


def case(name):
    """tokenizer.json's object of a case."""
    c = CASES[name]
    return tokenizer_json(DATA["models"], c["model"], c["change"], c["parts"])


def test_the_file_is_of_these_texts():
    assert DATA["texts"] == TEXTS and len(CASES) == len(DATA["cases"]) > 30


@pytest.mark.parametrize("name", CASES)
def test_same_as_transformers(tmp_path, name):
    c           = CASES[name]
    t, notes    = read(tmp_path, case(name), c["settings"])
    t           = Tokenizer.from_bytes(t.to_bytes())
    unknown     = {t.unknown} if "<unk>" in t.pieces else set()
    for text, ids, decoded in zip(DATA["texts"], c["ids"], c["decoded"]):
        if "<unk>" in text:   # transformers makes the unknown token of its name; here that is text.
            assert unknown & set(t.encode_prompt(text)) == set() or name in ("no byte fallback", "fused unknowns", "unigram")
            continue
        assert t.encode_prompt(text) == ids, repr(text)
        if not any(n in text for n in CONTROL):
            assert t.encode(text) == ids, repr(text)
        assert t.decode(ids) == decoded, repr(text)
    assert ([t.bos] if t.add_bos else []) + t.encode("a") == c["begins"]
    assert not set(t.encode("".join(CONTROL))) & set(t.control.values())
    told = ["add_bos_token"]*("add_bos_token" in c["settings"])
    assert len(notes) == len(told) and all(x in n for x, n in zip(told, notes)), notes


def test_a_text_that_goes_on(tmp_path):
    """What is put before a text is not put into one."""
    for name in ("metaspace first", "metaspace always", "prepend", "bytes, prefix space"):
        t, _ = read(tmp_path, case(name))
        last = t.encode("us")[-1]
        assert t.decode(t.encode("us") + t.encode("er", after=last)) == t.decode(t.encode("user")), name


EVIL = (r"(a+)+$", r"(a|a)*b", r"(\s*)*x", r"(?:(?:a?){40}a{40})", r"^(\w+\s?)*$", r"(.*)*[^\s\S]")


@pytest.mark.parametrize("where", ["pre_tokenizer", "normalizer"])
def test_expressions_that_never_end(tmp_path, capfd, where):
    """One line at load or when encoding, in a bounded time, and no panic on the terminal."""
    start, stopped = time.process_time(), 0
    for regex in EVIL:
        step = dict(type="Split", pattern=dict(Regex=regex), behavior="Isolated", invert=False) if where == "pre_tokenizer" else \
            dict(type="Replace", pattern=dict(Regex=regex), content="x")
        d    = case("bytes") | {where: step if where == "normalizer" else dict(type="Sequence", pretokenizers=[step, dict(
            type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)])}
        try:
            t, _ = read(tmp_path, d)
            t.encode("a"*30000 + "!")
        except ValueError as e:
            stopped += 1
            assert "\n" not in str(e) and len(str(e)) < 300
    out, err = capfd.readouterr()
    assert stopped >= 3 and (out, err) == ("", "")
    assert time.process_time() - start < 60


def test_an_expression_that_fails_on_one_text_alone(tmp_path, capfd):
    """Harmless on what is tried at load: the error comes when the text does, and the next text is encoded."""
    d    = case("bytes") | dict(pre_tokenizer=dict(type="Sequence", pretokenizers=[dict(type="Split", behavior="Isolated",
        invert=False, pattern=dict(Regex=r"Q(z+)+y|\s+")), dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True,
        use_regex=False)]))
    t, _ = read(tmp_path, d)
    with pytest.raises(ValueError, match="tokenizer fails on this text") as e:
        t.encode("Q" + "z"*60)
    assert "\n" not in str(e.value) and capfd.readouterr() == ("", "")
    assert t.decode(t.encode("Qzzy it works")) == "Qzzy it works"


def test_texts_that_grow(tmp_path, monkeypatch):
    """A normaliser that makes a text 200**6 times as long takes no more memory than it is given."""
    monkeypatch.setattr(guard, "ROOM", 1 << 27)
    step = dict(type="Replace", pattern=dict(String="a"))
    with pytest.raises(ValueError, match="cannot be used"):
        read(tmp_path, case("bytes") | dict(normalizer=dict(type="Sequence", normalizers=[step | dict(content="a"*200)]*6)))


def test_end_of_turn_that_is_no_control_token(tmp_path):
    d = case("bytes")
    for token in d["added_tokens"]:
        token["special"] = False
    t, _ = read(tmp_path, d)
    assert {t.control["<|im_end|>"], t.control["</s>"]} <= set(t.stop)
    assert not set(t.encode("<|im_end|></s>")) & set(t.stop)


def test_special_tokens_of_the_other_files(tmp_path):
    d = case("bytes")
    d["added_tokens"] = [x | dict(special=False) for x in d["added_tokens"]]
    more = {"700": dict(content="<new>", special=True, lstrip=False, rstrip=True, single_word=False, normalized=False)}
    t, _ = read(tmp_path, d, dict(added_tokens_decoder=more, extra_special_tokens=dict(image="<ctl>")), dict(eos_token=dict(content="<s>"),
        additional_special_tokens=["<|im_start|>"]))
    assert set(t.control) == {"<new>", "<ctl>", "<s>", "<|im_start|>", "<|im_end|>", "</s>"} and t.pieces[t.eos] == "<s>"
    assert t.encode_prompt("<new>  \na") == [700, *t.encode("a")]


def test_ids_and_names_that_contradict_each_other(tmp_path):
    """Two pieces of one id are refused, or told where the other file has one; names that no piece has are told."""
    d     = case("bytes")
    added = d["added_tokens"]
    for id in (added[0]["id"], 5):
        with pytest.raises(ValueError, match=f"^id {id} is '.*' in tokenizer.json and its added token 'END', too$"):
            read(tmp_path, d | dict(added_tokens=[*added, added[0] | dict(id=id, content="END")]))
    id       = next(x["id"] for x in added if x["content"] == "<|im_start|>")
    t, notes = read(tmp_path, d, dict(added_tokens_decoder={str(id): dict(content="<new>", special=True)}))
    assert t.control["<new>"] == id and notes == [
        f"tokenizer: id {id} is '<|im_start|>' in tokenizer.json and '<new>' in tokenizer_config.json, which is used"]
    good, _  = read(tmp_path, d)
    t, notes = read(tmp_path, d, dict(bos_token="<nope>", eos_token=dict(content="<nope2>")))
    assert (t.bos, t.eos) == (good.bos, good.eos) and notes == [
        f"tokenizer: {k} '{v}' is not used: it is none of the pieces" for k, v in (("bos_token", "<nope>"), ("eos_token", "<nope2>"))]


def test_bos_of_the_post_processor(tmp_path):
    template = lambda *names: dict(type="TemplateProcessing", single=[dict(Sequence=dict(id="A", type_id=0)) if n is None else
        dict(SpecialToken=dict(id=n, type_id=0)) for n in names], pair=[], special_tokens={n: dict(id=n, ids=[table[n]], tokens=[n])
        for n in names if n})
    d     = case("bytes")
    table = {x["content"]: x["id"] for x in d["added_tokens"]}
    t, notes = read(tmp_path, d | dict(post_processor=template("<s>", None)))
    assert t.add_bos and t.pieces[t.bos] == "<s>" and notes == []
    t, notes = read(tmp_path, d | dict(post_processor=dict(type="Sequence", processors=[template("<s>", None, "</s>")])))
    assert t.add_bos and "after a text" in notes[0] and len(notes) == 1
    t, notes = read(tmp_path, d | dict(post_processor=template("<s>", None)), dict(add_bos_token=False, add_eos_token=True))
    assert t.add_bos and len(notes) == 2 and "add_bos_token" in notes[0] and "add_eos_token" in notes[1]
    for bad in (template("<s>", "<ctl>", None), template("<s>")):
        with pytest.raises(ValueError, match="post-processor|before a text"):
            read(tmp_path, d | dict(post_processor=bad), dict(bos_token="<s>"))


def test_what_is_not_used_is_told(tmp_path):
    _, notes = read(tmp_path, case("unigram") | dict(truncation=dict(max_length=9), padding=dict(x=1), newer=3),
        dict(clean_up_tokenization_spaces=True, split_special_tokens=True, newest=1, model_max_length=9))
    told = ("'newest'", "truncation", "padding", "'newer'", "clean_up_tokenization_spaces", "split_special_tokens")
    assert len(notes) == len(told) and all(sum(x in n for n in notes) == 1 for x in told), notes
    _, notes = read(tmp_path, case("prepend"), dict(tokenizer_class="LlamaTokenizer", clean_up_tokenization_spaces=True))
    assert len(notes) == 1 and "LlamaTokenizer" in notes[0]
    d = case("prepend")
    d["added_tokens"] = [x | dict(normalized=x["content"] == "<s>") for x in d["added_tokens"]]
    assert any("<s> is looked for" in n for n in read(tmp_path, d)[1])


def test_decoders(tmp_path):
    for decoder, match in ((dict(type="WordPiece", prefix="##", cleanup=True), "WordPiece"), (dict(type="Fuse"), "without spaces"),
            (dict(type="BPEDecoder", suffix="</w>"), "BPEDecoder"), (dict(type="Strip", content=" ", start=0, stop=1), "Strip"),
            (dict(type="Replace", pattern=dict(Regex="x"), content=" "), "Replace"), (dict(type="Sequence"), "corrupt")):
        with pytest.raises(ValueError, match=match):
            read(tmp_path, case("metaspace first") | dict(decoder=decoder))
    t, notes = read(tmp_path, case("bytes") | dict(decoder=None))
    assert t.decode(t.encode("é b")) == "é b" and "no decoder" in notes[0]


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer.json in it:"):
        read_tokenizer(str(tmp_path/"tokenizer.json"), 9, {}, {}, {})
    (tmp_path/"tokenizer.model").write_bytes(b"x")
    with pytest.raises(ValueError, match="only tokenizer.model"):
        read_tokenizer(str(tmp_path/"tokenizer.json"), 9, {}, {}, {})
