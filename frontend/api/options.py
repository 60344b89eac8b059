"""What may be done at a path."""

from __future__ import annotations

from sanic import HTTPResponse, Request


async def answer_options(allowed: str, request: Request, **_path: str) -> HTTPResponse:
    """Not a browser's question (that is `cors.preflight_answer`), but anybody else's."""
    return HTTPResponse(status=204, headers={"Allow": allowed})
