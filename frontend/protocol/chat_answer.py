"""What /v1/chat/completions answers: one body, or stream chunks.

Source: OpenAI's API description 2.3.0, CreateChatCompletionResponse and its stream variant;
`reasoning_content` and `reasoning` as DeepSeek's API and vLLM have them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from frontend.protocol.log_probs import TokenTexts, chat_log_probs
from frontend.protocol.wire import UsageCounter, sse_event
from frontend.types import FinishReason, TextChunk, ToolCallDelta

CHUNK = "chat.completion.chunk"
_MARK = "\0"


@dataclass(slots=True, kw_only=True)
class ChatChoice:
    """What one sequence has said so far."""

    index: int
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    log_probs: list[dict[str, Any]] | None = None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def add(self, chunk: TextChunk, tokens: TokenTexts) -> None:
        self.texts.append(chunk.text)
        self.reasoning.append(chunk.reasoning)
        self.token_ids += chunk.token_ids
        for delta in chunk.tool_calls:
            self._add_call(delta)
        if (log_probs := chat_log_probs(chunk, tokens)) is not None:
            self.log_probs = self.log_probs or []
            self.log_probs += log_probs["content"]
        self.finish_reason = chunk.finish_reason or self.finish_reason

    def _add_call(self, delta: ToolCallDelta) -> None:
        if delta.id is not None:
            function = {"name": delta.name, "arguments": ""}
            self.calls.append({"id": delta.id, "type": "function", "function": function})
        self.calls[delta.index]["function"]["arguments"] += delta.arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswerOptions:
    """How the request wants its answer."""

    includes_usage: bool = False
    includes_token_ids: bool = False
    names_service_tier: bool = False  # the request did
    is_legacy_function: bool = False  # `function_call` in place of `tool_calls`
    prefix: str = ""  # shown before each answer: the message that is continued, with `echo`


class ChatEncoder:
    """Writes one request's answer, plain or as stream events."""

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        created: int,
        prompt_token_ids: list[int],
        fingerprint: str,
        tokens: TokenTexts,
        options: ChatAnswerOptions,
    ) -> None:
        self._base: dict[str, Any] = {
            "id": request_id,
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }
        if options.names_service_tier:
            self._base["service_tier"] = "default"  # there is no other
        self._prompt_token_ids = prompt_token_ids
        self._tokens = tokens
        self._options = options
        self._usage = UsageCounter(num_prompt_tokens=len(prompt_token_ids))
        self._delta_parts: dict[int, tuple[bytes, bytes]] = {}

    async def encode_stream(self, chunks: AsyncIterator[TextChunk]) -> AsyncGenerator[bytes, None]:
        """Yield SSE events: deltas, a finish chunk for each choice, the usage, [DONE]."""
        if self._options.includes_usage:
            self._base["usage"] = None  # in every chunk but the one that has it
        started: set[int] = set()
        async for chunk in chunks:
            self._usage.add(chunk)
            is_first = chunk.sequence_index not in started
            started.add(chunk.sequence_index)
            if event := self._encode_chunk(chunk, is_first=is_first):
                yield event
        if self._options.includes_usage:
            usage = self._usage.encode()
            yield sse_event({**self._base, "object": CHUNK, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    async def encode(self, chunks: AsyncIterator[TextChunk]) -> dict[str, Any]:
        """Fold the same stream into one body."""
        choices: dict[int, ChatChoice] = {}
        async for chunk in chunks:
            self._usage.add(chunk)
            index = chunk.sequence_index
            choices.setdefault(index, ChatChoice(index=index)).add(chunk, self._tokens)
        return {
            **self._base,
            "object": "chat.completion",
            "choices": [self._encode_choice(choices[index]) for index in sorted(choices)],
            "usage": self._usage.encode(),
            **self._prompt_ids(),
        }

    def _encode_chunk(self, chunk: TextChunk, *, is_first: bool) -> bytes:
        index = chunk.sequence_index
        event = b""
        if (
            is_first
            or chunk.reasoning
            or chunk.tool_calls
            or chunk.log_probs is not None
            or self._options.includes_token_ids
        ):
            event = self._full_event(chunk, is_first=is_first)
        elif chunk.text:
            event = self._text_event(index, chunk.text)
        if chunk.finish_reason:
            event += self._event(index, {}, reason=self._reason(chunk.finish_reason))
        return event

    def _full_event(self, chunk: TextChunk, *, is_first: bool) -> bytes:
        return self._event(
            chunk.sequence_index,
            self._delta(chunk, is_first=is_first),
            log_probs=chat_log_probs(chunk, self._tokens),
            token_ids=chunk.token_ids,
            has_prompt_ids=is_first,
        )

    def _delta(self, chunk: TextChunk, *, is_first: bool) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        text = chunk.text
        if is_first:
            delta["role"] = "assistant"
            text = self._options.prefix + text
            # As OpenAI writes it: null where the answer begins with something else than text.
            delta["content"] = text or (None if chunk.reasoning or chunk.tool_calls else "")
        elif text:
            delta["content"] = text
        if chunk.reasoning:
            delta["reasoning_content"] = delta["reasoning"] = chunk.reasoning
        if chunk.tool_calls and self._options.is_legacy_function:
            delta["function_call"] = _function_delta(chunk.tool_calls[0])
        elif chunk.tool_calls:
            delta["tool_calls"] = [_call_delta(call) for call in chunk.tool_calls]
        return delta

    def _event(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        reason: str | None = None,
        log_probs: dict[str, Any] | None = None,
        token_ids: list[int] | None = None,
        has_prompt_ids: bool = False,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": reason}
        event = {**self._base, "object": CHUNK, "choices": [choice]}
        if self._options.includes_token_ids:
            choice["token_ids"] = token_ids or []
            if has_prompt_ids:
                event |= self._prompt_ids()
        return sse_event(event)

    def _text_event(self, index: int, text: str) -> bytes:
        """The event that is written for every token: all but its text is made once."""
        parts = self._delta_parts.get(index)
        if parts is None:
            head, _, tail = self._event(index, {"content": _MARK}).partition(orjson.dumps(_MARK))
            parts = self._delta_parts[index] = (head, tail)
        return parts[0] + orjson.dumps(text) + parts[1]

    def _encode_choice(self, choice: ChatChoice) -> dict[str, Any]:
        text = self._options.prefix + "".join(choice.texts)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if reasoning := "".join(choice.reasoning):
            message["reasoning_content"] = message["reasoning"] = reasoning
        if choice.calls and self._options.is_legacy_function:
            message["function_call"] = choice.calls[0]["function"]
        elif choice.calls:
            message["tool_calls"] = choice.calls
        if choice.calls and not text:
            message["content"] = None
        log_probs = None
        if choice.log_probs is not None:
            log_probs = {"content": choice.log_probs, "refusal": None}
        ids = {"token_ids": choice.token_ids} if self._options.includes_token_ids else {}
        assert choice.finish_reason is not None, "generate() ends with finish reasons or raises"
        return {
            "index": choice.index,
            "message": message,
            "logprobs": log_probs,
            "finish_reason": self._reason(choice.finish_reason),
            **ids,
        }

    def _reason(self, reason: FinishReason) -> str:
        if reason is FinishReason.TOOL_CALLS and self._options.is_legacy_function:
            return "function_call"
        return reason

    def _prompt_ids(self) -> dict[str, Any]:
        if not self._options.includes_token_ids:
            return {}
        return {"prompt_token_ids": self._prompt_token_ids}


def _call_delta(call: ToolCallDelta) -> dict[str, Any]:
    head = {"id": call.id, "type": "function"} if call.id is not None else {}
    return {"index": call.index, **head, "function": _function_delta(call)}


def _function_delta(call: ToolCallDelta) -> dict[str, Any]:
    name = {"name": call.name} if call.name is not None else {}
    return {**name, "arguments": call.arguments}
