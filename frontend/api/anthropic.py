"""/v1/messages and its count_tokens: Anthropic's surface over the path of chat completions."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from frontend.api.answer import send_answer
from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.context import Context, context_of
from frontend.engine import TokenSource
from frontend.errors import ContextLengthExceeded
from frontend.generate import generate
from frontend.prepare import PreparedRequest, prepare_chat, text_model
from frontend.protocol.anthropic_answer import PING, MessageEncoder
from frontend.protocol.anthropic_request import CountTokensRequest, MessagesRequest, PromptRequest
from frontend.thinking_budget import BudgetedThinking


async def create_message(request: Request) -> HTTPResponse | None:
    context = context_of(request)
    body = read_body(request, MessagesRequest)
    prepared = await _prepare(context, body)
    generation = prepared.generation
    encoder = MessageEncoder(
        request_id=generation.request_id,
        model=generation.model,
        num_prompt_tokens=len(generation.prompt_token_ids),
        is_bound_by_context=generation.max_new_tokens < body.max_tokens,
    )
    engine: TokenSource = context.engine
    if body.thinking_budget is not None:
        engine = BudgetedThinking(engine, prepared.tokenizer, budget=body.thinking_budget)
    chunks = context.metrics.observe(generation, generate(prepared, engine))
    return await send_answer(request, encoder, chunks, is_stream=bool(body.stream), keep_alive=PING)


async def count_message_tokens(request: Request) -> HTTPResponse:
    body = read_body(request, CountTokensRequest)
    return json_response({"input_tokens": await _num_prompt_tokens(context_of(request), body)})


async def _prepare(context: Context, body: PromptRequest) -> PreparedRequest:
    chat = body.chat_request()
    model = await text_model(body.model, catalog=context.catalog, engine=context.engine)
    style = context.catalog.output_format(model.artefact)
    body.check_model(model.tokenizer.chat_template, reasoning_parser=style.reasoning_parser)
    return await prepare_chat(
        chat, catalog=context.catalog, engine=context.engine, id_prefix="msg_"
    )


async def _num_prompt_tokens(context: Context, body: PromptRequest) -> int:
    """Exactly those of the prompt, also of one that the model's context has no room for."""
    try:
        prepared = await _prepare(context, body)
    except ContextLengthExceeded as exc:
        return int(str(exc.values["num_tokens"]))
    return len(prepared.generation.prompt_token_ids)
