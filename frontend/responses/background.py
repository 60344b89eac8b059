"""Responses that run without a connection, and what becomes of them when a worker dies.

A worker holds a lease on each that it runs; what it does not renew is failed by any other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from frontend.charge import Charge
from frontend.errors import ResponseNotFound, ServingError
from frontend.messages import Language
from frontend.protocol.response_answer import (
    ENDINGS,
    Event,
    ResponseEncoder,
    encode_error,
    ending_event,
)
from frontend.store.own_responses import OwnResponses
from frontend.store.responses import ACTIVE, MAX_DELETED, ResponseStore, StoredResponse
from frontend.types import TextChunk

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0  # a cancellation by another worker is seen so late at the most
LEASE_S = 15.0
SWEEP_S = 15.0
FLUSH_S = 0.1  # between the transactions that keep a stream's events
POLL_S = 0.1  # between a reader's looks at them
INTERRUPTED = "run_interrupted"


@dataclass(slots=True, kw_only=True)
class Run:
    """One response that is in work in this worker."""

    response: StoredResponse
    encoder: ResponseEncoder
    chunks: AsyncGenerator[TextChunk, None]
    language: Language
    store: ResponseStore
    waiting: list[Event] = field(default_factory=list)  # events that are not stored yet
    flushed_at: float = 0.0  # time.monotonic()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # events are stored in their order

    async def work(self) -> None:
        """Generate to the end, whatever it is; the store then has it."""
        try:
            async with aclosing(self.chunks) as chunks:
                async for event in self.encoder.events(chunks):
                    await self._take(event)
        except asyncio.CancelledError:
            # The server stops. What a client has cancelled or deleted has ended in the store.
            await self._fail(ServingError(INTERRUPTED))
            raise
        except ServingError as exc:
            logger.warning("background response failed", extra={"code": exc.code})
            await self._fail(exc)
        except Exception:
            logger.exception("background response failed")
            await self._fail(ServingError())

    async def flush(self) -> None:
        async with self.lock:
            self.flushed_at = time.monotonic()
            if events := list(self.waiting):
                await self.store.add_events(self.response.id, events)
                del self.waiting[: len(events)]  # more may have come meanwhile

    async def _take(self, event: Event) -> None:
        if event["type"] in ENDINGS.values():
            await self._end(event)
            return
        if event["type"] == "response.in_progress":
            await self.store.begin(self.response.id)
        if self.response.has_events:
            self.waiting.append(event)
            if time.monotonic() >= self.flushed_at + FLUSH_S:
                await self.flush()

    async def _fail(self, error: ServingError) -> None:
        await self._end(self.encoder.failed(error, self.language))

    async def _end(self, event: Event) -> None:
        """The last event itself is not kept: it is made of the response."""
        body = dict(event["response"])
        status, output = body.pop("status"), body.pop("output")
        async with self.lock:
            await self.store.finish(
                self.response.id, status, changes=body, output=output, events=self.waiting
            )
            self.waiting = []


class BackgroundRuns:
    """All of one worker's."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, Run] = {}
        self._deadline: float | None = None
        self._upkeep: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._upkeep = asyncio.create_task(self._keep_up())

    async def start(
        self,
        response: StoredResponse,
        encoder: ResponseEncoder,
        chunks: AsyncGenerator[TextChunk, None],
        language: Language,
        charge: Charge,
    ) -> None:
        """Store the response, and work on it from now on; the charge is then the work's."""
        events = encoder.opening()
        await self._store.add(response, lease_until=time.time() + LEASE_S)
        run = Run(
            response=response,
            encoder=encoder,
            chunks=chunks,
            language=language,
            store=self._store,
            waiting=events if response.has_events else [],
        )
        self._runs[response.id] = run
        task = self._tasks[response.id] = asyncio.create_task(run.work())
        charge.hand_over()
        task.add_done_callback(lambda task: self._forget(response.id, task))
        task.add_done_callback(lambda _: charge.release())  # also if it never began
        await run.flush()

    def stop(self, response_id: str) -> None:
        """Stop working on what has ended in the store; nothing if it runs elsewhere."""
        if task := self._tasks.get(response_id):
            task.cancel()

    def drain(self, timeout_s: float) -> None:
        """The server stops: what runs has so long to end."""
        self._deadline = time.monotonic() + timeout_s

    async def close(self) -> None:
        """Wait for what runs, then end it."""
        left_s = (self._deadline or 0.0) - time.monotonic()
        if self._tasks and left_s > 0:
            await asyncio.wait(self._tasks.values(), timeout=left_s)
        tasks = [*self._tasks.values(), *([self._upkeep] if self._upkeep else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, response_id: str, task: asyncio.Task[None]) -> None:
        del self._tasks[response_id], self._runs[response_id]
        if not task.cancelled() and (exc := task.exception()) is not None:
            # Its lease ends soon, and with it the response.
            logger.error("background response cannot be stored", exc_info=exc)

    async def _keep_up(self) -> None:
        swept_at = -SWEEP_S
        while True:
            try:
                await self._renew()
                if time.monotonic() >= swept_at + SWEEP_S:
                    await sweep(self._store)
                    swept_at = time.monotonic()
            except Exception:  # the database may be there again the next time
                logger.exception("upkeep of stored responses failed")
            await asyncio.sleep(HEARTBEAT_S)

    async def _renew(self) -> None:
        if not self._runs:
            return
        ids = set(self._runs)
        wanted = await self._store.renew(ids, time.time() + LEASE_S)
        for response_id in ids - wanted:
            self.stop(response_id)
        for run in list(self._runs.values()):
            await run.flush()


async def sweep(store: ResponseStore) -> None:
    """Fail what dead workers have left, and delete what is too old."""
    error: dict[str, Any] = encode_error(ServingError(INTERRUPTED), Language.EN)
    for response_id in await store.abandoned():
        if await store.finish(response_id, "failed", changes={"error": error}, only_abandoned=True):
            logger.warning("abandoned response failed", extra={"response_id": response_id})
    while await store.collect() == MAX_DELETED:
        pass


async def follow(
    responses: OwnResponses, response_id: str, *, after: int
) -> AsyncGenerator[Event, None]:
    """Yield the events with greater sequence numbers as they come, from whatever worker.

    Raises:
        ResponseNotFound: it is not there, or is deleted meanwhile.
    """
    last = -1
    while True:
        status = await responses.status(response_id)
        while events := await responses.events(response_id, after=last):
            for event in events:
                last = event["sequence_number"]
                if last > after:
                    yield event
        if status not in ACTIVE:
            break
        await asyncio.sleep(POLL_S)
    response = await responses.get(response_id)
    if response is None:
        raise ResponseNotFound(response_id=response_id)
    yield ending_event(response.shown(), last + 1)  # also to who had it: a stream has an end
