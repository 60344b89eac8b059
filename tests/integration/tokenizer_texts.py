"""Texts that tokenizers differ in: many scripts, spaces, digits, marks and special tokens."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator

TEXTS = [
    "",
    " ",
    "I'll say they've 12 of 345,  isn't it?\n\n\t x",
    "'S 'LL 'Ve I'M o'clock",
    "你好，世界！请解释人工智能的概念。２０２４年、三千元",
    "日本語とカタカナ、한국어, ไทย, हिन्दी, עברית, العربية ٣٤",
    "def f(x: int) -> int:\n    return x**2  # ok\n\n\nif __name__ == '__main__':\n\tf(0x1F)\n",
    "👩‍👩‍👧‍👦 👨🏽‍💻 🇫🇷 ❤️ é e\u0301 z\u0335\u0301",
    "   \u3000\xa0 a\u2003b \r\n\r\n \x0b\x0c\x85\u2028\u2029 end   ",
    "<|im_start|>user\nhi <|im_end|> <|endoftext|>x<repo_name><|im_",
    "½ Ⅻ ① ٣٤ 1st 2nd 3.14159 1,000,000 -5e10",
    "\ufeffabc \u200b \u200d \u00ad \x00\x01\x7f",
    "a_b__c --- ... !!! ?! #$%^&*()[]{}<>/\\|~`",
]
# fmt: off
PIECES = [
    " ", "  ", "\n", "\t", "\r\n", "\u3000", "\xa0", "a", "B", "the", "'s", "'ll", "'", "_", "-",
    "1", "23", "½", "٣", "Ⅻ", "你", "好", "，", "。", "é", "e\u0301", "👍", "🏽", "\u200d", "👩",
    "!", "…", "क", "ि", "ไ", "Ω", "ß", "\ufe0f", "<|im_end|>", "<|", "|>", "<empty_output>",
    "\u00ad",
]
WORDS = [
    "hello", "world", "Hello", "HTTPServer", "aaa", "----", "====", "\n\n\n", "    ", "1234567",
    "привет", "Мир", "ing", "tion", "philosophy", "sop", "中文", "模型", "、", ".", ",", ")",
    "/", "::",
]
# fmt: on
_PLAIN = (
    "The quick brown fox jumps over the lazy dog, then it isn't there any more: 1234 of 56789 "
    "foxes say 'hello' (don't they?). Philosophers call this sophistry! "
    "人工智能是计算机科学的一个分支，它研究智能的实质。机器学习、深度学习和自然语言处理都是它的领域。"
    "Быстрая коричневая лиса прыгает через ленивую собаку. "
    "def main(argv: list[str]) -> int:\n    for i in range(100):\n        print(i)\n"
    "    return 0\n\n\n"
)


def corpus() -> list[str]:
    """Texts to train small vocabularies on, the same in every run.

    Without what ChatGLM3 names a special token: a vocabulary has no two of the same text.
    """
    words = _PLAIN.split(" ")
    chance = random.Random(1)
    plain = [" ".join(chance.choices(words, k=30)) for _ in range(150)]
    return [text.replace("sop", "") for text in (_PLAIN, *plain, *mixed_texts(300))]


def mixed_texts(count: int, *, seed: int = 7) -> Iterator[str]:
    """All of TEXTS, alone and joined, then `count` random ones."""
    yield from TEXTS
    yield "\n".join(TEXTS)
    chance = random.Random(seed)
    for _ in range(count):
        yield "".join(chance.choices(PIECES + WORDS, k=chance.randint(1, 25)))


def code_points() -> Iterator[str]:
    """Every assigned character up to the end of the third plane."""
    for number in range(0x323B0):
        character = chr(number)
        if unicodedata.category(character) not in ("Cn", "Cs"):
            yield character
