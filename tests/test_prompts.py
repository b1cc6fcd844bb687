# SPDX-License-Identifier: BSD-2-Clause
"""What a chat feeds, turn by turn, counted by hand: with a tokenizer of bytes, and templates that a reader can follow."""

import pytest

from litellama.host.session import Session
from litellama.host.tokenizer import Tokenizer

from test_cli import GREEDY, ScriptedDevice, chat_model
from test_template import CONTROL, T

START, END, BOS, EOS = (256 + CONTROL.index(c) for c in ("<|im_start|>", "<|im_end|>", "<s>", "</s>"))
CHAT  = ("{% for m in messages %}<|im_start|>{{ m.role[0] }}{{ m.content }}<|im_end|>{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>a{% endif %}")
PLAIN = "{% for m in messages %}{{ m.content }}{{ '!' if m.role == 'assistant' else '?' }}{% endfor %}"


def ids(*parts):
    """Of bytes and control tokens."""
    return [i for part in parts for i in ([part] if isinstance(part, int) else part.encode())]


def session(template, *answers, add_bos=False, context=96, system=None):
    """(session, device) with scripted answers (tuples of parts, or None for an interruption)."""
    t = Tokenizer.from_bytes(T.to_bytes())
    t.add_bos = add_bos
    t.stop    = (EOS, END)
    model = chat_model(template=template)
    model.tokenizer, model.meta = t.to_bytes(), model.meta | dict(special_tokens=dict(bos_token="<s>", eos_token="</s>"))
    device = ScriptedDevice(*(a if a is None else ids(*a) for a in answers), context=context)
    return Session(device, model, system), device


def test_the_end_of_a_turn_is_fed_once():
    s, device = session(CHAT, ("yo", END), ("yo",), ("yo", EOS), ("x", END))
    for text in "abcd":
        s.ask(text, GREEDY, 9)
    assert device.fed == [ids(START, "ua", END, START, "a"), ids(END, START, "ub", END, START, "a"),   # END was sampled, but not fed.
        ids("o", END, START, "uc", END, START, "a"),            # Ended by length: the template's END follows.
        ids(EOS, END, START, "ud", END, START, "a")]            # Another stop token than the template's stays.


def test_a_token_that_the_template_repeats_is_fed_twice():
    """The answer's last token is the template's next one, but it did not end the answer."""
    s, device = session(PLAIN, ("yo!",), ("x",))
    s.ask("a", GREEDY, 9), s.ask("b", GREEDY, 9)
    assert device.fed == [ids("a?"), ids("!", "!b?")]


@pytest.mark.parametrize("add_bos, template, first", [(True, CHAT, ids(BOS, START)), (False, CHAT, ids(START)),
    (True, "{{ bos_token }}" + CHAT, ids(BOS, START)), (False, "{{ bos_token }}" + CHAT, ids(BOS, START)), (True, PLAIN, ids(BOS, "a"))])
def test_bos_comes_once(add_bos, template, first):
    s, device = session(template, ("y",), ("y",), add_bos=add_bos)
    s.ask("a", GREEDY, 9), s.ask("b", GREEDY, 9)
    assert device.fed[0][:len(first)] == first and device.fed[0].count(BOS) == first.count(BOS) and BOS not in device.fed[1]


def test_a_user_s_bos_is_not_the_template_s():
    s, device = session(PLAIN, ("y",), add_bos=True)
    s.ask("<s>", GREEDY, 9)
    assert device.fed == [ids(BOS, "<s>?")]


def test_the_same_message_after_an_interruption_at_its_end():
    """All of it but one token is there, or all: at least one is fed, for its logits."""
    s, device = session(CHAT, None, ("y", END))
    s.ask("a", GREEDY, 9)
    assert s.messages == []   # No answer, no turn.
    held = len(ids(START, "ua", END, START, "a"))
    for at in (held, held - 1):
        device.position, s.tokens, device.fed = at, ids(START, "ua", END, START, "a")[:at], []
        device.answers = [ids("y", END)]
        s.messages, s._text = [], ""
        s.ask("a", GREEDY, 9)
        assert device.fed == ([f"reset {held - 1}"] if at == held else []) + [ids("a")]


def test_a_template_that_changes_what_was_said_is_fed_from_there():
    last = "{% for m in messages %}{% if loop.last %}*{% endif %}{{ m.content }}|{% endfor %}"
    s, device = session(last, ("y",), ("z",))
    s.ask("aa", GREEDY, 9), s.ask("b", GREEDY, 9)
    assert device.fed == [ids("*aa|"), "reset", ids("aa|y|*b|")]
    cut = "{% for m in messages %}{{ m.content[:12] }}|{% endfor %}"
    s, device = session(cut, ("y"*15,), ("z",))
    s.ask("a", GREEDY, 15), s.ask("b", GREEDY, 9)
    assert device.fed == [ids("a|"), "reset 14", ids("|b|")]


def test_an_answer_is_text_in_the_next_turn():
    s, device = session(CHAT, (" <|im_end|>\n",), ("z", END))
    assert s.ask("a", GREEDY, 19).text == " <|im_end|>\n"
    s.ask("b", GREEDY, 9)
    assert s.messages[1]["content"] == "<|im_end|>" and device.fed[1][:2] == ids("\n", END)


@pytest.mark.parametrize("system", [None, "S"])
def test_the_oldest_turns_go_together_with_their_answers(system):
    s, device = session(CHAT, *[("yyyy", END)]*9, context=40, system=system)
    keep = ids(START, "sS", END) if system else []
    turn = lambda c: ids(START, "u" + c, END, START, "ayyyy", END)
    ask  = lambda c: ids(START, "u" + c, END, START, "a")
    dropped = [s.ask(c, GREEDY, 5, shift=True).turns_dropped for c in "abcdef"]
    held = len(keep)
    want, kept = [], ""
    for c in "abcdef":   # Each turn takes 11 positions and asks for 6 of them first.
        gone = 0
        if held + 11*len(kept) + 6 > 40:
            while held + 11*(len(kept) - gone) + 6 + 5 > 40 and gone < len(kept):
                gone += 1
        kept = kept[gone:] + c
        want.append(gone)
    assert dropped == want and sum(want) >= 2
    assert s.messages[:1] == ([dict(role="system", content="S")] if system else s.messages[:1]) and len(s.messages) % 2 == (system is not None)
    whole = keep + [i for c in kept[:-1] for i in turn(c)] + ask(kept[-1]) + ids("yyyy", END)
    assert s.tokens == whole


def test_a_system_message_that_the_template_hides_is_refused():
    s, _ = session("{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}", ("y",), system="S")
    with pytest.raises(ValueError, match="chat template of the model failed: it has no place for a system message"):
        s.ask("a", GREEDY, 5)
    s, _ = session("{% if messages[0].role == 'system' %}{{ raise_exception('No system here') }}{% endif %}" + PLAIN, ("y",), system="S")
    with pytest.raises(ValueError, match="chat template of the model failed: No system here"):
        s.ask("a", GREEDY, 5)
    assert s.messages == [dict(role="system", content="S")] and s.tokens == []


@pytest.mark.parametrize("shift", [False, True])
def test_a_conversation_that_just_fits_is_fed_whole(shift):
    """11 positions for the first turn and its answer, 6 for the second message: 17. A context of 16 is too small."""
    for context, dropped in ((17, 0), (16, 1)):
        s, device = session(CHAT, ("yyyy", END), ("z",), context=context)
        s.ask("a", GREEDY, 5, shift=shift)
        if dropped and not shift:
            with pytest.raises(ValueError, match="the conversation has 17 tokens, 6 of them with this message, the context holds 16"):
                s.ask("b", GREEDY, 1, shift=shift)
            continue
        assert s.ask("b", GREEDY, 1, shift=shift).turns_dropped == dropped
        assert len(s.messages) == (4 if not dropped else 2) and s.tokens[:17 - 11*dropped][-6:] == ids(START, "ub", END, START, "a")


def test_a_message_that_alone_does_not_fit():
    for system in (None, "S"):
        s, device = session(CHAT, ("y",), context=20, system=system)
        with pytest.raises(ValueError, match=f"the message alone has {46 if system else 42} tokens .*, the context holds 20"):
            s.ask("b"*37, GREEDY, 5, shift=True)
        assert device.fed == [] and s.tokens == []


@pytest.mark.parametrize("template, text", [("{{ messages[0].content }}<e>", "yes"), ("<e>{{ messages[0].content }}", " yes")])
def test_the_space_before_an_answer_depends_on_the_token_before(template, text):
    """After a control token it is the tokenizer's own, after text it is said."""
    t     = Tokenizer("spm", ["<unk>", "<s>", "<e>", "\u2581", "a", "\u2581yes", "\u2581a"], "uccnnnn", 1, 2, add_space=True, scores=[0.0]*7)
    model = chat_model(template=template)
    model.tokenizer = t.to_bytes()
    device = ScriptedDevice([5])
    assert Session(device, model).ask("a", GREEDY, 5).text == text
    assert device.fed == [[1, 6, 2] if template.endswith("<e>") else [1, 2, 6]]
