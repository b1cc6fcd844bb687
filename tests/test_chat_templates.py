# SPDX-License-Identifier: BSD-2-Clause
"""Where chat templates and special tokens stand in sources: GGUF fields, files and keys of a Hugging Face folder."""

import json
from types import SimpleNamespace

import gguf
import pytest

from litellama.host.importers import load_model
from litellama.host.importers.chat_templates import folder_template, folder_tokens, gguf_template, gguf_tokens, template_notes
from litellama.host.session import Session
from litellama.host.template import ChatTemplate
from litellama.host.tokenizer import Tokenizer

from test_cli import ScriptedDevice
from test_huggingface import write_folder
from test_importers import SMALL, write_gguf
from test_template import T, spelt


@pytest.mark.parametrize("fields, want, note", [
    ({}, "", None), ({"": "a"}, "a", None),
    ({"": "a", ".tool_use": "b", ".rag": "c"}, "a", "GGUF file has several chat templates, the default "
        "one is used; not rag, tool_use"), ({".rag": "c"}, "c", "GGUF file has no default chat template, 'rag' is used"),
    ({".rag": "c", ".x": "d"}, "c", "GGUF file has no default chat template, 'rag' is used; not x"),
    ({".default": "e"}, "e", None)])
def test_gguf_fields(fields, want, note):
    g = SimpleNamespace(fields={"tokenizer.chat_template" + k: v for k, v in fields.items()}
        | {"tokenizer.chat_templates": [k[1:] for k in fields if k], "tokenizer.ggml.model": "gpt2"})
    assert gguf_template(g) == (want, [note] if note else [])


def test_gguf_field_of_another_type():
    with pytest.raises(ValueError, match="a chat template in GGUF file is no text"):
        gguf_template(SimpleNamespace(fields={"tokenizer.chat_template": 3}))


def folder(path, **files):
    """A folder with `files` by name (__ for a slash)."""
    for name, content in files.items():
        p = path/name.replace("__", "/")
        p.parent.mkdir(exist_ok=True, parents=True)
        p.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


SEVERAL = [dict(name="tool_use", template="x"), dict(name="default", template="y")]


@pytest.mark.parametrize("files, told, want, note", [
    ({}, None, "", None), ({}, "a", "a", None),
    ({}, SEVERAL, "y", "tokenizer_config.json has several chat templates, the default one is used; not tool_use"),
    ({}, dict(default="y"), "y", None),
    ({}, SEVERAL[:1], "x", "tokenizer_config.json has no default chat template, 'tool_use' is used"),
    ({"chat_template.jinja": "z"}, None, "z", None), ({"chat_template.jinja": "z"}, "z", "z", None),
    ({"chat_template.jinja": "z"}, "a", "z", "chat templates in tokenizer_config.json are not used, those in files are"),
    ({"chat_template.jinja": "z", "additional_chat_templates__rag.jinja": "r"}, None, "z",
        "the folder has several chat templates, the default one is used; not rag"),
    ({"additional_chat_templates__rag.jinja": "r", "additional_chat_templates__b.txt": "t"}, None, "r",
        "the folder has no default chat template, 'rag' is used"),
    ({"chat_template.json": dict(chat_template="j")}, None, "j", "the chat template is that of chat_template.json"),
    ({"chat_template.json": dict(chat_template="j")}, "a", "a", None), ({"chat_template.json": dict(a=1)}, None, "", None)])
def test_a_folder(tmp_path, files, told, want, note):
    assert folder_template(folder(tmp_path, **files), dict(chat_template=told)) == (want, [note] if note else [])


@pytest.mark.parametrize("files, told, message", [
    ({}, 3, "a chat template in tokenizer_config.json is no text"), ({}, [3], "is no list of objects"),
    ({}, [dict(name="default")], "is no text"),
    ({}, [dict(template="a")], "is no text"),
    ({"chat_template.json": dict(chat_template=3)}, None, "a chat template in chat_template.json is no text"),
    ({"chat_template.jinja": "z"*262145}, None, "chat_template.jinja has more than 262144 characters")])
def test_a_folder_that_is_refused(tmp_path, files, told, message):
    with pytest.raises(ValueError, match=message):
        folder_template(folder(tmp_path, **files), dict(chat_template=told))


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path/"chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="chat_template.jinja cannot be read: it is no UTF-8"):
        folder_template(str(tmp_path), {})


def test_special_tokens_of_a_folder():
    """Names as transformers gives them to a template: only those that there are."""
    object_ = dict(content="<s>", lstrip=False, special=True)
    assert folder_tokens(dict(bos_token=object_, eos_token="</s>", pad_token=None, add_bos_token=True), {}) == \
        dict(bos_token="<s>", eos_token="</s>")
    assert folder_tokens(dict(image_token="<image>", extra_special_tokens=dict(boi_token="<b>", n=1)), dict(pad_token="<p>")) == \
        dict(image_token="<image>", boi_token="<b>", pad_token="<p>")
    assert folder_tokens(dict(eos_token="a"), dict(eos_token="b", extra_special_tokens=["c"])) == dict(eos_token="a")
    assert folder_tokens(dict(tokenizer_class="LlamaTokenizerFast", eos_token="x"), {}) == \
        dict(bos_token="<s>", eos_token="x", unk_token="<unk>")


def test_special_tokens_of_gguf():
    ids   = dict(bos=258, eos=259, padding=261, seperator=10**6)
    field = lambda key, kind, default: ids.get(key.removeprefix("tokenizer.ggml.").removesuffix("_token_id"), default)
    assert gguf_tokens(SimpleNamespace(field=field), T) == dict(bos_token="<s>", eos_token="</s>", pad_token="<|assistant|>")
    ids.clear()
    assert gguf_tokens(SimpleNamespace(field=field), T) == {}   # As transformers: nothing is written for them.
    spm = Tokenizer("spm", ["<unk>", "<s>", "</s>", "a"], "uccn", 1, 2, scores=[0.0]*4)
    assert gguf_tokens(SimpleNamespace(field=field), spm) == dict(bos_token="<s>", eos_token="</s>")


def test_what_is_told_of_a_template():
    notes = lambda source: template_notes(source, T, dict(bos_token="<s>"))
    for source in ("", "{{ bos_token }}{% if tools or documents is defined %}{% endif %}{{ messages }}{% set x = 1 %}{{ x }}",
            "{{ range(3) }}{% for m in messages %}{{ loop.index }}{% endfor %}{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1) }}"):
        assert notes(source) == []
    assert notes("{% if enable_thinking is defined and enable_thinking %}1{% endif %}") == ["chat template: enable_thinking is not set"]
    assert notes("{% for m in messages %}{% if not date_string is defined %}{{ eos_token }}{% endif %}{% endfor %}") == \
        ["chat template: date_string, eos_token are not set"]
    # Set in a branch, then used: the template's own. Asked for before it is set: somebody's.
    assert notes("{% if messages %}{% set system = 'a' %}{% else %}{% set rest = 1 %}{% endif %}{{ system }}{% if rest is defined %}{% endif %}"
        ) == []
    assert notes("{% if not date_string is defined %}{% set date_string = 'a' %}{% endif %}{% if 1 %}{% set thinking = thinking or 1 %}{% endif %}"
        "{{ date_string }}{{ thinking }}") == ["chat template: date_string, thinking are not set"]
    told = notes("{% for %}")
    assert len(told) == 1 and told[0].startswith("chat template of the model cannot be used: line 1: ")


SOURCE = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ messages[0].content }}{% if thinking %}{% endif %}"


def test_what_a_source_says_reaches_the_chat(tmp_path):
    """From both kinds of source, through an image's META, to what a session renders."""
    names = dict(bos_token="<|im_start|>", eos_token=dict(content="<|im_end|>"))
    model, notes = load_model(write_folder(tmp_path/"m", settings=names | dict(chat_template=SOURCE)))
    assert "chat template: pad_token, thinking are not set" in notes and model.template == SOURCE
    def fields(w):
        w.add_chat_template([dict(name="default", template=SOURCE), dict(name="rag", template="r")])
        w.add_pad_token_id(3)
    other, told = load_model(write_gguf(tmp_path/"m.gguf", SMALL, change=fields))
    assert other.template == SOURCE and "GGUF file has several chat templates, the default one is used; not rag" in told
    for m, want in ((model, "<|im_start|>|<|im_end|>||hi"), (other, None)):
        template = Session(ScriptedDevice([]), m).template
        text = template.restore(template.render([dict(role="user", content="hi")]))
        pieces = Tokenizer.from_bytes(m.tokenizer).pieces
        assert text == (want or f"{pieces[1]}|{pieces[2]}|{pieces[3]}|hi")


def test_hostile_names_in_an_image():
    for names in (3, [1], {"a": 1}, {"bos_token": None}):
        with pytest.raises(ValueError, match="special tokens' names must be an object of strings"):
            ChatTemplate("", T, names)
    template = ChatTemplate("{{ messages[0].content }}{{ self is string }}", T, dict(messages="x", self="y", range="z"))
    assert spelt(template.encode(template.render([dict(role="user", content="hi")])))[0].startswith("hi")
