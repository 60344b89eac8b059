"""Usage records of one worker on their way to the database: written in groups, behind answers.

A stop writes all that there is; a worker that is killed loses what came since the last group. While
the database is away records wait for it, MAX_WAITING at the most.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from frontend.limits.policy_file import PolicyFile
from frontend.usage.budgets import Budgets
from frontend.usage.prices import cost_of
from frontend.usage.record import UsageRecord, UsageRow

logger = logging.getLogger(__name__)

FLUSH_S = 0.25
MAX_GROUP = 200  # rows in one transaction: others wait for it, and this worker for its making
MAX_WAITING = 100_000
TIMEOUT_S = 40.0  # more than the databases' own, see store/database.py
CLOSE_TIMEOUT_S = 10.0  # of a stop, for the last groups
CANCEL_TIMEOUT_S = 2.0  # for a connection that does not even end
COLLECT_S = 60.0  # between the times that old rows are looked for


class UsageRows(Protocol):
    """What of `UsageStore` is asked here."""

    async def write(self, rows: Sequence[UsageRow]) -> None: ...

    async def collect(self) -> bool: ...


class UsageLog:
    """One worker's; `open` it when its loop runs. One task writes, reads budgets and collects."""

    def __init__(
        self,
        rows: UsageRows,
        limits: PolicyFile,
        budgets: Budgets,
        *,
        flush_s: float = FLUSH_S,
        max_waiting: int = MAX_WAITING,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self._store = rows
        self._limits = limits
        self._budgets = budgets
        self._flush_s = flush_s
        self._max_waiting = max_waiting
        self._close_timeout_s = close_timeout_s
        self._writer = secrets.token_hex(8)  # tells this worker's rows from all others'
        self._numbers = itertools.count()
        self._waiting: deque[UsageRow] = deque()
        self._group: list[UsageRow] = []  # being written: it may be in the database or not
        self._num_dropped = 0
        self._is_failing = False
        self._closing = asyncio.Event()
        self._collect_at = 0.0  # time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def add(self, record: UsageRecord) -> None:
        """Keep a record until it is written; takes a few microseconds and never waits.

        Of a request that is cancelled: add it before anything else is awaited, for the server may
        be stopping.
        """
        row_id = f"{self._writer}-{next(self._numbers)}"
        row = UsageRow(id=row_id, record=record, cost=cost_of(record, self._limits.policy))
        self._waiting.append(row)
        self._budgets.add(row)
        if len(self._waiting) > self._max_waiting:
            self._drop_oldest()

    async def open(self) -> None:
        await self._budgets.open()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what there is; gives a database that is away a little time to come back."""
        if self._task is None:
            return
        self._closing.set()
        await asyncio.wait([self._task], timeout=self._close_timeout_s)
        self._task.cancel()
        await asyncio.wait([self._task], timeout=CANCEL_TIMEOUT_S)
        self._num_dropped += len(self._group) + len(self._waiting)
        self._report_dropped()

    async def _run(self) -> None:
        while not self._closing.is_set() or self._group or self._waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._closing.wait()
            try:
                await self._write_waiting()
                async with asyncio.timeout(TIMEOUT_S):
                    await self._budgets.refresh(self._waiting)
                    await self._collect()
            except Exception as exc:  # the database may be there again the next time
                if not self._is_failing:
                    logger.exception("usage cannot be written, it is kept", exc_info=exc)
                self._is_failing = True
                if self._closing.is_set():
                    await asyncio.sleep(self._flush_s)
            else:
                self._note_success()

    async def _write_waiting(self) -> None:
        while self._group or self._waiting:
            if not self._group:
                size = min(len(self._waiting), MAX_GROUP)
                self._group = [self._waiting.popleft() for _ in range(size)]
            async with asyncio.timeout(TIMEOUT_S):
                await self._store.write(self._group)
            self._group = []

    async def _collect(self) -> None:
        """One step: what is new is not kept waiting until all that is old is gone."""
        if self._closing.is_set() or time.monotonic() < self._collect_at:
            return
        is_more = await self._store.collect()
        self._collect_at = time.monotonic() + (0.0 if is_more else COLLECT_S)

    def _note_success(self) -> None:
        if self._is_failing:
            logger.info("usage is written again")
        self._is_failing = False
        self._report_dropped()

    def _drop_oldest(self) -> None:
        self._waiting.popleft()
        self._num_dropped += 1
        if self._num_dropped == 1:
            logger.error(
                "usage is lost from now on: too many records wait for the database",
                extra={"waiting": self._max_waiting},
            )

    def _report_dropped(self) -> None:
        if self._num_dropped:
            logger.error("usage records lost", extra={"records": self._num_dropped})
        self._num_dropped = 0
