"""Makes byte-level BPE tokenizers, which have a token for every byte and need no unknown one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models

from build_engines.errors import ConversionError
from build_engines.tokenizers.cuts import CUTS, WHOLE_WORDS, pre_tokenizer


def byte_level(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], cut: str
) -> Tokenizer:
    """
    Args:
        vocabulary: token -> id; a token has a letter for each of its bytes.
        merges: the first is done first.
        cut: of CUTS.

    Raises:
        ConversionError: the merges are not of this vocabulary.
    """
    return bpe(vocabulary, merges, CUTS[cut], keeps_words=cut in WHOLE_WORDS)


def bpe(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    expressions: tuple[str, ...],
    *,
    keeps_words: bool,
) -> Tokenizer:
    """The same with the expressions themselves."""
    try:
        model = models.BPE(vocab=dict(vocabulary), merges=list(merges), ignore_merges=keeps_words)
    except Exception as exc:  # the library has no type for it
        raise ConversionError(f"the tokenizer's merges do not fit its tokens: {exc}") from exc
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer(expressions)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
