"""What /v1/models and /v1/embeddings answer."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from frontend.protocol.answers.base import Answer


class Model(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: Annotated[int, Meta(description="Tokens of prompt and answer together.")]


class Models(Answer):
    object: Literal["list"]
    data: list[Model]


class Embedding(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | Annotated[str, Meta(description="Base64 of little-endian float32.")]


class EmbeddingUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Answer):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
