"""Four worker processes, hammered over HTTP, let in exactly what is in the bucket, killed or not.

`--kills N` kills so many of them in each test, started as `inflight serve` starts them; without it
there are few kills, of workers that are forked, which starts them sooner.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from frontend.limits.buckets import LimitSet, Rule, Unit, rules_for
from frontend.limits.lmdb_table import LmdbTable
from frontend.limits.local_store import LocalStore
from frontend.limits.opening import FORMAT
from frontend.limits.redis_store import RedisStore
from frontend.limits.store import LimitStore
from frontend.limits.worker_locks import WorkerLocks
from frontend.settings import Settings
from frontend.store.api_keys import ApiKey
from tests.fakes.keys import make_key
from tests.integration.limit_server import (
    ANSWER_TOKENS,
    NUM_WORKERS,
    PROMPT_TOKENS,
    Asked,
    Clients,
    EngineThread,
    WorkerProcesses,
    worker_processes,
)
from tests.integration.redis_server import RedisServer

logger = logging.getLogger(__name__)

HAMMER_S = 1.0
LEAST_S = 0.4
NUM_KILLS = 8
LONGEST_PAUSE_S = 0.2
PATIENT = "socket_timeout=10"  # with Redis: here one busy machine does it all
REQUESTS = LimitSet(requests_per_minute=240)
TOKENS = LimitSet(tokens_per_minute=3000)
MAX_TOKENS = 180  # of which 20 are used
RESERVED = PROMPT_TOKENS + MAX_TOKENS
USED = PROMPT_TOKENS + ANSWER_TOKENS


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineThread]:
    with EngineThread() as engine:
        yield engine


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def limits_url(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[str]:
    if request.param == "redis":
        redis.flush()
        yield f"{redis.url}?{PATIENT}"
        redis.flush()
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield f"lmdb://{folder}/limits"


@pytest.fixture(scope="module")
def num_kills(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--kills"))


@pytest.fixture(scope="module")
def settings(
    tiny_home: Path, engine: EngineThread, limits_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    home = tmp_path_factory.mktemp("hammered")
    (home / "models").symlink_to(tiny_home / "models", target_is_directory=True)
    return Settings(
        home=home,
        model="tiny",
        workers=NUM_WORKERS,
        triton_url=engine.url,
        triton_metrics_url="127.0.0.1:1",  # nobody listens there
        authentication="on",
        limits_url=limits_url,
        log_level="error",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    settings: Settings
    workers: WorkerProcesses
    engine: EngineThread


@pytest.fixture(scope="module")
def server(settings: Settings, engine: EngineThread, num_kills: int) -> Iterator[Server]:
    metrics_dir = settings.home / "metrics"
    with worker_processes(settings, metrics_dir, is_forked=not num_kills) as workers:
        yield Server(settings=settings, workers=workers, engine=engine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hammered:
    """What clients and the engine saw, and how the bucket stood behind it."""

    rule: Rule
    asked: Sequence[Asked]
    reached: frozenset[int]  # numbers of requests that the engine got
    level: float
    at: tuple[float, float]  # the level was read between these

    def __post_init__(self) -> None:
        assert {one.status for one in self.asked} <= {200, 429, None}
        assert {one.number for one in self.admitted if one.is_numbered} <= self.reached
        assert not self.reached & {one.number for one in self.asked if one.status == 429}

    @property
    def admitted(self) -> list[Asked]:
        return [one for one in self.asked if one.status == 200]

    @property
    def last_refused(self) -> Asked:
        return [one for one in self.asked if one.status == 429][-1]

    @property
    def broken(self) -> list[Asked]:
        """Their workers were killed."""
        return [one for one in self.asked if one.status is None]

    def figures(self) -> str:
        """For people."""
        statuses = Counter(one.status for one in self.asked)
        num_tokens = sum(one.num_tokens for one in self.admitted)
        num_reached = len({one.number for one in self.broken} & self.reached)
        least, most = self.taken()
        return (
            f"{self.rule.unit} of {self.rule.capacity} a minute, in "
            f"{self.at[0] - self.admitted[0].sent_at:.1f} s: let in {statuses[200]} ({num_tokens} "
            f"tokens), refused {statuses[429]}, broken {statuses[None]} ({num_reached} reached the "
            f"engine); gone from the bucket {least:.2f} to {most:.2f}"
        )

    def taken(self) -> tuple[float, float]:
        """What has gone out of the bucket, at the least and at the most: it was never empty."""
        first = self.admitted[0]
        least_s, most_s = self.at[0] - first.answered_at, self.at[1] - first.sent_at
        return (self.level + least_s) / self.rule.step, (self.level + most_s) / self.rule.step

    def bound(self, last: Asked) -> tuple[float, float]:
        """What is in the bucket, and runs into it until the last request is decided."""
        first = self.admitted[0]
        least_s, most_s = last.sent_at - first.answered_at, last.answered_at - first.sent_at
        step, capacity = self.rule.step, self.rule.capacity
        return capacity + least_s / step, capacity + most_s / step


def store_of(url: str) -> LimitStore:
    """The one of the worker processes, of which this process is none: here files are smaller."""
    if url.startswith("redis"):
        return RedisStore(url)
    folder = Path(url.removeprefix("lmdb://"))
    table = LmdbTable(folder / f"limits-{FORMAT}")
    return LocalStore(table, WorkerLocks(folder / "workers"))


class Hammer:
    """Clients of a key, which has one bucket of its own."""

    def __init__(self, server: Server, key: ApiKey, secret: str) -> None:
        assert key.limits is not None
        [self._rule] = rules_for(f"key:{key.id}", key.limits)
        self._server = server
        max_tokens = MAX_TOKENS if self._rule.unit is Unit.TOKENS else 1
        self.clients = Clients(server.workers.address, secret, max_tokens=max_tokens)

    @staticmethod
    async def of_new_key(server: Server, limits: LimitSet) -> Hammer:
        return Hammer(server, *await make_key(server.settings, limits))

    @asynccontextmanager
    async def hammering(self) -> AsyncIterator[None]:
        await self.clients.ask_once()  # the first: others come before its bucket is empty again
        running = asyncio.create_task(self.clients.run())
        try:
            yield
            await self.clients.until_refused()
        finally:
            self.clients.is_stopping = True
            await running

    async def result(self) -> Hammered:
        level, at = await self._level()
        numbers = self._server.engine.numbers()
        assert len(set(numbers)) == len(numbers), "nothing is asked twice"
        own = {one.number for one in self.clients.asked}
        found = Hammered(
            rule=self._rule,
            asked=self.clients.asked,
            reached=frozenset(own & set(numbers)),
            level=level,
            at=at,
        )
        logger.info("%s", found.figures())
        return found

    async def _level(self) -> tuple[float, tuple[float, float]]:
        store = store_of(self._server.settings.limits_url)
        await store.open()
        before = time.monotonic()
        peek = await store.acquire([self._rule], 0, 0)
        after = time.monotonic()
        await store.close()
        return peek.decision.levels[0], (before, after)


async def test_requests_are_exactly_as_many_as_the_bucket_has(server: Server) -> None:
    hammer = await Hammer.of_new_key(server, REQUESTS)
    async with hammer.hammering():
        await asyncio.sleep(HAMMER_S)
    found = await hammer.result()
    number = len(found.admitted)
    assert number == len(found.reached)
    least, most = found.taken()
    assert least - 0.1 <= number <= most + 0.1
    assert found.bound(found.last_refused)[0] - 1 <= number <= found.bound(found.asked[-1])[1] + 1


async def test_tokens_are_exactly_as_many_as_the_bucket_has(server: Server) -> None:
    """Nine times as many are reserved as used: what is given back is let in again."""
    hammer = await Hammer.of_new_key(server, TOKENS)
    async with hammer.hammering():
        await asyncio.sleep(HAMMER_S)
        hammer.clients.ask_for_the_least()  # of what there is not room for much
        await asyncio.sleep(LEAST_S)
    found = await hammer.result()
    used = sum(one.num_tokens for one in found.admitted)
    least, most = found.taken()
    assert least - 0.1 <= used <= most + 0.1
    least_request = 2
    assert found.bound(found.last_refused)[0] - least_request <= used
    assert used <= found.bound(found.asked[-1])[1] + 1


async def test_killed_workers_make_no_request_more_nor_less(server: Server, num_kills: int) -> None:
    """What is gone from the bucket is what the engine got, and what died on its way there."""
    hammer = await Hammer.of_new_key(server, REQUESTS)
    async with hammer.hammering():
        await asyncio.to_thread(server.workers.kill, num_kills or NUM_KILLS, LONGEST_PAUSE_S)
    found = await hammer.result()
    num_lost = len({one.number for one in found.broken} - found.reached)
    least, most = found.taken()
    assert least - num_lost - 0.1 <= len(found.reached) <= most + 0.1
    assert len(found.reached) <= found.bound(found.asked[-1])[1] + 1
    assert most >= found.bound(found.last_refused)[0] - 1


async def test_killed_workers_make_no_token_more_nor_less(server: Server, num_kills: int) -> None:
    """What is gone is what was used, and what was reserved for those who died."""
    hammer = await Hammer.of_new_key(server, TOKENS)
    async with hammer.hammering():
        await asyncio.to_thread(server.workers.kill, num_kills or NUM_KILLS, LONGEST_PAUSE_S)
    found = await hammer.result()
    least, most = found.taken()
    assert len(found.reached) * USED <= most + 0.1
    assert least <= len(found.admitted) * USED + len(found.broken) * RESERVED + 0.1
    assert len(found.reached) * USED <= found.bound(found.asked[-1])[1] + 1
