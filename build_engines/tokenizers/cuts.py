"""How byte-level BPE cuts a text before its merges, by the name that GGUF files give it.

A cut is a list of regular expressions; each one splits what those before it have left.
Source: the `pre_tokenizer` of the models' own tokenizer.json; the names (`tokenizer.ggml.pre`) are
llama.cpp's, src/llama-vocab.cpp. Its own expressions stand for these where its engine lacks a
property of Unicode, and differ then in words of mixed case in other scripts than Latin.
"""

from __future__ import annotations

from tokenizers import Regex, pre_tokenizers

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s+(?!\S)|\s+"


def _words(
    digits: str,
    *,
    before: str = f"{_CONTRACTIONS}|",
    letters: str = r"\p{L}",
    marks: str = "",
    signs_end: str = r"[\r\n]*",
    lines: str = r"\s*[\r\n]+",
) -> str:
    """The expression of cl100k and its children.

    Args:
        before: alternatives that come first.
        letters: what words are of.
        marks: what is neither a word's nor a sign, beside letters and digits.
        signs_end: what may follow signs.
    """
    return (
        rf"{before}[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}"
        rf"| ?[^\s\p{{L}}{marks}\p{{N}}]+{signs_end}|{lines}|{_SPACES}"
    )


def _cased_words(digits: str, contractions: str = "") -> str:
    """The expression of o200k and its children: a new word begins at a capital letter."""
    upper, lower = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
    start = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{start}[{upper}]*[{lower}]+{contractions}|{start}[{upper}]+[{lower}]*{contractions}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACES}"
    )


_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_UP_TO_3, _SINGLE = r"\p{N}{1,3}", r"\p{N}"
_LLAMA3, _QWEN2 = _words(_UP_TO_3), _words(_SINGLE)
_ASCII_SIGNS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK3 = (
    _UP_TO_3,
    "[一-龥぀-ゟ゠-ヿ]+",
    rf"{_ASCII_SIGNS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}",
)
# The letters that have a case, in the version of Unicode that DeepSeek's maker had.
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-"
    "\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-"
    "\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-"
    "\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc"
    "\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-"
    "\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-"
    "\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-"
    "\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-"
    "\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-"
    "\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-"
    "\U000118df\U0001e900-\U0001e943"
)
_CHINESE = "[一-龥ࠀ-一가-퟿]+"
_SENTENCE_SIGNS = r" ?[^(\s|.,!?…。，、।۔،)]+"

_FORMS: dict[tuple[str, ...], tuple[str, ...]] = {
    (
        *("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat"),
        *("a.x-4.0", "mellum", "exaone4"),
    ): (_GPT2,),
    (
        *("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        "mellum2",
    ): (_SINGLE, _GPT2),
    (
        *("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        *("dbrx", "smaug-bpe", "chatglm-bpe", "glm4"),
    ): (_LLAMA3,),
    (
        *("qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2", "hunyuan", "solar-open"),
        "grok-2",
    ): (_QWEN2,),
    ("qwen35",): (_words(_SINGLE, letters=r"[\p{L}\p{M}]", marks=r"\p{M}"),),
    ("minicpm5",): (_UP_TO_3, _words(r"\p{N}+")),
    ("laguna",): (r"[^\n]+|[\n]+", _QWEN2),
    ("ufakzeka",): (_words(_SINGLE, before=""),),
    ("bailingmoe", "bailingmoe2", "llada-moe"): (_words(_SINGLE, lines=r"\s*[\r\n]"),),
    ("seed-coder",): (_words(_SINGLE, marks=r"\r\n", signs_end=""),),
    ("gpt-4o", "llama4", "kanana2", "minimax-m2"): (_cased_words(_UP_TO_3, f"{_CONTRACTIONS}?"),),
    ("tekken",): (_cased_words(_SINGLE),),
    ("deepseek-llm",): (
        r"[\r\n]",
        rf"\s?[{_DEEPSEEK_LETTERS}]+",
        r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
        r"\s+$",
        _CHINESE,
        r"\p{N}+",
    ),
    ("deepseek-coder",): (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, _SINGLE),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm"): _DEEPSEEK3,
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    ("bloom", "poro-chat", "gpt3-finnish"): (_SENTENCE_SIGNS,),
    ("viking",): (_SENTENCE_SIGNS, _SINGLE),
    ("default",): (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}
CUTS: dict[str, tuple[str, ...]] = {
    name: expressions for names, expressions in _FORMS.items() for name in names
}
# These take a word that is a token whole, and begin a text, if the file says nothing else.
LLAMA3_LIKE = frozenset(
    {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
     "tekken"}
)  # fmt: skip
# These compose characters first (Unicode's NFC), which llama.cpp leaves out.
COMPOSING = frozenset({"qwen2", "qwen35"})


def pre_tokenizer(expressions: tuple[str, ...]) -> pre_tokenizers.PreTokenizer:
    """Cuts by the expressions, then writes each byte as a letter."""
    splits = [pre_tokenizers.Split(Regex(one), "isolated") for one in expressions]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, letters])
