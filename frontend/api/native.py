"""/api/v1/generate, /generate/stream and /batch/generate."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
from sanic import HTTPResponse, Request

from frontend.api.body import read_body
from frontend.api.errors import error_body, report
from frontend.api.lifecycle import on_current_version
from frontend.api.responses import json_response
from frontend.api.sse import send_events
from frontend.context import Context, context_of
from frontend.errors import InvalidParameter
from frontend.generate import generate
from frontend.prepare_generate import prepare_generate
from frontend.protocol.native import (
    KEEP_ALIVE_EVENT,
    BatchGenerateRequest,
    GenerateEncoder,
    GenerateRequest,
)
from frontend.protocol.parse import parse_body

# Clients here take a chunk that they read for one event: two that come close together are one chunk
# to a browser that is busy. With 15 ms headless Chromium on two loaded cores still met such chunks.
EVENT_GAP_S = 0.04


async def create_generation(request: Request) -> HTTPResponse | None:
    body = read_body(request, GenerateRequest)
    if body.stream:
        await _stream(request, body)
        return None
    return json_response(await _generate(context_of(request), body))


async def stream_generation(request: Request) -> None:
    await _stream(request, read_body(request, GenerateRequest))


async def create_batch(request: Request) -> HTTPResponse:
    """All requests at once in the engine's batch; one that fails has its error in its place."""
    body = read_body(request, BatchGenerateRequest)
    body.check()
    results = await asyncio.gather(*(_batch_item(request, raw) for raw in body.requests))
    return json_response({"results": results})


async def _batch_item(request: Request, raw: msgspec.Raw) -> dict[str, Any]:
    try:
        body = parse_body(bytes(raw), GenerateRequest)
        if body.stream:
            raise InvalidParameter("stream", "not_supported")
        return await on_current_version(lambda: _generate(context_of(request), body))
    except Exception as exc:  # whatever it is, the other items have their answers
        return error_body(request, report(request, exc))


async def _generate(context: Context, body: GenerateRequest) -> dict[str, Any]:
    prepared = await prepare_generate(body, catalog=context.catalog, engine=context.engine)
    prepared = context.meter.within_limits(prepared)
    generation = prepared.generation
    encoder = GenerateEncoder(num_prompt_tokens=len(generation.prompt_token_ids))
    async with (
        context.meter.charge([generation]) as charge,
        aclosing(charge.observe(generation, generate(prepared, context.engine))) as chunks,
    ):
        return await encoder.encode(chunks)


async def _stream(request: Request, body: GenerateRequest) -> None:
    context = context_of(request)
    prepared = await prepare_generate(body, catalog=context.catalog, engine=context.engine)
    prepared = context.meter.within_limits(prepared)
    generation = prepared.generation
    encoder = GenerateEncoder(num_prompt_tokens=len(generation.prompt_token_ids))
    async with (
        context.meter.charge([generation]) as charge,
        aclosing(charge.observe(generation, generate(prepared, context.engine))) as chunks,
    ):
        await send_events(
            request,
            encoder.encode_stream(chunks),
            keep_alive=KEEP_ALIVE_EVENT,  # clients here parse every chunk as JSON
            gap_s=EVENT_GAP_S,
        )
