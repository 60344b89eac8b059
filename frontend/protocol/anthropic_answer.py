"""What /v1/messages answers: one message, or stream events.

Source: the `anthropic` SDK 2.12.0, Message and RawMessageStreamEvent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import orjson

from frontend.errors import ServerOverloaded, ServingError
from frontend.messages import Language, render
from frontend.types import FinishReason, TextChunk, ToolCallDelta

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
OVERLOADED_STATUS = 529  # Anthropic's own
# Nobody verifies it, but SDKs drop a thinking block without one when they send it back.
SIGNATURE = "inflight"
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    OVERLOADED_STATUS: "overloaded_error",
}
_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
}
# Chat's fields, in errors of what comes behind the translation, and ours.
_PARAMS = {
    "max_completion_tokens": "max_tokens",
    "response_format": "output_config.format.schema",
    "stop": "stop_sequences",
}
_MARK = "\0"


def message_event(event: dict[str, Any]) -> bytes:
    """One Server-Sent Event; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def anthropic_status(error: type[ServingError]) -> int:
    return OVERLOADED_STATUS if issubclass(error, ServerOverloaded) else error.status


def anthropic_error_type(error: type[ServingError]) -> str:
    return _ERROR_TYPES.get(anthropic_status(error), "api_error")


def anthropic_error(exc: ServingError, language: Language, request_id: str) -> dict[str, Any]:
    param = exc.param and _PARAMS.get(exc.param, exc.param).replace(".function", "")
    values = {**exc.values, "param": param}
    return {
        "type": "error",
        "error": {
            "type": anthropic_error_type(type(exc)),
            "message": render(exc.key, language, values),
        },
        "request_id": request_id,
    }


class MessageEncoder:
    """Writes one request's answer, plain or as stream events."""

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        num_prompt_tokens: int,
        is_bound_by_context: bool,
    ) -> None:
        """
        Args:
            is_bound_by_context: the model's context has no room for as many tokens as were asked
                for, so that it is the limit that may be met.
        """
        self._message: dict[str, Any] = {
            "id": request_id,
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._num_prompt_tokens = num_prompt_tokens
        self._is_bound_by_context = is_bound_by_context
        self._num_cached_tokens = 0
        self._num_tokens = 0
        self._num_thinking_tokens = 0
        self._end: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}

    async def encode(self, chunks: AsyncIterator[TextChunk]) -> dict[str, Any]:
        """Fold the stream into one body."""
        blocks: list[tuple[dict[str, Any], list[str]]] = []
        kind: object = None
        async for chunk in chunks:
            self._count(chunk)
            for piece_kind, block, text in _pieces(chunk):
                if piece_kind != kind:
                    kind = piece_kind
                    blocks.append((block, []))
                blocks[-1][1].append(text)
        content = [_whole_block(block, "".join(texts)) for block, texts in blocks]
        return {**self._message, "content": content, **self._end, "usage": self._usage()}

    async def encode_stream(self, chunks: AsyncIterator[TextChunk]) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream; those that one chunk gives are one piece."""
        writer = BlockWriter()
        is_started = False
        async for chunk in chunks:
            self._count(chunk)
            events = b"" if is_started else self._start_event()
            is_started = True
            events += writer.write(chunk)
            if chunk.finish_reason:
                events += writer.close() + self._end_events()
            if events:
                yield events

    def _count(self, chunk: TextChunk) -> None:
        self._num_tokens += chunk.num_tokens
        self._num_thinking_tokens += chunk.num_reasoning_tokens
        if chunk.num_cached_tokens is not None:
            self._num_cached_tokens = chunk.num_cached_tokens
        if chunk.finish_reason:
            self._end = self._ending(chunk.finish_reason, chunk.stop_string)

    def _ending(self, reason: FinishReason, stop_string: str | None) -> dict[str, Any]:
        if reason is FinishReason.STOP and stop_string is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop_string}
        stop_reason = _STOP_REASONS[reason]
        if reason is FinishReason.LENGTH and self._is_bound_by_context:
            stop_reason = "model_context_window_exceeded"
        return {"stop_reason": stop_reason, "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self._num_prompt_tokens - self._num_cached_tokens,
            "cache_creation_input_tokens": 0,  # keeping a prompt costs nothing extra
            "cache_read_input_tokens": self._num_cached_tokens,
            "output_tokens": self._num_tokens,
            "output_tokens_details": {"thinking_tokens": self._num_thinking_tokens},
        }

    def _start_event(self) -> bytes:
        end = {"stop_reason": None, "stop_sequence": None}
        message = {**self._message, "content": [], **end, "usage": self._usage()}
        return message_event({"type": "message_start", "message": message})

    def _end_events(self) -> bytes:
        delta = {"type": "message_delta", "delta": self._end, "usage": self._usage()}
        return message_event(delta) + message_event({"type": "message_stop"})


class BlockWriter:
    """Text chunks -> the events of content blocks, of which one is open at a time."""

    def __init__(self) -> None:
        self._index = -1
        self._kind: object = None  # of the open block
        self._text_parts = (b"", b"")

    def write(self, chunk: TextChunk) -> bytes:
        events = b""
        for kind, block, text in _pieces(chunk):
            if kind != self._kind:
                events += self.close() + self._open(kind, block)
            if kind == "text":
                events += self._text_parts[0] + orjson.dumps(text) + self._text_parts[1]
            elif kind == "thinking":
                events += self._delta({"type": "thinking_delta", "thinking": text})
            else:
                events += self._delta({"type": "input_json_delta", "partial_json": text})
        return events

    def close(self) -> bytes:
        """End the open block, if there is one."""
        if self._kind is None:
            return b""
        events = b""
        if self._kind == "thinking":
            events = self._delta({"type": "signature_delta", "signature": SIGNATURE})
        self._kind = None
        return events + message_event({"type": "content_block_stop", "index": self._index})

    def _open(self, kind: object, block: dict[str, Any]) -> bytes:
        self._kind = kind
        self._index += 1
        if kind == "text":  # written for every token: all but its text is made once
            event = self._delta({"type": "text_delta", "text": _MARK})
            head, _, tail = event.partition(orjson.dumps(_MARK))
            self._text_parts = (head, tail)
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return message_event(start)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return message_event({"type": "content_block_delta", "index": self._index, "delta": delta})


def _pieces(chunk: TextChunk) -> Iterator[tuple[object, dict[str, Any], str]]:
    """What a chunk adds: a kind of block (each call is one of its own), its beginning, its text."""
    if chunk.reasoning:
        yield "thinking", {"type": "thinking", "thinking": "", "signature": ""}, chunk.reasoning
    if chunk.text:
        yield "text", {"type": "text", "text": ""}, chunk.text
    for call in chunk.tool_calls:
        yield call.index, _call_block(call), call.arguments


def _call_block(call: ToolCallDelta) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def _whole_block(block: dict[str, Any], text: str) -> dict[str, Any]:
    if block["type"] == "text":
        return {**block, "text": text}
    if block["type"] == "thinking":
        return {**block, "thinking": text, "signature": SIGNATURE}
    return {**block, "input": _input(text)}


def _input(arguments: str) -> dict[str, Any]:
    """The input of a call; empty when the answer was cut off within it, as `stop_reason` tells."""
    try:
        parsed = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
