"""What /v1/completions answers.

Source: OpenAI's API description 2.3.0, CreateCompletionResponse.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from frontend.protocol.answers.base import Answer
from frontend.protocol.answers.chat import ChatUsage


class CompletionLogProbs(Answer):
    """One entry a token; null for a prompt's first token, which nothing goes before."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: Literal["stop", "length"]
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class Completion(Answer, kw_only=True):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: ChatUsage


class CompletionChunkChoice(Answer):
    index: int
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class CompletionChunk(Answer):
    """With `stream_options.include_usage`, `usage` is null in all chunks but the last."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChunkChoice]
    usage: ChatUsage | UnsetType | None = UNSET
