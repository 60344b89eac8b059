"""Models: both surfaces' lists, and loading and unloading."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sanic import HTTPResponse, Request

from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.catalog import CatalogModel
from frontend.context import Context, context_of
from frontend.errors import Unavailable
from frontend.loading import load_variant
from frontend.protocol.native import LoadRequest
from frontend.telemetry.memory import human_size, model_bytes


async def list_models(request: Request) -> HTTPResponse:
    """GET /api/v1/models"""
    context = context_of(request)
    models = [
        await asyncio.to_thread(
            _describe, context.root_pid, model, await _loaded_variant(context, model)
        )
        for model in context.catalog.models()
    ]
    return json_response({"models": models})


async def load_model(request: Request, model_name: str) -> HTTPResponse:
    """POST /api/v1/models/{model_name}/load"""
    context = context_of(request)
    body = read_body(request, LoadRequest) if request.body else LoadRequest()
    name = context.catalog.resolve_name(model_name)
    artefact = await load_variant(
        context.catalog,
        context.repository,
        home=context.settings.home,
        name=name,
        quantization=body.quantization,
        prefer_gpu=bool(body.prefer_gpu),
    )
    return json_response(
        _describe(context.root_pid, context.catalog.get(name), artefact.manifest.variant)
    )


async def unload_model(request: Request, model_name: str) -> HTTPResponse:
    """POST /api/v1/models/{model_name}/unload"""
    context = context_of(request)
    model = context.catalog.get(model_name)
    await context.repository.unload(model.name)
    return json_response(_describe(context.root_pid, model, None))


async def list_openai_models(request: Request) -> HTTPResponse:
    """GET /v1/models"""
    models = [_describe_openai(model) for model in context_of(request).catalog.models()]
    return json_response({"object": "list", "data": models})


async def get_openai_model(request: Request, model_name: str) -> HTTPResponse:
    """GET /v1/models/{model}"""
    return json_response(_describe_openai(context_of(request).catalog.get(model_name)))


async def _loaded_variant(context: Context, model: CatalogModel) -> str | None:
    try:
        return (await context.engine.loaded_model(model.name)).variant
    except Unavailable:
        return None  # nothing is loaded while the engine is away; the list itself is still true


def _describe(root_pid: int, model: CatalogModel, loaded_variant: str | None) -> dict[str, Any]:
    manifest = model.artefact(loaded_variant or "").manifest
    is_loaded = loaded_variant is not None
    memory = (model_bytes(root_pid, model.name) or manifest.memory_bytes) if is_loaded else 0
    return {
        "name": model.name,
        "format": manifest.format,
        "size": human_size(manifest.size_bytes),
        "loaded": is_loaded,
        "memory_usage": human_size(memory or 0),
        "variant": loaded_variant,
        "quantization": manifest.quantization if is_loaded else None,
        "variants": model.variants,
    }


def _describe_openai(model: CatalogModel) -> dict[str, Any]:
    manifest = model.artefacts[0].manifest
    created = int(Path(model.artefacts[0].path, "manifest.json").stat().st_mtime)
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "inflight",
        "max_model_len": manifest.limits.max_seq_len,
    }
