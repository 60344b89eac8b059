"""What /v1/usage answers."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from frontend.protocol.answers.base import Answer


class UsageTotal(Answer):
    requests: int
    prompt_tokens: int
    cached_tokens: Annotated[int, Meta(description="Of the prompt's.")]
    completion_tokens: int
    reasoning_tokens: Annotated[int, Meta(description="Of the completion's.")]
    total_tokens: Annotated[int, Meta(description="Of prompts and completions.")]
    cost: Annotated[str, Meta(description="A decimal number, exact to its ninth place.")]


class UsageOfGroup(UsageTotal):
    """Has those of the first fields that were asked for."""

    day: date | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    key: (
        Annotated[
            str, Meta(description="An API key's id; or a token's issuer and subject; or empty.")
        ]
        | UnsetType
    ) = UNSET
    key_name: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    outcome: str | UnsetType = UNSET
    batch: bool | UnsetType = UNSET


class Usage(Answer):
    object: Literal["usage"]
    since: date
    until: Annotated[date, Meta(description="The last day, which is in it.")]
    group_by: list[str]
    data: list[UsageOfGroup]
    total: UsageTotal
