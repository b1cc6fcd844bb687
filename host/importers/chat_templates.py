# SPDX-License-Identifier: BSD-2-Clause
"""Where chat templates and the special tokens' names stand in GGUF files and Hugging Face folders (templates.md has the table).

A source may have several templates by name ("default", "tool_use", "rag"): the default one is used, the others are told.
Errors are ValueError.
"""

import os

from ...accel.config import check
from ..template import LONGEST, ChatTemplate
from .safetensors_file import read_json

_CONFIG, _JINJA, _FOLDER, _JSON = "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates", "chat_template.json"
# GGUF's name of an id: the template's name of the token.
GGUF_TOKENS  = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "seperator": "sep_token", "padding": "pad_token",
    "cls": "cls_token", "mask": "mask_token"}
LLAMA_TOKENS = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")   # What transformers' LlamaTokenizer has unless told.


def _choose(named, where):
    """(template, notes) of {name: template}."""
    for name, source in named.items():
        check(isinstance(name, str) and isinstance(source, str), f"a chat template in {where} is no text")
    name   = "default" if "default" in named else next(iter(named), None)
    others = ", ".join(sorted(n[:40] for n in named if n != name))
    note   = f"{where} has no default chat template, {name[:40]!r} is used" if name not in ("default", None) else \
        f"{where} has several chat templates, the default one is used"
    return named.get(name, ""), [note + (f"; not {others}" if others else "")] if others or name not in ("default", None) else []


def gguf_template(g):
    """(template, notes) of an opened GGUF file: tokenizer.chat_template, or another that has a name."""
    key   = "tokenizer.chat_template"
    named = {k[len(key) + 1:] or "default": v for k, v in g.fields.items() if k == key or k.startswith(key + ".")}
    return _choose(named, "GGUF file")


def gguf_tokens(g, tokenizer):
    """{variable: name} of the special tokens that an opened GGUF file names by id."""
    ids = {to: g.field(f"tokenizer.ggml.{of}_token_id", int, None) for of, to in GGUF_TOKENS.items()}
    if tokenizer.kind == "spm":   # There they have usual ids.
        ids |= {n: i for n, i in (("bos_token", tokenizer.bos), ("eos_token", tokenizer.eos)) if ids[n] is None}
    return {name: tokenizer.pieces[i] for name, i in ids.items() if i is not None and 0 <= i < tokenizer.vocab}


def _read(path):
    try:
        with open(path, encoding="utf-8") as f:
            text = f.read(LONGEST + 1)
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{os.path.basename(path)} cannot be read: {getattr(e, 'strerror', None) or 'it is no UTF-8'}") from None
    check(len(text) <= LONGEST, f"{os.path.basename(path)} has more than {LONGEST} characters")
    return text


def folder_template(folder, settings):
    """(template, notes) of a Hugging Face folder; settings: the object in tokenizer_config.json. Files count more, as in
    transformers; chat_template.json, the processors' file, where there is nothing else."""
    path, more, notes = os.path.join(folder, _JINJA), os.path.join(folder, _FOLDER), []
    files  = {"default": path} if os.path.isfile(path) else {}
    files |= {n[:-len(".jinja")]: os.path.join(more, n) for n in sorted(os.listdir(more)) if n.endswith(".jinja")} \
        if os.path.isdir(more) else {}
    named  = {name: _read(p) for name, p in files.items()}
    told   = settings.get("chat_template")
    if isinstance(told, list):
        check(all(isinstance(t, dict) for t in told), f"chat_template in {_CONFIG} is no list of objects")
        told = {t.get("name"): t.get("template") for t in told}
    told   = told if isinstance(told, dict) else {} if told is None else {"default": told}
    if named and told and told != named:
        notes = [f"chat templates in {_CONFIG} are not used, those in files are"]
    where, named = ("the folder", named) if named else (_CONFIG, told)
    if not named and os.path.isfile(path := os.path.join(folder, _JSON)):
        told  = read_json(path).get("chat_template")
        where, named = _JSON, told if isinstance(told, dict) else {} if told is None else {"default": told}
        notes = [f"the chat template is that of {_JSON}"] if named else []
    source, more = _choose(named, where)
    return source, notes + more


def folder_tokens(settings, mapped):
    """{variable: name} of the special tokens; settings, mapped: the objects of tokenizer_config.json and special_tokens_map.json."""
    usual = LLAMA_TOKENS if str(settings.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer" else {}
    extra = settings.get("extra_special_tokens")
    named = {k: v for d in (mapped, settings) for k, v in d.items() if k.endswith("_token") and v is not None}
    named = usual | named | (extra if isinstance(extra, dict) else {})
    named = {k: v.get("content") if isinstance(v, dict) else v for k, v in named.items()}
    return {k: v for k, v in named.items() if isinstance(v, str)}


def template_notes(source, tokenizer, names):
    """Notes (list of str) about a template: that it cannot be used, or what it looks for and nobody sets."""
    if not source:
        return []
    try:
        unset = ChatTemplate(source, tokenizer, names).unset
    except ValueError as e:
        return [f"{e}: no chat with it"]
    return [f"chat template: {', '.join(n[:40] for n in unset[:12])} {'is' if len(unset) == 1 else 'are'} not set"] if unset else []
