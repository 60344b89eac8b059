"""/v1/embeddings."""

from __future__ import annotations

import uuid

from sanic import HTTPResponse, Request

from frontend.api.body import read_body
from frontend.api.responses import json_response
from frontend.context import context_of
from frontend.prepare_embeddings import prepare_embedding
from frontend.protocol.embeddings import EmbeddingRequest, encode_embeddings


async def create_embedding(request: Request) -> HTTPResponse:
    context = context_of(request)
    body = read_body(request, EmbeddingRequest)
    prepared = await prepare_embedding(body, catalog=context.catalog, engine=context.engine)
    request_id = f"embd-{uuid.uuid4().hex}"
    async with context.meter.charge_prompts(
        request_id, prepared.model, prepared.num_tokens
    ) as charge:
        vectors = await charge.whole(
            prepared.model,
            prepared.num_tokens,
            context.engine.embed(prepared.model, prepared.rows, prepared_for=prepared.prepared_for),
        )
    return json_response(
        encode_embeddings(
            vectors, model=prepared.model, num_tokens=prepared.num_tokens, request=body
        )
    )
