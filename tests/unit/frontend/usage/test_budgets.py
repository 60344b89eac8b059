from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from frontend.errors import QuotaExceeded
from frontend.limits.policy import Budget, Policy, Price
from frontend.messages import Language
from frontend.usage import budgets as budgets_module
from frontend.usage.budgets import Budgets
from frontend.usage.log import UsageLog
from frontend.usage.record import UsageRow, time_of
from tests.fakes.usage import FakeUsageStore, in_force, record

POLICY = Policy(
    budgets={"acme": Budget(tokens=100), "rich": Budget(money=0.001), "*": Budget(tokens=10**9)},
    prices={"tiny": Price(prompt=10.0, completion=20.0)},
)
NOVEMBER = datetime(2026, 11, 15, tzinfo=UTC).timestamp()


class Clock:
    """The wall clock of budgets."""

    def __init__(self) -> None:
        self.now = NOVEMBER

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(budgets_module, "time", clock)
    return clock


@pytest.fixture
def store() -> FakeUsageStore:
    return FakeUsageStore()


@pytest.fixture
def budgets(store: FakeUsageStore, clock: Clock) -> Budgets:
    return Budgets(store, in_force(POLICY), refresh_s=0.0)


def row(number: int, **fields: object) -> UsageRow:
    return UsageRow(id=str(number), record=record(**{"at": NOVEMBER, **fields}), cost=0)


def is_refused(budgets: Budgets, tenant: str = "acme") -> bool:
    try:
        budgets.check(tenant)
    except QuotaExceeded:
        return True
    return False


async def test_what_this_worker_has_added_counts_at_once(budgets: Budgets) -> None:
    await budgets.open()
    budgets.add(row(1, prompt_tokens=60, completion_tokens=39))
    assert not is_refused(budgets)
    budgets.add(row(2, prompt_tokens=1, completion_tokens=0))
    assert is_refused(budgets)
    assert not is_refused(budgets, "another")


async def test_what_others_have_written_counts_from_the_next_read(
    budgets: Budgets, store: FakeUsageStore
) -> None:
    await budgets.open()
    assert not is_refused(budgets)
    await store.write([row(1, prompt_tokens=100)])
    await budgets.refresh([])
    assert is_refused(budgets)


async def test_a_worker_that_starts_knows_what_is_used_up(
    budgets: Budgets, store: FakeUsageStore
) -> None:
    await store.write([row(1, prompt_tokens=100)])
    await budgets.open()
    assert is_refused(budgets)


async def test_nothing_counts_twice(budgets: Budgets, store: FakeUsageStore) -> None:
    await budgets.open()
    written, waiting = row(1, prompt_tokens=45), row(2, prompt_tokens=44)
    budgets.add(written)
    await store.write([written])
    await budgets.refresh([])
    budgets.add(waiting)
    await budgets.refresh([waiting])  # it is read that it is not there
    assert not is_refused(budgets), "99 of 100 are used"
    await store.write([waiting])
    await budgets.refresh([])
    assert not is_refused(budgets)
    budgets.add(row(3, prompt_tokens=1, completion_tokens=0))
    assert is_refused(budgets)


async def test_what_comes_while_the_database_is_read_counts_once(
    budgets: Budgets, store: FakeUsageStore
) -> None:
    await budgets.open()
    budgets.check("acme")
    store.delay_s = 0.01
    waiting: list[UsageRow] = []
    reading = asyncio.create_task(budgets.refresh(waiting))
    await asyncio.sleep(0)
    waiting.append(row(1, prompt_tokens=50, completion_tokens=0))
    budgets.add(waiting[0])
    await reading
    assert not is_refused(budgets)
    budgets.add(row(2, prompt_tokens=50, completion_tokens=0))
    assert is_refused(budgets)


async def test_money_is_used_up_as_tokens_are(store: FakeUsageStore, clock: Clock) -> None:
    clock.now = time.time()
    budgets = Budgets(store, in_force(POLICY))
    log = UsageLog(store, in_force(POLICY), budgets)
    log.add(record(tenant="rich", prompt_tokens=99, completion_tokens=0))
    assert not is_refused(budgets, "rich"), "0.00099 of 0.001"
    log.add(record(tenant="rich", prompt_tokens=1, completion_tokens=0))
    assert is_refused(budgets, "rich")


async def test_each_month_begins_anew(
    budgets: Budgets, store: FakeUsageStore, clock: Clock
) -> None:
    await store.write([row(1, prompt_tokens=60)])
    await budgets.open()
    budgets.add(row(2, prompt_tokens=60))
    assert is_refused(budgets)
    december = time_of(datetime(2026, 12, 1, tzinfo=UTC).date())
    clock.now = december - 0.001
    assert is_refused(budgets)
    clock.now = december
    assert not is_refused(budgets)
    budgets.add(row(3, prompt_tokens=1000, at=december - 1))
    assert not is_refused(budgets), "a record of the old month"
    await budgets.refresh([])
    assert not is_refused(budgets)
    budgets.add(row(4, prompt_tokens=1000, at=december + 1))
    assert is_refused(budgets)


async def test_a_month_that_ends_while_the_database_is_read_is_not_taken_for_the_next(
    budgets: Budgets, store: FakeUsageStore, clock: Clock
) -> None:
    await store.write([row(1, prompt_tokens=1000)])
    budgets.check("acme")
    store.delay_s = 0.01
    reading = asyncio.create_task(budgets.refresh([]))
    await asyncio.sleep(0)
    clock.now = time_of(datetime(2026, 12, 1, tzinfo=UTC).date())
    assert not is_refused(budgets)
    await reading
    assert not is_refused(budgets)


async def test_nobody_is_asked_for_where_nothing_is_limited(
    store: FakeUsageStore, clock: Clock
) -> None:
    budgets = Budgets(store, in_force(Policy()), refresh_s=0.0)
    budgets.check("acme")
    budgets.add(row(1))
    await budgets.refresh([])
    assert store.num_reads == 0


async def test_after_a_failed_read_the_same_tenants_are_asked_for(
    budgets: Budgets, store: FakeUsageStore
) -> None:
    budgets.check("acme")
    await store.write([row(1, prompt_tokens=1000)])
    store.is_away = True
    with pytest.raises(ConnectionError):
        await budgets.refresh([])
    store.is_away = False
    await budgets.refresh([])
    assert is_refused(budgets)


@pytest.mark.parametrize("language", Language)
async def test_the_error_says_which_budget_of_which_month(
    budgets: Budgets, language: Language
) -> None:
    budgets.add(row(1, prompt_tokens=98, completion_tokens=2))
    with pytest.raises(QuotaExceeded) as refused:
        budgets.check("acme")
    message = refused.value.message(language)
    for part in ("acme", "2026-11", "100", "2026-12-01"):
        assert part in message
    assert refused.value.code == "insufficient_quota"
