"""What requests have used: a row of each for a while, and sums by day and by month for good.

Sums are moved by the rows that a transaction has inserted, and by no others: a group that is
written again after a lost connection counts once.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, delete, false, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from frontend.access.names import is_storable
from frontend.store.database import Database
from frontend.store.schema import api_keys, usage_days, usage_months, usage_records
from frontend.usage.budgets import Used
from frontend.usage.record import UsageRecord, UsageRow, day_of, month_of
from frontend.usage.sums import AMOUNTS, UsageSum

MAX_COLLECTED = 500  # rows in one transaction: others wait for it
MAX_TENANTS_READ = 1000  # in one statement: databases have a limit

_COLUMNS: dict[str, ColumnElement[Any]] = {  # by names of GROUPS
    "day": usage_days.c.day,
    "tenant": usage_days.c.tenant,
    "key": usage_days.c.principal,
    "model": usage_days.c.model,
    "outcome": usage_days.c.outcome,
    "batch": usage_days.c.is_batch,
}


class UsageStore:
    def __init__(self, database: Database, *, retention_s: float) -> None:
        self._database = database
        self._retention_s = retention_s

    async def write(self, rows: Sequence[UsageRow]) -> None:
        """Store rows, and add them to the sums of their days and months; all or nothing."""
        values = [_stored(row) for row in rows]
        async with self._database.write() as connection:
            query = _insert(connection, usage_records).on_conflict_do_nothing()
            inserted = await connection.execute(query.returning(usage_records.c.id), values)
            is_new = set(inserted.scalars())
            new = [value for value in values if value["id"] in is_new]
            if new:
                await _add_to(connection, usage_days, map(_of_day, new))
                await _add_to(connection, usage_months, map(_of_month, new))

    async def month_totals(
        self, month: date, tenants: Collection[str] | None = None
    ) -> dict[str, Used]:
        """By tenant, of those who have used anything; None: of all.

        Args:
            month: its first day.
        """
        query = select(usage_months).where(usage_months.c.month == month)
        parts = [query]
        if tenants is not None:
            wanted = sorted(tenants)
            starts = range(0, len(wanted), MAX_TENANTS_READ)
            parts = [
                query.where(usage_months.c.tenant.in_(wanted[start : start + MAX_TENANTS_READ]))
                for start in starts
            ]
        async with self._database.read() as connection:
            return {
                row.tenant: Used(row.tokens, row.cost)
                for part in parts
                for row in await connection.execute(part)
            }

    async def sums(
        self,
        *,
        since: date,
        until: date,
        group_by: Sequence[str],
        only: Mapping[str, str | bool],
        limit: int | None = None,
    ) -> list[UsageSum]:
        """Of the days from `since` to `until`, both with them, in the order of their groups.

        Args:
            group_by: names of GROUPS; none: one sum of all.
            only: by names of GROUPS, what they have to be.
            limit: how many sums at the most.
        """
        query = _sums(group_by).where(usage_days.c.day.between(since, until)).limit(limit)
        for name, value in only.items():
            is_stored = not isinstance(value, str) or is_storable(value)
            query = query.where(_COLUMNS[name] == value if is_stored else false())
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [
            UsageSum(
                group={name: value for name, value in row.items() if name not in AMOUNTS},
                # sums of integers are decimals in PostgreSQL, and null of no rows
                **{name: int(row[name] or 0) for name in AMOUNTS},
            )
            for row in rows
        ]

    async def collect(self) -> bool:
        """Delete some rows that are older than the retention time; whether there are more.

        What another worker is deleting is left to it.
        """
        old = (
            select(usage_records.c.id)
            .where(usage_records.c.at < time.time() - self._retention_s)
            .limit(MAX_COLLECTED)
        )
        async with self._database.read() as connection:
            if (await connection.execute(old.limit(1))).first() is None:
                return False  # and nobody had to wait for a lock
        async with self._database.write() as connection:
            found = old.with_for_update(skip_locked=True)
            deleted = await connection.execute(
                delete(usage_records).where(usage_records.c.id.in_(found))
            )
        return deleted.rowcount == MAX_COLLECTED


def _sums(group_by: Sequence[str]) -> Select[Any]:
    columns = [_COLUMNS[name].label(name) for name in group_by]
    source: Any = usage_days
    if "key" in group_by:
        columns.append(func.coalesce(api_keys.c.name, "").label("key_name"))
        source = usage_days.outerjoin(api_keys, api_keys.c.id == usage_days.c.principal)
    amounts = [func.sum(usage_days.c[name]).label(name) for name in AMOUNTS]
    return select(*columns, *amounts).select_from(source).group_by(*columns).order_by(*columns)


def _insert(connection: AsyncConnection, table: Table) -> Any:
    """Both databases have the same words for what is there already; SQLAlchemy has them twice."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


async def _add_to(
    connection: AsyncConnection, table: Table, values: Iterable[tuple[tuple[Any, ...], list[int]]]
) -> None:
    """Add amounts to the rows with these keys, in the order of their keys.

    In one order: workers that write at once then wait for each other, and no more.
    """
    sums: dict[tuple[Any, ...], list[int]] = {}
    for key, amounts in values:
        before = sums.get(key)
        sums[key] = (
            amounts if before is None else [a + b for a, b in zip(before, amounts, strict=True)]
        )
    keys = [column.name for column in table.primary_key]
    names = [column.name for column in table.columns if not column.primary_key]
    query = _insert(connection, table)
    query = query.on_conflict_do_update(
        index_elements=keys, set_={name: table.c[name] + query.excluded[name] for name in names}
    )
    rows = [dict(zip([*keys, *names], (*key, *sums[key]), strict=True)) for key in sorted(sums)]
    await connection.execute(query, rows)


def _stored(row: UsageRow) -> dict[str, Any]:
    values = {name: getattr(row.record, name) for name in UsageRecord.__slots__}
    return {**values, "id": row.id, "cost": row.cost}


def _of_day(row: Mapping[str, Any]) -> tuple[tuple[Any, ...], list[int]]:
    key = (
        day_of(row["at"]), row["tenant"], row["principal"], row["model"], row["outcome"],
        row["is_batch"],
    )  # fmt: skip
    return key, [1, *(row[name] for name in AMOUNTS[1:])]


def _of_month(row: Mapping[str, Any]) -> tuple[tuple[Any, ...], list[int]]:
    key = (month_of(row["at"]), row["tenant"])
    return key, [row["prompt_tokens"] + row["completion_tokens"], row["cost"]]
