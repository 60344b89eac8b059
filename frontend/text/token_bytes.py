"""The bytes that single tokens stand for, which no decoder of whole texts tells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary(Protocol):
    """What is needed of `tokenizers.Tokenizer`."""

    decoder: Any

    def id_to_token(self, id: int) -> str | None: ...

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str: ...

    def get_added_tokens_decoder(self) -> dict[int, Any]: ...


class TokenBytes:
    """Token id -> bytes, b"" for an id without a token.

    Byte-level BPE writes each byte as a letter, SentencePiece a space as "▁" and the bytes of what
    has no piece as <0x..>. What begins a text is not special here: its space is shown.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        kinds = _decoder_kinds(vocabulary.decoder)
        has_pieces = "ByteFallback" in kinds  # Gemma's added tokens for runs of spaces are pieces
        self._added: dict[int, bytes] = {
            token_id: token.content.encode()
            for token_id, token in vocabulary.get_added_tokens_decoder().items()
            if token.special or not has_pieces
        }
        self._read: Callable[[int, str], bytes] = self._reader(kinds)

    def __call__(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            return added
        piece = self._vocabulary.id_to_token(token_id)
        return b"" if piece is None else self._read(token_id, piece)

    def _reader(self, kinds: set[str]) -> Callable[[int, str], bytes]:
        if "ByteLevel" in kinds:
            return lambda _, piece: _byte_level(piece)
        if "ByteFallback" in kinds:
            return lambda _, piece: _sentencepiece(piece)
        return lambda token_id, _: self._vocabulary.decode([token_id]).encode()


def _decoder_kinds(decoder: Any) -> set[str]:
    """Types of a decoder and of those it is made of."""
    if decoder is None:
        return set()
    state = json.loads(decoder.__getstate__())
    return {one["type"] for one in (state, *state.get("decoders", ()))}


def _byte_level(piece: str) -> bytes:
    return b"".join(
        bytes((_BYTE_OF_LETTER[letter],)) if letter in _BYTE_OF_LETTER else letter.encode()
        for letter in piece
    )


def _sentencepiece(piece: str) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes((int(match[1], 16),))
    return piece.replace("▁", " ").encode()


def _bytes_of_letters() -> dict[str, int]:
    """ByteLevel's letter for each byte. Source: `bytes_to_unicode` of GPT-2's encoder.py."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_LETTER = _bytes_of_letters()
