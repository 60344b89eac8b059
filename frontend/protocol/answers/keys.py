"""What /api/v1/keys answers. Times in Unix seconds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from frontend.access.identity import Scope
from frontend.protocol.answers.base import Answer


class KeyLimits(Answer):
    requests_per_minute: int | None
    tokens_per_minute: int | None
    tokens_per_day: int | None
    concurrent_requests: int | None


class Key(Answer):
    id: str
    name: str
    tenant: str
    scopes: list[Scope]
    models: Annotated[list[str], Meta(description="Globs of models' names.")]
    limits: KeyLimits | None
    shown: Annotated[str, Meta(description="The first characters of its newest secret.")]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: Annotated[float | None, Meta(description="To a minute or so.")]
    valid: bool


class NewKey(Key):
    key: Annotated[str, Meta(description="The secret, which is shown this once.")]


class Keys(Answer):
    keys: list[Key]
