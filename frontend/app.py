"""The Sanic application of one worker: every route in one table."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
import uuid
from asyncio import ReadTransport
from collections.abc import Callable, Coroutine
from typing import Any, cast

from sanic import HTTPResponse, Request, Sanic
from sanic.config import Config
from sanic.http import Http

from frontend.api.anthropic import count_message_tokens, create_message
from frontend.api.chat import create_chat_completion
from frontend.api.embeddings import create_embedding
from frontend.api.errors import install_error_handlers
from frontend.api.health import get_health, get_metrics
from frontend.api.models import (
    get_openai_model,
    list_models,
    list_openai_models,
    load_model,
    unload_model,
)
from frontend.api.native import create_batch, create_generation, stream_generation
from frontend.catalog import Catalog
from frontend.context import Context, ModelRepository, context_of
from frontend.engine import Engine
from frontend.settings import Settings
from frontend.telemetry.metrics import Metrics
from frontend.triton.client import TritonClient
from frontend.triton.repository import ModelRepository as TritonRepository

logger = logging.getLogger(__name__)

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]

# method, path, handler, whether it is work that counts as an active connection
ROUTES: tuple[tuple[str, str, Handler, bool], ...] = (
    ("GET", "/health", get_health, False),
    ("GET", "/api/v1/health", get_health, False),
    ("GET", "/metrics", get_metrics, False),
    ("GET", "/api/v1/metrics", get_metrics, False),
    ("POST", "/api/v1/generate", create_generation, True),
    ("POST", "/api/v1/generate/stream", stream_generation, True),
    ("POST", "/api/v1/batch/generate", create_batch, True),
    ("GET", "/api/v1/models", list_models, False),
    ("POST", "/api/v1/models/<model_name>/load", load_model, True),
    ("POST", "/api/v1/models/<model_name>/unload", unload_model, True),
    ("POST", "/v1/chat/completions", create_chat_completion, True),
    ("POST", "/v1/messages", create_message, True),
    ("POST", "/v1/messages/count_tokens", count_message_tokens, True),
    ("POST", "/v1/embeddings", create_embedding, True),
    ("GET", "/v1/models", list_openai_models, False),
    ("GET", "/v1/models/<model_name>", get_openai_model, False),
)

_SAFE_REQUEST_ID = re.compile(r"[!-~]{1,128}")  # it goes into a header and the log
_app_numbers = itertools.count()  # Sanic wants a name of its own for each app of a process


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    repository: ModelRepository | None = None,
    root_pid: int | None = None,
) -> Sanic[Config, Any]:
    """Make a worker's application.

    Args:
        engine, repository: take the place of Triton (tests).
        root_pid: of the process that started all of this installation; this one if not given.
    """
    app: Sanic[Config, Any] = Sanic(f"inflight-{next(_app_numbers)}", configure_logging=False)
    app.config.REQUEST_MAX_SIZE = settings.max_body_bytes
    app.config.RESPONSE_TIMEOUT = int(settings.request_timeout_s)
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = settings.drain_timeout_s
    app.config.FALLBACK_ERROR_FORMAT = "json"
    for method, path, handler, is_work in ROUTES:
        name = f"{method} {path}".replace("/", "_").replace("<", "").replace(">", "")
        route = _counted(handler) if is_work else handler
        app.add_route(route, path, methods=[method], name=name.replace(" ", ""))
    install_error_handlers(app)
    app.on_request(_begin)
    app.on_response(_end)  # type: ignore[no-untyped-call]
    _add_lifecycle(app, settings, engine, repository, root_pid or os.getpid())
    return app


def _add_lifecycle(
    app: Sanic[Config, Any],
    settings: Settings,
    engine: Engine | None,
    repository: ModelRepository | None,
    root_pid: int,
) -> None:
    @app.before_server_start
    async def open_context(app: Sanic[Config, Any]) -> None:
        triton = TritonClient(settings.triton_address)
        models = TritonRepository(settings, triton.rpc, triton.capabilities)
        app.ctx.serving = Context(
            settings=settings,
            catalog=Catalog(settings.home, default_model=settings.model),
            metrics=Metrics(),
            engine=engine or triton,
            repository=repository or models,
            root_pid=root_pid,
        )

    @app.before_server_stop
    async def stop(app: Sanic[Config, Any]) -> None:
        app.ctx.serving.is_stopping = True

    @app.after_server_stop
    async def close_context(app: Sanic[Config, Any]) -> None:
        await app.ctx.serving.engine.close()


def _counted(handler: Handler) -> Handler:
    """The handler, as one of the `active_connections` while it runs."""

    @functools.wraps(handler)
    async def counted(request: Request, **arguments: str) -> HTTPResponse | None:
        context = context_of(request)
        try:
            with context.metrics.connection():
                return await handler(request, **arguments)
        finally:
            if context.is_stopping and isinstance(request.stream, Http):
                # Sanic would wait for a next request on this connection until the drain's timeout.
                request.stream.keep_alive = False

    return counted


async def _begin(request: Request) -> None:
    given = request.headers.get("x-request-id", "")
    request.ctx.request_id = given if _SAFE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    # Sanic stops reading at 64 kB and goes on when it wants more: after the last of a large body
    # it would never see the client go away.
    transport = cast("ReadTransport | None", request.transport)
    if transport is not None:
        transport.resume_reading()


async def _end(request: Request, response: HTTPResponse) -> None:
    request_id = getattr(request.ctx, "request_id", "")
    response.headers["x-request-id"] = request_id
    response.headers["request-id"] = request_id  # where Anthropic's SDKs look for it
