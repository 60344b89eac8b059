"""What /v1/completions answers; a stream's chunks have the shape of the whole.

Source: OpenAI's API description 2.3.0, CreateCompletionResponse.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from frontend.protocol.answers.base import Answer
from frontend.protocol.answers.chat import ChatUsage

FIRST_IS_NULL = Meta(description="Null for the first token of an echoed prompt.")


class CompletionLogProbs(Answer):
    """One entry a token in each list."""

    tokens: list[str]
    token_logprobs: Annotated[list[float | None], FIRST_IS_NULL]
    top_logprobs: Annotated[list[dict[str, float] | None], FIRST_IS_NULL] | None
    text_offset: Annotated[list[int], Meta(description="In characters from the text's start.")]


class CompletionChoice(Answer):
    index: Annotated[int, Meta(description="All choices of the first prompt come first.")]
    text: str
    logprobs: CompletionLogProbs | None
    finish_reason: Literal["stop", "length"] | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class Completion(Answer):
    """With `stream_options.include_usage`, `usage` is null in all chunks but the last."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: ChatUsage | UnsetType | None = UNSET
