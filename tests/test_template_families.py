# SPDX-License-Identifier: BSD-2-Clause
"""Chat templates of the structure of well-known families: the same text and the same ids as transformers gave (template_cases.py)."""

import datetime
import json

import pytest

from litellama.host.template import ChatTemplate
from litellama.host.tokenizer import Tokenizer

from template_cases import CASES, CHATS, DATA, FAMILIES, bytes_alphabet
from test_template import render, spelt

EXPECTED = json.loads(DATA.read_text())["results"]


def tokenizer(control):
    """Bytes, and `control` behind them; BOS and EOS are the first two of these."""
    pieces = [bytes_alphabet()[b] for b in range(256)] + list(control)
    types  = "n"*256 + "c"*len(control)
    return Tokenizer.from_bytes(json.dumps(dict(version=1, kind="bpe", pieces=pieces, types=types, bos=256, eos=257, unknown=0, stop=[],
        add_bos=False, add_space=False, merges=[], pre="gpt2")).encode())


@pytest.mark.parametrize("family, chat, generate", CASES)
def test_same_as_transformers(family, chat, generate):
    source, control = FAMILIES[family]
    template, want  = ChatTemplate(source, tokenizer(control)), EXPECTED[f"{family}, {chat}, {generate}"]
    if "error" in want:
        with pytest.raises(ValueError, match=want["error"]):
            template.render(CHATS[chat], generate)
        return
    text = template.render(CHATS[chat], generate)
    ids  = template.encode(text)
    assert template.restore(text) == want["text"]
    assert [[i, id - 256] for i, id in enumerate(ids) if id >= 256] == want["control"] and len(ids) == want["n"]


def test_the_cases_say_something():
    assert len(EXPECTED) == len(CASES) and sum("error" in e for e in EXPECTED.values()) == sum(
        f in ("llama 2", "mistral", "gemma") and c == "twice" or f == "gemma" and "system" in c for f, c, _ in CASES)
    assert len({e["text"] for e in EXPECTED.values() if "text" in e}) > 80


def test_the_date_is_todays():
    before = datetime.datetime.now().strftime("%d %b %Y")
    text   = spelt(render("{{ strftime_now('%d %b %Y') }}|{{ messages[0].content }}"))[0]
    assert text in (f"{before}|hi", datetime.datetime.now().strftime("%d %b %Y") + "|hi")
