"""Wire requests -> rows of token ids for an embedding model. What leaves is valid."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from frontend.catalog import Catalog
from frontend.engine import Engine
from frontend.errors import ContextLengthExceeded, InvalidParameter
from frontend.protocol.embeddings import EmbeddingRequest
from frontend.protocol.inputs import Input, Inputs, input_param
from frontend.protocol.parse import check_range
from frontend.text.tokenizer import TextTokenizer
from frontend.types import ModelLimits, ServedVersion

# Tokenizing takes about 1 ms for 10 kB; above this much it would hold up the other requests.
OFF_LOOP_CHARS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEmbedding:
    """A request ready for the engine."""

    model: str
    prepared_for: ServedVersion | None
    rows: list[list[int]]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.rows))


async def prepare_embedding(
    body: EmbeddingRequest, *, catalog: Catalog, engine: Engine
) -> PreparedEmbedding:
    """
    Raises:
        InvalidRequest: a field's value, a model that makes no embeddings, or an input too long.
        ModelNotFound, ModelNotLoaded, EngineUnavailable: nothing can serve it now.
    """
    body.check()
    model = catalog.get(body.model)
    loaded = await engine.loaded_model(model.name)
    if loaded.embedding_size is None:
        raise InvalidParameter("model", "makes_no_embeddings", model=model.name)
    check_range("dimensions", body.dimensions, 1, loaded.embedding_size)
    inputs = body.inputs()
    tokenizer = catalog.tokenizer(catalog.served(loaded))
    num_chars = sum(len(one) for one in inputs if isinstance(one, str))
    if num_chars > OFF_LOOP_CHARS:
        rows = await asyncio.to_thread(_tokenize, inputs, tokenizer)
    else:
        rows = _tokenize(inputs, tokenizer)
    _check_rows(rows, loaded.limits, inputs=body.input)
    return PreparedEmbedding(model=model.name, prepared_for=loaded.served, rows=rows)


def _tokenize(inputs: Sequence[Input], tokenizer: TextTokenizer) -> list[list[int]]:
    return [
        tokenizer.encode(one, add_special_tokens=True) if isinstance(one, str) else one
        for one in inputs
    ]


def _check_rows(rows: Sequence[list[int]], limits: ModelLimits, *, inputs: Inputs) -> None:
    for index, row in enumerate(rows):
        param = input_param("input", inputs, index)
        if len(row) > limits.max_input_len:
            raise ContextLengthExceeded(
                param=param, num_tokens=len(row), max_tokens=limits.max_input_len
            )
        for token_id in (min(row), max(row)):
            check_range(param, token_id, 0, limits.vocab_size - 1)
