"""The wire shapes of the native surface, /api/v1."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

import msgspec
import orjson

from frontend.protocol.limits import NOT_EMPTY, check_limits, entries, shown_as
from frontend.protocol.sampling import SamplingFields
from frontend.protocol.wire import encode_usage, sse_event
from frontend.types import FinishReason, TextChunk, Usage

MAX_BATCH_REQUESTS = 256


class GenerateRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    prompt: Annotated[str, NOT_EMPTY]
    stream: bool | None = None
    apply_chat_template: bool | None = None  # None: yes


RawRequest = Annotated[msgspec.Raw, shown_as(GenerateRequest)]


class BatchGenerateRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The requests stay raw: one that is wrong fails alone."""

    requests: Annotated[list[RawRequest], entries(1, MAX_BATCH_REQUESTS)]

    def check(self) -> None:
        check_limits(self)


class LoadRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    quantization: str | None = None
    prefer_gpu: bool | None = None


class GenerateEncoder:
    """Writes one request's answer, plain or as stream events."""

    def __init__(self, *, num_prompt_tokens: int) -> None:
        self._num_prompt_tokens = num_prompt_tokens
        self._started = time.monotonic()

    async def encode_stream(self, chunks: AsyncIterator[TextChunk]) -> AsyncGenerator[bytes, None]:
        """Yield SSE events; the last one has `finished: true`, the finish reason and the usage."""
        num_tokens = 0
        async for chunk in chunks:
            num_tokens += chunk.num_tokens
            if chunk.finish_reason:
                end = self._end(chunk.finish_reason, num_tokens)
                yield sse_event({"token": chunk.text, "finished": True, **end})
            elif chunk.text:
                yield b'data: {"token":%b,"finished":false}\n\n' % orjson.dumps(chunk.text)

    async def encode(self, chunks: AsyncIterator[TextChunk]) -> dict[str, Any]:
        """Fold the same stream into one body."""
        texts: list[str] = []
        num_tokens = 0
        reason: FinishReason | None = None
        async for chunk in chunks:
            texts.append(chunk.text)
            num_tokens += chunk.num_tokens
            reason = chunk.finish_reason
        assert reason is not None, "generate() ends with a finish reason or raises"
        return {"text": "".join(texts), **self._end(reason, num_tokens)}

    def _end(self, reason: FinishReason, num_tokens: int) -> dict[str, Any]:
        usage = Usage(prompt_tokens=self._num_prompt_tokens, completion_tokens=num_tokens)
        return {
            "usage": encode_usage(usage),
            "latency": round(time.monotonic() - self._started, 4),
            "finish_reason": reason,
        }


KEEP_ALIVE_EVENT = b'data: {"token":"","finished":false}\n\n'
