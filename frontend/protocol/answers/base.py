"""What all answer types are."""

from __future__ import annotations

import msgspec


class Answer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An object of an answer; it has no fields but those that are named."""


class TokenCounts(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
