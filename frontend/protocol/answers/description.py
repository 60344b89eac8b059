"""The OpenAPI description itself; its fields are the standard's."""

from __future__ import annotations

from typing import Any

import msgspec


class OpenAPI(msgspec.Struct, kw_only=True):
    openapi: str
    info: dict[str, Any]
    servers: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    paths: dict[str, Any]
    components: dict[str, Any]
