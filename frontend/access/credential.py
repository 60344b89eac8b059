"""Where a request has its credential. Knows nothing of what it proves."""

from __future__ import annotations

from collections.abc import Sequence

_SCHEME = "bearer "


def read_credential(authorization: Sequence[str], api_key: Sequence[str]) -> str | None:
    """The API key or JWT of a request; None without one, or with two that differ.

    Args:
        authorization: the values of the `Authorization` headers; with `Bearer` they win, for
            some clients send both. Other schemes are somebody else's.
        api_key: those of `X-API-Key`.
    """
    bearer = {one[len(_SCHEME) :].strip() for one in authorization if _is_bearer(one)}
    found = bearer or {one.strip() for one in api_key}
    return found.pop() or None if len(found) == 1 else None


def _is_bearer(value: str) -> bool:
    return value[: len(_SCHEME)].lower() == _SCHEME
