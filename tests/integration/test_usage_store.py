"""Usage in real databases: rows, their sums, several writers at once, and what is old."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from frontend.access.identity import Scope
from frontend.access.names import MAX_LENGTH, is_name
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database
from frontend.store.schema import usage_records
from frontend.store.usage import MAX_COLLECTED, UsageStore
from frontend.usage.budgets import Used
from frontend.usage.record import UsageRow, time_of
from frontend.usage.sums import UsageSum
from tests.fakes.usage import record

RETENTION_S = 3600.0
TODAY = datetime.now(UTC).date()
MONTH = TODAY.replace(day=1)


@pytest.fixture
def store(database: Database) -> UsageStore:
    return UsageStore(database, retention_s=RETENTION_S)


def row(row_id: str, cost: int = 7, **fields: Any) -> UsageRow:
    return UsageRow(id=row_id, record=record(**fields), cost=cost)


async def all_sums(store: UsageStore, *group_by: str, **only: Any) -> list[UsageSum]:
    since, until = TODAY - timedelta(days=400), TODAY + timedelta(days=1)
    return await store.sums(since=since, until=until, group_by=group_by, only=only)


async def num_rows(database: Database) -> int:
    async with database.read() as connection:
        count = await connection.execute(select(func.count()).select_from(usage_records))
        return int(count.scalar_one())


async def test_rows_add_up_by_what_is_asked_for(store: UsageStore) -> None:
    await store.write(
        [
            row("1", tenant="a", cached_tokens=4, reasoning_tokens=2),
            row("2", tenant="a", principal="key_2", outcome="length"),
            row("3", tenant="b", model="other", is_batch=True),
        ]
    )
    await store.write([row("4", tenant="a")])
    first, second = await all_sums(store, "tenant", "batch")
    assert first == UsageSum(
        group={"tenant": "a", "batch": False}, requests=3, prompt_tokens=30, cached_tokens=4,
        completion_tokens=15, reasoning_tokens=2, cost=21,
    )  # fmt: skip
    assert (second.group, second.requests) == ({"tenant": "b", "batch": True}, 1)
    by_all = await all_sums(store, "day", "tenant", "key", "model", "outcome", "batch")
    assert [(one.group["key"], one.requests) for one in by_all] == [
        ("key_1", 2), ("key_2", 1), ("key_1", 1),
    ]  # fmt: skip
    assert {one.group["day"] for one in by_all} == {TODAY}
    assert [one.requests for one in await all_sums(store)] == [4]
    assert [one.requests for one in await all_sums(store, batch=True)] == [1]
    assert [one.requests for one in await all_sums(store, tenant="a", key="key_1")] == [2]
    assert [one.requests for one in await all_sums(store, tenant="nobody")] == [0]
    assert await all_sums(store, "day", tenant="nobody") == []
    assert await all_sums(store, "day", tenant="a\0", key="a\ud800") == []


async def test_days_are_those_of_utc_and_both_ends_are_in(store: UsageStore) -> None:
    begin = time_of(date(2026, 11, 30))
    for number, at in enumerate((begin - 0.001, begin, begin + 86_399.999, begin + 86_400)):
        await store.write([row(str(number), at=at)])
    sums = await store.sums(
        since=date(2026, 11, 30), until=date(2026, 11, 30), group_by=["day"], only={}
    )
    assert [(one.group, one.requests) for one in sums] == [({"day": date(2026, 11, 30)}, 2)]
    assert await store.month_totals(date(2026, 11, 1)) == {"acme": Used(45, 21)}
    assert await store.month_totals(date(2026, 12, 1)) == {"acme": Used(15, 7)}


async def test_a_group_that_is_written_twice_counts_once(store: UsageStore) -> None:
    group = [row("1"), row("2")]
    await store.write(group)
    await store.write(group)
    await store.write([*group, row("3")])
    assert [(one.requests, one.cost) for one in await all_sums(store)] == [(3, 21)]
    assert await store.month_totals(MONTH) == {"acme": Used(45, 21)}


async def test_month_totals_are_of_the_tenants_that_are_asked_for(store: UsageStore) -> None:
    await store.write([row(str(number), tenant=f"t{number}") for number in range(3)])
    assert await store.month_totals(MONTH, {"t1", "t9"}) == {"t1": Used(15, 7)}
    many = {f"t{number}" for number in range(2500)}
    assert len(await store.month_totals(MONTH, many)) == 3
    assert await store.month_totals(MONTH, set()) == {}


async def test_keys_are_named_where_they_have_a_name(store: UsageStore, database: Database) -> None:
    key, _ = await ApiKeyStore(database).create(
        ApiKey(id="", name="the lab", scopes=frozenset({Scope.INFERENCE}))
    )
    await store.write([row("1", principal=key.id), row("2", principal="https://issuer me")])
    found = {one.group["key"]: one.group["key_name"] for one in await all_sums(store, "key")}
    assert found == {key.id: "the lab", "https://issuer me": ""}


async def test_the_longest_names_can_be_stored(store: UsageStore) -> None:
    """What nothing can store would keep all that is written with it from being written."""
    tenant, subject = ("".join(random.choices("甲乙丙丁", k=MAX_LENGTH)) for _ in range(2))
    assert is_name(tenant)
    await store.write([row("1", tenant=tenant, principal=f"https://issuer {subject}"), row("2")])
    assert [one.requests for one in await all_sums(store, tenant=tenant)] == [1]


async def test_ones_own_sums_are_found_without_a_look_at_others(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'inflight.db'}")
    async with database.read() as connection:
        plan = await connection.execute(
            text(
                "EXPLAIN QUERY PLAN SELECT sum(cost) FROM usage_days WHERE tenant = 'a' "
                "AND principal = 'b' AND day BETWEEN '2026-11-01' AND '2026-11-30'"
            )
        )
        (step,) = plan.all()
    assert "USING INDEX ix_usage_days_principal_day (principal=? AND day>?" in step.detail
    await database.close()


async def test_amounts_may_be_large(store: UsageStore) -> None:
    large = row("1", cost=10**18, prompt_tokens=2**40)
    await store.write([large, row("2", cost=10**18, prompt_tokens=2**40)])
    assert [(one.prompt_tokens, one.cost) for one in await all_sums(store)] == [(2**41, 2 * 10**18)]


async def test_two_writers_at_once_add_up_exactly(database_url: str) -> None:
    """Each has the same keys in another order, and writes groups of the other's again."""
    databases = [await Database.open(database_url) for _ in range(2)]
    stores = [UsageStore(database, retention_s=RETENTION_S) for database in databases]

    async def write(worker: int) -> None:
        for group in range(20):
            rows = [
                row(f"{worker}-{group}-{number}", tenant=f"t{number % 5}", model=f"m{number % 3}")
                for number in range(30)
            ]
            rows = rows[::-1] if worker else rows
            await stores[worker].write(rows)
            if group % 5 == 0:
                await stores[1 - worker].write(rows)

    await asyncio.gather(write(0), write(1))
    assert [(one.requests, one.prompt_tokens) for one in await all_sums(stores[0])] == [
        (1200, 12_000)
    ]
    totals = await stores[0].month_totals(MONTH)
    assert totals == {f"t{number}": Used(240 * 15, 240 * 7) for number in range(5)}
    for database in databases:
        await database.close()


async def test_writers_that_meet_wait_for_each_other_and_no_more(
    store: UsageStore, database: Database
) -> None:
    groups = [[row(f"{group}-{number}", tenant=f"t{number}") for number in range(9)]
              for group in range(3)]  # fmt: skip
    await store.write(groups[0])
    async with database.write() as another:  # holds up both in the middle of their keys
        await another.execute(text("UPDATE usage_days SET cost = cost WHERE tenant = 't4'"))
        writing = [asyncio.create_task(store.write(rows)) for rows in (groups[1], groups[2][::-1])]
        await asyncio.sleep(0.2)
    await asyncio.gather(*writing)
    assert [one.requests for one in await all_sums(store)] == [27]


async def test_old_rows_go_in_small_steps_and_their_sums_stay(
    store: UsageStore, database: Database
) -> None:
    old_at = time.time() - RETENTION_S - 60
    count = MAX_COLLECTED + 10
    await store.write([row(f"old-{number}", at=old_at) for number in range(count)])
    await store.write([row("new")])
    assert await store.collect()
    assert await num_rows(database) == 11
    assert not await store.collect()
    assert await num_rows(database) == 1
    assert not await store.collect()
    assert [one.requests for one in await all_sums(store)] == [count + 1]


async def test_workers_that_collect_at_once_do_not_wait_for_each_other(
    database_url: str, database: Database, store: UsageStore
) -> None:
    old_at = time.time() - RETENTION_S - 60
    await store.write([row(f"old-{number}", at=old_at) for number in range(10)])
    if database_url.startswith("sqlite"):
        await asyncio.gather(*(store.collect() for _ in range(4)))
    else:
        async with database.write() as another:
            await another.execute(text("DELETE FROM usage_records WHERE id = 'old-3'"))
            async with asyncio.timeout(5):
                assert not await store.collect()
            assert await num_rows(database) == 1, "the one that another is deleting"
    assert await num_rows(database) == 0
