"""Which web pages of other origins may use this server: the setting `cors_origins`.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from sanic import HTTPResponse, Request

from frontend.context import context_of

MAX_AGE_S = 600  # browsers ask again after that
EXPOSED = (
    "x-request-id, openai-processing-ms, openai-version, "
    "retry-after, retry-after-ms, x-should-retry, "
    "x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


def is_preflight(request: Request) -> bool:
    """Whether a browser asks for leave to send another request."""
    headers = request.headers
    return (
        request.method == "OPTIONS"
        and "origin" in headers
        and "access-control-request-method" in headers
        and bool(context_of(request).settings.cors_origins)
    )


def preflight_answer(request: Request) -> HTTPResponse:
    """All that this server takes; `add_cors_headers` says whether the origin may."""
    asked = request.headers.get("access-control-request-headers", "")
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE, OPTIONS",
        "Access-Control-Max-Age": str(MAX_AGE_S),
        # Sent back as they were: the SDKs have many of their own, and none grants anything here.
        **({"Access-Control-Allow-Headers": asked} if asked else {}),
    }
    return HTTPResponse(status=204, headers=headers)


def add_cors_headers(request: Request, response: HTTPResponse) -> None:
    """Let the page of an allowed origin read this answer."""
    settings = context_of(request).settings
    if not settings.cors_origins:
        return
    origin = request.headers.get("origin", "")
    if settings.allows_any_origin:
        response.headers["Access-Control-Allow-Origin"] = "*"
    else:
        response.headers.add("Vary", "Origin")
        if origin not in settings.allowed_origins:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = EXPOSED
