"""A store of each kind with several workers, whose time can be moved and who can be killed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from redis.asyncio import Redis

from frontend.limits.lmdb_table import LmdbTable
from frontend.limits.local_store import LocalStore, Table, Workers
from frontend.limits.redis_store import RedisStore
from frontend.limits.store import LimitStore
from frontend.limits.worker_locks import WorkerLocks
from tests.fakes.limits import FakeClock, FakeWorkers, MemoryTable


class World(Protocol):
    lease_s: float  # after which the places of a killed worker are free

    async def worker(self) -> LimitStore:
        """Another worker process' store."""
        ...

    async def kill(self, worker: LimitStore) -> None: ...

    async def advance(self, seconds: float) -> None:
        """Below 0: the clock is set back."""
        ...

    async def end(self) -> None: ...


class LocalWorld:
    lease_s = 0.0

    def __init__(self, table: Table) -> None:
        self._clock = FakeClock()
        self._table = table
        self._workers: list[tuple[LimitStore, Workers]] = []
        table.open()

    def _new_workers(self) -> Workers:
        raise NotImplementedError

    async def worker(self) -> LimitStore:
        workers = self._new_workers()
        workers.open()
        store = LocalStore(self._table, workers, clock=self._clock)
        self._workers.append((store, workers))
        return store

    async def kill(self, worker: LimitStore) -> None:
        [workers] = [its for store, its in self._workers if store is worker]
        workers.close()  # what the kernel does

    async def advance(self, seconds: float) -> None:
        self._clock.now += seconds

    async def end(self) -> None:
        for _, workers in self._workers:
            workers.close()
        self._table.close()


class MemoryWorld(LocalWorld):
    def __init__(self) -> None:
        super().__init__(MemoryTable())
        self._dead: set[int] = set()

    def _new_workers(self) -> Workers:
        return FakeWorkers(len(self._workers) + 1, self._dead)


class LmdbWorld(LocalWorld):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(LmdbTable(folder / "limits", map_bytes=2**20))

    def _new_workers(self) -> Workers:
        return WorkerLocks(self._folder / "workers")


# For the server's clock cannot be moved, everything else is.
SHIFT = """
for _, key in ipairs(redis.call('KEYS', '{inflight}:limits:*')) do
  if redis.call('TYPE', key).ok == 'zset' then
    local items = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #items, 2 do
      redis.call('ZINCRBY', key, -ARGV[1], items[i])
    end
  else
    local moved = string.format('%.17g', redis.call('GET', key) - ARGV[1])
    redis.call('SET', key, moved, 'KEEPTTL')
  end
end
"""


class RedisWorld:
    lease_s = 60.0  # no worker renews by itself while a test runs

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = Redis.from_url(url)
        self._alive: list[RedisStore] = []

    async def worker(self) -> LimitStore:
        store = RedisStore(self._url, lease_s=self.lease_s)
        self._alive.append(store)
        return store

    async def kill(self, worker: LimitStore) -> None:
        assert isinstance(worker, RedisStore)
        self._alive.remove(worker)
        await worker.close()

    async def advance(self, seconds: float) -> None:
        await self._redis.eval(SHIFT, 0, seconds)
        for store in self._alive:
            await store.renew()  # as it does all the time

    async def end(self) -> None:
        await self._redis.flushall()
        for store in self._alive:
            await store.close()
        await self._redis.aclose()
