# SPDX-License-Identifier: BSD-2-Clause
"""Questions and answers on facts and small sums, for the default model's training text."""

import re
import zlib

try:
    from . import corpus_text as T
except ImportError:  # Run as a file.
    import corpus_text as T

NUMBER_MAX = 20  # Sums and differences use operands from 0 to this.

# Helpers ------------------------------------------------------------------------------------------

def held_out(prompt):
    """True when `prompt` (case and punctuation aside) is kept out of the training text."""
    key = re.sub(r"[^a-z0-9+\- ]", "", prompt.lower()).strip()
    return zlib.crc32(key.encode()) % 16 == 0


def a(noun):
    """The noun with its indefinite article (none for a substance)."""
    if noun == "soap":
        return noun
    return ("an " if noun[0].lower() in "aeio" or noun.startswith("umb") else "a ") + noun


def cap(text):
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def pick(rng, forms):
    """One (question, answer) of `forms` that is not held out (None if all are)."""
    forms = [f for f in forms if not held_out(f[0])]
    return rng.choice(forms) if forms else None


def many(noun):
    """The plural of a noun."""
    if noun in T.PLURALS:
        return T.PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeo":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("x", "ch", "s", "ato")) else "s")

# Facts: each function returns all (question, answer) forms of one fact --------------------------

def capital_forms(country):
    """Questions on the capital of a country."""
    city, answer = T.CAPITALS[country], f"The capital of {country} is {T.CAPITALS[country]}."
    forms = [(q.format(c=country), answer) for q in (
        "What is the capital of {c}?", "What's the capital of {c}?", "Tell me the capital of {c}.",
        "Do you know the capital of {c}?", "Which city is the capital of {c}?", "Capital of {c}?",
        "What city is the capital of {c}?", "Name the capital of {c}.", "What is {c}'s capital?",
        "Can you tell me the capital of {c}?", "What is the capital city of {c}?",
        "What is the name of the capital of {c}?", "Please tell me the capital of {c}.")]
    return forms + [(f"Where is {city}?", f"{city} is in {country}."),
                    (f"In which country is {city}?", f"{city} is in {country}."),
                    (f"Is {city} the capital of {country}?", "Yes. " + answer),
                    (f"What is {city}?", f"{city} is the capital of {country}."),
                    (f"Tell me about {city}.", f"{city} is the capital of {country}."),
                    (f"What do you know about {city}?", f"{city} is the capital of {country}."),
                    (f"Which country has the capital {city}?", f"{city} is the capital of {country}."),
                    (f"What is {country}?", f"{cap(country)} is a country. {answer}"),
                    (f"Tell me about {country}.", f"{cap(country)} is a country. {answer}"),
                    (f"What do you know about {country}?", f"{cap(country)} is a country. {answer}")]


def colour_forms(row):
    """Questions on the colour of a thing, from a row such as "grass is green"."""
    thing, colour = row.split(" is ")
    forms = [(q.format(t=thing), f"{cap(thing)} is {colour}.") for q in (
        "What colour is {t}?", "What color is {t}?", "Which colour is {t}?", "Tell me the colour of {t}.",
        "What is the colour of {t}?", "What is the color of {t}?", "Which color does {t} have?",
        "What colour does {t} have?", "Do you know the colour of {t}?")]
    return forms + [(f"Is {thing} {colour}?", f"Yes, {thing} is {colour}.")]


def animal_forms(row):
    """Questions on an animal (a row of `ANIMALS`)."""
    name, sound, young, home, food, legs, what = row
    one = a(name)
    legs_answer = f"{cap(one)} has {legs} legs."
    forms  = [(q.format(n=one), f"{cap(one)} {sound}.") for q in (
        "What does {n} say?", "What sound does {n} make?", "Which sound does {n} make?",
        "How does {n} sound?", "What noise does {n} make?")]
    forms += [(q.format(n=one), f"The young of {one} is called {a(young)}.") for q in (
        "What is the young of {n} called?", "What is the baby of {n} called?",
        "How do you call the young of {n}?", "What is the name for the young of {n}?")]
    forms += [(q.format(n=one), f"{cap(one)} lives {home}.") for q in (
        "Where does {n} live?", "What is the home of {n}?", "Where can I find {n}?", "Where do I find {n}?")]
    forms += [(q.format(n=one), f"{cap(one)} eats {food}.") for q in (
        "What does {n} eat?", "What is the food of {n}?", "What does {n} like to eat?", "What can I feed {n}?")]
    forms += [(q.format(n=one, s=name), legs_answer) for q in (
        "How many legs does {n} have?", "How many legs has {n}?", "Tell me how many legs {n} has.")]
    forms += [(f"What do {many(name)} eat?", f"{cap(one)} eats {food}."), (f"Where do {many(name)} live?", f"{cap(one)} lives {home}."),
              (f"How many legs do {many(name)} have?", legs_answer), (f"What sound do {many(name)} make?", f"{cap(one)} {sound}.")]
    return forms + definition_forms((name, what)) * 2


def definition_forms(row):
    """Questions on what a thing is."""
    name, what = row
    return [(q.format(n=a(name)), f"{cap(a(name))} is {what}.") for q in (
        "What is {n}?", "What's {n}?", "Tell me what {n} is.", "Do you know what {n} is?", "Tell me about {n}.",
        "Explain what {n} is.", "Can you tell me what {n} is?", "What do you know about {n}?", "Describe {n}.")] + [
        (f"What are {many(name)}?", f"{cap(a(name))} is {what}."), (f"Tell me about {many(name)}.", f"{cap(a(name))} is {what}.")]


def use_forms(row):
    """Questions on what a thing is used for."""
    thing, use, what = row
    return [(q.format(t=a(thing)), f"You use {a(thing)} to {use}.") for q in (
        "What is {t} for?", "What do you use {t} for?", "What is {t} used for?", "What can I do with {t}?",
        "Why do I need {t}?", "What do people use {t} for?", "What do we do with {t}?")] + [
        (f"What do I need to {use}?", f"You need {a(thing)} to {use}.")] + definition_forms((thing, what))


def opposite_forms(pair):
    """Questions on opposites, both ways."""
    forms = []
    for word, other in (pair, pair[::-1]):
        forms += [(q.format(w=word), f"The opposite of {word} is {other}.") for q in (
            "What is the opposite of {w}?", "What's the opposite of {w}?", "Tell me the opposite of {w}.",
            "Which word is the opposite of {w}?", "Opposite of {w}?", "Do you know the opposite of {w}?",
            "What is the opposite word of {w}?", "Can you tell me the opposite of {w}?")]
    return forms


def order_forms(rng):
    """Questions on the order of days, months and numbers."""
    kind, items = rng.choice((
        ("day", "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
        ("month", "January February March April May June July August September October November December".split()),
        ("number", [str(i) for i in range(1, 30)])))
    i = rng.randrange(1, len(items))
    x, y = items[i - 1], items[i]
    forms  = [(q.format(k=kind, x=x), f"{y} comes after {x}.") for q in (
        "What {k} comes after {x}?", "Which {k} comes after {x}?", "What comes after {x}?", "Which {k} is after {x}?")]
    forms += [(q.format(k=kind, x=y), f"{x} comes before {y}.") for q in (
        "What {k} comes before {x}?", "Which {k} comes before {x}?", "What comes before {x}?", "Which {k} is before {x}?")]
    if kind == "number":
        p, q = rng.sample(range(0, 30), 2)
        forms = forms[:2] + [(f"Which is bigger, {p} or {q}?", f"{max(p, q)} is bigger than {min(p, q)}."),
                             (f"Which is smaller, {p} or {q}?", f"{min(p, q)} is smaller than {max(p, q)}.")]
        n = rng.randint(2, 12)
        forms += [(f, ", ".join(str(k) for k in range(1, n + 1)) + ".") for f in (f"Count to {n}.", f"Count from 1 to {n}.")]
    return forms


SUM_FORMS  = ("What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b}", "{a} + {b} = ?", "How much is {a} + {b}?",
              "How much is {a} plus {b}?", "Add {a} and {b}.", "Calculate {a} + {b}.", "What is the sum of {a} and {b}?",
              "Can you add {a} and {b}?", "Tell me what {a} plus {b} is.")
DIFF_FORMS = ("What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b}", "{a} - {b} = ?", "How much is {a} - {b}?",
              "How much is {a} minus {b}?", "Subtract {b} from {a}.", "Calculate {a} - {b}.", "Take {b} from {a}.",
              "What is the difference of {a} and {b}?", "Tell me what {a} minus {b} is.")


def arithmetic(rng):
    """A sum or a difference whose pair of numbers is not held out, in digits, in words or as a small problem."""
    while True:
        top = rng.choice((10, NUMBER_MAX))
        x, y = rng.randint(0, top), rng.randint(0, top)
        sign = rng.choice("+-")
        if sign == "-":
            x, y = max(x, y), min(x, y)
        if not held_out(f"{x} {sign} {y}"):
            break
    result, forms = (x + y, SUM_FORMS) if sign == "+" else (x - y, DIFF_FORMS)
    if rng.random() < 0.15 and x > 1 and y > 1:
        things = rng.choice(T.GOODS_TO_COUNT)
        change = rng.choice(("I get {y} more.", "I buy {y} more.", "You give me {y} more.", "I find {y} more.") if sign == "+" else
                            ("I lose {y}.", "I give away {y}.", "I give you {y}.", "You take {y} of them.", "I sell {y}.")).format(y=y)
        return f"I have {x} {things}. {change} How many {things} do I have?", f"{x} {sign} {y} = {result}. You have {result} {things}."
    form = rng.choice(forms)
    if max(x, y) <= 12 and rng.random() < 0.25 and "{a} " + sign not in form:
        return form.format(a=T.NUMBER_WORDS[x], b=T.NUMBER_WORDS[y]), f"{x} {sign} {y} = {result}."
    return form.format(a=x, b=y), f"{x} {sign} {y} = {result}."


def yes_no_forms(rng):
    """Questions with a yes or a no: colours, capitals, flying, sizes, kinds of things."""
    row, country, wrong = rng.choice(T.COLOURS), rng.choice(list(T.CAPITALS)), rng.choice(list(T.CAPITALS.values()))
    thing, colour = row.split(" is ")
    other  = rng.choice("red green blue yellow black white pink".split())
    animal = rng.choice(T.ANIMALS)[0]
    flies  = animal in T.FLYERS
    small, big = (T.SIZES[i] for i in sorted(rng.sample(range(len(T.SIZES)), 2)))
    pair   = " or ".join(rng.sample((a(small), a(big)), 2))
    kinds  = {"animal": [row[0] for row in T.ANIMALS], "fruit": T.FRUITS, "country": list(T.CAPITALS),
              "city": list(T.CAPITALS.values())}
    true, asked = rng.choice(list(kinds)), rng.choice(list(kinds))
    true   = asked if rng.random() < 0.5 else true
    item   = rng.choice(kinds[true])
    item   = a(item) if true in ("animal", "fruit") else item
    return rng.choice((
        [(f"Is {thing} {other}?", f"{'Yes' if colour == other else 'No'}, {thing} is {colour}.")],
        [(f"Is {wrong} the capital of {country}?",
          f"{'Yes' if wrong == T.CAPITALS[country] else 'No'}. The capital of {country} is {T.CAPITALS[country]}.")],
        [(f"Can {a(animal)} fly?", f"{'Yes' if flies else 'No'}, {a(animal)} {'can' if flies else 'cannot'} fly.")],
        [(f"Which is bigger, {pair}?", f"{cap(a(big))} is bigger than {a(small)}."),
         (f"Which is smaller, {pair}?", f"{cap(a(small))} is smaller than {a(big)}."),
         (f"Is {a(small)} bigger than {a(big)}?", f"No, {a(small)} is smaller than {a(big)}."),
         (f"Is {a(big)} bigger than {a(small)}?", f"Yes, {a(big)} is bigger than {a(small)}.")],
        [(f"Is {item} {a(asked)}?", f"{'Yes' if asked == true else 'No'}, {item} is {a(true)}.")]))


def fact(rng):
    """One question and answer on a known fact."""
    make = rng.choices((capital_forms, colour_forms, animal_forms, definition_forms, use_forms, opposite_forms, None),
                       (6, 4, 5, 2, 4, 4, 8))[0]
    table = {capital_forms: list(T.CAPITALS), colour_forms: T.COLOURS, animal_forms: T.ANIMALS, use_forms: T.USES,
             definition_forms: T.DEFINITIONS, opposite_forms: T.OPPOSITES}
    r = rng.random()
    if make:
        forms = make(rng.choice(table[make]))
    elif r < 0.25:
        forms = order_forms(rng)
    elif r < 0.55:
        forms = yes_no_forms(rng)
    else:
        questions, answer = rng.choice(T.MISC)
        forms = [(q, answer) for q in questions]
    return pick(rng, forms) or fact(rng)


def follow_up(rng):
    """Two exchanges, the second of which leans on the first ("And of Italy?")."""
    x, y = rng.sample(list(T.CAPITALS), 2)
    c, d = (row.split(" is ") for row in rng.sample(T.COLOURS, 2))
    p, q = (rng.sample(pair, 2) for pair in rng.sample(T.OPPOSITES, 2))
    l, m = rng.sample(T.ANIMALS, 2)
    return rng.choice((
        ((f"What is the capital of {x}?", f"The capital of {x} is {T.CAPITALS[x]}."),
         (rng.choice((f"And of {y}?", f"And {y}?", f"What about {y}?", f"And the capital of {y}?")),
          f"The capital of {y} is {T.CAPITALS[y]}.")),
        ((f"What colour is {c[0]}?", f"{cap(c[0])} is {c[1]}."),
         (rng.choice((f"And {d[0]}?", f"What about {d[0]}?")), f"{cap(d[0])} is {d[1]}.")),
        ((f"What is the opposite of {p[0]}?", f"The opposite of {p[0]} is {p[1]}."),
         (rng.choice((f"And of {q[0]}?", f"And {q[0]}?", f"What about {q[0]}?")), f"The opposite of {q[0]} is {q[1]}.")),
        ((f"What does {a(l[0])} eat?", f"{cap(a(l[0]))} eats {l[4]}."),
         (rng.choice((f"And {a(m[0])}?", f"What about {a(m[0])}?")), f"{cap(a(m[0]))} eats {m[4]}."))))
