"""/v1/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from sanic import HTTPResponse, Request

from frontend.api.answer import send_answer
from frontend.api.body import read_body
from frontend.charge import Charge
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
    async with context.meter.charge([one.generation for one in prepared.requests]) as charge:
        chunks = _generate(context, prepared, charge)
        return await send_answer(request, encoder, chunks, is_stream=bool(body.stream))


def _generate(
    context: Context, prepared: PreparedCompletion, charge: Charge
) -> AsyncGenerator[tuple[int, TextChunk], None]:
    """All prompts at once in the engine's batch; each chunk behind the index of its prompt."""
    return fan_in(
        [charge.observe(one.generation, generate(one, context.engine)) for one in prepared.requests]
    )


def _encoder(body: CompletionRequest, prepared: PreparedCompletion) -> CompletionEncoder:
    generation = prepared.first.generation
    return CompletionEncoder(
        request_id=generation.request_id,
        model=generation.model_name,
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
