"""What /api/v1 and the health answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from frontend.protocol.answers.base import Answer, TokenCounts
from frontend.protocol.answers.errors import NativeError
from frontend.protocol.limits import shown_as

FinishReason = Literal["stop", "length"]


class Health(Answer):
    status: Literal["healthy", "unhealthy"]
    model_loaded: bool
    memory_usage: Annotated[str, Meta(examples=["2.1GB/8GB"])]
    active_connections: int
    limits: Annotated[str, Meta(description='"ok", or what is wrong with the rate limits.')]


class Generation(Answer):
    text: str
    usage: TokenCounts
    latency: Annotated[float, Meta(description="Seconds.")]
    finish_reason: FinishReason


class GenerationEvent(Answer):
    """The last event is finished, and has the fields that follow `finished`."""

    token: str
    finished: bool
    usage: TokenCounts | UnsetType = UNSET
    latency: Annotated[float, Meta(description="Seconds.")] | UnsetType = UNSET
    finish_reason: FinishReason | UnsetType = UNSET


class BatchGeneration(Answer):
    """In the order of the requests; one that failed has its error in its place."""

    results: list[Annotated[Any, shown_as(Generation, NativeError)]]


class FailedVersion(Answer):
    """A newer version that did not load: what was served before is served still."""

    path: str
    reason: str


class NativeModel(Answer):
    name: str
    format: str
    size: Annotated[str, Meta(examples=["4.2GB"])]
    loaded: bool
    memory_usage: Annotated[str, Meta(examples=["3.8GB"])]
    variant: str | None
    quantization: str | None
    variants: list[str]
    version: int | None
    adapters: list[str]
    failed: FailedVersion | None


class NativeModels(Answer):
    models: list[NativeModel]
