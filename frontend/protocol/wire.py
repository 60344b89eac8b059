"""What the answers of several surfaces have in common."""

from __future__ import annotations

from typing import Any

import orjson

from frontend.errors import ServingError
from frontend.messages import Language
from frontend.types import TextChunk, Usage


def sse_event(event: dict[str, Any]) -> bytes:
    """One Server-Sent Event."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


def encode_usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


class UsageCounter:
    """Counts one request's tokens, chunk by chunk."""

    def __init__(self, *, num_prompt_tokens: int) -> None:
        self._num_prompt_tokens = num_prompt_tokens
        self._num_cached_tokens: dict[int, int] = {}  # prompt's index -> its tokens
        self._num_tokens = 0
        self._num_reasoning_tokens = 0

    def add(self, chunk: TextChunk, *, prompt_index: int = 0) -> None:
        self._num_tokens += chunk.num_tokens
        self._num_reasoning_tokens += chunk.num_reasoning_tokens
        if chunk.num_cached_tokens is not None:
            known = self._num_cached_tokens.get(prompt_index, 0)
            self._num_cached_tokens[prompt_index] = max(known, chunk.num_cached_tokens)

    def encode(self) -> dict[str, Any]:
        usage = Usage(prompt_tokens=self._num_prompt_tokens, completion_tokens=self._num_tokens)
        return {
            **encode_usage(usage),
            "prompt_tokens_details": {"cached_tokens": sum(self._num_cached_tokens.values())},
            "completion_tokens_details": {"reasoning_tokens": self._num_reasoning_tokens},
        }


def openai_error(exc: ServingError, language: Language) -> dict[str, Any]:
    """All four keys are always there: the SDKs read them."""
    body = {
        "message": exc.message(language),
        "type": exc.type,
        "param": exc.param,
        "code": exc.code,
    }
    return {"error": body}


def native_error(exc: ServingError, language: Language) -> dict[str, Any]:
    body = {
        "code": exc.native_code,
        "message": exc.message(language),
        "details": exc.details(language),
    }
    return {"error": {**body, "param": exc.param} if exc.param else body}
