"""The door of every route: who asks, and whether they may. A route's scope stands in routes.py."""

from __future__ import annotations

import functools

from sanic import HTTPResponse, Request

from frontend.access.identity import Scope, current_identity
from frontend.api.route import Handler
from frontend.context import context_of
from frontend.errors import PermissionDenied


def guarded(handler: Handler, scope: Scope | None, *others: Scope) -> Handler:
    """The handler, for those who have the scope or one of the others; None: for everybody."""
    if scope is None:
        return handler

    @functools.wraps(handler)
    async def guarded(request: Request, **arguments: str) -> HTTPResponse | None:
        authenticator = context_of(request).authenticator
        if authenticator is None:
            return await handler(request, **arguments)
        identity = await authenticator.identify(
            request.headers.getall("authorization", ()),
            request.headers.getall("x-api-key", ()),
        )
        if not any(map(identity.may, (scope, *others))):
            raise PermissionDenied(scope=scope)
        before = current_identity.set(identity)  # a connection's requests have one task
        try:
            return await handler(request, **arguments)
        finally:
            current_identity.reset(before)

    return guarded
