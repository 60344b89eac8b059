"""Administration of API keys, by those who have the scope for it."""

from __future__ import annotations

import time

from sanic import HTTPResponse, Request

from frontend.access.identity import DEFAULT_SCOPES, EVERY_MODEL
from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.context import context_of
from frontend.errors import KeyNotFound
from frontend.limits.buckets import LimitSet
from frontend.protocol.keys import CreateKeyRequest, RotateKeyRequest
from frontend.store.api_keys import ApiKey


async def create_key(request: Request) -> HTTPResponse:
    """POST /api/v1/keys"""
    body = read_body(request, CreateKeyRequest)
    body.check()
    wanted = ApiKey(
        id="",
        name=body.name,
        tenant=body.tenant,
        scopes=DEFAULT_SCOPES if body.scopes is None else frozenset(body.scopes),
        models=EVERY_MODEL if body.models is None else tuple(body.models),
        limits=body.limits,
        expires_at=None if body.expires_in_s is None else time.time() + body.expires_in_s,
    )
    key, secret = await context_of(request).api_keys.create(wanted)
    return json_response({**key.facts(), "key": secret})


async def list_keys(request: Request) -> HTTPResponse:
    """GET /api/v1/keys"""
    keys = await context_of(request).api_keys.list_keys()
    return json_response({"keys": [key.facts() for key in keys]})


async def revoke_key(request: Request, key_id: str) -> HTTPResponse:
    """DELETE /api/v1/keys/{key_id}"""
    return _answer(await context_of(request).api_keys.revoke(key_id), key_id)


async def rotate_key(request: Request, key_id: str) -> HTTPResponse:
    """POST /api/v1/keys/{key_id}/rotate"""
    body = read_body(request, RotateKeyRequest) if request.body else RotateKeyRequest()
    rotated = await context_of(request).api_keys.rotate(key_id, grace_s=body.grace_s)
    if rotated is None:
        raise KeyNotFound(key_id=key_id)
    key, secret = rotated
    return json_response({**key.facts(), "key": secret})


async def set_key_limits(request: Request, key_id: str) -> HTTPResponse:
    """POST /api/v1/keys/{key_id}/limits"""
    limits = read_body(request, LimitSet)
    own = None if limits == LimitSet() else limits
    return _answer(await context_of(request).api_keys.set_limits(key_id, own), key_id)


def _answer(key: ApiKey | None, key_id: str) -> HTTPResponse:
    if key is None:
        raise KeyNotFound(key_id=key_id)
    return json_response(key.facts())
