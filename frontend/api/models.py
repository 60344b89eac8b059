"""Models: both surfaces' lists, and loading and unloading."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sanic import HTTPResponse, Request

from build_engines.artefacts.artefact import Artefact
from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.catalog import CatalogModel, visible_adapters
from frontend.context import Context, context_of
from frontend.errors import AdapterNotFound, Unavailable
from frontend.loading import load_variant
from frontend.protocol.native import LoadRequest
from frontend.telemetry.memory import human_size, model_bytes


async def list_models(request: Request) -> HTTPResponse:
    """GET /api/v1/models"""
    context = context_of(request)
    models = [
        await asyncio.to_thread(_describe, context, model, await _served(context, model))
        for model in context.catalog.models()
        if model.name in model.names  # of others only adapters may be used
    ]
    return json_response({"models": models})


async def load_model(request: Request, model_name: str) -> HTTPResponse:
    """POST /api/v1/models/{model_name}/load"""
    context = context_of(request)
    body = read_body(request, LoadRequest) if request.body else LoadRequest()
    context.catalog.check_visible(model_name)
    name = context.catalog.resolve_name(model_name)
    await load_variant(
        context.catalog,
        context.repository,
        home=context.settings.home,
        name=name,
        quantization=body.quantization,
        prefer_gpu=bool(body.prefer_gpu),
    )
    model = context.catalog.get(name)
    return json_response(_describe(context, model, await _served(context, model)))


async def unload_model(request: Request, model_name: str) -> HTTPResponse:
    """POST /api/v1/models/{model_name}/unload"""
    context = context_of(request)
    model = context.catalog.get(model_name)
    await context.repository.unload(model.name)
    return json_response(_describe(context, model, None))


async def list_openai_models(request: Request) -> HTTPResponse:
    """GET /v1/models"""
    catalog = context_of(request).catalog
    models = [_describe_openai(model, name) for model in catalog.models() for name in model.names]
    return json_response({"object": "list", "data": models})


async def get_openai_model(request: Request, model_name: str) -> HTTPResponse:
    """GET /v1/models/{model}"""
    model, adapter = context_of(request).catalog.get_with_adapter(unquote(model_name))
    if adapter is not None and adapter not in model.adapters:
        known = ", ".join(model.adapters) or "-"
        raise AdapterNotFound(model=model.name, adapter=adapter, adapters=known)
    name = model.name if adapter is None else f"{model.name}:{adapter}"
    return json_response(_describe_openai(model, name))


async def _served(context: Context, model: CatalogModel) -> Artefact | None:
    try:
        # Another worker may have loaded it since we have been told.
        loaded = await context.engine.loaded_model(model.name, is_asked_anew=True)
        return context.catalog.served(loaded)
    except Unavailable:
        return None  # nothing is loaded while the engine is away; the list itself is still true


def _describe(context: Context, model: CatalogModel, served: Artefact | None) -> dict[str, Any]:
    manifest = (served or model.artefacts[0]).manifest
    is_loaded = served is not None
    memory = (model_bytes(context.root_pid, model.name) or manifest.memory_bytes) if served else 0
    return {
        "name": model.name,
        "format": manifest.format,
        "size": human_size(manifest.size_bytes),
        "loaded": is_loaded,
        "memory_usage": human_size(memory or 0),
        "variant": manifest.variant if is_loaded else None,
        "quantization": manifest.quantization if is_loaded else None,
        "variants": model.variants,
        "version": manifest.version if is_loaded else None,
        "adapters": visible_adapters(model.name, manifest.adapters),
        "failed": _failure(context, model, manifest.variant),
    }


def _failure(context: Context, model: CatalogModel, variant: str) -> dict[str, str] | None:
    """What is to be said of the current version, where it could not be loaded."""
    failure = context.repository.failures().get(model.name)
    if failure is None or failure["path"] != str(model.artefact(variant).path):
        return None
    return {"path": failure["path"], "reason": failure["reason"]}


def _describe_openai(model: CatalogModel, name: str) -> dict[str, Any]:
    manifest = model.artefacts[0].manifest
    created = int(Path(model.artefacts[0].path, "manifest.json").stat().st_mtime)
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "inflight",
        "max_model_len": manifest.limits.max_seq_len,
        **({} if name == model.name else {"parent": model.name}),
    }
