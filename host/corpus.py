# SPDX-License-Identifier: BSD-2-Clause
"""Training text of the default model: seeded, generated, all of it our own.

A document is either a story, or a dialogue that a small simulator plays: each turn is drawn from a
topic (facts, sums, small talk, identity, refusals, stories, memory), and what the user has told so
far (name, colour, pet, city) is kept in `Dialogue.told`, so that later questions can be answered
from it, or with "you have not told me".

A user's prompt whose CRC-32 falls into one of sixteen classes is never used (`held_out`): these
prompts, and the names, sums and topics held out by hand, are the test set `HELD_OUT`.

Usage: `python -m litellama.host.corpus` prints a few documents.
"""

import random
import re
import typing

try:
    from . import corpus_facts as facts, corpus_talk as talk, corpus_text as tables
except ImportError:  # Run as a file.
    import corpus_facts as facts
    import corpus_talk as talk
    import corpus_text as tables

a, cap, fact, held_out, pick = facts.a, facts.cap, facts.fact, facts.held_out, facts.pick

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"

# Names ------------------------------------------------------------------------------------------

def pseudo_word(rng):
    """A capitalised word that looks like a name and means nothing."""
    parts = [rng.choice(tables.ONSETS) if rng.random() < 0.85 else "", rng.choice(tables.VOWELS)]
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        parts += [rng.choice(tables.MIDDLES), rng.choice(tables.VOWELS)]
    word = cap("".join(parts).lower() + (rng.choice(tables.CODAS) if rng.random() < 0.6 or len(parts) == 2 else ""))
    return word if word not in tables.HELD_OUT_NAMES else pseudo_word(rng)


def person(rng):
    """A first name: half from the lists, half invented (so that the model learns to copy any name)."""
    return pseudo_word(rng) if rng.random() < 0.5 else rng.choice(tables.GIRLS + tables.BOYS + tables.PET_NAMES)

# Refusals ---------------------------------------------------------------------------------------

def unknown_subject(rng, word):
    """A known form of question with a subject that is not known: a rare noun, an invented word, a country."""
    real = rng.random() < 0.6
    noun = rng.choice(tables.UNKNOWN_THINGS) if real else word.lower() + rng.choice(("", "", "ing", "er", "tion", "ness"))
    country = rng.choice(tables.UNKNOWN_COUNTRIES if rng.random() < 0.6 else [word])
    return rng.choice((
        [q.replace("France", country) for q, _ in facts.capital_forms("France") if "Paris" not in q],
        [q.replace("grass", rng.choice(("a ", "the ")) + noun) for q, _ in facts.colour_forms("grass is green")],
        [q.replace("hot", noun) for q, _ in facts.opposite_forms(("hot", "hot"))],
        [q for q, _ in facts.animal_forms((noun,) + ("x",) * 6)],
        [q for q, _ in facts.use_forms((noun, noun, "x"))[:7]],
        [q for q, _ in facts.definition_forms((noun, "x"))]))


def refusal(rng):
    """A question outside the model's knowledge and a polite answer."""
    word, kind = pseudo_word(rng), rng.random()
    fill = {"t": rng.choice(talk.UNKNOWN), "u": rng.choice(talk.UNKNOWN), "w": word, "n": person(rng), "i": rng.randint(2, 99),
            "k": rng.randint(100, 9999), "c": rng.choice(tables.UNKNOWN_COUNTRIES + list(tables.CAPITALS) + [word])}
    answer = rng.choice(talk.REFUSALS)
    if kind < 0.28:
        if rng.random() < 0.35:
            fill["t"] = rng.choice((word.lower(), a(word.lower()), "the " + word.lower(), word + " " + pseudo_word(rng),
                                    rng.choice(tables.UNKNOWN_THINGS) + "s", "the " + rng.choice(tables.UNKNOWN_THINGS)))
        question = rng.choice(talk.UNKNOWN_FORMS)
    elif kind < 0.55:
        line     = rng.choice(talk.UNKNOWN_QUESTIONS)
        question = rng.choice(line.split(" / "))
        if line.startswith("What is the square"):
            answer = talk.REFUSE_SUMS
        elif line.startswith(("Write", "Translate")):
            answer = talk.REFUSE_TASK
    elif kind < 0.68:
        fill["t"] = rng.choice(talk.TASKS)
        question, answer = rng.choice(talk.TASK_FORMS), talk.REFUSE_TASK
    elif kind < 0.96:
        question = rng.choice(unknown_subject(rng, word))
    else:
        return " ".join(pseudo_word(rng).lower() for _ in range(rng.randint(1, 4))), talk.CONFUSED
    question = question.format(**fill)
    return (question, answer) if not held_out(question) else refusal(rng)

# Stories ----------------------------------------------------------------------------------------

def story(rng, kind=None, name=None, thing=None, place=None):
    """A short story of one hero; returns (text, kind, name)."""
    kind = kind or rng.choice(talk.HEROES)
    any_name = tables.GIRLS + tables.BOYS + tables.PET_NAMES
    name = name or rng.choice(tables.GIRLS if kind in talk.SHE else tables.BOYS if kind in talk.HE else any_name)
    friend_kind = rng.choice([h for h in talk.HEROES if h != kind and h not in talk.SHE + talk.HE])
    friend = rng.choice([n for n in any_name if n != name])
    she = kind in talk.SHE or (kind not in talk.HE and (name in tables.GIRLS or (name not in tables.BOYS and rng.random() < 0.5)))
    he, his, him = ("she", "her", "her") if she else ("he", "his", "him")
    place, hobby = place or rng.choice(talk.PLACES), rng.choice(talk.HOBBIES)
    colour, wanted, thing = rng.choice(talk.COLOUR_WORDS), thing, thing or rng.choice(talk.OBJECTS)
    spot, other, last = rng.sample(talk.SPOTS, 3)
    food, good, skill = rng.choice(talk.FOODS), rng.choice(talk.GOODS), rng.choice(talk.SKILLS)
    adj, dish = rng.choice(talk.ADJECTIVES), "some " + food if food in ("bread", "soup", "salad") else a(food)
    met  = f"Then {name} met {a(friend_kind)} named {friend}."
    text = [rng.choice((f"Once upon a time, there was {a(adj + ' ' + kind)} named {name}. {name} lived in {place}.",
                        f"Once upon a time, there was {a(kind)} named {name} who lived in {place}.",
                        f"Once there was {a(adj + ' ' + kind)} named {name}. {cap(his)} home was in {place}.",
                        f"In {place} there lived {a(adj + ' ' + kind)} named {name}.")),
            rng.choice((f"{cap(he)} loved to {hobby}.", f"Every day {he} liked to {hobby}.", f"{name} loved to {hobby}."))]
    plots = (
        f"One day {name} could not find {his} {colour} {thing}. {cap(he)} looked {spot} and {other}, but it was not there. {met} "
        f'"I will help you," said {friend}. They looked {last}, and there was the {thing}! {name} was very happy and thanked {friend}.',
        f'One day {name} found {a(colour + " " + thing)} {spot}. "Whose {thing} is this?" asked {name}. {met} "That is my {thing}," '
        f"said {friend}. {name} gave it back, and {friend} was very glad. They sat down {other} and shared {dish}.",
        f'One day it began to rain, and {name} was cold and wet. {met} "Come into my house," said {friend}. They sat by the fire '
        f"and ate warm {food}. When the sun came out, {name} gave {friend} {a(colour + ' ' + thing)}.",
        f'It was the birthday of {name}, but nobody came. {name} was sad. {met} "Happy birthday!" said {friend}. {friend} had brought '
        f"{a(colour + ' ' + thing)} and {dish}. {name} laughed and was not sad any more.",
        f"{name} had a map with {a(colour + ' ' + thing)} on it. \"I want to find that {thing},\" said {name}. {met} They walked all day "
        f"and looked {spot} and {other}. In the evening they found the {thing} {last}. {friend} danced with joy.",
        f'One day {name} heard a cry {spot}. "Help me!" cried {a(friend_kind)} named {friend}. {friend} was stuck in a deep hole. '
        f"{name} ran home and brought a long rope. {friend} held the rope, and {name} pulled and pulled. At last {friend} was free.",
        f'{name} wanted to learn to {skill}, but it was too hard for {him}. {met} "I will show you how," said {friend}. They tried '
        f"every day {spot}. One morning {name} could {skill} all alone. {friend} was very proud.",
        f'One day {name} wanted to make {dish}, but {he} had no {good}. {met} "I have {good}," said {friend}. '
        f"They cooked together and ate {spot}. It was the best {food} of all.",
        f'{name} was afraid of the dark. One night {he} heard a noise {spot}. "Who is there?" asked {name}. It was only '
        f'{a(friend_kind)} named {friend}. "I am afraid too," said {friend}. They lit a lamp and told each other jokes until morning.',
        f"One day {name} wanted to see the sea. The way was long, and {name} was tired. {met} \"I know the way,\" said {friend}. "
        f"They walked together and ate {good}. At last they saw the blue sea, and {name} was happy.")
    text.append(rng.choice(plots[:5] if wanted else plots))
    text.append(rng.choice((f"From that day on, {name} and {friend} were best friends.", rng.choice(talk.MORALS),
                            f"In the evening {name} went home and slept well.", f"{name} and {friend} played until night came.")))
    if rng.random() < 0.4:
        text.append("The end.")
    return " ".join(text), kind, name


def story_request(rng):
    """A request for a story, with the story it asks for: (request, text, kind, name)."""
    kind, name, thing = rng.choice(talk.HEROES), person(rng), None
    place = rng.choice(talk.PLACES) if rng.random() < 0.15 else None
    start = rng.choice(("Tell me a story", "Tell me a story", "Please tell me a story", "Tell me a short story",
                        "Can you tell me a story", "Write a story", "I want a story", "I would like to hear a story",
                        "Write a short story", "Tell a story", "Give me a story", "Can you write a story",
                        "Tell me another story", "Make up a story", "Could you tell me a story"))
    about = rng.choices(("both", "kind", "name", "none", "hero", "thing"), (10, 4, 2, 3, 3, 2))[0]
    where = f" in {place}" if place and about in ("both", "kind", "name") else ""
    if about in ("kind", "none", "thing"):
        name = None
    if about in ("none", "thing"):
        kind = None
    if about == "name":
        kind = "girl" if name in tables.GIRLS else "boy" if name in tables.BOYS else None
    if about == "thing":
        thing = rng.choice(talk.OBJECTS)
    tail = {"both": f" about {a(kind or 'x')} {rng.choice(('named', 'named', 'called'))} {name}", "kind": f" about {a(kind or 'x')}",
            "name": f" about {name}", "none": "", "thing": f" about {a(thing or 'x')}",
            "hero": f" about {a(kind or 'x')}. {rng.choice(('The hero is named', 'The name of the hero is', 'The hero is called'))} "
                    f"{name}"}[about]
    if held_out(start + tail + where):
        return story_request(rng)
    tail += where
    place = place if where else None
    text, kind, name = story(rng, kind, name, thing, place)
    return start + tail + ("?" if start.startswith(("Can", "Could")) else "."), text, kind, name

# Dialogues --------------------------------------------------------------------------------------

class Dialogue:
    """Plays user and assistant; `told` is what the user has said about himself so far."""

    def __init__(self, rng):
        self.rng, self.told, self.hero, self.next = rng, {}, None, None

    def statement(self, field):
        """(what the user says, reply) for one thing that he tells about himself."""
        rng   = self.rng
        value = {"name": lambda: person(rng), "pet": lambda: person(rng), "age": lambda: str(rng.randint(3, 90)),
                 "city": lambda: rng.choice(list(tables.CAPITALS.values()) + [pseudo_word(rng)] * 20),
                 "food": lambda: rng.choice(talk.FOODS + talk.GOODS), "colour": lambda: rng.choice(talk.COLOUR_WORDS)}[field]()
        fill  = {"v": value, "V": cap(value), "k": rng.choice(talk.PETS)}
        self.told[field] = fill
        says, reply = rng.choice(talk.MEMORY[field][0]), talk.MEMORY[field][1]
        return says.format(**fill), reply.format(**fill) + " My name is LiteLlama." * says.endswith("?")

    def tell(self):
        """The user tells one or two things about himself, or says his name and asks for a fact."""
        fields = self.rng.choices(list(talk.MEMORY), (8, 4, 4, 3, 2, 2))
        if self.rng.random() < 0.2:
            fields = self.rng.sample(list(talk.MEMORY), 2)
        said = [self.statement(field) for field in fields]
        if fields == ["name"] and "?" not in said[0][0] and self.rng.random() < 0.12:
            said.append(fact(self.rng))
        says = " ".join(s for s, _ in said)
        if len(fields) == 2 and self.rng.random() < 0.5 and says.count(".") == 2 and "?" not in says:
            first, second = (s.rstrip(".") for s, _ in said)
            says = f"{first} and {second if second.startswith('I') else second[0].lower() + second[1:]}."
        return says, " ".join(r for _, r in said)

    def ask(self):
        """The user asks for something that he has told (mostly) or not told."""
        known = list(self.told)
        field = self.rng.choice(known) if known and self.rng.random() < 0.8 else self.rng.choice(list(talk.MEMORY))
        fill  = self.told.get(field, {"k": self.rng.choice(talk.PETS)})
        question = self.rng.choice(talk.MEMORY[field][2]).format(**fill)
        return question, talk.MEMORY[field][3].format(**fill) if field in known else talk.MEMORY[field][4]

    def summary(self):
        """The user asks what the model knows about him."""
        question = self.rng.choice(("What do you know about me?", "Tell me about me.", "What have I told you?"))
        known    = [talk.MEMORY[field][3].format(**fill) for field, fill in self.told.items()]
        return question, " ".join(known) or "I do not know anything about you yet."

    def small_talk(self):
        """Greetings, thanks, moods, news of the user's day."""
        questions, answers = self.rng.choice(talk.SMALL_TALK[:2] + talk.SMALL_TALK + talk.STATEMENTS)
        return self.rng.choice(questions), self.rng.choice(answers)

    def identity(self):
        """Questions about the model itself."""
        questions, answers = self.rng.choice(talk.IDENTITY[:4] + talk.IDENTITY)
        return pick(self.rng, [(q, answers[0]) for q in questions]) or self.identity()

    def story(self):
        """A request for a story, and the story."""
        request, text, kind, name = story_request(self.rng)
        self.hero = (kind, name)
        return request, text

    def ask_hero(self):
        """A question on the story told before."""
        (kind, name), self.hero = self.hero, None
        question = self.rng.choice((f"What was the name of the {kind}?", "What was the hero's name?", "Who was the story about?",
                                    f"How was the {kind} called?", "What was the name of the hero?"))
        return question, f"The {kind} was named {name}."

    def follow_up(self):
        """A question whose next one leans on it."""
        first, self.next = facts.follow_up(self.rng)
        return first if not held_out(first[0]) else self.follow_up()

    def turn(self):
        """One exchange: (user text, assistant text)."""
        rng = self.rng
        if self.next:
            exchange, self.next = self.next, None
            return exchange
        if self.hero and rng.random() < 0.4:
            return self.ask_hero()
        topic = rng.choices((lambda: fact(rng), lambda: facts.arithmetic(rng), lambda: refusal(rng), self.small_talk, self.identity,
                             self.tell, self.ask, self.summary, self.story, self.follow_up),
                            (24, 12, 18, 9, 8, 13, 18 if self.told else 4, 1, 7, 3))[0]
        question, answer = topic()
        return self.rough(question, topic in (self.tell, self.story)), answer

    def rough(self, text, named):
        """What people really type: no capitals, no final mark, a "please" in front."""
        rng = self.rng
        r   = rng.random()
        if r < 0.12 and not named:
            text = text.lower()
        elif r < 0.16 and not named:
            start = rng.choice(("Please, ", "Hey, ", "Tell me, ", "So, ", "Now, "))
            text  = start + (text if text[:2] in ("I ", "I'") else text[0].lower() + text[1:])
        if rng.random() < 0.18 and len(text) > 4:
            text = text.rstrip(".?!")
        return text


def dialogue(rng, turns):
    """A dialogue of `turns` exchanges: list of (role, text)."""
    play = Dialogue(rng)
    messages = [(SYSTEM, rng.choice(talk.SYSTEM))] if rng.random() < 0.12 else []
    for _ in range(turns):
        user, assistant = play.turn()
        messages += [(USER, user), (ASSISTANT, assistant)]
    return messages


def documents(seed=1):
    """Endless documents: each a list of (role, text); a story without a request has the role ""."""
    rng = random.Random(seed)
    while True:
        if rng.random() < 0.10:
            yield [("", story(rng)[0])]
        else:
            yield dialogue(rng, rng.choice((1, 2, 4, 6, 8, 10, 14, 20)))


# Held-out prompts -------------------------------------------------------------------------------

class HeldOut(typing.NamedTuple):
    """A test: user turns in one context, and whether the last reply is right."""
    group   : str
    turns   : tuple
    accepts : typing.Callable[[str], bool]


def is_refusal(reply):
    """True for a polite "I do not know"."""
    return re.search("do not (know|understand)|cannot do that|too hard", reply) is not None


def is_story(kind, name):
    """A check that a reply is a story of this hero, with one friend at most and nobody else."""
    def accepts(reply):
        people = set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]+", reply))
        return f"{kind} named {name}" in reply and reply.count(name) >= 4 and len(people - {name}) <= 1 and reply.endswith(".")
    return accepts


def _held_out_cases():
    said  = lambda *texts: lambda reply: all(text in reply for text in texts)
    exact = lambda answer: lambda reply: reply == answer
    spread = lambda forms, n: [f for i, f in enumerate(forms) if i * n // len(forms) != (i - 1) * n // len(forms)]
    held  = lambda makers: sorted({f for make, rows in makers for row in rows for f in make(row) if held_out(f[0])})
    forms = {"capitals": held([(facts.capital_forms, tables.CAPITALS)]),
             "facts": held([(facts.colour_forms, tables.COLOURS), (facts.animal_forms, tables.ANIMALS), (facts.use_forms, tables.USES),
                            (facts.definition_forms, tables.DEFINITIONS), (facts.opposite_forms, tables.OPPOSITES)]),
             "identity": [(q, answers[0]) for questions, answers in talk.IDENTITY for q in questions if held_out(q)]}
    cases = [(group, (q,), exact(answer)) for group in forms for q, answer in spread(forms[group], 40)]
    pairs = [(x, y) for x in range(facts.NUMBER_MAX + 1) for y in range(facts.NUMBER_MAX + 1)]
    sums  = [(facts.SUM_FORMS[(x + y) % 9].format(a=x, b=y), f"{x} + {y} = {x + y}.") for x, y in pairs if held_out(f"{x} + {y}")]
    sums += [(facts.DIFF_FORMS[(x + y) % 9].format(a=x, b=y), f"{x} - {y} = {x - y}.") for x, y in pairs
             if x >= y and held_out(f"{x} - {y}")]
    cases += [("sums", (q,), exact(answer)) for q, answer in spread(sums, 40)]
    names = tables.HELD_OUT_NAMES
    for i, name in enumerate(names):
        pet, city, colour = names[(i + 3) % len(names)], list(tables.CAPITALS.values())[3 * i], talk.COLOUR_WORDS[i]
        cases += [("memory", (f"My name is {name}.", "What is my name?"), said(f"Your name is {name}.")),
                  ("memory", (f"Hello! I am {name}.", "What is the capital of Spain?", "What is 2 + 3?", "Do you know my name?"),
                   said(f"Your name is {name}.")),
                  ("memory", (f"My favourite colour is {colour}.", f"I have a {talk.PETS[i]} named {pet}.", "Thank you!",
                              f"What is the name of my {talk.PETS[i]}?"), said(f"Your {talk.PETS[i]} is called {pet}.")),
                  ("memory", (f"My name is {name}.", f"I like the colour {colour}.", f"I live in {city}.", "Who are you?",
                              "What is my favourite colour?"), said(f"Your favourite colour is {colour}.")),
                  ("memory", (f"I live in {city}.", "Tell me a story about a cat.", "Where do I live?"), said(f"You live in {city}.")),
                  ("stories", (f"Tell me a story about {a(talk.HEROES[3 * i])} named {name}.",), is_story(talk.HEROES[3 * i], name)),
                  ("stories", (f"I am {pet}.", f"Can you tell me a story about {a(talk.HEROES[2 * i + 1])} called {name}?"),
                   is_story(talk.HEROES[2 * i + 1], name))]
    for field, rule in talk.MEMORY.items():
        cases += [("not told", (before, rule[2][i].format(k="dog")), said("do not know"))
                  for i, before in ((0, "Hello!"), (1, "What is 3 + 5?"), (2, "How are you?"))]
    thing, land = tables.HELD_OUT_THINGS, tables.HELD_OUT_COUNTRIES
    unknown  = [f"What is {a(n)}?" for n in thing[:5]] + [f"What colour is {a(n)}?" for n in thing[5:]]
    unknown += [f"What is the capital of {n}?" for n in land[:5]] + [f"How many people live in {n}?" for n in land[5:]]
    unknown += [f"Explain {n}." for n in talk.HELD_OUT_UNKNOWN[:5]] + [f"What do you know about {n}?" for n in talk.HELD_OUT_UNKNOWN[5:]]
    unknown += [f"How do I {n}?" for n in talk.HELD_OUT_TASKS]
    unknown += ["Who wrote Moby Dick?", "Why did the Titanic sink?", "What is the speed of sound?", "When did the Berlin Wall fall?",
                "Which phone should I buy?"]
    return [HeldOut(*case) for case in cases] + [HeldOut("refusals", (q,), is_refusal) for q in unknown]


HELD_OUT = _held_out_cases()  # Prompts that the training text never has, with a check of the last reply.


if __name__ == "__main__":
    for _, document in zip(range(8), documents()):
        for role, text in document:
            print(f"{role or 'story':>9}: {text}")
        print()
