"""An Engine that does what a test tells it, and behaves like the real one otherwise.

What is ready at once comes as one chunk; max_new_tokens is kept; closing a stream cancels it.
Records every stream, so that tests can look at what became of it.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum

from build_engines.artefacts.artefact import Artefact
from frontend.errors import EngineUnavailable, InvalidParameter, ModelNotLoaded
from frontend.triton.tensors import INPUTS, OUTPUTS, encode_request
from frontend.types import (
    FinishReason,
    GenerationRequest,
    LoadedModel,
    ModelLimits,
    ServedVersion,
    TokenChunk,
    TokenLogProb,
)

ALL_INPUTS = frozenset(tensor.name for tensor in INPUTS)
ALL_OUTPUTS = frozenset(tensor.name for tensor in OUTPUTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One forward pass: its tokens, `after_s` behind those before it."""

    token_ids: list[int] = field(default_factory=list)
    after_s: float = 0.0
    error: Exception | None = None  # raised in place of tokens
    num_cached_tokens: int | None = None
    # One for each of token_ids; given to requests that want them. None: made up.
    log_probs: list[float] | None = None
    top_log_probs: list[list[TokenLogProb]] | None = None
    is_alone: bool = False  # comes as a chunk of its own even if others are ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the engine answers to one request; each of its sequences gets the same."""

    steps: list[Step]
    finish_reason: FinishReason | None = FinishReason.STOP  # None: the stream ends without any


class Ending(StrEnum):
    FINISHED = "finished"  # all finish reasons were delivered
    CANCELLED = "cancelled"  # the consumer left before
    FAILED = "failed"  # the script's error was raised, or it ended without a finish reason


@dataclass(slots=True, kw_only=True)
class StreamRecord:
    request: GenerationRequest
    num_tokens_taken: int = 0
    ending: Ending | None = None  # None: still running
    ended_at: float | None = None  # time.monotonic()


Scripting = Callable[[GenerationRequest], Script]


class FakeEngine:
    """Implements `frontend.engine.Engine`."""

    def __init__(self, script: Script | Scripting | None = None) -> None:
        self.script: Script | Scripting = script or Script(steps=[])
        self.models: dict[str, LoadedModel] = {}
        self.is_up = True
        self.is_closed = False
        self.streams: list[StreamRecord] = []
        self.unexpected: Exception | None = None  # what loaded_model raises

    @property
    def num_running(self) -> int:
        return sum(stream.ending is None for stream in self.streams)

    def load(self, name: str, *, variant: str = "q8_0", max_seq_len: int = 2048) -> LoadedModel:
        limits = ModelLimits(
            max_seq_len=max_seq_len, max_input_len=max_seq_len - 1, vocab_size=1000
        )
        self.models[name] = LoadedModel(
            name=name, variant=variant, limits=limits, inputs=ALL_INPUTS, outputs=ALL_OUTPUTS
        )
        return self.models[name]

    async def loaded_model(self, name: str, *, is_asked_anew: bool = False) -> LoadedModel:
        if self.unexpected is not None:
            raise self.unexpected
        if not self.is_up:
            raise EngineUnavailable
        if name not in self.models:
            raise ModelNotLoaded(model=name)
        return self.models[name]

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        record = StreamRecord(request=request)
        self.streams.append(record)
        with _recorded(record):
            # Refuses what the model has no tensor for, as the real one.
            encode_request(request, await self.loaded_model(request.model))
            script = self.script if isinstance(self.script, Script) else self.script(request)
            async for chunk in _play(request, script):
                record.num_tokens_taken += len(chunk.token_ids)
                if chunk.finish_reason and chunk.sequence_index == request.num_sequences - 1:
                    record.ending = Ending.FINISHED
                yield chunk

    async def embed(
        self,
        model: str,
        rows: Sequence[Sequence[int]],
        *,
        prepared_for: ServedVersion | None = None,
    ) -> list[array[float]]:
        """A vector along one axis for each row: the same for rows of the same sum."""
        size = (await self.loaded_model(model)).embedding_size
        if size is None:
            raise InvalidParameter("model", "unsupported", reason="it makes no embeddings")
        return [
            array("f", [float(axis == sum(row) % size) for axis in range(size)]) for row in rows
        ]

    async def ready(self) -> bool:
        return self.is_up

    async def close(self) -> None:
        self.is_closed = True


class FakeRepository:
    """Implements `frontend.context.ModelRepository` for a FakeEngine."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.failure: Exception | None = None  # what load raises
        self.on_load: Callable[[Artefact], None] | None = None  # in place of the engine's own

    async def load(self, artefact: Artefact) -> LoadedModel:
        if self.failure is not None:
            raise self.failure
        loaded = self._engine.load(artefact.manifest.name, variant=artefact.manifest.variant)
        if self.on_load is not None:
            self.on_load(artefact)
        return loaded

    async def follow(self, name: str, served: str, find: Callable[[], Artefact | None]) -> None:
        if (artefact := find()) is not None:
            await self.load(artefact)

    def wanted(self) -> list[str]:
        return sorted(self._engine.models)

    def failures(self) -> dict[str, dict[str, str]]:
        return {}

    async def unload(self, name: str) -> None:
        self._engine.models.pop(name, None)


@contextmanager
def _recorded(record: StreamRecord) -> Iterator[None]:
    try:
        yield
        record.ending = record.ending or Ending.FAILED
    except (GeneratorExit, asyncio.CancelledError):
        record.ending = record.ending or Ending.CANCELLED
        raise
    except Exception:
        record.ending = Ending.FAILED
        raise
    finally:
        record.ended_at = time.monotonic()


async def _play(request: GenerationRequest, script: Script) -> AsyncGenerator[TokenChunk, None]:
    room = request.max_new_tokens
    due_at = time.monotonic()
    is_first = True
    steps = deque(script.steps or [Step()])
    while steps:
        ready = [steps.popleft()]
        due_at += ready[0].after_s
        if (left_s := due_at - time.monotonic()) > 0:
            await asyncio.sleep(left_s)
        if ready[0].error is not None:
            raise ready[0].error
        while steps and _is_ready_with(ready[-1], steps[0], due_at):
            ready.append(steps.popleft())
            due_at += ready[-1].after_s
        chunk = _merge(ready, room, request)
        room -= len(chunk.token_ids)
        if not room:
            chunk = replace(chunk, finish_reason=FinishReason.LENGTH)
        elif not steps:
            chunk = replace(chunk, finish_reason=script.finish_reason)
        for index in range(request.num_sequences):
            scored = _score_prompt(chunk, request) if is_first and index == 0 else chunk
            yield replace(scored, sequence_index=index)
        is_first = False
        if chunk.finish_reason:
            return


def _is_ready_with(step: Step, following: Step, due_at: float) -> bool:
    if step.is_alone or following.is_alone or following.error is not None:
        return False
    # `due_at` has come even where a timer fired a little early
    return due_at + following.after_s <= max(due_at, time.monotonic())


def _merge(steps: list[Step], room: int, request: GenerationRequest) -> TokenChunk:
    token_ids = [token_id for step in steps for token_id in step.token_ids]
    cached = next((s.num_cached_tokens for s in steps if s.num_cached_tokens is not None), None)
    num_top = request.sampling.num_log_probs
    return TokenChunk(
        token_ids=token_ids[:room],
        num_cached_tokens=cached,
        log_probs=None if num_top is None else _log_probs(steps)[:room],
        top_log_probs=_top_log_probs(steps, num_top)[:room] if num_top else None,
    )


def _log_probs(steps: list[Step]) -> list[float]:
    return [
        log_prob
        for step in steps
        for log_prob in step.log_probs or [log_prob_of(token_id) for token_id in step.token_ids]
    ]


def _top_log_probs(steps: list[Step], num_top: int) -> list[list[TokenLogProb]]:
    return [
        top[:num_top]
        for step in steps
        for top in step.top_log_probs or [_top(num_top) for _ in step.token_ids]
    ]


def log_prob_of(token_id: int) -> float:
    """What every token's log-prob is here, wherever it stands; exact in binary."""
    return -1.0 - (token_id % 8) / 8


def _score_prompt(chunk: TokenChunk, request: GenerationRequest) -> TokenChunk:
    if not request.returns_prompt_log_probs:
        return chunk
    _, *rest = request.prompt_token_ids
    num_top = request.sampling.num_log_probs
    return replace(
        chunk,
        prompt_log_probs=[0.0, *(log_prob_of(token_id) for token_id in rest)],
        prompt_top_log_probs=[_top(num_top) for _ in rest] if num_top else None,
    )


def _top(num_top: int) -> list[TokenLogProb]:
    """The letters from "A" on, each less likely than the one before it."""
    return [TokenLogProb(token_id=32 + i, log_prob=-0.25 * (i + 1)) for i in range(num_top)]


def one_token_a_step(
    token_ids: list[int], *, every_s: float = 0.0, is_alone: bool = False
) -> list[Step]:
    return [Step(token_ids=[one], after_s=every_s, is_alone=is_alone) for one in token_ids]
