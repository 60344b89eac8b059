"""The Engine protocol: token ids in, token ids or vectors out. It knows no HTTP, JSON or text."""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from frontend.types import GenerationRequest, LoadedModel, ServedVersion, TokenChunk


class TokenSource(Protocol):
    """What generates tokens."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        """Yield chunks until every sequence has had its finish_reason.

        Closing the generator cancels the request. A failure, also one in the middle, is raised as
        a ServingError; the generator never ends without the finish reasons otherwise. ModelChanged
        comes before the first chunk only.
        """
        ...


class Engine(TokenSource, Protocol):
    """All that an engine does: Triton in production, a fake in tests."""

    async def loaded_model(self, name: str, *, is_asked_anew: bool = False) -> LoadedModel:
        """Tell what the model can do now; what was told is remembered for a second.

        Raises:
            ModelNotLoaded: the engine does not serve it now.
            EngineUnavailable: the engine cannot be reached.
        """
        ...

    async def embed(
        self,
        model: str,
        rows: Sequence[Sequence[int]],
        *,
        prepared_for: ServedVersion | None = None,
    ) -> list[array[float]]:
        """Return one vector (float32, length 1) for each row of token ids, in their order.

        Raises:
            ModelChanged: what the engine serves now is not what the rows were `prepared_for`.
            InvalidParameter: the model makes no embeddings.
            ServingError: the request was refused, has failed, or the engine is gone.
        """
        ...

    async def ready(self) -> bool:
        """Whether the engine answers now."""
        ...

    async def close(self) -> None:
        """End all streams and connections."""
        ...
