# SPDX-License-Identifier: BSD-2-Clause
"""Stop strings and context shift: what is said, what the device then holds, and the same on the firmware as on the reference."""

import io
import json
import random
import sys
import time

import pytest

from firmware_host import Firmware, serve
from litellama.host.devices.base import DeviceError, Result, Timings
from litellama.host.devices.reference import ReferenceDevice
from litellama.host.devices.serial import SerialDevice
from litellama.host.sampler import SamplerParams
from litellama.host.session import Session
from litellama.host.stoptext import StopText
from litellama.host.tokenizer import Tokenizer
from test_cli import CONFIG, GREEDY, ScriptedDevice, chat_model, litellama, model_file, run_json   # noqa: F401

VARIED = SamplerParams(1.2, seed=5, repeat_penalty=1.3)


def fresh(model, tokens, params, n, stop_ids):
    """Tokens that a device without any past gives after `tokens`."""
    device = ReferenceDevice()
    device.load(model)
    return device.generate(tokens, params, n, stop_ids).tokens


# Stop strings: the filter -----------------------------------------------------------------------------

def test_text_ends_before_the_stop_string_in_any_pieces():
    rng, hits = random.Random(1), 0
    for _ in range(3000):
        text  = "".join(rng.choice("aab\n") for _ in range(rng.randrange(30)))
        stop  = "".join(rng.choice("aab\n") for _ in range(rng.randrange(1, 6)))
        f, rest, out = StopText([stop]), text, ""
        while rest:
            n = rng.randrange(1, 5)
            out += f.feed(rest[:n])
            rest = rest[n:]
            assert stop not in out and text.startswith(out)
        out += f.flush()
        assert out == text.split(stop)[0] and f.found == (stop in text), (text, stop)
        hits += f.found
    assert 500 < hits < 2500


def test_only_what_may_be_a_beginning_is_held_back():
    f = StopText(["\n\nUser:", "stop"])
    assert [f.feed(t) for t in ("one", "\n", "two\n", "\n", "Us", "e", "s", "to", "x")] == [
        "one", "", "\ntwo", "", "", "", "\n\nUse", "", "stox"]
    assert [f.feed("a sto"), f.feed("p b"), f.feed("c"), f.found, f.flush()] == ["a ", "", "", True, ""]


def test_of_several_stop_strings_the_first_in_the_text_counts():
    f = StopText(["cd", "b", "abcde"])
    assert f.feed("x abcde") == "x " and f.found
    f = StopText(["aab", "b"])
    assert [f.feed(t) for t in "caab"] == ["c", "", "", ""] and f.found and f.flush() == ""


def test_an_empty_stop_string_is_refused(litellama):
    with pytest.raises(ValueError, match="stop string is empty"):
        StopText(["x", ""])
    status, out, err = litellama("run", "x", "--stop", "")
    assert status == 1 and not out and "stop string is empty" in err and err.count("\n") == 1


# Stop strings: sessions ---------------------------------------------------------------------------------

def on_both(script, delay=0.0, model=None):
    """What script(session, on_text) gives on the reference and on the firmware; there on_text takes `delay` seconds, while the
    firmware goes on."""
    model     = model or chat_model()
    reference = script(Session(ReferenceDevice(), model), lambda text: None)
    with serve(Firmware(model)) as url, SerialDevice(url) as device:
        return reference, script(Session(device, model), lambda text: time.sleep(delay))


def stops_of(text):
    """Stop strings out of the middle of `text`, in which they do not occur before: whole words and parts of them."""
    for at in range(2, len(text) - 4, 3):
        for n in (1, 2, 4, 7):
            if text[at:at + n].strip() and text.find(text[at:at + n]) == at:
                yield text[at:at + n]


def test_an_early_stop_is_the_same_on_firmware_and_reference():
    model = chat_model()
    free  = Session(ReferenceDevice(), model).ask("hi", VARIED, 14)
    stops = list(stops_of(free.text))
    assert len(stops) >= 4, free.text
    for stop in random.Random(3).sample(stops, 4):
        def script(session, on_text):
            parts, out = [], []
            def hear(text):
                parts.append(text)
                on_text(text)
            first = session.ask("hi", VARIED, 14, hear, stop=["never said", stop])
            assert first.text == "".join(parts) == free.text.split(stop)[0] and first.finish_reason == "stop"
            assert first.token_ids == free.token_ids[:len(first.token_ids)] and len(first.token_ids) < len(free.token_ids)
            assert session.device.position <= len(session.tokens)
            out.append((first.token_ids, list(session.tokens), session.device.position))
            second = session.ask("and", VARIED, 8)
            out.append((second.text, second.token_ids, second.prompt_token_ids, second.finish_reason, list(session.tokens),
                session.device.position))
            # The conversation is what was shown, and the device holds it: one that is fed all of it at once goes on alike.
            prompt = session.tokens[:len(session.tokens) - len(second.token_ids)]
            assert first.text.strip() in session.tokenizer.decode(prompt) and stop not in first.text
            assert fresh(model, prompt, VARIED, 8, session.stop_ids) == second.token_ids
            return out
        reference, firmware = on_both(script, delay=0.02)
        assert reference == firmware, stop


def test_only_what_differs_is_fed_again_after_a_stop_string():
    model  = chat_model()
    t      = Tokenizer.from_bytes(model.tokenizer)
    yes    = t.encode("yes we can", after=t.types.index("n"))
    device = ScriptedDevice(yes, [50, 2])
    s      = Session(device, model)
    prompt = [1, *t.encode("user\none"), 2, *t.encode("\n"), 1, *t.encode("assistant\n")]
    assert s.ask("one", GREEDY, 50, stop=["we"]).text == "yes "
    assert s.tokens[:len(prompt)] == prompt and t.decode(s.tokens[len(prompt):], prompt[-1]) == "yes "
    kept = device.position - len(prompt)
    assert yes[:kept] == s.tokens[len(prompt):device.position] and kept > 0
    s.ask("two", GREEDY, 50)
    assert device.fed[2] == [*s.tokens[len(prompt) + kept:-2]]
    assert t.decode(prompt + yes[:kept] + device.fed[2]).count("yes") == 1


def test_held_back_text_is_shown_when_the_answer_ends_otherwise():
    t      = Tokenizer.from_bytes(chat_model().tokenizer)
    tokens = t.encode("so it ends", after=t.types.index("n"))
    for answer in (tokens, [*tokens, 2]):
        parts = []
        reply = Session(ScriptedDevice(answer), chat_model()).ask("x", GREEDY, 50, parts.append, stop=["ends."])
        assert reply.text == "".join(parts) == "so it ends" and reply.finish_reason == ("stop" if answer[-1] == 2 else "length")


def test_stop_on_the_command_line(litellama, model_file):
    free = run_json(litellama, model_file, "abc", "--tokens", 12)
    stop = next(stops_of(free["text"]))
    d    = run_json(litellama, model_file, "abc", "--tokens", 12, "--stop", "never said", "--stop", stop)
    assert d["text"] == free["text"].split(stop)[0] and d["finish_reason"] == "stop"
    assert d["token_ids"] == free["token_ids"][:len(d["token_ids"])]
    status, out, err = litellama("run", "abc", "--model", model_file, "--device", "reference", "--tokens", 12, "--stop", stop)
    assert status == 0 and out == d["text"] + "\n" and err.endswith(", stop]\n")
    literal = run_json(litellama, model_file, "abc", "--tokens", 12, "--stop", r"\x41")
    assert literal["text"] == free["text"]


def test_after_failures_only_what_is_certain_counts_as_held():
    """A request whose fate is unknown, then one that is refused because the first had run: the second was never fed."""
    class Deaf(ScriptedDevice):
        def generate(self, tokens, *rest, **options):
            if self.answers[0] == "deaf":
                self.answers[0] = "refused"
                self.there = self.position + len(tokens)
                raise DeviceError("no answer")
            if self.answers[0] == "refused":
                del self.answers[0]
                self.position = self.there
                raise DeviceError("position")
            return super().generate(tokens, *rest, **options)
    device = Deaf([50, 2], "deaf", [51, 2])
    s      = Session(device, chat_model())
    s.ask("one", GREEDY, 9)
    held   = device.position
    for text in ("the first of them", "another one"):
        with pytest.raises(DeviceError):
            s.ask(text, GREEDY, 9)
    s.ask("another one", GREEDY, 9)
    assert device.fed[-2].startswith("reset ") and int(device.fed[-2].split()[1]) <= held
    assert s.tokens[int(device.fed[-2].split()[1]):-2] == device.fed[-1]


@pytest.mark.parametrize("held", [0, 1])
def test_the_same_message_again_after_an_interrupt_at_its_end_feeds_what_is_needed(held):
    """All of the prompt (or all but a token) was fed, nothing sampled: the last token is fed once more, for its logits."""
    class Interrupted(ScriptedDevice):
        def generate(self, tokens, *rest, **options):
            if self.answers[0] is not None:
                return super().generate(tokens, *rest, **options)
            del self.answers[0]
            self.fed.append(list(tokens))
            self.position += len(tokens) - held
            return Result([], "abort", Timings(len(tokens)))
    device = Interrupted(None, [50, 2])
    s      = Session(device, chat_model())
    reply  = s.ask("one", GREEDY, 9)
    prompt = device.fed[0]
    assert (reply.token_ids, reply.finish_reason) == ([], "abort") and s.tokens == prompt[:len(prompt) - held] and s.messages == []
    reply  = s.ask("one", GREEDY, 9)
    assert reply.token_ids == [50, 2] and reply.prompt_token_ids == prompt[-1:] == device.fed[-1]
    assert device.fed[1:] == ([f"reset {len(prompt) - 1}"] if not held else []) + [prompt[-1:]]
    assert s.tokens == [*prompt, 50, 2] and device.position == len(s.tokens) - 1


def test_an_interrupt_at_the_end_of_the_prompt_on_a_real_device():
    def script(session, on_text):
        def interrupt(done, total, *_):
            if done == total:
                raise KeyboardInterrupt
        first = session.ask("one", VARIED, 9, on_progress=interrupt)
        again = session.ask("one", VARIED, 9)
        return (first.token_ids, again.token_ids, again.prompt_token_ids[-1:], session.tokens[:1])
    device = ReferenceDevice()
    first, again, *_ = script(Session(device, chat_model()), None)
    assert first == [] and again == Session(ReferenceDevice(), chat_model()).ask("one", VARIED, 9).token_ids


def test_a_token_that_the_template_repeats_is_fed_twice():
    """The answer's last token is the first that the template adds, and no end of a turn: both were said."""
    model    = chat_model(template="{% for m in messages %}{{ m['content'] + '!' + '\n' }}{% endfor %}")
    t        = Tokenizer.from_bytes(model.tokenizer)
    mark     = t.encode("!", after=t.types.index("n"))[0]
    assert mark not in t.stop
    device = ScriptedDevice([mark], [mark, mark, t.stop[0]], [50])
    s      = Session(device, model)
    s.ask("one", GREEDY, 1)
    s.ask("two", GREEDY, 9)
    assert device.fed[1][:2] == [mark, mark]         # The one that was sampled last and never fed, and the template's.
    s.ask("three", GREEDY, 9)
    assert device.fed[2][0] == t.stop[0] and t.decode(device.fed[2][1:], t.stop[0]).strip().startswith("!\n")


# Context ------------------------------------------------------------------------------------------------

def test_a_full_context_ends_with_length():
    def script(session, on_text):
        params  = SamplerParams(1.0, seed=1)
        replies = [session.ask("a" * 20, params, 500, on_text)]
        with pytest.raises(ValueError, match="the context holds 96: /clear starts a new one, --context-shift"):
            session.ask("b", params, 5, on_text)
        session.clear()
        replies.append(session.ask("c", params, 3, on_text))
        return [(r.token_ids, r.prompt_token_ids, r.finish_reason) for r in replies]
    model = chat_model()
    model.tokenizer = no_stop(model)
    reference, firmware = on_both(script, model=model)
    assert reference == firmware and reference[0][2] == "length"
    assert len(reference[0][0]) + len(reference[0][1]) == CONFIG.context + 1
    assert len(reference[1][0]) == 3


def no_stop(model):
    """Its tokenizer with an end token that is never sampled, so that answers run on."""
    t = Tokenizer.from_bytes(model.tokenizer)
    t.stop = ()
    return t.to_bytes().replace(b'"eos":2', b'"eos":0')


def conversation(session, on_text, n, tokens):
    """n turns with shift: what was answered, what was fed, what the session then held."""
    out = []
    for i in range(n):
        reply  = session.ask(f"word{i} says", VARIED, tokens, on_text, shift=True)
        prompt = session.tokens[:len(session.tokens) - len(reply.token_ids)]
        out.append((reply.token_ids, reply.prompt_token_ids, reply.finish_reason, reply.turns_dropped, list(session.tokens),
            session.device.position, [m["content"] for m in session.messages]))
        assert session.messages[0]["content"] == "be kind" and session.device.position <= CONFIG.context
        assert "be kind" in session.tokenizer.decode(prompt)
    return out


def test_the_oldest_turns_are_dropped_and_the_system_prompt_is_kept():
    def script(session, on_text):
        session.system = "be kind"
        session.clear()
        return conversation(session, on_text, 6, 12)
    reference, firmware = on_both(script)
    assert reference == firmware
    dropped = [turn[3] for turn in reference]
    assert sum(dropped) >= 3 and dropped[0] == 0
    for i, turn in enumerate(reference):
        assert len(turn[0]) == 12 or turn[2] == "stop"      # Each answer was given in full,
        assert turn[6][-2] == f"word{i} says"               # to its own message,
        users = [m for m in turn[6] if m.endswith("says")]  # and those before it are all there but the dropped ones.
        assert users == [f"word{k} says" for k in range(sum(dropped[:i + 1]), i + 1)]


def test_an_answer_that_runs_into_the_end_goes_on_in_less_context():
    model = chat_model()
    model.tokenizer = no_stop(model)
    def script(session, on_text):
        session.system = "be kind"
        session.clear()
        return conversation(session, on_text, 1, 4) + [longest(session, on_text)]
    def longest(session, on_text):
        parts = []
        def hear(text):
            parts.append(text)
            on_text(text)
        reply = session.ask("more", VARIED, 60, hear, shift=True)
        assert reply.text == "".join(parts)
        t = session.tokenizer
        assert reply.text == t.decode(reply.token_ids, reply.prompt_token_ids[-1])   # No seam.
        assert reply.timings.prompt_tokens > len(reply.prompt_token_ids)             # Fed anew.
        return reply.token_ids, reply.finish_reason, reply.turns_dropped, list(session.tokens), session.device.position
    reference, firmware = on_both(script, model=model)
    assert reference == firmware
    tokens, reason, dropped, held, position = reference[-1]
    assert reason == "length" and dropped >= 1
    # Had nothing been dropped, there had been fewer.
    plain = Session(ReferenceDevice(), model, system="be kind")
    plain.ask("word0 says", VARIED, 4)
    short = plain.ask("more", VARIED, 60)
    assert len(short.token_ids) < len(tokens) and tokens[:len(short.token_ids)] == short.token_ids
    # And what was sampled last is what the shortened conversation gives.
    assert held[-len(tokens):] == tokens and len(held) == position + 1


def test_an_answer_that_goes_on_draws_other_random_numbers():
    """Else the same choices might come again and again."""
    model = chat_model()
    model.tokenizer = no_stop(model)
    s, seeds, generate = Session(ReferenceDevice(), model), [], ReferenceDevice.generate
    s.device.generate = lambda tokens, params, *rest: seeds.append(params.seed) or generate(s.device, tokens, params, *rest)
    s.ask("one", VARIED, 4)
    reply = s.ask("two", VARIED, 80, shift=True)
    assert reply.turns_dropped == 1 and seeds[:2] == [VARIED.seed]*2 and len(set(seeds)) == len(seeds) - 1 == 2


@pytest.mark.parametrize("which", range(3))
def test_every_stop_id_of_the_tokenizer_ends_an_answer(which):
    model = chat_model()
    free  = Session(ReferenceDevice(), model).ask("hi", VARIED, 10).token_ids
    t     = Tokenizer.from_bytes(model.tokenizer)
    ids   = [i for i in range(300, 400) if i not in free][:2]
    ids.insert(which, free[5])
    t.stop = tuple(ids)
    model.tokenizer = t.to_bytes()
    reply = Session(ReferenceDevice(), model).ask("hi", VARIED, 10)
    assert reply.finish_reason == "stop" and reply.token_ids == free[:free.index(free[5]) + 1]


def test_a_tokenizer_with_too_many_stop_ids_is_refused():
    model = chat_model()
    t     = Tokenizer.from_bytes(model.tokenizer)
    t.stop = tuple(range(300, 317))
    model.tokenizer = t.to_bytes()
    with pytest.raises(ValueError, match="18 stop ids, at most 16"):   # These and EOS.
        Session(ReferenceDevice(), model).ask("hi", GREEDY, 3)


def test_an_answer_that_alone_fills_the_context_ends_with_length():
    model = chat_model()
    model.tokenizer = no_stop(model)
    s     = Session(ReferenceDevice(), model, system="be kind")
    reply = s.ask("x", GREEDY, 500, shift=True)
    assert reply.finish_reason == "length" and len(s.tokens) == CONFIG.context + 1 and reply.turns_dropped == 0


def test_a_message_that_alone_does_not_fit_is_refused_and_changes_nothing():
    s = Session(ReferenceDevice(), chat_model(), system="be kind")
    s.ask("one", GREEDY, 5)
    before = list(s.tokens), list(s.messages), s.device.position
    with pytest.raises(ValueError, match=r"the message alone has \d+ tokens with what the template adds, the context holds 96"):
        s.ask("b" * 200, GREEDY, 5, shift=True)
    assert (s.tokens, s.messages, s.device.position) == before
    assert s.ask("two", GREEDY, 5).prompt_token_ids[0] == before[0][before[2]]   # Goes on where it was.


def test_context_shift_on_the_command_line(litellama, model_file, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(f"word{i} says that" for i in range(6))))
    chat = ("chat", "--model", model_file, "--device", "reference", "--tokens", 8, "--temperature", 1, "--seed", 3)
    status, out, err = litellama(*chat, "--context-shift")
    assert status == 0 and err.count("tokens/s") == 6 and "note: the context was full, the oldest 2 turns were dropped" in err
    assert "dropped" not in out
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(f"word{i} says that" for i in range(6))))
    status, out, err = litellama(*chat)
    assert status == 0 and err.count("tokens/s") < 6 and "--context-shift drops the oldest turns" in err
    status, out, err = litellama("run", "x", "--model", model_file, "--device", "reference", "--context-shift")
    assert status == 1 and not out and "--context-shift is for conversations, it needs --chat" in err
    status, out, err = litellama("run", "x" * 300, "--chat", "--model", model_file, "--device", "reference", "--context-shift", "--json")
    assert status == 1 and not out and "the message alone has" in err
    status, out, err = litellama("run", "x", "--chat", "--model", model_file, "--device", "reference", "--context-shift", "--json")
    assert status == 0 and not err and json.loads(out)["token_ids"]


def test_clear_forgets_the_conversation():
    s = Session(ReferenceDevice(), chat_model(), system="be kind")
    a = s.ask("one", VARIED, 6)
    b = s.ask("one", VARIED, 6)
    s.clear()
    assert s.device.position == 0 and s.tokens == [] and [m["role"] for m in s.messages] == ["system"]
    c = s.ask("one", VARIED, 6)
    assert c.token_ids == a.token_ids and c.prompt_token_ids == a.prompt_token_ids != b.prompt_token_ids


@pytest.mark.parametrize("wrong,text", [(("--min-p", "1.5"), "min-p is 1.5, must be 0 to 1"),
    (("--repeat-penalty", "0.5"), "repeat penalty is 0.5, must be 1 to 10"), (("--repeat-penalty", "nan"), "repeat penalty is nan"),
    (("--repeat-last-n", "65"), "repeat-last-n is 65, must be 0 to 64"), (("--repeat-last-n", "-1"), "repeat-last-n is -1")])
def test_wrong_options_are_told_in_one_line(litellama, wrong, text):
    status, out, err = litellama("run", "x", *wrong)
    assert status == 1 and not out and text in err and err.count("\n") == 1


def test_options_reach_the_sampler(litellama, model_file):
    free  = run_json(litellama, model_file, "abc", "--tokens", 16)["token_ids"]
    other = run_json(litellama, model_file, "abc", "--tokens", 16, "--repeat-penalty", 3)["token_ids"]
    none  = run_json(litellama, model_file, "abc", "--tokens", 16, "--repeat-penalty", 3, "--repeat-last-n", 0)["token_ids"]
    assert free == none != other
    hot   = ("--tokens", 16, "--temperature", 5, "--seed", 1)
    assert run_json(litellama, model_file, "abc", *hot, "--min-p", 1)["token_ids"] == free
    assert run_json(litellama, model_file, "abc", *hot)["token_ids"] != free


def test_timings_add_up():
    a, b = Timings(3, 1.0, 4, 2.0, 300, 400, 0.5), Timings(1, 0.5, 12, 6.0, 100, 1200, 0.9)
    assert a + b == Timings(4, 1.5, 16, 8.0, 400, 1600, 0.8)
    assert Timings(1) + Timings(2) == Timings(3)
