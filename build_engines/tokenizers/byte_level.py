"""Makes byte-level BPE tokenizers, which have a token for every byte and need no unknown one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models

from build_engines.errors import ConversionError
from build_engines.tokenizers.cuts import pre_tokenizer


def byte_level(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    expressions: tuple[str, ...],
    *,
    keeps_words: bool,
) -> Tokenizer:
    """
    Args:
        vocabulary: token -> id; a token has a letter for each of its bytes.
        merges: the first is done first.
        expressions: what a text is cut by.
        keeps_words: a word that is a token is taken whole, whatever the merges make of it.

    Raises:
        ConversionError: the merges are not of this vocabulary.
    """
    try:
        model = models.BPE(vocab=dict(vocabulary), merges=list(merges), ignore_merges=keeps_words)
    except Exception as exc:  # the library has no type for it
        raise ConversionError(f"the tokenizer's merges do not fit its tokens: {exc}") from exc
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer(expressions)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def all_merges(best_first: Sequence[str]) -> list[tuple[str, str]]:
    """All ways to make a token of two others, in the tokens' order.

    Where the format has ranks of tokens and no merges, any two neighbours merge that make a token.
    Source: `generate_merges` of transformers' convert_slow_tokenizer.py.
    """
    known = frozenset(best_first)
    return [
        (text[:cut], text[cut:])
        for text in best_first
        for cut in range(1, len(text))
        if text[:cut] in known and text[cut:] in known
    ]


def as_letters(token: bytes) -> str:
    """A letter for each byte, as vocabularies write them."""
    return "".join(_LETTERS[byte] for byte in token)


def _letters_of_bytes() -> list[str]:
    """Source: `bytes_to_unicode` of GPT-2's encoder.py."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_LETTERS = _letters_of_bytes()
