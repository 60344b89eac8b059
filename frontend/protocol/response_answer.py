"""What /v1/responses answers: typed events; the last one holds the whole response.

Source: the types of the openai SDK 3.54, ResponseStreamEvent. A plain answer is the response of
the last event of the same stream.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import orjson

from frontend.errors import InvalidRequest, RateLimited, ServingError
from frontend.messages import Language
from frontend.protocol.log_probs import TokenTexts, chat_log_probs
from frontend.protocol.response_items import Item
from frontend.protocol.response_output import CallItem, MessageItem, OutputItem, ReasoningItem
from frontend.protocol.wire import UsageCounter
from frontend.types import FinishReason, TextChunk, ToolCallDelta

Event = dict[str, Any]
ENDINGS = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    "cancelled": "response.incomplete",  # the SDK knows no event of its own for it
}


class ResponseEncoder:
    """Writes one response, event by event.

    Args:
        fields: what the request fixes: its id, model, echoed fields.
    """

    def __init__(
        self,
        fields: dict[str, Any],
        *,
        num_prompt_tokens: int,
        tokens: TokenTexts,
        has_summary: bool,
        is_background: bool = False,
    ) -> None:
        self._fields = {**fields, **new_body()}
        self._tokens = tokens
        self._has_summary = has_summary
        self._is_background = is_background
        self._usage = UsageCounter(num_prompt_tokens=num_prompt_tokens)
        self._output: list[Item] = []
        self._item: OutputItem | None = None  # the one that grows now
        self._call_index = -1
        self._held_log_probs: list[dict[str, Any]] = []
        self._sequence_number = -1
        self._is_started = False

    def body(self, status: str) -> dict[str, Any]:
        """The response as it is now."""
        return {**self._fields, "status": status, "output": list(self._output)}

    def opening(self) -> list[Event]:
        """The first events; those of a background response come before the engine has it."""
        names = ["response.created", "response.queued"] if self._is_background else []
        names = names or ["response.created", "response.in_progress"]
        status = "queued" if self._is_background else "in_progress"
        return [self._numbered(name, response=self.body(status)) for name in names]

    async def events(self, chunks: AsyncIterator[TextChunk]) -> AsyncGenerator[Event, None]:
        """Yield the events from the first chunk on, the opening ones first if nobody has them yet.

        Raises:
            ServingError: generating failed; `failed` makes the last event then.
        """
        reason = None
        async for chunk in chunks:
            if not self._is_started:
                for event in self._start():
                    yield event
            self._usage.add(chunk)
            for event in self._grow(chunk):
                yield event
            reason = chunk.finish_reason or reason
        assert reason is not None, "generate() ends with a finish reason or raises"
        for event in self._end(is_cut=reason is FinishReason.LENGTH):
            yield event

    def failed(self, error: ServingError, language: Language = Language.EN) -> Event:
        """The last event of a response that fails in the middle."""
        if self._item is not None:
            self._output.append(self._item.shown("incomplete"))
            self._item = None
        self._fields["error"] = encode_error(error, language)
        self._fields["usage"] = encode_usage(self._usage)
        return ending_event(self.body("failed"), self._next_number())

    def _start(self) -> list[Event]:
        self._is_started = True
        if not self._is_background:
            return self.opening()
        return [self._numbered("response.in_progress", response=self.body("in_progress"))]

    def _grow(self, chunk: TextChunk) -> Iterator[Event]:
        if chunk.reasoning:
            if not isinstance(self._item, ReasoningItem):
                yield from self._begin(ReasoningItem(has_summary=self._has_summary))
            yield from self._delta(chunk.reasoning)
        self._hold_log_probs(chunk)
        if chunk.text:
            if not isinstance(self._item, MessageItem):
                yield from self._begin(MessageItem())
            held, self._held_log_probs = self._held_log_probs, []
            yield from self._delta(chunk.text, held)
        for call in chunk.tool_calls:
            yield from self._grow_call(call)

    def _hold_log_probs(self, chunk: TextChunk) -> None:
        """Keep the log-probs of the answer's own tokens until some of its text is certain."""
        log_probs = chat_log_probs(chunk, self._tokens)
        if log_probs is not None:  # the tokens of the reasoning are the first ones
            self._held_log_probs += log_probs["content"][chunk.num_reasoning_tokens :]

    def _grow_call(self, call: ToolCallDelta) -> Iterator[Event]:
        if call.index != self._call_index:
            self._call_index = call.index
            assert call.id is not None, "a call begins with its id and name"
            assert call.name is not None
            self._held_log_probs = []  # they are the call's
            yield from self._begin(CallItem(call_id=call.id, name=call.name))
        if call.arguments:
            yield from self._delta(call.arguments)

    def _begin(self, item: OutputItem) -> Iterator[Event]:
        """Make it the one that grows."""
        yield from self._close("completed")
        self._item = item
        yield from self._placed(item.opening())

    def _delta(self, text: str, log_probs: list[Any] | None = None) -> Iterator[Event]:
        assert self._item is not None
        yield from self._placed(iter((self._item.delta(text, log_probs or []),)))

    def _close(self, status: str) -> Iterator[Event]:
        if self._item is None:
            return
        yield from self._placed(self._item.closing(status))
        self._output.append(self._item.shown(status))
        self._item = None

    def _end(self, *, is_cut: bool) -> Iterator[Event]:
        status = "incomplete" if is_cut else "completed"
        if self._item is None and not self._output:
            yield from self._begin(MessageItem())  # an empty answer is an answer
        if self._held_log_probs and isinstance(self._item, MessageItem):
            yield from self._delta("", self._held_log_probs)
        yield from self._close(status)
        if is_cut:
            self._fields["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._fields["completed_at"] = int(time.time())
        self._fields["usage"] = encode_usage(self._usage)
        yield ending_event(self.body(status), self._next_number())

    def _placed(self, events: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[Event]:
        for name, fields in events:
            yield self._numbered(name, output_index=len(self._output), **fields)

    def _numbered(self, event_type: str, /, **fields: Any) -> Event:
        return {"type": event_type, "sequence_number": self._next_number(), **fields}

    def _next_number(self) -> int:
        self._sequence_number += 1
        return self._sequence_number


def new_body() -> dict[str, Any]:
    """The fields of a response that tell how it ended."""
    return {
        "object": "response",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "usage": None,
    }


def ending_event(response: dict[str, Any], sequence_number: int) -> Event:
    """The last event of a response that has ended, however it did."""
    name = ENDINGS[response["status"]]
    return {"type": name, "sequence_number": sequence_number, "response": response}


def error_event(error: ServingError, language: Language) -> Event:
    """All of a stream that never came to have a response."""
    return {
        "type": "error",
        "sequence_number": 0,
        "code": error.code,
        "message": error.message(language),
        "param": error.param,
    }


def sse_typed_event(event: Event) -> bytes:
    """One Server-Sent Event with its name."""
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


def encode_error(error: ServingError, language: Language) -> dict[str, str]:
    """`error` of a response that failed, with a code that the SDK knows."""
    code = "server_error"
    if isinstance(error, InvalidRequest):
        code = "invalid_prompt"
    elif isinstance(error, RateLimited):
        code = "rate_limit_exceeded"
    return {"code": code, "message": error.message(language)}


def encode_usage(counter: UsageCounter) -> dict[str, Any]:
    usage = counter.encode()
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": usage["completion_tokens_details"],
        "total_tokens": usage["total_tokens"],
    }
