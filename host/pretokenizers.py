# SPDX-License-Identifier: BSD-2-Clause
"""llama.cpp's pre-tokenizers of byte-level BPE by their names in a GGUF file (`tokenizer.ggml.pre`), as steps of the
`tokenizers` library: regular expressions one after the other, each cutting every part that is there into what it finds and
what lies between. Meaning: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp.

There \\d, \\w and \\b know ASCII alone, and upper and lower case are told apart in ASCII alone; so it is written here.
"""

from dataclasses import dataclass

from ..accel.config import check

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE     = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_LETTERS      = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS       = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LINES        = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_ASIAN        = r"[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+"
_SIGNS        = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""


def _like_llama3(digits, start=_ANY_CASE + "|", letters=_LETTERS, others=_OTHERS, lines=_LINES):
    return rf"{start}{letters}|{digits}|{others}|{lines}"


def _cased(upper, lower, digits, end=""):
    """Words of capitals, then small letters; one of the two may be missing."""
    return rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{end}|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{end}|{digits}| " \
        rf"?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"


_GPT2     = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_LLAMA3   = _like_llama3(r"\p{N}{1,3}")
_QWEN2    = _like_llama3(r"\p{N}")
_GPT4O    = _cased(_UPPER, _LOWER, r"\p{N}{1,3}", _ANY_CASE + "?")
_MARKED   = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]")
_DEEPSEEK3 = (r"\p{N}{1,3}", _ASIAN, rf"{_SIGNS}[\r\n]*|{_LINES}")
_BLOOM    = " ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+"
_FROM_RIGHT = r"[0-9]{1,3}(?=(?:[0-9]{3})*(?![0-9]))"
# Letters that have case, as DeepSeek's first tokenizer lists them.
_CASED = (r"A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373\u0376\u0377"
    r"\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5"
    r"\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D"
    r"\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4"
    r"\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D"
    r"\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4"
    r"\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06"
    r"\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}"
    r"\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}")


@dataclass(frozen=True)
class PreTokenizer:
    """Regular expressions in their order; whole: words that are pieces stay whole, whatever the merges say; add_bos: BOS goes
    before a text unless the file says otherwise."""
    patterns: tuple
    whole:    bool = False
    add_bos:  bool = False


_KINDS = [
    ("default", PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
    ("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", PreTokenizer((_LLAMA3,), True, True)),
    ("smaug-bpe dbrx glm4 chatglm-bpe", PreTokenizer((_LLAMA3,))),
    ("minicpm5", PreTokenizer((r"\p{N}{1,3}", _like_llama3(r"\p{N}+")), True)),
    ("jais-2", PreTokenizer((_like_llama3(r"\p{N}{1,3}", lines=r"\s*[\r\n]+|"
        + "|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"|\s{1,2}(?!\S)|\s"),))),
    ("qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 hunyuan solar-open megrez grok-2", PreTokenizer((_QWEN2,))),
    ("qwen35", PreTokenizer((_like_llama3(r"\p{N}", letters=r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        others=r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),))),
    ("ufakzeka", PreTokenizer((_like_llama3(r"\p{N}", start=""),))),
    ("laguna", PreTokenizer((r"[^\n]+|[\n]+", _QWEN2))),
    ("seed-coder", PreTokenizer((_like_llama3(r"\p{N}", others=r" ?[^\s\p{L}\p{N}\r\n]+"),))),
    ("bailingmoe bailingmoe2 llada-moe", PreTokenizer((_like_llama3(r"\p{N}",
        start="'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|", lines=r"\s*[\r\n]|\s+(?!\S)|\s+"),))),
    ("exaone-moe", PreTokenizer((_like_llama3(r"\p{N}", letters=r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
        others=r" ?[^\s\p{L}\p{N}]+[\r\n/]?", lines=r"\s*[\r\n]|\s+(?!\S)|\s+"),))),
    ("tekken", PreTokenizer((_cased(_UPPER, _LOWER, r"\p{N}"),), True, True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer((_GPT4O,))),
    ("granite-embed-multi-97m", PreTokenizer((_cased(r"(?:(?=[\p{L}\p{M}])[^a-z])", r"(?:(?=[\p{L}\p{M}])[^A-Z])", r"\p{N}{1,3}",
        _ANY_CASE + "?"),), True)),
    # The names of categories within L mean all of L there.
    ("youtu", PreTokenizer((r"[\uAC00-\uD7A3\u3131-\u318E]+|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A\uFF1B\uFF0C"
        r"\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|" + _ASIAN,
        _cased(r"[\p{L}\p{M}]", r"[\p{L}\p{M}]", r"\p{N}", _ANY_CASE + "?")), True)),
    ("deepseek-llm", PreTokenizer((r"[\r\n]", rf"\s?[{_CASED}]+",
        r"\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", r"\s+\z", r"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
        r"\p{N}+"))),
    ("deepseek-coder", PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
        r"\p{N}"))),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", PreTokenizer(_DEEPSEEK3)),
    ("spark2_5", PreTokenizer((r"\p{N}{1,3}", _ASIAN, rf"{_SIGNS}|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"))),
    ("falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    ("starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", PreTokenizer((r"\p{N}", _GPT2))),
    ("gpt-2 gpt2 phi-2 mpt olmo jais trillion granite-docling exaone4 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 "
        "mellum modern-bert jina-v1-en jina-v2-code roberta-bpe", PreTokenizer((_GPT2,))),
    ("poro-chat bloom gpt3-finnish", PreTokenizer((_BLOOM,))),
    ("viking", PreTokenizer((_BLOOM, r"\p{N}"))),
    ("superbpe", PreTokenizer((r"\p{N}+", _FROM_RIGHT))),
    ("chameleon", PreTokenizer((r"<sentinel:[0-9]+>", r"(?:IMGIMG)(?:[A-I]{1,4})Z", r"[\t\n]|    |  ", r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]", _GPT2), False, True)),
]
KINDS = {name: kind for names, kind in _KINDS for name in names.split()}
# All that are here, and as public tokenizer.json files write them: they take no long time on any text.
FAST = {p for kind in KINDS.values() for p in kind.patterns}
FAST |= {p.replace(_ANY_CASE, "(?i:'s|'t|'re|'ve|'m|'ll|'d)") for p in FAST} | {
    _cased(*_MARKED, r"\p{N}{1,3}", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"), _cased(*_MARKED, r"\p{N}")}
# Names that llama.cpp has besides: pieces are not written in bytes there, or the rule is no regular expression, or one that its
# own library reads in another way (a border of a word inside a look-ahead: tiny_aya, cohere2moe).
OTHERS = ("afmoe", "cohere2moe", "gemma4", "granite-embed-multi-311m", "kimi-k2", "sarvam-moe", "tiny_aya", "whitespace")


def steps(name):
    """(`steps` of a Tokenizer, whether BOS is added) of the pre-tokenizer `name`; ValueError if it is not supported."""
    check(name not in OTHERS, f"pre-tokenizer {name!r} is not supported: its rule is no plain regular expression over bytes")
    check(name in KINDS, f"pre-tokenizer {name[:40]!r} is unknown, known are {', '.join(KINDS)}")
    kind = KINDS[name]
    return by_patterns(kind.patterns, kind.whole), kind.add_bos


def by_patterns(patterns, whole=False):
    """`steps` of a byte-level Tokenizer whose words are what `patterns` cut, one after the other."""
    parts = [dict(type="Split", pattern=dict(Regex=p), behavior="Isolated", invert=False) for p in patterns]
    last  = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
    return dict(normalizer=None, pre_tokenizer=dict(type="Sequence", pretokenizers=[*parts, last]),
        model=dict(ignore_merges=whole))
