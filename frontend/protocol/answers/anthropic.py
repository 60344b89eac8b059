"""What /v1/messages and its count_tokens answer, as `protocol.anthropic_answer` writes it.

Source: the `anthropic` SDK 2.12.0, Message, RawMessageStreamEvent and ErrorResponse.
"""

from __future__ import annotations

from typing import Any, Literal

from frontend.protocol.answers.base import Answer

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]
ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "overloaded_error",
]


class TextBlock(Answer, tag_field="type", tag="text"):
    text: str


class ThinkingBlock(Answer, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class ToolUseBlock(Answer, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


AnsweredBlock = TextBlock | ThinkingBlock | ToolUseBlock


class OutputTokensDetails(Answer):
    thinking_tokens: int


class MessageUsage(Answer):
    """The prompt has as many tokens as the three counts of input tokens together."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails


class AnthropicMessage(Answer, tag_field="type", tag="message"):
    id: str
    role: Literal["assistant"]
    model: str
    content: list[AnsweredBlock]
    stop_reason: StopReason | None  # null at the start of a stream
    stop_sequence: str | None
    usage: MessageUsage


class CountedTokens(Answer):
    input_tokens: int


class MessageStart(Answer, tag_field="type", tag="message_start"):
    message: AnthropicMessage


class ContentBlockStart(Answer, tag_field="type", tag="content_block_start"):
    index: int
    content_block: AnsweredBlock


class TextDelta(Answer, tag_field="type", tag="text_delta"):
    text: str


class ThinkingDelta(Answer, tag_field="type", tag="thinking_delta"):
    thinking: str


class SignatureDelta(Answer, tag_field="type", tag="signature_delta"):
    signature: str


class InputJsonDelta(Answer, tag_field="type", tag="input_json_delta"):
    partial_json: str


class ContentBlockDelta(Answer, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class ContentBlockStop(Answer, tag_field="type", tag="content_block_stop"):
    index: int


class MessageEnd(Answer):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Answer, tag_field="type", tag="message_delta"):
    delta: MessageEnd
    usage: MessageUsage


class MessageStop(Answer, tag_field="type", tag="message_stop"):
    """The last event."""


class Ping(Answer, tag_field="type", tag="ping"):
    """Sent while it is quiet."""


EVENTS = (
    MessageStart,
    ContentBlockStart,
    ContentBlockDelta,
    ContentBlockStop,
    MessageDelta,
    MessageStop,
    Ping,
)


class AnthropicErrorBody(Answer):
    type: ErrorType
    message: str


class AnthropicError(Answer, tag_field="type", tag="error"):
    error: AnthropicErrorBody
    request_id: str
