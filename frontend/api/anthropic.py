"""/v1/messages and its count_tokens: Anthropic's surface over the path of chat completions."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from frontend.api.answer import send_answer
from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.context import Context, context_of
from frontend.engine import TokenSource
from frontend.generate import generate
from frontend.prepare import prepare_chat, render_chat, text_model
from frontend.protocol.anthropic_answer import PING, MessageEncoder
from frontend.protocol.anthropic_request import CountTokensRequest, MessagesRequest, PromptRequest
from frontend.protocol.chat_request import ChatRequest
from frontend.thinking_budget import BudgetedThinking


async def create_message(request: Request) -> HTTPResponse | None:
    context = context_of(request)
    body = read_body(request, MessagesRequest)
    prepared = await prepare_chat(
        await _chat_request(context, body),
        catalog=context.catalog,
        engine=context.engine,
        id_prefix="msg_",
    )
    generation = prepared.generation
    encoder = MessageEncoder(
        request_id=generation.request_id,
        model=generation.model_name,
        num_prompt_tokens=len(generation.prompt_token_ids),
        is_bound_by_context=generation.max_new_tokens < body.max_tokens,
    )
    engine: TokenSource = context.engine
    if body.thinking_budget is not None:
        engine = BudgetedThinking(engine, prepared.tokenizer, budget=body.thinking_budget)
    async with context.meter.charge([generation]) as charge:
        chunks = charge.observe(generation, generate(prepared, engine))
        return await send_answer(
            request, encoder, chunks, is_stream=bool(body.stream), keep_alive=PING
        )


async def count_message_tokens(request: Request) -> HTTPResponse:
    """Exactly those of the prompt, also of one that the model's context has no room for."""
    context = context_of(request)
    chat = await _chat_request(context, read_body(request, CountTokensRequest))
    rendered = await render_chat(chat, catalog=context.catalog, engine=context.engine)
    return json_response({"input_tokens": len(rendered.token_ids)})


async def _chat_request(context: Context, body: PromptRequest) -> ChatRequest:
    """The same as a request for chat completions, checked for its model."""
    chat = body.chat_request()
    model = await text_model(body.model, catalog=context.catalog, engine=context.engine)
    style = context.catalog.output_format(model.artefact)
    body.check_model(model.tokenizer.chat_template, reasoning_parser=style.reasoning_parser)
    return chat
