"""Stored responses as workers see them: added, run in the background, ended, collected.

Knows JSON bodies and items as they are shown, and nothing of how they are made. What a client may
ask of them is in own_responses.py: no id that a client has sent is looked up here.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from frontend.store.database import Database
from frontend.store.schema import response_events, response_items, responses

Item = dict[str, Any]
ACTIVE = ("queued", "in_progress")  # a worker has it in work, or should have
MAX_DELETED = 500  # responses in one transaction: others wait for it


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    id: str
    tenant: str  # whose it is
    model: str  # `name` or `name:adapter`
    created_at: float  # Unix seconds
    status: str
    body: dict[str, Any]  # the response without its output
    previous_response_id: str | None = None
    is_background: bool = False
    has_events: bool = False
    input: list[Item] = field(default_factory=list)  # what this request brought
    output: list[Item] = field(default_factory=list)

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    def shown(self) -> dict[str, Any]:
        """The response as it is shown."""
        return {**self.body, "status": self.status, "output": self.output}


class ResponseStore:
    """What is older than the retention time is not there any more, collected or not."""

    def __init__(self, database: Database, *, retention_s: float) -> None:
        self.database = database
        self._retention_s = retention_s

    def is_kept(self) -> ColumnElement[bool]:
        return responses.c.created_at >= time.time() - self._retention_s

    async def add(self, response: StoredResponse, *, lease_until: float | None = None) -> None:
        """Store a response that has ended, or that runs under a lease."""
        values = {
            name: getattr(response, name)
            for name in ("id", "tenant", "model", "created_at", "previous_response_id", "status",
                         "is_background", "has_events", "body")
        }  # fmt: skip
        async with self.database.write() as connection:
            await connection.execute(insert(responses).values(**values, lease_until=lease_until))
            await _add_items(connection, response.id, 0, response.input, is_output=False)
            start = len(response.input)
            await _add_items(connection, response.id, start, response.output, is_output=True)

    async def begin(self, response_id: str) -> None:
        """The engine has it in work now."""
        query = update(responses).where(responses.c.id == response_id, _IS_ACTIVE)
        async with self.database.write() as connection:
            await connection.execute(query.values(status="in_progress"))

    async def finish(
        self,
        response_id: str,
        status: str,
        *,
        changes: dict[str, Any] | None = None,
        output: Sequence[Item] = (),
        events: Sequence[dict[str, Any]] = (),
        only_abandoned: bool = False,
    ) -> bool:
        """End a response that runs; False when it has ended already, or is deleted.

        Args:
            changes: fields of the body.
            events: the last ones of its stream.
            only_abandoned: leave it to its worker if that has come back meanwhile.
        """
        is_it = responses.c.id == response_id
        runs = _is_abandoned() if only_abandoned else _IS_ACTIVE
        async with self.database.write() as connection:
            found = select(responses.c.body).where(is_it, runs)
            # SQLite's lock is on the whole file; a database that locks rows has to be told which
            row = (await connection.execute(found.with_for_update())).one_or_none()
            if row is None:
                return False
            values = {"status": status, "body": {**row.body, **(changes or {})}}
            await connection.execute(
                update(responses).where(is_it).values(**values, lease_until=None)
            )
            num_items = (
                select(func.count())
                .select_from(response_items)
                .where(response_items.c.response_id == response_id)
            )
            start = (await connection.execute(num_items)).scalar_one()
            await _add_items(connection, response_id, start, output, is_output=True)
            await _add_events(connection, response_id, events)
        return True

    async def add_events(self, response_id: str, events: Sequence[dict[str, Any]]) -> None:
        """Keep more of a stream; what has ended meanwhile gets no more."""
        active = select(responses.c.id).where(responses.c.id == response_id, _IS_ACTIVE)
        async with self.database.write() as connection:
            if (await connection.execute(active.with_for_update())).one_or_none() is not None:
                await _add_events(connection, response_id, events)

    async def renew(self, response_ids: Collection[str], lease_until: float) -> set[str]:
        """Extend the leases of a worker's responses; returns those that are still to be run."""
        query = (
            update(responses)
            .where(responses.c.id.in_(response_ids), _IS_ACTIVE)
            .values(lease_until=lease_until)
            .returning(responses.c.id)
        )
        async with self.database.write() as connection:
            return set((await connection.execute(query)).scalars())

    async def abandoned(self) -> list[str]:
        """Those whose worker has not renewed its lease in time: it is dead."""
        query = select(responses.c.id).where(_is_abandoned())
        async with self.database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def collect(self) -> int:
        """Delete responses that are older than the retention time; returns how many."""
        query = select(responses.c.id).where(~self.is_kept(), ~_IS_ACTIVE).limit(MAX_DELETED)
        async with self.database.read() as connection:
            old = list((await connection.execute(query)).scalars())
        if not old:
            return 0  # and nobody had to wait for a lock
        async with self.database.write() as connection:
            return _count(
                await connection.execute(delete(responses).where(responses.c.id.in_(old)))
            )


_IS_ACTIVE = responses.c.status.in_(ACTIVE)


def _is_abandoned() -> ColumnElement[bool]:
    return _IS_ACTIVE & (responses.c.lease_until < time.time())


async def _add_items(
    connection: AsyncConnection,
    response_id: str,
    start: int,
    items: Sequence[Item],
    *,
    is_output: bool,
) -> None:
    rows = [
        {
            "response_id": response_id,
            "position": position,
            "item_id": item["id"],
            "is_output": is_output,
            "item": item,
        }
        for position, item in enumerate(items, start)
    ]
    if rows:
        await connection.execute(insert(response_items), rows)


async def _add_events(
    connection: AsyncConnection, response_id: str, events: Sequence[dict[str, Any]]
) -> None:
    """What is kept already is read over: who was cancelled while it committed comes again."""
    last_kept = select(func.coalesce(func.max(response_events.c.sequence_number), -1)).where(
        response_events.c.response_id == response_id
    )
    last: int = (await connection.execute(last_kept)).scalar_one() if events else -1
    rows = [
        {"response_id": response_id, "sequence_number": number, "event": event}
        for event in events
        if (number := event["sequence_number"]) > last
    ]
    if rows:
        await connection.execute(insert(response_events), rows)


def _count(result: CursorResult[Any]) -> int:
    return result.rowcount
