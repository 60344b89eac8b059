"""Triton's requests as rows for the encoder, and its vectors as their answers.

All requests that came together are computed together. Knows nothing about Triton's Python API.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triton_models.embedding.encoder import Encoder, Row
from triton_models.errors import EngineError, InvalidArgumentError, PromptTooLongError

logger = logging.getLogger(__name__)

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSettings:
    """The names are those of the parameters in embedding/config.pbtxt."""

    artefact_dir: Path
    max_input_len: int
    vocab_size: int
    max_num_tokens: int = 1024  # of one pass; more are no faster
    num_threads: int = 0  # 0: one for each core


class EmbeddingService:
    """Answers requests with vectors or with errors, each its own."""

    def __init__(self, encoder: Encoder, settings: EmbeddingSettings) -> None:
        self._encoder = encoder
        self._settings = settings

    def answer(self, requests: Sequence[Tensors]) -> list[NDArray[np.float32] | EngineError]:
        """The vectors of each request's rows, [rows, embedding_size], or why there are none."""
        decoded = [self._decode(tensors) for tensors in requests]
        rows = [row for one in decoded if not isinstance(one, EngineError) for row in one]
        try:
            embeddings = self._encoder.encode(rows)
        except Exception as exc:  # whatever the engine does: the requests get an answer
            logger.exception("encoding failed")
            failure = EngineError(f"Engine error: {exc}")
            return [one if isinstance(one, EngineError) else failure for one in decoded]
        answers: list[NDArray[np.float32] | EngineError] = []
        start = 0
        for one in decoded:
            if isinstance(one, EngineError):
                answers.append(one)
                continue
            answers.append(embeddings[start : start + len(one)])
            start += len(one)
        return answers

    def _decode(self, tensors: Tensors) -> list[Row] | EngineError:
        try:
            rows = decode_rows(tensors)
            for row in rows:
                self._check(row)
        except EngineError as exc:
            return exc
        return rows

    def _check(self, row: Row) -> None:
        settings = self._settings
        if len(row) > settings.max_input_len:
            raise PromptTooLongError(len(row), settings.max_input_len)
        if row.min() < 0 or row.max() >= settings.vocab_size:
            raise InvalidArgumentError("input_ids", f"token ids are 0 to {settings.vocab_size - 1}")


def decode_rows(tensors: Tensors) -> list[Row]:
    """The rows of one request, cut to their lengths. Raises InvalidArgumentError."""
    token_ids = tensors.get("input_ids")
    if token_ids is None or token_ids.ndim != 2 or token_ids.size == 0:
        raise InvalidArgumentError("input_ids", "not [rows, tokens]")
    num_rows, width = token_ids.shape
    lengths = tensors.get("input_lengths")
    if lengths is None:
        return list(token_ids)
    if lengths.size != num_rows:
        raise InvalidArgumentError("input_lengths", f"{lengths.size} lengths for {num_rows} rows")
    if lengths.min() < 1 or lengths.max() > width:
        raise InvalidArgumentError("input_lengths", f"lengths are 1 to {width}")
    flat = lengths.reshape(-1).tolist()
    return [row[:length] for row, length in zip(token_ids, flat, strict=True)]
