"""Reads SentencePiece's `tokenizer.model`, a protocol buffer, without its library.

Source of the field numbers: sentencepiece, src/sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from build_engines.errors import SourceError
from build_engines.tokenizers.sentencepiece import Normalization, Piece

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BPE = 2


class Kind(IntEnum):
    """ModelProto.SentencePiece.Type"""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceFile:
    """The places of pieces are their ids."""

    pieces: list[Piece]
    kinds: list[Kind]
    normalization: Normalization


def read_sentencepiece_file(path: Path) -> SentencePieceFile:
    """Raises SourceError for a file that is broken or has no BPE."""
    pieces: list[Piece] = []
    kinds: list[Kind] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                piece, kind = _piece(_message(value))
                pieces.append(piece)
                kinds.append(kind)
            elif number == 2:
                trainer = _message(value)
            elif number == 3:
                normalizer = _message(value)
    except (ValueError, IndexError, TypeError, KeyError, struct.error) as exc:
        raise SourceError(f"{path} is not a whole SentencePiece model: {exc}") from exc
    if trainer.get(3, 1) != _BPE:
        raise SourceError(
            f"{path} is a SentencePiece model of another kind than BPE: not supported"
        )
    charsmap = normalizer.get(2, b"")
    return SentencePieceFile(
        pieces=pieces,
        kinds=kinds,
        normalization=Normalization(
            adds_space=bool(normalizer.get(3, 1)),
            collapses_spaces=bool(normalizer.get(4, 1)),
            charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        ),
    )


def _piece(message: dict[int, int | bytes]) -> tuple[Piece, Kind]:
    text, score, number = message[1], message.get(2, bytes(4)), message.get(3, Kind.NORMAL.value)
    if not (isinstance(text, bytes) and isinstance(score, bytes) and isinstance(number, int)):
        raise ValueError("a piece without text")
    kind = Kind(number)
    piece = Piece(
        text=text.decode(),
        score=struct.unpack("<f", score)[0],
        is_mergeable=kind in (Kind.NORMAL, Kind.USER_DEFINED),
    )
    return piece, kind


def _message(raw: int | bytes) -> dict[int, int | bytes]:
    if not isinstance(raw, bytes):
        raise ValueError("a number in the place of a message")
    return dict(_fields(raw))


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers of fields and their values: bytes, but for variable-length integers.

    Source: the encoding of protocol buffers, protobuf.dev/programming-guides/encoding.
    """
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind = tag & 7
        if kind == _VARINT:
            number, at = _varint(raw, at)
            yield tag >> 3, number
            continue
        if kind == _BYTES:
            size, at = _varint(raw, at)
        else:
            size = {_FIXED32: 4, _FIXED64: 8}[kind]
        if at + size > len(raw):
            raise ValueError("it ends too early")
        yield tag >> 3, raw[at : at + size]
        at += size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
