"""The Sanic application of one worker: every route in one table."""

from __future__ import annotations

import functools
import itertools
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from sanic import Sanic
from sanic.config import Config
from sanic.constants import HTTPMethod

from frontend.access.identity import ANYBODY, NOBODY
from frontend.api.browsers import BrowserGuard
from frontend.api.docs import Docs
from frontend.api.errors import install_error_handlers
from frontend.api.guard import guarded, limited
from frontend.api.lifecycle import answer_other_method, counted, install_lifecycle
from frontend.api.openapi import describe
from frontend.catalog import Catalog
from frontend.context import Context, ModelRepository
from frontend.engine import Engine
from frontend.following import VersionFollower
from frontend.limits.opening import limit_store
from frontend.limits.policy_file import policy_file
from frontend.meter import Meter
from frontend.responses.background import BackgroundRuns
from frontend.routes import ROUTES
from frontend.settings import Settings
from frontend.store.api_keys import ApiKeyStore
from frontend.store.database import Database
from frontend.store.responses import ResponseStore
from frontend.store.usage import UsageStore
from frontend.telemetry.metrics import Metrics
from frontend.triton.client import TritonClient
from frontend.triton.drafting import DraftingEngine
from frontend.triton.repository import ModelRepository as TritonRepository
from frontend.usage.budgets import Budgets
from frontend.usage.log import UsageLog

if TYPE_CHECKING:
    from frontend.access.authenticator import Authenticator

DAY_S = 86_400.0
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
    app.config.PROXIES_COUNT = settings.trusted_proxies or None
    app.config.FALLBACK_ERROR_FORMAT = "json"
    _add_routes(app)
    app.ctx.docs = Docs.of(describe(ROUTES))
    install_error_handlers(app)
    install_lifecycle(app)
    app.on_request(BrowserGuard(settings).check)
    _add_lifecycle(app, settings, engine, repository, root_pid or os.getpid())
    return app


def _add_routes(app: Sanic[Config, Any]) -> None:
    methods: dict[str, set[str]] = {}
    for route in ROUTES:
        handler = counted(route.handler) if route.is_work else route.handler
        if route.is_limited:
            handler = limited(handler)
        handler = guarded(handler, route.scope, *route.other_scopes)
        own = {"GET", "HEAD"} if route.method == "GET" else {route.method}
        app.add_route(handler, route.path, methods=own, name=route.name)
        methods.setdefault(route.path, {"OPTIONS"}).update(own)
    for number, (path, known) in enumerate(methods.items()):
        # Sanic's own answer does not know what is allowed where a path has a variable.
        others = {"OPTIONS"} | ({method.value for method in HTTPMethod} - known)
        answer = functools.partial(answer_other_method, ", ".join(sorted(known)))
        app.add_route(answer, path, methods=others, name=f"other_methods_{number}")


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
        serving = engine or DraftingEngine(triton)
        opened = app.ctx.opened = AsyncExitStack()
        database = await Database.open(settings.database_address)
        opened.push_async_callback(database.close)
        opened.push_async_callback(serving.close)
        responses = ResponseStore(database, retention_s=settings.response_retention_days * DAY_S)
        api_keys = ApiKeyStore(database)
        metrics = Metrics()
        usage = UsageStore(database, retention_s=settings.usage_retention_days * DAY_S)
        meter = await _open_meter(settings, usage, metrics, opened)
        catalog = Catalog(settings.home, default_model=settings.model)
        app.ctx.serving = Context(
            settings=settings,
            catalog=catalog,
            metrics=metrics,
            meter=meter,
            engine=serving,
            repository=repository or models,
            responses=responses,
            background=BackgroundRuns(responses),
            authenticator=_authenticator(settings, api_keys, opened),
            api_keys=api_keys,
            usage=usage,
            root_pid=root_pid,
        )
        app.ctx.serving.background.open()
        opened.push_async_callback(app.ctx.serving.background.close)
        follower = VersionFollower(catalog, serving, repository or models)
        follower.open()
        opened.push_async_callback(follower.close)

    @app.before_server_stop
    async def stop(app: Sanic[Config, Any]) -> None:
        app.ctx.serving.is_stopping = True
        app.ctx.serving.background.drain(settings.drain_timeout_s)

    @app.after_server_stop
    async def close_context(app: Sanic[Config, Any]) -> None:
        await app.ctx.opened.aclose()


async def _open_meter(
    settings: Settings, rows: UsageStore, metrics: Metrics, opened: AsyncExitStack
) -> Meter:
    limits = policy_file(settings)
    limits.open()
    opened.push_async_callback(limits.close)
    budgets = Budgets(rows, limits)
    usage = UsageLog(rows, limits, budgets)
    await usage.open()
    opened.push_async_callback(usage.close)
    store = limit_store(
        settings.limits_url or None,
        settings.home,
        has_local_fallback=settings.limits_when_unavailable == "local",
        num_frontends=settings.num_frontends,
    )
    await store.open()
    stranger = NOBODY if settings.is_authenticated else ANYBODY
    meter = Meter(
        limits=limits,
        store=store,
        metrics=metrics,
        usage=usage,
        budgets=budgets,
        stranger=stranger,
    )
    opened.push_async_callback(meter.close)
    return meter


def _authenticator(
    settings: Settings, api_keys: ApiKeyStore, opened: AsyncExitStack
) -> Authenticator | None:
    if not settings.is_authenticated:
        return None
    from frontend.access.setup import open_authenticator  # what others need not load

    return open_authenticator(settings, api_keys, opened)
