"""The door of every route: who asks, and whether they may. A route's scope stands in routes.py."""

from __future__ import annotations

import functools

from sanic import HTTPResponse, Request

from frontend.access.identity import ANYBODY, Identity, Scope
from frontend.api.route import Handler
from frontend.context import context_of
from frontend.errors import PermissionDenied


def guarded(handler: Handler, scope: Scope | None) -> Handler:
    """The handler, for those who have the scope; None: for everybody."""
    if scope is None:
        return handler

    @functools.wraps(handler)
    async def guarded(request: Request, **arguments: str) -> HTTPResponse | None:
        authenticator = context_of(request).authenticator
        if authenticator is not None:
            identity = await authenticator.identify(
                request.headers.getall("authorization", ()),
                request.headers.getall("x-api-key", ()),
            )
            request.ctx.identity = identity
            if not identity.may(scope):
                raise PermissionDenied(scope=scope)
        return await handler(request, **arguments)

    return guarded


def identity_of(request: Request) -> Identity:
    """Who asks at a route that is not open."""
    identity: Identity = getattr(request.ctx, "identity", ANYBODY)
    return identity
