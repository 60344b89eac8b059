"""Makes tokenizers out of the pieces of SentencePiece's BPE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers

from build_engines.errors import ConversionError
from build_engines.tokenizers.byte_level import all_merges

SPACE = "▁"
NUM_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """`score`: of two merges the one that makes the piece with the higher score comes first."""

    text: str
    score: float
    is_mergeable: bool  # a normal piece: what merges make


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """What happens to a text, or a part of it between special tokens, before it is cut.

    `charsmap`: SentencePiece's compiled table of replacements, empty for none.
    """

    adds_space: bool
    collapses_spaces: bool = False
    charsmap: bytes = b""


def sentencepiece_bpe(
    pieces: Sequence[Piece], normalization: Normalization, *, unknown: str | None
) -> Tokenizer:
    """
    Args:
        pieces: their places are their ids.
        unknown: the piece for what has none, where there are no pieces for bytes.

    Raises:
        ConversionError: there are two pieces of the same text, or neither bytes nor `unknown`.
    """
    vocabulary = {piece.text: index for index, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise ConversionError("the tokenizer has two tokens of the same text")
    has_bytes = all(f"<0x{byte:02X}>" in vocabulary for byte in range(NUM_BYTES))
    if not has_bytes and unknown is None:
        raise ConversionError("the tokenizer has no tokens for bytes and none for the unknown")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(pieces),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=has_bytes,
        )
    )
    tokenizer.normalizer = _normalizer(normalization)
    tokenizer.decoder = _decoder(normalization)
    return tokenizer


def merged_pieces(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], *, unknown: str | None
) -> Tokenizer:
    """The same where the merges are known, as in Gemma 4.

    Raises:
        ConversionError: the merges are not of this vocabulary.
    """
    try:
        model = models.BPE(
            vocab=dict(vocabulary),
            merges=list(merges),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    except Exception as exc:  # the library has no type for it
        raise ConversionError(f"the tokenizer's merges do not fit its tokens: {exc}") from exc
    tokenizer = Tokenizer(model)
    normalization = Normalization(adds_space=False)
    tokenizer.normalizer = _normalizer(normalization)
    tokenizer.decoder = _decoder(normalization)
    return tokenizer


def _merges(pieces: Iterable[Piece]) -> list[tuple[str, str]]:
    """All ways to make a piece of two others, the best piece first."""
    mergeable = [piece for piece in pieces if piece.is_mergeable]
    best_first = sorted(mergeable, key=lambda piece: -piece.score)
    return all_merges([piece.text for piece in best_first])


def _normalizer(normalization: Normalization) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if normalization.charsmap:
        steps.append(normalizers.Precompiled(normalization.charsmap))
    if normalization.collapses_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if normalization.adds_space:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _decoder(normalization: Normalization) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if normalization.adds_space:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)
