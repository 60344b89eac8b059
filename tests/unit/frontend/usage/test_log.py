from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from frontend.errors import QuotaExceeded
from frontend.limits.policy import Budget, Policy, Price
from frontend.usage.budgets import Budgets
from frontend.usage.log import MAX_GROUP, UsageLog
from tests.fakes.usage import FakeUsageStore, in_force, record

POLICY = Policy(
    prices={"tiny": Price(prompt=1.0, completion=2.0)}, budgets={"poor": Budget(tokens=10)}
)


@pytest.fixture
def store() -> FakeUsageStore:
    return FakeUsageStore()


def make_log(store: FakeUsageStore, **options: Any) -> UsageLog:
    return UsageLog(store, in_force(POLICY), Budgets(store, in_force(POLICY), refresh_s=0.0),
                    **{"flush_s": 0.01, **options})  # fmt: skip


@asynccontextmanager
async def opened(log: UsageLog) -> AsyncIterator[UsageLog]:
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def until(is_so: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.002)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "frontend.usage.log"]


async def test_records_are_written_in_groups_with_what_they_cost(store: FakeUsageStore) -> None:
    async with opened(make_log(store)) as log:
        added = [record(request_id=str(number)) for number in range(20)]
        for one in added:
            log.add(one)
        await until(lambda: len(store.rows) == 20)
    assert [row.record for row in store.rows.values()] == added
    assert {row.cost for row in store.rows.values()} == {10 * 1000 + 5 * 2000}
    assert store.group_sizes == [20]


async def test_a_stop_writes_all_at_once(store: FakeUsageStore) -> None:
    started = time.monotonic()
    async with opened(make_log(store, flush_s=60)) as log:
        for _ in range(2 * MAX_GROUP + 1):
            log.add(record())
    assert store.group_sizes == [MAX_GROUP, MAX_GROUP, 1]
    assert len(store.rows) == 2 * MAX_GROUP + 1
    assert time.monotonic() - started < 5


async def test_what_comes_while_a_stop_writes_is_written_too(store: FakeUsageStore) -> None:
    store.delay_s = 0.05
    async with opened(make_log(store, flush_s=60)) as log:
        log.add(record())
        asyncio.get_running_loop().call_later(0.02, log.add, record())
    assert len(store.rows) == 2


async def test_workers_rows_have_different_ids(store: FakeUsageStore) -> None:
    async with opened(make_log(store)) as one, opened(make_log(store)) as another:
        one.add(record())
        another.add(record())
    assert len(store.rows) == 2


async def test_a_group_whose_commit_is_not_known_is_written_again_as_it_was(
    store: FakeUsageStore,
) -> None:
    store.commits_and_fails = 1
    async with opened(make_log(store)) as log:
        log.add(record())
        await until(lambda: store.commits_and_fails == 0)
        log.add(record())
        await until(lambda: len(store.group_sizes) == 3)
    assert len(store.rows) == 2
    assert store.group_sizes == [1, 1, 1]


async def test_a_database_that_is_away_is_waited_for_and_logged_once(
    store: FakeUsageStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(make_log(store)) as log:
        store.is_away = True
        for _ in range(5):
            log.add(record())
            await asyncio.sleep(0.03)
        assert messages(caplog) == ["usage cannot be written, it is kept"]
        store.is_away = False
        await until(lambda: len(store.rows) == 5)
        await until(lambda: messages(caplog)[1:] == ["usage is written again"])


async def test_the_oldest_are_dropped_when_too_many_wait_and_it_is_said_how_many(
    store: FakeUsageStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(make_log(store, max_waiting=10)) as log:
        store.is_away = True
        for number in range(14):
            log.add(record(request_id=str(number)))
        await asyncio.sleep(0.03)
        store.is_away = False
        await until(lambda: len(store.rows) == 10)
        await until(lambda: "usage records lost" in messages(caplog))
    assert [row.record.request_id for row in store.rows.values()] == [
        str(number) for number in range(4, 14)
    ]
    lost = [one for one in caplog.records if one.getMessage() == "usage records lost"]
    assert [getattr(one, "records", None) for one in lost] == [4]
    assert sum(one.startswith("usage is lost from now on") for one in messages(caplog)) == 1


async def test_a_stop_without_a_database_ends_in_time_and_says_what_is_lost(
    store: FakeUsageStore, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log(store, close_timeout_s=0.1)
    await log.open()
    store.is_away = True
    for _ in range(3):
        log.add(record())
    started = time.monotonic()
    await log.close()
    assert time.monotonic() - started < 2
    assert [getattr(one, "records", None) for one in caplog.records][-1] == 3


async def test_a_database_that_comes_back_while_it_stops_gets_all(store: FakeUsageStore) -> None:
    log = make_log(store, close_timeout_s=5)
    await log.open()
    store.is_away = True
    log.add(record())
    asyncio.get_running_loop().call_later(0.05, setattr, store, "is_away", False)
    await log.close()
    assert len(store.rows) == 1


async def test_adding_does_not_wait_for_a_slow_database(store: FakeUsageStore) -> None:
    store.delay_s = 0.2
    async with opened(make_log(store)) as log:
        log.add(record())
        await asyncio.sleep(0.05)  # a group is on its way
        started = time.perf_counter()
        for _ in range(1000):
            log.add(record())
        assert time.perf_counter() - started < 0.1
    assert len(store.rows) == 1001


async def test_old_rows_are_collected_between_the_groups(store: FakeUsageStore) -> None:
    store.num_collectable = 5
    async with opened(make_log(store)) as log:
        log.add(record())
        await until(lambda: store.num_collectable == 0)
        await asyncio.sleep(0.05)
        assert store.num_collectable == 0, "it is not looked for more until a minute later"
    assert len(store.rows) == 1


async def test_a_stop_is_not_kept_up_by_what_is_old(store: FakeUsageStore) -> None:
    log = make_log(store, flush_s=60.0)  # nothing happens before the stop
    store.num_collectable = 5
    async with opened(log):
        log.add(record())
    assert (len(store.rows), store.num_collectable) == (1, 5)


async def test_a_tenant_is_stopped_at_its_budget_through_the_log(store: FakeUsageStore) -> None:
    budgets = Budgets(store, in_force(POLICY), refresh_s=0.0)
    log = UsageLog(store, in_force(POLICY), budgets, flush_s=0.01)
    async with opened(log):
        used = record(tenant="poor", prompt_tokens=3, completion_tokens=0)
        for _ in range(4):  # written and read between them: 3, 6, 9, 12 of 10
            budgets.check("poor")
            log.add(used)
            await asyncio.sleep(0.05)
        assert len(store.rows) == 4
        with pytest.raises(QuotaExceeded):
            budgets.check("poor")
