# SPDX-License-Identifier: BSD-2-Clause
"""Sampling that a source suggests, as options of the command line: told, not used, since an option that is not given has the default
that --help says. An image keeps them in its META ("sampling") for `inspect`."""

import json
import shlex

from ...accel.config import TOPK_MAX
from ..sampler import SamplerParams
from .keys import plain, short

# Source's name: (option, field of SamplerParams or None).
OPTIONS = {"temp": ("--temperature", "temperature"), "temperature": ("--temperature", "temperature"), "top_k": ("--top-k", "top_k"),
    "top_p": ("--top-p", "top_p"), "min_p": ("--min-p", "min_p"), "penalty_repeat": ("--repeat-penalty", "repeat_penalty"),
    "repetition_penalty": ("--repeat-penalty", "repeat_penalty"), "penalty_last_n": ("--repeat-last-n", "repeat_last_n"),
    "max_new_tokens": ("--tokens", None), "stop_strings": ("--stop", None)}
# With do_sample; what transformers takes where a folder says nothing.
TRANSFORMERS = {"temperature": 1.0, "top_k": 50}


def _number(value):
    return f"{value:g}" if isinstance(value, float) else str(value)


def suggested(values, where):
    """(options as one str, notes) of `values` {name: value}, all names of OPTIONS; `where` names the source."""
    options, notes = [], []
    for name, value in values.items():
        option, field = OPTIONS[name]
        value = plain(value)
        texts = value if name == "stop_strings" and isinstance(value, list) else [value]
        if value is None:
            continue
        try:
            if name == "stop_strings":
                fits = all(isinstance(t, str) and t for t in texts)
            else:
                fits = type(value) in (int, float) and (field is not None or type(value) is int and value >= 1)
            if fits and field:
                SamplerParams(**{field: value})
            reason = "" if fits else "that is no value for it"
            if fits and name == "top_k" and value == 0:   # There: all of them.
                fits, reason = False, f"the likeliest {TOPK_MAX} are the most there are"
        except (ValueError, TypeError) as e:
            fits, reason = False, " ".join(str(e).split())
        if fits:
            options += [f"{option} {shlex.quote(t) if isinstance(t, str) else _number(t)}" for t in texts]
        else:
            notes.append(f"{where} suggests {name} {short(value)}, which is not used: {reason}")
    text = " ".join(options)
    if text:
        notes.append(f"{where} suggests {text if text.isprintable() else json.dumps(text)}: not used unless given")
    return text, notes


def of_generation(d, where):
    """(options, notes) of the object in generation_config.json."""
    values = {name: d[name] for name in OPTIONS if d.get(name) is not None}
    if d.get("do_sample") is True:
        return suggested(TRANSFORMERS | values, where)
    greedy = [name for name in ("temperature", "top_k", "top_p", "min_p") if name in values]
    text, notes = suggested({name: v for name, v in values.items() if name not in greedy}, where)
    if greedy:
        notes.append(f"{where} says {', '.join(f'{n} {short(values[n])}' for n in greedy)}, but not do_sample: it is greedy, as here")
    return text, notes
