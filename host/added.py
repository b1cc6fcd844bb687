# SPDX-License-Identifier: BSD-2-Clause
"""Tokens that are found in text by their names: where they are found, and which of them end a turn.

A tokenizer.json says more of such a token (`FLAGS`): lstrip, rstrip: it takes the white space before, after it; single_word:
it is none beside a letter, digit or "_"; normalized: it is looked for in the normalised text.
"""

import re

FLAGS = dict(l="lstrip", r="rstrip", w="single_word", n="normalized")
# Names of tokens that end a turn, as llama.cpp knows them: it takes them for control tokens whatever their type is.
END_OF_TURN = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>",
    "<turn|>", "<|tool_response>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[")
# Where an answer of a code model ends, too: the file's padding, the next file, the next repository. Control tokens likewise.
FILE_ENDS = ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
    "<reponame>", "<|file_sep|>")
# Control tokens of code models that end nothing.
FILE_PARTS = ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>", "\u2581<PRE>",
    "<|code_prefix|>", "<|prefix|>", "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>",
    "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>", "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>",
    "<MID>", "\u2581<MID>", "<|code_middle|>", "<|middle|>")


def end_of_turn(pieces, types):
    """(types, ids that end an answer) by llama.cpp's rule for known names."""
    types = list(types)
    stop  = [i for i, p in enumerate(pieces) if p in END_OF_TURN + FILE_ENDS]
    for i, p in enumerate(pieces):
        if p in END_OF_TURN + FILE_ENDS + FILE_PARTS:
            types[i] = "c"
    named = {pieces[i] for i in stop}
    def no_end(name, type):
        for i in [i for i in stop if pieces[i] == name]:
            stop.remove(i)
            types[i] = type
    if named & {"<|call|>", "<|calls|>"} and named & {"<|return|>", "<|flush|>"}:
        no_end("<|end|>", "d")   # There it ends a message, and the turn goes on.
    if "<|tool_response>" in named:
        no_end("</s>", "n")
    return "".join(types), stop


def control_pattern(names):
    """Regular expression that finds any of `names`, longest first; None if there are none."""
    return re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))) if names else None


def longest_first(text, ids, stripping=()):
    """Parts of `text` as (str, id or None), as llama.cpp cuts: all of the longest name of `ids` ({name: id}), then in what is left
    all of the next. stripping: names that take the white space after them."""
    parts = [(text, None)]
    for name in sorted((n for n in ids if n in text), key=lambda n: -len(n.encode())):
        cut = []
        for part, id in parts:
            if id is not None or name not in part:
                cut.append((part, id))
                continue
            first, *rest = part.split(name)
            cut.append((first, None))
            for x in rest:
                cut += [(name, ids[name]), (x.lstrip(" \t\n\r\v\f") if name in stripping else x, None)]
        parts = [(part, id) for part, id in cut if part]
    return parts


def leftmost(text, ids, compiled, flags):
    """Parts of `text` as (str, id or None), as the `tokenizers` library cuts. compiled: control_pattern(ids); flags: {id: letters of
    FLAGS}."""
    parts, start = [], 0
    for found in compiled.finditer(text) if compiled else ():
        at, end = found.span()
        letters = flags.get(ids[found[0]], "")
        beside  = text[at - 1:at] + text[end:end + 1]
        if at < start or "w" in letters and re.search(r"\w", beside):
            continue
        left  = max(start, len(text[:at].rstrip())) if "l" in letters else at
        right = len(text) - len(text[end:].lstrip()) if "r" in letters else end
        parts += [(text[start:left], None), (found[0], ids[found[0]])]
        start  = right
    return [(part, id) for part, id in [*parts, (text[start:], None)] if part]
