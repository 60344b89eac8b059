"""Who asks for what is let in or refused, and what was used is counted: the one place where limits,
budgets, metrics and usage meet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Protocol

from frontend.access.identity import ANYBODY, Identity, current_identity
from frontend.charge import Charge, Part
from frontend.errors import LimitsUnavailable
from frontend.limits.buckets import Rule, token_capacity
from frontend.limits.gcra import Decision
from frontend.limits.headers import limit_headers, refusal
from frontend.limits.policy_file import PolicyFile
from frontend.limits.store import LimitStore, Reservation
from frontend.prepare import PreparedRequest
from frontend.telemetry.metrics import Metrics
from frontend.telemetry.requests import RequestRecord, current_request
from frontend.types import GenerationRequest
from frontend.usage.budgets import Budgets
from frontend.usage.record import UsageRecord

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0  # for requests that are being cancelled when the server has stopped
# Of what a bucket has room for, an answer of no given length takes this part at the most: so that
# one can be asked for while another is given, and when the bucket is not quite empty.
OPEN_SHARE = 2


class UsageSink(Protocol):
    """What of `UsageLog` is asked here."""

    def add(self, record: UsageRecord) -> None: ...


class Meter:
    """One worker's.

    Args:
        store: of buckets; it is open, and closed with the meter.
        stranger: whom the limits of those are shown for who have not said who they are.
    """

    def __init__(
        self,
        *,
        limits: PolicyFile,
        store: LimitStore,
        metrics: Metrics,
        usage: UsageSink,
        budgets: Budgets,
        stranger: Identity = ANYBODY,
    ) -> None:
        self._limits = limits
        self._store = store
        self._metrics = metrics
        self._usage = usage
        self._budgets = budgets
        self._stranger = stranger
        self._open: set[Charge] = set()
        self._all_ended: asyncio.Event | None = None  # the meter is being closed
        self._running: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let what is ending be settled and counted."""
        if self._open:
            self._all_ended = asyncio.Event()
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._all_ended.wait()
            except TimeoutError:
                logger.error("usage lost: requests do not end", extra={"requests": len(self._open)})
        if self._running:
            await asyncio.wait(self._running)
        await self._store.close()

    async def health(self) -> str:
        """For people: "ok", or what is wrong with the limits, as it is now."""
        with suppress(LimitsUnavailable):  # then the store knows
            await self._store.acquire((), 0, num_requests=0)
        return self._store.health()

    def within_limits(self, prepared: PreparedRequest) -> PreparedRequest:
        """The same; but an answer whose length was left open fits into its token buckets."""
        generation = prepared.generation
        if not generation.is_length_open:
            return prepared
        most = token_capacity(self._rules(generation.model_name))
        if most is None:
            return prepared
        room = most - len(generation.prompt_token_ids)
        share = max(room // generation.num_sequences // OPEN_SHARE, 1)
        if share >= generation.max_new_tokens:
            return prepared
        return replace(prepared, generation=replace(generation, max_new_tokens=share))

    def charge(self, generations: Sequence[GenerationRequest]) -> Charge:
        """One request for these, all of one model.

        Opening it raises:
            RateLimited, QuotaExceeded: another time.
            RequestOverLimit: it never fits.
            LimitsUnavailable: it cannot be decided.
        """
        first = generations[0]
        return Charge(
            self,
            request_id=first.request_id,
            model=first.model_name,
            num_parts=len(generations),
            num_tokens=sum(_most_tokens(one) for one in generations),
        )

    def charge_prompts(self, request_id: str, model: str, num_tokens: int) -> Charge:
        """One request whose answer has no tokens, as `charge`."""
        return Charge(self, request_id=request_id, model=model, num_parts=1, num_tokens=num_tokens)

    @asynccontextmanager
    async def charge_request(self) -> AsyncIterator[None]:
        """One request that uses no tokens, and is for no model; it raises what `charge` does."""
        reservation = await self._acquire(None, 0)
        try:
            yield
        finally:
            await reservation.settle(0)

    async def headers(self, record: RequestRecord) -> dict[str, str]:
        """What the answer to a request says of limits."""
        decision, decided_at = record.decision, record.decided_at
        if decision is None:
            decision, decided_at = await self._look(record), time.time()
        return limit_headers(decision, decided_at)

    async def _look(self, record: RequestRecord) -> Decision:
        """How the buckets stand; where that cannot be known nothing is let in."""
        rules = self._limits.policy.rules(record.identity or self._stranger, record.address)
        try:
            return (await self._store.acquire(rules, 0, num_requests=0)).decision
        except LimitsUnavailable:
            return Decision(rules=rules, levels=[rule.full for rule in rules])

    async def admit(self, charge: Charge) -> Reservation:
        charge.identity = identity = current_identity.get()
        self._budgets.check(identity.tenant)
        reservation = await self._acquire(charge.model, charge.num_tokens)
        self._open.add(charge)
        return reservation

    def count(self, charge: Charge, outcome: str) -> None:
        self._has_ended(charge)
        for part in charge.parts:
            self._count_part(charge, part)
        identity = charge.identity or ANYBODY
        self._usage.add(
            UsageRecord(
                at=time.time(),
                request_id=charge.request_id,
                tenant=identity.tenant,
                principal=identity.principal,
                model=charge.model,
                prompt_tokens=sum(part.num_prompt_tokens_used for part in charge.parts),
                cached_tokens=sum(part.num_cached_tokens for part in charge.parts),
                completion_tokens=sum(part.num_tokens for part in charge.parts),
                reasoning_tokens=sum(part.num_reasoning_tokens for part in charge.parts),
                outcome=outcome,
            )
        )

    def forget(self, charge: Charge) -> None:
        self._has_ended(charge)
        if (record := current_request.get()) is not None:
            record.decision = None  # the head tells of what is decided when it is charged again

    def _has_ended(self, charge: Charge) -> None:
        self._open.discard(charge)
        if self._all_ended is not None and not self._open:
            self._all_ended.set()

    def run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _acquire(self, model: str | None, num_tokens: int) -> Reservation:
        admission = await self._store.acquire(self._rules(model), num_tokens)
        decision = admission.decision
        record = current_request.get()
        # Of several requests in one, the head tells of the last that was let in.
        if record is not None and (decision.is_admitted or record.decision is None):
            record.decision, record.decided_at = decision, time.time()
        if admission.reservation is None:
            raise refusal(decision)
        return admission.reservation

    def _rules(self, model: str | None) -> tuple[Rule, ...]:
        record = current_request.get()
        address = "" if record is None else record.address
        return self._limits.policy.rules(current_identity.get(), address, model)

    def _count_part(self, charge: Charge, part: Part) -> None:
        first_token_s = None if part.first_at is None else part.first_at - part.started_at
        self._metrics.count(
            part.model,
            part.outcome,
            num_prompt_tokens=part.num_prompt_tokens,
            num_tokens=part.num_tokens,
            duration_s=part.ended_at - part.started_at,
            first_token_s=first_token_s,
        )
        if (record := current_request.get()) is not None:
            record.model, record.generation_id = part.model, charge.request_id
            record.outcome = part.outcome
            record.num_prompt_tokens += part.num_prompt_tokens
            record.num_tokens += part.num_tokens
            if part.first_at is not None and record.first_token_s is None:
                record.first_token_s = part.first_at - record.started


def _most_tokens(generation: GenerationRequest) -> int:
    prompt = len(generation.prompt_token_ids)
    return prompt + generation.max_new_tokens * generation.num_sequences
