"""The OpenAPI description, and a page that shows it to people.

The page is whole in itself, style and script in it: it works where there is no other network.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from sanic import HTTPResponse, Request

PAGES = Path(__file__).parents[1] / "pages"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Docs:
    """Both answers, made once."""

    description: bytes
    page: bytes
    policy: str  # the page's Content-Security-Policy

    @classmethod
    def of(cls, description: dict[str, Any]) -> Docs:
        style, script = ((PAGES / name).read_text("utf-8") for name in ("docs.css", "docs.js"))
        frame = (PAGES / "docs.html").read_text("utf-8")
        page = frame.replace("{style}", style).replace("{script}", script)
        policy = (
            "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
            f"form-action 'none'; frame-ancestors 'none'; "
            f"style-src {_hash(style)}; script-src {_hash(script)}"
        )
        return cls(orjson.dumps(description), page.encode(), policy)


def _hash(text: str) -> str:
    """Of the only inline text that the browser may take."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def get_openapi(request: Request) -> HTTPResponse:
    """GET /openapi.json"""
    docs: Docs = request.app.ctx.docs
    return HTTPResponse(docs.description, content_type="application/json")


async def get_docs(request: Request) -> HTTPResponse:
    """GET /docs"""
    docs: Docs = request.app.ctx.docs
    headers = {
        "Content-Security-Policy": docs.policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTTPResponse(docs.page, headers=headers, content_type=HTML)
