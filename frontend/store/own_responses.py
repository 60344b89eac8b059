"""Stored responses as one client sees them: its tenant's, and only of models that it may use.

All others are here what ids are that never were.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, delete, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from frontend.access.identity import Identity
from frontend.access.names import is_name
from frontend.store.responses import Item, ResponseStore, StoredResponse
from frontend.store.schema import response_events, response_items, responses

MAX_EVENTS_READ = 1000
MAX_IDS_READ = 1000  # in one statement: databases have a limit, clients do not


class OwnResponses:
    """
    Args:
        identity: who asks.
    """

    def __init__(self, store: ResponseStore, identity: Identity) -> None:
        self._store = store
        self._database = store.database
        self._identity = identity

    async def get(self, response_id: str) -> StoredResponse | None:
        found = await self._load(self._own().where(responses.c.id == response_id))
        return found[0] if found and self._may_see(found[0].model) else None

    async def status(self, response_id: str) -> str | None:
        """Only that: for those who wait for its end."""
        async with self._database.read() as connection:
            return await self._status(connection, response_id)

    async def chain(self, response_id: str) -> list[StoredResponse]:
        """The response and all that it builds on, oldest first.

        The first one's `previous_response_id` names what is not there any more, if anything; an
        empty list: the response itself is not there.
        """
        if not is_name(response_id):
            return []
        links = (
            select(responses.c.id, responses.c.previous_response_id, literal(0).label("depth"))
            .where(responses.c.id == response_id, self._is_own())
            .cte(recursive=True)
        )
        earlier = select(responses.c.id, responses.c.previous_response_id, links.c.depth + 1)
        links = links.union_all(
            earlier.where(responses.c.id == links.c.previous_response_id, self._is_own())
        )
        found = await self._load(
            self._own().join(links, links.c.id == responses.c.id).order_by(links.c.depth.desc())
        )
        hidden = [i for i, one in enumerate(found) if not self._may_see(one.model)]
        return found[hidden[-1] + 1 :] if hidden else found

    async def find_items(self, item_ids: Collection[str]) -> dict[str, Item]:
        """Items of any response by their ids; the newest of those with the same one."""
        wanted = list(filter(is_name, item_ids))
        query = (
            select(response_items.c.item_id, response_items.c.item, responses.c.model)
            .join(responses, responses.c.id == response_items.c.response_id)
            .where(self._is_own())
            .order_by(responses.c.created_at)
        )
        found: dict[str, Item] = {}
        async with self._database.read() as connection:
            for start in range(0, len(wanted), MAX_IDS_READ):
                part = response_items.c.item_id.in_(wanted[start : start + MAX_IDS_READ])
                rows = await connection.execute(query.where(part))
                found |= {row.item_id: row.item for row in rows if self._may_see(row.model)}
        return found

    async def events(self, response_id: str, *, after: int) -> list[dict[str, Any]]:
        """At most MAX_EVENTS_READ events with a greater sequence number, in order."""
        query = (
            select(response_events.c.event, responses.c.model)
            .join(responses, responses.c.id == response_events.c.response_id)
            .where(
                self._is_own(),
                response_events.c.response_id == response_id,
                response_events.c.sequence_number > after,
            )
            .order_by(response_events.c.sequence_number)
            .limit(MAX_EVENTS_READ)
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [row.event for row in rows if self._may_see(row.model)]

    async def delete(self, response_id: str) -> bool:
        """Whether there was anything to delete; what runs is stopped by its worker."""
        async with self._database.write() as connection:
            if await self._status(connection, response_id) is None:
                return False
            done = await connection.execute(delete(responses).where(responses.c.id == response_id))
            return done.rowcount > 0

    async def cancel(self, response_id: str) -> None:
        """End it if it runs; nothing if it has ended, or is not there."""
        if await self.status(response_id) is not None:
            await self._store.finish(response_id, "cancelled")

    def _is_own(self) -> ColumnElement[bool]:
        return (responses.c.tenant == self._identity.tenant) & self._store.is_kept()

    def _own(self) -> Select[Any]:
        return select(responses).where(self._is_own())

    def _may_see(self, model: str) -> bool:
        return self._identity.may_use(model)

    async def _status(self, connection: AsyncConnection, response_id: str) -> str | None:
        query = select(responses.c.status, responses.c.model)
        found = await connection.execute(query.where(responses.c.id == response_id, self._is_own()))
        row = found.one_or_none()
        return row.status if row is not None and self._may_see(row.model) else None

    async def _load(self, query: Select[Any]) -> list[StoredResponse]:
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
            ids = [row["id"] for row in rows]
            items = await connection.execute(
                select(response_items)
                .where(response_items.c.response_id.in_(ids))
                .order_by(response_items.c.position)
            )
            kept: dict[tuple[str, bool], list[Item]] = {}
            for item in items:
                kept.setdefault((item.response_id, item.is_output), []).append(item.item)
        return [
            _stored(row, kept.get((row["id"], False), []), kept.get((row["id"], True), []))
            for row in rows
        ]


def _stored(row: RowMapping, own_input: list[Item], output: list[Item]) -> StoredResponse:
    fields = {name: value for name, value in row.items() if name != "lease_until"}
    return StoredResponse(**fields, input=own_input, output=output)
