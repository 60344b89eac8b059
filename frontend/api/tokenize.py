"""/tokenize, /detokenize, /tokenizer_info and /v1/chat/completions/render: prompts and tokens.

None of them generates anything; those of bare texts do not even need the model to be loaded.
"""

from __future__ import annotations

from sanic import HTTPResponse, Request

from build_engines.artefacts.artefact import Artefact
from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.context import Context, context_of
from frontend.errors import Unavailable
from frontend.prepare import off_loop, prepare_chat, render_chat
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.parse import check_range
from frontend.protocol.tokenize import (
    DetokenizeRequest,
    TokenizeRequest,
    encode_rendered,
    encode_tokenizer,
    encode_tokens,
)


async def tokenize(request: Request) -> HTTPResponse:
    context = context_of(request)
    body = read_body(request, TokenizeRequest)
    body.check()
    artefact = await _artefact(context, body.model)
    tokenizer = context.catalog.tokenizer(artefact)
    if (chat := body.chat_request()) is not None:
        rendered = await render_chat(
            chat,
            catalog=context.catalog,
            engine=context.engine,
            allows_chat_template=context.settings.request_chat_template,
        )
        token_ids = rendered.token_ids
    else:
        text, adds_special_tokens = body.prompt or "", body.add_special_tokens is not False
        token_ids = await off_loop(
            len(text), lambda: tokenizer.encode(text, add_special_tokens=adds_special_tokens)
        )
    return json_response(
        encode_tokens(
            token_ids,
            max_model_len=artefact.manifest.limits.max_seq_len,
            token_texts=tokenizer.token_strings(token_ids) if body.return_token_strs else None,
        )
    )


async def detokenize(request: Request) -> HTTPResponse:
    context = context_of(request)
    body = read_body(request, DetokenizeRequest)
    body.check()
    artefact = await _artefact(context, body.model)
    for token_id in body.tokens and (min(body.tokens), max(body.tokens)):
        check_range("tokens", token_id, 0, artefact.manifest.limits.vocab_size - 1)
    tokenizer = context.catalog.tokenizer(artefact)
    text = await off_loop(
        len(body.tokens), lambda: tokenizer.decode(body.tokens, skip_special_tokens=False)
    )
    return json_response({"prompt": text})


async def get_tokenizer_info(request: Request) -> HTTPResponse:
    """What a client that tokenizes through this server must know besides; `?model=` chooses."""
    context = context_of(request)
    artefact = await _artefact(context, request.args.get("model"))
    tokenizer = context.catalog.tokenizer(artefact)
    return json_response(
        encode_tokenizer(
            model=artefact.manifest.name,
            special_tokens=tokenizer.special_tokens,
            chat_template=tokenizer.chat_template,
        )
    )


async def _artefact(context: Context, name: str | None) -> Artefact:
    """The version that is served, or while none is, that of any variant."""
    model, _ = context.catalog.get_with_adapter(name)
    try:
        return context.catalog.served(await context.engine.loaded_model(model.name))
    except Unavailable:
        return model.artefacts[0]


async def render_chat_completion(request: Request) -> HTTPResponse:
    """What the engine would get for a chat request."""
    context = context_of(request)
    prepared = await prepare_chat(
        read_body(request, ChatRequest),
        catalog=context.catalog,
        engine=context.engine,
        allows_chat_template=context.settings.request_chat_template,
    )
    generation = prepared.generation
    limits = (await context.engine.loaded_model(generation.model)).limits
    return json_response(
        encode_rendered(
            model=generation.model_name,
            prompt_text=prepared.prompt_text,
            token_ids=generation.prompt_token_ids,
            max_model_len=limits.max_seq_len,
        )
    )
