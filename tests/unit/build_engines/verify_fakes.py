"""A model without an engine: what `TritonClient` gives of one, made from token ids alone."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from build_engines.artefacts.artefact import Artefact, VerificationResult
from build_engines.verify.record import Record
from build_engines.verify.verified import Verified
from frontend.triton.client import TritonClient
from frontend.triton.tensors import RETURN_LOG_PROBS, RETURN_PROMPT_LOG_PROBS
from frontend.types import FinishReason, GenerationRequest, LoadedModel, ModelLimits, TokenChunk

VOCAB_SIZE = 32
LIMITS = ModelLimits(max_seq_len=64, max_input_len=63, vocab_size=VOCAB_SIZE)

Row = list[float]


def exact_row(token_ids: Sequence[int], noise: float = 0.0) -> Row:
    """Log-probs behind some tokens: a hash of the last three, normalized."""
    seed = 0
    for token_id in token_ids[-3:]:
        seed = seed * 31 + token_id
    logits = [
        4 * math.sin(seed * 0.7 + token_id * 1.3) + noise * math.cos(seed + 5 * token_id)
        for token_id in range(VOCAB_SIZE)
    ]
    total = math.log(sum(math.exp(one) for one in logits))
    return [one - total for one in logits]


def log_probs_of(token_ids: list[int], num_scored: int, noise: float = 0.0) -> list[float]:
    """What the exact model says of the last tokens."""
    first = len(token_ids) - num_scored
    return [exact_row(token_ids[:i], noise)[token_ids[i]] for i in range(first, len(token_ids))]


@dataclass
class FakeModel:
    """`row` makes the log-probs of the next token. Counts what it was asked."""

    row: Callable[[Sequence[int]], Row] = exact_row
    scores_prompts: bool = True
    tells_log_probs: bool = True
    num_requests: int = 0
    num_generated: int = 0
    num_read: int = 0
    short_by: int = 0  # tokens that an answer lacks
    running: int = 0
    most_running: int = 0
    batch_row: Callable[[Sequence[int]], Row] | None = None  # while several run
    vectors: list[array[float]] = field(default_factory=list)

    def loaded(self) -> LoadedModel:
        inputs = {"input_ids", *([RETURN_PROMPT_LOG_PROBS.name] if self.scores_prompts else [])}
        inputs |= {RETURN_LOG_PROBS.name} if self.tells_log_probs else set()
        return LoadedModel(
            name="fake",
            variant="q8_0",
            limits=LIMITS,
            inputs=frozenset(inputs),
            outputs=frozenset(),
            embedding_size=len(self.vectors[0]) if self.vectors else None,
        )

    def client(self) -> TritonClient:
        return cast(TritonClient, self)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        assert request.sampling.temperature == 0
        assert request.end_id is None
        assert self.tells_log_probs or request.sampling.num_log_probs is None
        assert self.scores_prompts or not request.returns_prompt_log_probs
        self.num_requests += 1
        self.num_read += len(request.prompt_token_ids)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)  # those that are sent together run together
            for chunk in self._chunks(request):
                await asyncio.sleep(0)
                yield chunk
        finally:
            self.running -= 1

    def _chunks(self, request: GenerationRequest) -> list[TokenChunk]:
        token_ids, prompt = list(request.prompt_token_ids), None
        if request.returns_prompt_log_probs:
            scored = [self.row(token_ids[:i])[token_ids[i]] for i in range(1, len(token_ids))]
            prompt = [0.0, *scored]
        if request.max_new_tokens == 0:
            return [
                TokenChunk(
                    token_ids=[], finish_reason=FinishReason.LENGTH, log_probs=[],
                    prompt_log_probs=prompt,
                )
            ]  # fmt: skip
        chunks = []
        for _ in range(request.max_new_tokens - self.short_by):
            is_batch = self.batch_row is not None and self.running > 1
            row = (self.batch_row if is_batch and self.batch_row else self.row)(token_ids)
            token_ids.append(row.index(max(row)))
            chunks.append(
                TokenChunk(
                    token_ids=token_ids[-1:], log_probs=[max(row)] if self.tells_log_probs else None
                )
            )
        self.num_generated += len(chunks)
        return chunks

    async def embed(self, model: str, rows: Sequence[Sequence[int]]) -> list[array[float]]:
        self.num_requests += 1
        return self.vectors[: len(rows)]


def one_token_row(token_id: int) -> Callable[[Sequence[int]], Row]:
    """A model that says one token whatever comes before."""

    def row(_: Sequence[int]) -> Row:
        return [-0.1 if one == token_id else -9.0 for one in range(VOCAB_SIZE)]

    return row


def noisy(noise: float) -> Callable[[Sequence[int]], Row]:
    """The exact model with its weights disturbed."""
    return lambda token_ids: exact_row(token_ids, noise)


def never(*_: Any) -> Row:
    """A model whose log-probs are not numbers."""
    return [math.nan] * VOCAB_SIZE


def publish_unasked(artefact: Artefact, *, record_to: Path | None = None, **_: Any) -> Verified:
    """In place of `build_engines.verify.run.verify` where a test is about other stages."""
    assert record_to is not None
    Record("nobody").write(record_to)
    result = VerificationResult(
        reference="nobody", difference=None, tolerance=None, tokens_per_s={"1": 1.0}
    )
    return Verified(result=result, memory_bytes=1)
