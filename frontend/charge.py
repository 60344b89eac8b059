"""One request that is charged for: what it reserves, what becomes of it, and what it has used.

Knows nothing of who asks, nor of where it is counted.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, TypeVar

from frontend.access.identity import Identity
from frontend.errors import ModelChanged, ServingError
from frontend.limits.store import Reservation
from frontend.types import FinishReason, GenerationRequest, TextChunk

T = TypeVar("T")
CANCELLED = "cancelled"  # the outcome of what nobody waits for any more
FINISH_REASONS = frozenset(FinishReason)


@dataclass(slots=True, kw_only=True)
class Part:
    """What the engine is asked for one of a request's prompts. Times are time.perf_counter()'s."""

    model: str
    num_prompt_tokens: int
    started_at: float = field(default_factory=time.perf_counter)
    first_at: float | None = None  # when its first tokens came
    ended_at: float = 0.0
    num_cached_tokens: int = 0
    num_tokens: int = 0  # generated
    num_reasoning_tokens: int = 0
    outcome: str = CANCELLED
    has_failed: bool = False

    @property
    def num_prompt_tokens_used(self) -> int:
        """Nobody pays for a prompt that the engine has failed on."""
        return 0 if self.has_failed and self.first_at is None else self.num_prompt_tokens

    @property
    def num_tokens_used(self) -> int:
        return self.num_prompt_tokens_used + self.num_tokens


class Desk(Protocol):
    """Where charges are opened and counted."""

    async def admit(self, charge: Charge) -> Reservation:
        """Raises what refuses the request."""
        ...

    def count(self, charge: Charge, outcome: str) -> None:
        """It has ended; what it has used stands in its parts."""
        ...

    def forget(self, charge: Charge) -> None:
        """It was none."""
        ...

    def run(self, work: Coroutine[None, None, None]) -> None:
        """To its end, though nobody waits for it."""
        ...


class Charge:
    """Opened and settled by `async with`, whatever ends the block.

    It is settled before that when its last answer has ended: before the client sees the end of it,
    and asks again. Where the model has changed, so that the request is prepared and charged again,
    all is given back.

    Args:
        num_parts: prompts.
        num_tokens: of the prompts, and the most of their answers.
    """

    def __init__(
        self, desk: Desk, *, request_id: str, model: str, num_parts: int, num_tokens: int
    ) -> None:
        self._desk = desk
        self.request_id = request_id
        self.model = model  # as clients write it
        self.num_tokens = num_tokens
        self.parts: list[Part] = []  # those that were begun
        self.identity: Identity | None = None  # of who pays, once it is open
        self._num_open = num_parts
        self._reservation: Reservation | None = None
        self._is_handed_over = False

    async def __aenter__(self) -> Self:
        self._reservation = await self._desk.admit(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_handed_over:
            await self._close(error)

    def hand_over(self) -> None:
        """Somebody else closes it, by `release`; the block's end does nothing."""
        self._is_handed_over = True

    def release(self) -> None:
        """Settle it soon, unless that has been done."""
        if self._reservation is not None:
            self._desk.run(self._close())

    async def observe(
        self, request: GenerationRequest, chunks: AsyncGenerator[TextChunk, None]
    ) -> AsyncGenerator[TextChunk, None]:
        """Pass the chunks of one of its answers on, and count them once at the end."""
        async with self._part(request.model, len(request.prompt_token_ids)) as part:
            num_tokens = num_reasoning_tokens = num_cached_tokens = 0
            chunk: TextChunk | None = None
            try:
                async with aclosing(chunks):
                    async for chunk in chunks:  # the first: no other is looked at for that
                        part.first_at = time.perf_counter()
                        num_tokens = chunk.num_tokens
                        num_reasoning_tokens = chunk.num_reasoning_tokens
                        num_cached_tokens = chunk.num_cached_tokens or 0
                        yield chunk
                        break
                    async for chunk in chunks:
                        num_tokens += chunk.num_tokens
                        if chunk.num_reasoning_tokens:
                            num_reasoning_tokens += chunk.num_reasoning_tokens
                        if chunk.num_cached_tokens is not None:
                            num_cached_tokens = max(num_cached_tokens, chunk.num_cached_tokens)
                        yield chunk
            finally:
                part.num_tokens, part.num_reasoning_tokens = num_tokens, num_reasoning_tokens
                part.num_cached_tokens = min(num_cached_tokens, part.num_prompt_tokens)
                if chunk is not None and chunk.finish_reason is not None:
                    part.outcome = chunk.finish_reason

    async def whole(self, model: str, num_prompt_tokens: int, answer: Awaitable[T]) -> T:
        """Wait for an answer that comes at once, and has no tokens."""
        async with self._part(model, num_prompt_tokens) as part:
            result = await answer
            part.outcome = FinishReason.STOP
            return result

    @asynccontextmanager
    async def _part(self, model: str, num_prompt_tokens: int) -> AsyncIterator[Part]:
        part = Part(model=model, num_prompt_tokens=num_prompt_tokens)
        self.parts.append(part)
        try:
            yield part
        except ServingError as exc:
            part.outcome, part.has_failed = exc.code, True
            raise
        except Exception:
            part.outcome, part.has_failed = ServingError.code, True
            raise
        finally:
            part.ended_at = time.perf_counter()
            self._num_open -= 1
            if not self._num_open and not self._has_met_change:
                await self._close()

    @property
    def _has_met_change(self) -> bool:
        """Whether it may be charged again: the end of the block knows."""
        return any(part.outcome == ModelChanged.code for part in self.parts)

    async def _close(self, error: BaseException | None = None) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return
        if isinstance(error, ModelChanged):
            self._desk.forget(self)
            await reservation.cancel()
        else:
            try:
                self._desk.count(self, self._outcome(error))
            finally:  # its place would be taken for as long as this worker lives
                await reservation.settle(sum(part.num_tokens_used for part in self.parts))

    def _outcome(self, error: BaseException | None) -> str:
        """Of all parts: that of the first which did not end as it should, if any."""
        if not self.parts:
            return _outcome_of(error)
        outcomes = [part.outcome for part in self.parts]
        return next((one for one in outcomes if one not in FINISH_REASONS), outcomes[0])


def _outcome_of(error: BaseException | None) -> str:
    if isinstance(error, ServingError):
        return error.code
    return ServingError.code if isinstance(error, Exception) else CANCELLED
