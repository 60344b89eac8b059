"""What happens to every request and answer, whatever its route: ids, headers, the log's line."""

from __future__ import annotations

import asyncio
import functools
import re
import uuid
from asyncio import ReadTransport
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from sanic import HTTPResponse, Request, Sanic
from sanic.http import Http

from frontend.api.cors import add_cors_headers, is_preflight, preflight_answer
from frontend.api.route import Handler
from frontend.api.surfaces import Surface, surface_of
from frontend.context import context_of
from frontend.errors import MethodNotAllowed, ModelChanged
from frontend.telemetry.requests import RequestRecord, current_request

MAX_CHANGES = 50  # Triton refuses the version that it still names, for a moment
CHANGE_PAUSE_S = 0.05
OPENAI_VERSION = "2020-10-01"  # what OpenAI's API answers
T = TypeVar("T")
_SAFE_REQUEST_ID = re.compile(r"[!-~]{1,128}")  # it goes into a header and the log


def install_lifecycle(app: Sanic[Any, Any]) -> None:
    app.on_request(_begin)
    app.on_response(_end)  # type: ignore[no-untyped-call]


def counted(handler: Handler) -> Handler:
    """The handler, as one of the `active_connections` while it runs."""

    @functools.wraps(handler)
    async def counted(request: Request, **arguments: str) -> HTTPResponse | None:
        context = context_of(request)
        record = record_of(request)
        try:
            with context.metrics.connection():
                return await on_current_version(lambda: handler(request, **arguments))
        except asyncio.CancelledError:
            record.outcome = "cancelled"
            record.log()  # the client has gone: there may be no answer to log it with
            raise
        finally:
            if record.is_stream:
                record.log()
            if context.is_stopping and isinstance(request.stream, Http):
                # Sanic would wait for a next request on this connection until the drain's timeout.
                request.stream.keep_alive = False

    return counted


async def on_current_version(work: Callable[[], Awaitable[T]]) -> T:
    """Does what may be done again until the model stays what it was prepared for.

    A model changes its version while requests are prepared; what the engine then refuses has not
    been begun, nor its answer.
    """
    for _ in range(MAX_CHANGES):
        try:
            return await work()
        except ModelChanged:
            await asyncio.sleep(CHANGE_PAUSE_S)
    return await work()


async def answer_other_method(allowed: str, request: Request, **_path: str) -> HTTPResponse:
    """What may be done at a path, to a method that no route of it has.

    Raises:
        MethodNotAllowed: unless it was asked with OPTIONS.
    """
    if request.method != "OPTIONS":
        raise MethodNotAllowed(method=request.method, allowed=allowed)
    return HTTPResponse(status=204, headers={"Allow": allowed})


def record_of(request: Request) -> RequestRecord:
    """The request's record, begun now if it is not yet."""
    record: RequestRecord | None = getattr(request.ctx, "record", None)
    if record is None:
        given = request.headers.get("x-request-id", "")
        record = request.ctx.record = RequestRecord(
            request_id=given if _SAFE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
            method=request.method,
            path=request.path,
            address=request.client_ip,
        )
    return record


async def _begin(request: Request) -> HTTPResponse | None:
    current_request.set(record_of(request))
    # Sanic stops reading at 64 kB and goes on when it wants more: after the last of a large body
    # it would never see the client go away.
    transport = cast("ReadTransport | None", request.transport)
    if transport is not None:
        transport.resume_reading()
    return preflight_answer(request) if is_preflight(request) else None


async def _end(request: Request, response: HTTPResponse) -> None:
    record = record_of(request)
    record.status = response.status
    record.is_stream = str(response.content_type).startswith("text/event-stream")
    response.headers["x-request-id"] = record.request_id
    response.headers["request-id"] = record.request_id  # where Anthropic's SDKs look for it
    if surface_of(request.path) is Surface.OPENAI:
        response.headers["openai-processing-ms"] = f"{record.elapsed_s() * 1000:.0f}"
        response.headers["openai-version"] = OPENAI_VERSION
    response.headers.update(await context_of(request).meter.headers(record))
    add_cors_headers(request, response)
    if not record.is_stream:
        record.log()
