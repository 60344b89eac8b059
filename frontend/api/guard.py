"""The door of every route: who asks, whether they may, and whether they may again so soon. What a
route wants of them stands in routes.py.
"""

from __future__ import annotations

import functools

from sanic import HTTPResponse, Request

from frontend.access.identity import ANYBODY, Identity, Scope, current_identity
from frontend.api.lifecycle import record_of
from frontend.api.route import Handler
from frontend.context import context_of
from frontend.errors import PermissionDenied


def guarded(handler: Handler, scope: Scope | None, *others: Scope) -> Handler:
    """The handler, for those who have the scope or one of the others; None: for everybody."""
    if scope is None:
        return handler

    @functools.wraps(handler)
    async def guarded(request: Request, **arguments: str) -> HTTPResponse | None:
        identity = await _identify(request)
        record_of(request).identity = identity
        if not any(map(identity.may, (scope, *others))):
            raise PermissionDenied(scope=scope)
        before = current_identity.set(identity)  # a connection's requests have one task
        try:
            return await handler(request, **arguments)
        finally:
            current_identity.reset(before)

    return guarded


def limited(handler: Handler) -> Handler:
    """The handler, while who asks has not done so too often; for what charges nothing itself."""

    @functools.wraps(handler)
    async def limited(request: Request, **arguments: str) -> HTTPResponse | None:
        async with context_of(request).meter.charge_request():
            return await handler(request, **arguments)

    return limited


async def _identify(request: Request) -> Identity:
    """Raises AuthenticationFailed."""
    authenticator = context_of(request).authenticator
    if authenticator is None:
        return ANYBODY
    return await authenticator.identify(
        request.headers.getall("authorization", ()), request.headers.getall("x-api-key", ())
    )
