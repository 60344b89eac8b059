"""/v1/chat/completions."""

from __future__ import annotations

import time

from sanic import HTTPResponse, Request

from frontend.api.answer import send_answer
from frontend.api.body import read_body
from frontend.context import context_of
from frontend.generate import generate
from frontend.prepare import PreparedRequest, prepare_chat
from frontend.protocol.chat_answer import ChatAnswerOptions, ChatEncoder
from frontend.protocol.chat_request import ChatRequest


async def create_chat_completion(request: Request) -> HTTPResponse | None:
    context = context_of(request)
    body = read_body(request, ChatRequest)
    prepared = await prepare_chat(
        body,
        catalog=context.catalog,
        engine=context.engine,
        allows_chat_template=context.settings.request_chat_template,
    )
    prepared = context.meter.within_limits(prepared)
    encoder = _encoder(body, prepared)
    async with context.meter.charge([prepared.generation]) as charge:
        chunks = charge.observe(prepared.generation, generate(prepared, context.engine))
        return await send_answer(request, encoder, chunks, is_stream=bool(body.stream))


def _encoder(body: ChatRequest, prepared: PreparedRequest) -> ChatEncoder:
    generation = prepared.generation
    return ChatEncoder(
        request_id=generation.request_id,
        model=generation.model_name,
        created=int(time.time()),
        prompt_token_ids=generation.prompt_token_ids,
        fingerprint=prepared.fingerprint,
        tokens=prepared.tokenizer,
        options=ChatAnswerOptions(
            includes_usage=body.includes_usage,
            includes_token_ids=bool(body.return_token_ids),
            names_service_tier=body.service_tier is not None,
            is_legacy_function=body.is_legacy_function,
            prefix=body.echoed_text(),
        ),
    )
