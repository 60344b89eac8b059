"""/v1/responses: create, read, stream again, cancel, delete; the items of the input."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from sanic import HTTPResponse, Request

from frontend.access.identity import current_identity
from frontend.api.body import read_body
from frontend.api.errors import language_of, report
from frontend.api.responses import json_response
from frontend.api.sse import send_events
from frontend.context import Context, context_of
from frontend.errors import InvalidParameter, InvalidRequest, ResponseNotFound
from frontend.generate import generate
from frontend.prepare import PreparedRequest
from frontend.protocol.response_answer import (
    ENDINGS,
    Event,
    ResponseEncoder,
    sse_typed_event,
)
from frontend.protocol.response_queries import ItemsQuery, RetrieveQuery
from frontend.protocol.response_request import ResponseRequest
from frontend.responses.background import follow
from frontend.responses.conversation import Turn, prepare_turn, read_turn, stored_items
from frontend.store.own_responses import OwnResponses
from frontend.store.responses import StoredResponse
from frontend.types import TextChunk


async def create_response(request: Request) -> HTTPResponse | None:
    """POST /v1/responses"""
    context = context_of(request)
    turn, prepared = await _prepare(request)
    prepared = context.meter.within_limits(prepared)
    if turn.body.background:
        return await _create_in_background(request, turn, prepared)
    encoder = _encoder(turn.body, prepared)
    generation = prepared.generation
    async with (
        context.meter.charge([generation]) as charge,
        aclosing(charge.observe(generation, generate(prepared, context.engine))) as chunks,
    ):
        events = _answer(request, turn, encoder, chunks)
        if turn.body.stream:
            await _send(request, events)
            return None
        last = [event async for event in events][-1]
    return json_response(last["response"])


async def _create_in_background(
    request: Request, turn: Turn, prepared: PreparedRequest
) -> HTTPResponse | None:
    context = context_of(request)
    # Whoever asked has its answer: nobody could prepare it again.
    generation = replace(prepared.generation, may_move=True)
    prepared = replace(prepared, generation=generation)
    encoder = _encoder(turn.body, prepared)
    response = _stored(turn, encoder.body("queued"))
    async with context.meter.charge([generation]) as charge:
        chunks = charge.observe(generation, generate(prepared, context.engine))
        await context.background.start(response, encoder, chunks, language_of(request), charge)
    if not turn.body.stream:
        return json_response(response.shown())
    await _send(request, follow(_own(context), response.id, after=-1))
    return None


async def count_input_tokens(request: Request) -> HTTPResponse:
    """POST /v1/responses/input_tokens"""
    _, prepared = await _prepare(request)
    count = len(prepared.generation.prompt_token_ids)
    return json_response({"object": "response.input_tokens", "input_tokens": count})


async def get_response(request: Request, response_id: str) -> HTTPResponse | None:
    """GET /v1/responses/{response_id}"""
    context = context_of(request)
    query = RetrieveQuery.read(dict(request.args))
    response = await _get(context, response_id)
    if not query.stream:
        return json_response(response.shown())
    if not response.has_events:
        raise InvalidParameter("stream", "no_stream_kept")
    await _send(request, follow(_own(context), response_id, after=query.starting_after))
    return None


async def delete_response(request: Request, response_id: str) -> HTTPResponse:
    """DELETE /v1/responses/{response_id}"""
    context = context_of(request)
    if not await _own(context).delete(response_id):
        raise ResponseNotFound(response_id=response_id)
    context.background.stop(response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


async def cancel_response(request: Request, response_id: str) -> HTTPResponse:
    """POST /v1/responses/{response_id}/cancel; a second time changes nothing."""
    context = context_of(request)
    response = await _get(context, response_id)
    if not response.is_background:
        raise InvalidRequest("not_in_background")
    await _own(context).cancel(response_id)
    context.background.stop(response_id)
    response = await _get(context, response_id)
    if response.status != "cancelled":
        raise InvalidRequest("already_ended", status=response.status)
    return json_response(response.shown())


async def list_input_items(request: Request, response_id: str) -> HTTPResponse:
    """GET /v1/responses/{response_id}/input_items"""
    context = context_of(request)
    query = ItemsQuery.read(dict(request.args))
    items = await stored_items(await _get(context, response_id), _own(context))
    return json_response(query.page(items))


async def _prepare(request: Request) -> tuple[Turn, PreparedRequest]:
    context = context_of(request)
    body = read_body(request, ResponseRequest)
    body.check()
    turn = await read_turn(body, _own(context))
    return turn, await prepare_turn(turn, catalog=context.catalog, engine=context.engine)


def _own(context: Context) -> OwnResponses:
    """Those that who asks may see."""
    return OwnResponses(context.responses, current_identity.get())


async def _get(context: Context, response_id: str) -> StoredResponse:
    response = await _own(context).get(response_id)
    if response is None:
        raise ResponseNotFound(response_id=response_id)
    return response


def _encoder(body: ResponseRequest, prepared: PreparedRequest) -> ResponseEncoder:
    generation = prepared.generation
    fields = {
        "id": generation.request_id,
        "created_at": int(time.time()),
        "model": generation.model_name,
        **body.echo(),
    }
    return ResponseEncoder(
        fields,
        num_prompt_tokens=len(generation.prompt_token_ids),
        tokens=prepared.tokenizer,
        has_summary=body.has_summary,
        is_background=bool(body.background),
    )


def _stored(turn: Turn, shown: dict[str, Any]) -> StoredResponse:
    own = {name: value for name, value in shown.items() if name not in ("status", "output")}
    is_background = bool(turn.body.background)
    return StoredResponse(
        id=shown["id"],
        tenant=current_identity.get().tenant,
        model=shown["model"],
        created_at=shown["created_at"],
        status=shown["status"],
        body=own,
        previous_response_id=turn.body.previous_response_id,
        is_background=is_background,
        has_events=is_background and bool(turn.body.stream),
        input=turn.own,
        output=shown["output"],
    )


async def _answer(
    request: Request, turn: Turn, encoder: ResponseEncoder, chunks: AsyncIterator[TextChunk]
) -> AsyncGenerator[Event, None]:
    """All events. The response is stored before its last one: who has seen that may build on it.

    What fails in mid-stream ends as a response that failed.
    """
    has_begun = False
    try:
        async with aclosing(encoder.events(chunks)) as events:
            async for event in events:
                if event["type"] in ENDINGS.values():
                    await _store(request, turn, event)
                has_begun = True
                yield event
    except Exception as exc:
        if not has_begun or not turn.body.stream:
            raise
        failed = encoder.failed(report(request, exc), language_of(request))
        await _store(request, turn, failed)
        yield failed


async def _store(request: Request, turn: Turn, last: Event) -> None:
    if turn.body.is_stored:
        await context_of(request).responses.add(_stored(turn, last["response"]))


async def _send(request: Request, events: AsyncGenerator[Event, None]) -> None:
    async def encoded() -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            async for event in events:
                yield sse_typed_event(event)

    await send_events(request, encoded())
