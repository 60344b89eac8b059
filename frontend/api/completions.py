"""/v1/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sanic import HTTPResponse, Request

from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.api.sse import send_events
from frontend.context import Context, context_of
from frontend.fan_in import fan_in
from frontend.generate import generate
from frontend.prepare_completion import PreparedCompletion, prepare_completion
from frontend.protocol.completion_answer import CompletionAnswerOptions, CompletionEncoder
from frontend.protocol.completion_request import CompletionRequest
from frontend.types import TextChunk


async def create_completion(request: Request) -> HTTPResponse | None:
    context = context_of(request)
    body = read_body(request, CompletionRequest)
    prepared = await prepare_completion(body, catalog=context.catalog, engine=context.engine)
    encoder = _encoder(body, prepared)
    async with aclosing(_generate(context, prepared)) as chunks:
        if not body.stream:
            return json_response(await encoder.encode(chunks))
        await send_events(
            request,
            encoder.encode_stream(chunks),
            keep_alive_interval_s=context.settings.keep_alive_interval_s,
        )
    return None


def _generate(
    context: Context, prepared: PreparedCompletion
) -> AsyncGenerator[tuple[int, TextChunk], None]:
    """All prompts at once in the engine's batch; each chunk behind the index of its prompt."""
    return fan_in(
        [
            context.metrics.observe(one.generation, generate(one, context.engine))
            for one in prepared.requests
        ]
    )


def _encoder(body: CompletionRequest, prepared: PreparedCompletion) -> CompletionEncoder:
    generation = prepared.first.generation
    return CompletionEncoder(
        request_id=generation.request_id,
        model=generation.model,
        created=int(time.time()),
        fingerprint=prepared.first.fingerprint,
        prompts=prepared.prompts,
        tokens=prepared.first.tokenizer,
        options=CompletionAnswerOptions(
            num_choices=body.num_choices,
            num_candidates=body.num_candidates,
            echoes=bool(body.echo),
            includes_log_probs=body.logprobs is not None,
            includes_token_ids=bool(body.return_token_ids),
            includes_usage=body.includes_usage,
        ),
    )
