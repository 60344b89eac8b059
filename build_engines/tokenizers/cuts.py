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
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅ"
    "ὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎ"
    "ꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
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
# These take a word that is a token whole, whatever the merges would make of it.
WHOLE_WORDS = frozenset(
    {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
     "tekken", "minicpm5"}
)  # fmt: skip


def pre_tokenizer(expressions: tuple[str, ...]) -> pre_tokenizers.PreTokenizer:
    """Cuts by the expressions, then writes each byte as a letter."""
    splits = [pre_tokenizers.Split(Regex(one), "isolated") for one in expressions]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, letters])
