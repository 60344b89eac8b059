"""A table of records in memory, workers that can be killed and a clock that can be set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from frontend.limits.local_store import Transaction


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeWorkers:
    """One of some workers; `dead` is common to them."""

    def __init__(self, own: int, dead: set[int]) -> None:
        self.own = own
        self._dead = dead

    def open(self) -> None:
        pass

    def close(self) -> None:
        self._dead.add(self.own)

    def is_alive(self, worker: int) -> bool:
        return worker not in self._dead


class MemoryTransaction:
    def __init__(self, records: dict[bytes, bytes]) -> None:
        self.records = records
        self.get = records.get

    def put(self, key: bytes, value: bytes) -> None:
        self.records[key] = value

    def delete(self, key: bytes) -> None:
        self.records.pop(key, None)


class MemoryTable:
    errors: tuple[type[Exception], ...] = ()

    def __init__(self, *, max_records: int = 10_000) -> None:
        self.max_records = max_records
        self._records: dict[bytes, bytes] = {}

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        changed = dict(self._records)
        yield MemoryTransaction(changed)
        self._records = changed

    def records(
        self, transaction: Transaction, first: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        assert isinstance(transaction, MemoryTransaction)
        items = sorted(transaction.records.items())
        return [item for item in items if item[0] >= first][:limit]

    def num_records(self, transaction: Transaction) -> int:
        assert isinstance(transaction, MemoryTransaction)
        return len(transaction.records)
