"""Health and metrics."""

from __future__ import annotations

import asyncio
import re

from sanic import HTTPResponse, Request

from frontend.access.identity import EVERY_MODEL, current_identity
from frontend.api.responses import json_response
from frontend.context import context_of
from frontend.errors import EngineUnavailable, ModelNotLoaded, ServingError
from frontend.telemetry.memory import human_size, machine_bytes, serving_bytes
from frontend.triton.metrics import fetch_metrics

_MODEL_LABEL = re.compile(rb'[{,]model="([^"]*)"')  # the frontend's families and Triton's have it
METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def get_health(request: Request) -> HTTPResponse:
    """200 while requests can be served; 503 when the engine is away."""
    context = context_of(request)
    status, is_loaded = "healthy", True
    try:
        if not await context.engine.ready():  # asked now; what a model can do is remembered
            raise EngineUnavailable
        await context.engine.loaded_model(context.settings.model)
    except ModelNotLoaded:
        is_loaded = False
    except ServingError:
        status, is_loaded = "unhealthy", False
    used = await asyncio.to_thread(serving_bytes, context.root_pid)
    body = {
        "status": status,
        "model_loaded": is_loaded,
        "memory_usage": f"{human_size(used)}/{human_size(machine_bytes())}",
        "active_connections": context.metrics.num_active_connections(),
        "limits": await context.meter.health(),
    }
    return json_response(body, status=200 if status == "healthy" else 503)


async def get_metrics(request: Request) -> HTTPResponse:
    """This frontend's families, then the engine's."""
    context = context_of(request)
    engine = await fetch_metrics(context.settings.triton_metrics_address)
    own = await asyncio.to_thread(context.metrics.exposition)
    up = b"# HELP inflight_upstream_up Whether Triton's metrics could be read.\n"
    up += b"# TYPE inflight_upstream_up gauge\n"
    up += b"inflight_upstream_up %d\n" % (engine is not None)
    families = _visible(own + up + (engine or "").encode())
    return HTTPResponse(families, content_type=METRICS_CONTENT_TYPE)


def _visible(families: bytes) -> bytes:
    """The same without the samples of models that who asks may not use."""
    identity = current_identity.get()
    if identity.models == EVERY_MODEL:
        return families
    return b"".join(
        line
        for line in families.splitlines(keepends=True)
        if (found := _MODEL_LABEL.search(line)) is None or identity.may_use(found[1].decode())
    )
