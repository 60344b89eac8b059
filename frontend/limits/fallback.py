"""Limits while the shared store cannot be reached: none of it, or a share on each machine.

It is asked again and again meanwhile, and used as soon as it answers.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from dataclasses import replace

from frontend.errors import LimitsUnavailable
from frontend.limits.buckets import Rule, token_capacity
from frontend.limits.redis_store import RedisStore
from frontend.limits.store import Admission, LimitStore

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.5


class FallbackStore:
    """
    Args:
        local: decides while `shared` is away; None: nothing is let in then.
        num_frontends: machines, each of which gets that part of every limit, but one at the least:
            of a limit below their number they let in that number.
    """

    def __init__(
        self, shared: RedisStore, local: LimitStore | None, *, num_frontends: int = 1
    ) -> None:
        self._shared = shared
        self._local = local
        self._num_frontends = num_frontends
        self._problem: str | None = None
        self._checking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        if self._local is not None:
            await self._local.open()
        try:
            await self._shared.open()
        except LimitsUnavailable as exc:
            self._leave_shared(exc)

    async def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait([self._checking])
        await self._shared.close()
        if self._local is not None:
            await self._local.close()

    async def acquire(
        self, rules: Sequence[Rule], num_tokens: int, num_requests: int = 1
    ) -> Admission:
        if self._problem is None:
            try:
                return await self._shared.acquire(rules, num_tokens, num_requests)
            except LimitsUnavailable as exc:
                self._leave_shared(exc)
        if self._local is None:
            raise LimitsUnavailable(reason=self._problem)
        shares = [_share(rule, self._num_frontends) for rule in rules]
        admission = await self._local.acquire(shares, num_tokens, num_requests)
        return _of_share(admission, rules, num_tokens)

    def health(self) -> str:
        if self._problem is None:
            return "ok"
        said = f"{self._consequence()}: the shared store is away ({self._problem})"
        if self._local is not None and (local := self._local.health()) != "ok":
            said += f"; {local}"
        return said

    def _consequence(self) -> str:
        if self._local is None:
            return "no requests are let in"
        return f"local limits, each 1/{self._num_frontends} of the whole"

    def _leave_shared(self, exc: LimitsUnavailable) -> None:
        if self._problem is not None:
            return  # another request has found it out
        self._problem = str(exc.values["reason"])
        logger.error(
            "limits: shared store lost",
            extra={"reason": self._problem, "consequence": self._consequence()},
        )
        self._checking = asyncio.create_task(self._return_to_shared(), name="check limits")

    async def _return_to_shared(self) -> None:
        while self._problem is not None:
            await asyncio.sleep(CHECK_INTERVAL_S)
            try:
                await self._shared.check()
            except LimitsUnavailable as exc:
                self._problem = str(exc.values["reason"])
            else:
                self._problem = None
        logger.warning("limits: shared store back")


@functools.lru_cache(maxsize=65_536)
def _share(rule: Rule, num_frontends: int) -> Rule:
    return replace(rule, capacity=max(rule.capacity // num_frontends, 1))


def _of_share(admission: Admission, rules: Sequence[Rule], num_tokens: int) -> Admission:
    """What does not fit into a share does fit into the whole: not never, but not now."""
    decision, most = admission.decision, token_capacity(rules)
    if decision.refused_by is None or not decision.never_fits or num_tokens > (most or num_tokens):
        return admission
    return replace(
        admission, decision=replace(decision, retry_after_s=decision.refused_by.period_s)
    )
