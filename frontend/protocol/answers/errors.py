"""The error shapes of the surfaces, as `frontend.protocol.wire` writes them."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from frontend.protocol.answers.base import Answer


class OpenAIErrorBody(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Answer):
    """All four keys are always there: the SDKs read them."""

    error: OpenAIErrorBody


class NativeErrorBody(Answer):
    code: str
    message: str
    details: str
    param: str | UnsetType = UNSET


class NativeError(Answer):
    error: NativeErrorBody
