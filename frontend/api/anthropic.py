"""/v1/messages and its count_tokens: Anthropic's surface over the path of chat completions."""

from __future__ import annotations

from contextlib import aclosing

from sanic import HTTPResponse, Request

from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.api.sse import send_events
from frontend.context import context_of
from frontend.generate import generate
from frontend.prepare import prepare_chat
from frontend.protocol.anthropic_answer import PING, MessageEncoder
from frontend.protocol.anthropic_request import CountTokensRequest, MessagesRequest


async def create_message(request: Request) -> HTTPResponse | None:
    context = context_of(request)
    body = read_body(request, MessagesRequest)
    prepared = await prepare_chat(
        body.chat_request(),
        catalog=context.catalog,
        engine=context.engine,
        id_prefix="msg_",
    )
    body.check_model(prepared.tokenizer.chat_template)
    generation = prepared.generation
    encoder = MessageEncoder(
        request_id=generation.request_id,
        model=generation.model,
        num_prompt_tokens=len(generation.prompt_token_ids),
        is_bound_by_context=generation.max_new_tokens < body.max_tokens,
    )
    chunks = generate(prepared, context.engine)
    async with aclosing(context.metrics.observe(generation, chunks)) as chunks:
        if not body.stream:
            return json_response(await encoder.encode(chunks))
        await send_events(
            request,
            encoder.encode_stream(chunks),
            keep_alive_interval_s=context.settings.keep_alive_interval_s,
            keep_alive=PING,
        )
    return None


async def count_message_tokens(request: Request) -> HTTPResponse:
    context = context_of(request)
    body = read_body(request, CountTokensRequest)
    prepared = await prepare_chat(
        body.chat_request(), catalog=context.catalog, engine=context.engine
    )
    body.check_model(prepared.tokenizer.chat_template)
    return json_response({"input_tokens": len(prepared.generation.prompt_token_ids)})
