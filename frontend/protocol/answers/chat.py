"""What /v1/chat/completions answers.

Source: OpenAI's API description 2.3.0, CreateChatCompletionResponse and its stream variant.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from frontend.protocol.answers.base import Answer, TokenCounts

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class TopLogProb(Answer):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogProb(Answer):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogProb]


class ChatLogProbs(Answer):
    content: list[TokenLogProb] | None
    refusal: list[TokenLogProb] | None


class AnsweredFunction(Answer):
    name: str
    arguments: str


class AnsweredToolCall(Answer):
    id: str
    type: Literal["function"]
    function: AnsweredFunction


class PromptTokensDetails(Answer):
    cached_tokens: int


class CompletionTokensDetails(Answer):
    reasoning_tokens: int


class ChatUsage(TokenCounts):
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class AnsweredMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[AnsweredToolCall] | UnsetType = UNSET
    function_call: AnsweredFunction | UnsetType = UNSET


class ChatChoice(Answer):
    index: int
    message: AnsweredMessage
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(Answer, kw_only=True):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    service_tier: Literal["default"] | UnsetType = UNSET
    usage: ChatUsage
    prompt_token_ids: list[int] | UnsetType = UNSET


class FunctionDelta(Answer, kw_only=True):
    name: str | UnsetType = UNSET
    arguments: str


class ToolCallDelta(Answer, kw_only=True):
    """The first delta of a call has its id, type and name; the arguments' pieces are joined."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta


class Delta(Answer):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET


class ChunkChoice(Answer):
    index: int
    delta: Delta
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class ChatCompletionChunk(Answer):
    """With `stream_options.include_usage`, `usage` is null in all chunks but the last."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    service_tier: Literal["default"] | UnsetType = UNSET
    usage: ChatUsage | UnsetType | None = UNSET
