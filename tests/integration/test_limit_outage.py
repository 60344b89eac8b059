"""The shared store goes away and comes back: what is let in meanwhile, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from frontend.errors import LimitsUnavailable
from frontend.limits.buckets import LimitSet, rules_for
from frontend.limits.fallback import FallbackStore
from frontend.limits.local_store import LocalStore
from frontend.limits.redis_store import RedisStore
from tests.fakes.limits import FakeWorkers, MemoryTable
from tests.integration.lossy_proxy import LossyProxy
from tests.integration.redis_server import RedisServer, free_port

RULES = rules_for("key:a", LimitSet(requests_per_minute=9, tokens_per_minute=900))
PLACES = rules_for("key:b", LimitSet(concurrent_requests=4))
UP_TIMEOUT_S = 5.0


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@asynccontextmanager
async def store_over(
    redis: RedisServer | LossyProxy,
    *,
    is_closed: bool = False,
    num_frontends: int = 3,
    timeout_s: float = 5.0,  # long: on a busy machine a server that is there may be slow
) -> AsyncIterator[FallbackStore]:
    local = None if is_closed else LocalStore(MemoryTable(), FakeWorkers(1, set()))
    shared = RedisStore(redis.url, timeout_s=timeout_s)
    store = FallbackStore(shared, local, num_frontends=num_frontends)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(is_true: Callable[[], bool]) -> None:
    for _ in range(250):
        if is_true():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


async def number_let_in(store: FallbackStore) -> int:
    return sum([(await store.acquire(RULES, 0)).decision.is_admitted for _ in range(12)])


async def test_each_machine_has_its_share_while_the_server_is_away(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_over(own_redis) as store:
        assert store.health() == "ok"
        assert await number_let_in(store) == 9
        own_redis.stop()
        at_once = await asyncio.gather(*(store.acquire(RULES, 0) for _ in range(12)))
        assert sum(one.decision.is_admitted for one in at_once) == 3
        assert "1/3" in store.health()
        own_redis.start()  # empty
        await until(lambda: store.health() == "ok")
        assert await number_let_in(store) == 9
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == ["limits: shared store lost", "limits: shared store back"]


async def test_what_fits_the_whole_limit_but_no_share_may_come_again(
    own_redis: RedisServer,
) -> None:
    async with store_over(own_redis) as store:
        own_redis.stop()
        too_much_now = (await store.acquire(RULES, 400)).decision
        assert not too_much_now.is_admitted
        assert not too_much_now.never_fits
        assert (await store.acquire(RULES, 901)).decision.never_fits


async def test_nothing_is_let_in_without_a_fallback(own_redis: RedisServer) -> None:
    async with store_over(own_redis, is_closed=True) as store:
        assert await number_let_in(store) == 9
        own_redis.stop()
        for _ in range(2):
            with pytest.raises(LimitsUnavailable):
                await store.acquire(RULES, 0)
        assert store.health().startswith("no requests are let in")
        own_redis.start()
        await until(lambda: store.health() == "ok")
        assert await number_let_in(store) == 9


async def test_a_server_that_is_not_there_yet_is_used_when_it_comes(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    async with store_over(redis) as store:
        assert await number_let_in(store) == 3
        with redis:
            await until(lambda: store.health() == "ok")
            assert await number_let_in(store) == 9


async def test_a_server_that_hangs_holds_up_nobody_for_long(own_redis: RedisServer) -> None:
    async with store_over(own_redis, timeout_s=0.2) as store:
        await number_let_in(store)
        own_redis.signal(signal.SIGSTOP)
        started = time.monotonic()
        assert await number_let_in(store) == 3
        assert time.monotonic() - started < 2  # one timeout, not twelve
        own_redis.signal(signal.SIGCONT)
        await until(lambda: store.health() == "ok")


async def test_many_requests_at_once_are_no_outage(own_redis: RedisServer) -> None:
    async with store_over(own_redis) as store:
        admissions = await asyncio.gather(*(store.acquire(RULES, 0) for _ in range(200)))
        assert store.health() == "ok"
        assert sum(one.decision.is_admitted for one in admissions) == 9


async def test_a_server_that_takes_no_writes_is_as_good_as_none(own_redis: RedisServer) -> None:
    async with store_over(own_redis) as store:
        own_redis.command("REPLICAOF", "127.0.0.1", "1")
        assert await number_let_in(store) == 3
        await asyncio.sleep(0.7)  # it answers, but is not back
        assert store.health() != "ok"
        own_redis.command("REPLICAOF", "NO", "ONE")
        await until(lambda: store.health() == "ok")


async def test_a_server_that_is_a_replica_by_now_is_left_for_the_one_that_has_its_name(
    own_redis: RedisServer, redis: RedisServer
) -> None:
    redis.flush()
    async with LossyProxy(own_redis.port) as name, store_over(name) as store:
        assert (await store.acquire(PLACES, 0)).decision.is_admitted
        name.server_port = redis.port
        own_redis.command("REPLICAOF", "127.0.0.1", str(redis.port))  # its connections stay
        assert await number_let_in(store) == 3
        await until(lambda: store.health() == "ok")
        assert await number_let_in(store) == 9
    redis.flush()


async def test_what_was_reserved_before_may_be_settled_in_between(own_redis: RedisServer) -> None:
    async with store_over(own_redis) as store:
        first = (await store.acquire(RULES, 300)).reservation
        own_redis.stop()
        second = (await store.acquire(RULES, 300)).reservation
        assert first is not None
        assert second is not None
        await first.settle(1)  # nobody is there: it comes back by itself
        own_redis.start()
        await until(lambda: store.health() == "ok")
        await second.settle(1)


async def test_what_was_done_though_its_answer_was_lost_is_not_done_again(
    redis: RedisServer,
) -> None:
    """On a connection that breaks a step is asked for once more, for it may not have been taken."""
    redis.flush()
    rules = RULES + PLACES
    async with LossyProxy(redis.port) as proxy:
        store = RedisStore(proxy.url)
        await store.open()
        reservation = (await store.acquire(rules, 100)).reservation
        assert reservation is not None
        proxy.num_to_lose = 1
        again = await store.acquire(rules, 100)
        assert proxy.num_to_lose == 0
        assert again.reservation is not None
        assert [state.remaining for state in again.decision.states()] == [7, 700, 2]
        proxy.num_to_lose = 1
        await again.reservation.settle(10)  # gives 90 back, and its place
        assert proxy.num_to_lose == 0
        states = (await store.acquire(rules, 0, 0)).decision.states()
        assert [state.remaining for state in states] == [7, 790, 3]
        await reservation.settle(0)
        await store.close()
    redis.flush()


async def test_places_are_kept_over_a_restart_of_the_server(own_redis: RedisServer) -> None:
    shared = RedisStore(own_redis.url, lease_s=1.0)
    await shared.open()
    for _ in range(4):
        assert (await shared.acquire(PLACES, 0)).decision.is_admitted
    own_redis.stop()
    own_redis.start()
    await asyncio.sleep(0.5)  # renewed by then
    assert not (await shared.acquire(PLACES, 0)).decision.is_admitted
    await shared.close()


async def test_a_request_whose_client_goes_while_it_is_decided_was_none(
    redis: RedisServer,
) -> None:
    redis.flush()
    shared = RedisStore(redis.url)
    await shared.open()
    num_cancelled = 0
    for number in range(60):
        task = asyncio.create_task(shared.acquire(RULES + PLACES, 300))
        for _ in range(number % 6):  # so many steps of the loop: it decides in five or more
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        num_cancelled += task.cancelled()
        if not task.cancelled() and (reservation := task.result().reservation) is not None:
            await reservation.cancel()
    assert num_cancelled > 10, num_cancelled
    await until(lambda: not shared._running)
    states = (await shared.acquire(RULES + PLACES, 0, 0)).decision.states()
    assert [state.remaining for state in states] == [9, 900, 4]
    taken = [await shared.acquire(PLACES, 0) for _ in range(5)]
    # Answers of cancelled questions are not taken for those of others.
    assert [one.decision.is_admitted for one in taken] == [True] * 4 + [False]
    await asyncio.gather(*(one.reservation.settle(0) for one in taken if one.reservation))
    await shared.close()
    redis.flush()


async def test_a_cluster_runs_the_scripts(tmp_path: Path) -> None:
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with RedisServer(tmp_path, *options) as cluster:
        cluster.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await asyncio.sleep(0.3)
        store = RedisStore(cluster.url)
        async with asyncio.timeout(UP_TIMEOUT_S):
            while True:
                try:
                    await store.open()
                except LimitsUnavailable:  # the cluster is not up yet
                    await asyncio.sleep(0.1)
                else:
                    break
        reservation = (await store.acquire(RULES + PLACES, 50)).reservation
        assert reservation is not None
        await store.renew()
        await reservation.settle(20)
        assert (await store.acquire(RULES + PLACES, 0, 0)).decision.states()[1].remaining == 880
        await store.close()
