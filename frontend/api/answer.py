"""One generated answer, in whatever shape its encoder writes: whole, or as it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from sanic import HTTPResponse, Request

from frontend.api.responses import json_response
from frontend.api.sse import KEEP_ALIVE_COMMENT, send_events

Chunk = TypeVar("Chunk")
Chunk_contra = TypeVar("Chunk_contra", contravariant=True)


class Encoder(Protocol[Chunk_contra]):
    async def encode(self, chunks: AsyncIterator[Chunk_contra]) -> dict[str, Any]:
        """Fold the stream into one body."""

    def encode_stream(self, chunks: AsyncIterator[Chunk_contra]) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream."""


async def send_answer(
    request: Request,
    encoder: Encoder[Chunk],
    chunks: AsyncGenerator[Chunk, None],
    *,
    is_stream: bool,
    keep_alive: bytes = KEEP_ALIVE_COMMENT,
) -> HTTPResponse | None:
    """Answer with the chunks; they are closed when the client leaves."""
    async with aclosing(chunks):
        if not is_stream:
            return json_response(await encoder.encode(chunks))
        await send_events(request, encoder.encode_stream(chunks), keep_alive=keep_alive)
    return None
