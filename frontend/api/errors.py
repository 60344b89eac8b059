"""The one place where errors become answers, in the shape of the surface that was asked."""

from __future__ import annotations

import logging
from math import ceil
from typing import Any

import orjson
from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import MethodNotAllowed as SanicMethodNotAllowed
from sanic.exceptions import NotFound as SanicNotFound
from sanic.exceptions import PayloadTooLarge, SanicException

from frontend.api.lifecycle import record_of
from frontend.api.surfaces import Surface, is_responses_path, surface_of
from frontend.context import context_of
from frontend.errors import (
    AuthenticationFailed,
    BodyTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    QuotaExceeded,
    ServingError,
    Unavailable,
)
from frontend.messages import Language, preferred_language
from frontend.protocol.anthropic_answer import anthropic_error, anthropic_status, message_event
from frontend.protocol.response_answer import error_event as response_error_event
from frontend.protocol.response_answer import sse_typed_event
from frontend.protocol.wire import native_error, openai_error, sse_event
from frontend.telemetry.requests import current_request

logger = logging.getLogger(__name__)


def install_error_handlers(app: Sanic[Any, Any]) -> None:
    app.exception(Exception)(answer_error)


async def answer_error(request: Request, exc: Exception) -> HTTPResponse:
    """Any exception of a handler, or of Sanic itself."""
    error = report(request, exc)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(ceil(error.retry_after_s))
    if isinstance(error, QuotaExceeded):
        headers["x-should-retry"] = "false"
    if isinstance(error, AuthenticationFailed):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = str(error.values["allowed"])
    is_anthropic = surface_of(request.path) is Surface.ANTHROPIC
    return HTTPResponse(
        orjson.dumps(error_body(request, error)),
        status=anthropic_status(type(error)) if is_anthropic else error.status,
        headers=headers,
        content_type="application/json",
    )


def report(request: Request, exc: Exception) -> ServingError:
    """Translate an exception for the client; what is not expected goes to the log whole."""
    error = translate(request, exc)
    if (record := current_request.get()) is not None and record.outcome is None:
        record.outcome = error.code
    if error.status >= 500 and not isinstance(exc, ServingError):
        logger.error("request failed", exc_info=exc, extra={"path": request.path})
    return error


def error_body(request: Request, error: ServingError) -> dict[str, Any]:
    """The surface's own error shape, in the client's language."""
    language = language_of(request)
    match surface_of(request.path):
        case Surface.ANTHROPIC:
            return anthropic_error(error, language, record_of(request).request_id)
        case Surface.OPENAI:
            return openai_error(error, language)
        case Surface.NATIVE:
            return native_error(error, language)


def error_event(request: Request, error: ServingError) -> bytes:
    """An error that ends a stream, for its 200 has been sent."""
    if is_responses_path(request.path):
        return sse_typed_event(response_error_event(error, language_of(request)))
    body = error_body(request, error)
    is_anthropic = surface_of(request.path) is Surface.ANTHROPIC
    return message_event(body) if is_anthropic else sse_event(body)


def language_of(request: Request) -> Language:
    return preferred_language(request.headers.get("accept-language"))


def translate(request: Request, exc: Exception) -> ServingError:
    """Foreign exceptions in our own terms; what is not expected keeps its text to the log."""
    match exc:
        case ServingError():
            return exc
        case SanicNotFound():
            return NotFound(path=request.path)
        case SanicMethodNotAllowed():
            return MethodNotAllowed(method=request.method, allowed=_allowed(exc))
        case RecursionError():  # only a request's own JSON may be so deep
            return InvalidRequest("invalid_json", reason="it is nested too deeply")
        case PayloadTooLarge():
            return BodyTooLarge(max_body_bytes=context_of(request).settings.max_body_bytes)
        case SanicException(status_code=status) if status < 500:
            return InvalidRequest()
        case SanicException(status_code=503):
            return Unavailable()
        case _:
            return ServingError()


def _allowed(exc: SanicMethodNotAllowed) -> str:
    methods = str(exc.headers.get("Allow", "")).split(",")
    return ", ".join(sorted(method.strip() for method in methods))
