"""What /v1/responses answers.

Source: the types of the openai SDK 3.54, Response and ResponseStreamEvent.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from frontend.protocol.answers.base import Answer
from frontend.protocol.answers.chat import CompletionTokensDetails, TokenLogProb
from frontend.protocol.response_tools import ResponseToolChoice

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputText(Answer, tag_field="type", tag="input_text"):
    text: str


class OutputText(Answer, tag_field="type", tag="output_text"):
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[TokenLogProb]


class Refusal(Answer, tag_field="type", tag="refusal"):
    refusal: str


class ReasoningText(Answer, tag_field="type", tag="reasoning_text"):
    text: str


class SummaryText(Answer, tag_field="type", tag="summary_text"):
    text: str


class ResponseMessage(Answer, tag_field="type", tag="message"):
    id: str
    role: Literal["user", "assistant", "system", "developer"]
    content: list[InputText | OutputText | Refusal]
    status: ItemStatus


class ResponseReasoning(Answer, tag_field="type", tag="reasoning"):
    id: str
    summary: list[SummaryText]
    content: list[ReasoningText]
    status: ItemStatus


class ResponseCall(Answer, tag_field="type", tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class ResponseCallOutput(Answer, tag_field="type", tag="function_call_output"):
    id: str
    call_id: str
    output: str | list[InputText | Refusal]
    status: ItemStatus


OutputItem = ResponseMessage | ResponseReasoning | ResponseCall


class ResponseError(Answer):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(Answer):
    reason: Literal["max_output_tokens"]


class InputTokensDetails(Answer):
    cached_tokens: int
    cache_write_tokens: int


class ResponseUsage(Answer):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: CompletionTokensDetails
    total_tokens: int


class ResponseReasoningConfig(Answer):
    effort: str | None
    summary: str | None


class ResponseTextFormat(Answer):
    type: Literal["text", "json_object", "json_schema"]
    name: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    description: str | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class ResponseTextConfig(Answer):
    format: ResponseTextFormat
    verbosity: str


class ResponseTool(Answer):
    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class Response(Answer):
    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    background: bool
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ResponseReasoningConfig
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: ResponseTextConfig
    tool_choice: str | ResponseToolChoice
    tools: list[ResponseTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    user: str | None


class DeletedResponse(Answer):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ResponseInputTokens(Answer):
    object: Literal["response.input_tokens"]
    input_tokens: int


class ResponseItems(Answer):
    object: Literal["list"]
    data: list[ResponseMessage | ResponseReasoning | ResponseCall | ResponseCallOutput]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseEvent(Answer):
    """The response began, waits, is in work, or has ended; the last event is one of these."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: Response


class ResponseErrorEvent(Answer):
    """All of a stream that never came to have a response."""

    type: Literal["error"]
    sequence_number: int
    code: str
    message: str
    param: str | None


class ItemEvent(Answer):
    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class PartEvent(Answer):
    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    output_index: int
    item_id: str
    content_index: int
    part: OutputText | ReasoningText


class SummaryPartEvent(Answer):
    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    sequence_number: int
    output_index: int
    item_id: str
    summary_index: int
    part: SummaryText


class OutputTextDelta(Answer):
    type: Literal["response.output_text.delta"]
    sequence_number: int
    output_index: int
    item_id: str
    content_index: int
    delta: str
    logprobs: list[TokenLogProb]


class OutputTextDone(Answer):
    type: Literal["response.output_text.done"]
    sequence_number: int
    output_index: int
    item_id: str
    content_index: int
    text: str
    logprobs: list[TokenLogProb]


class ReasoningTextEvent(Answer):
    """A piece (`delta`), or all of it (`text`)."""

    type: Literal["response.reasoning_text.delta", "response.reasoning_text.done"]
    sequence_number: int
    output_index: int
    item_id: str
    content_index: int
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET


class SummaryTextEvent(Answer):
    """A piece (`delta`), or all of it (`text`)."""

    type: Literal["response.reasoning_summary_text.delta", "response.reasoning_summary_text.done"]
    sequence_number: int
    output_index: int
    item_id: str
    summary_index: int
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET


class ArgumentsDelta(Answer):
    type: Literal["response.function_call_arguments.delta"]
    sequence_number: int
    output_index: int
    item_id: str
    delta: str


class ArgumentsDone(Answer):
    type: Literal["response.function_call_arguments.done"]
    sequence_number: int
    output_index: int
    item_id: str
    name: str
    arguments: str


EVENTS = (
    ResponseEvent,
    ItemEvent,
    PartEvent,
    SummaryPartEvent,
    OutputTextDelta,
    OutputTextDone,
    ReasoningTextEvent,
    SummaryTextEvent,
    ArgumentsDelta,
    ArgumentsDone,
    ResponseErrorEvent,
)
