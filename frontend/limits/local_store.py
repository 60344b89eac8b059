"""Buckets that the worker processes of one machine share, in a table of records.

A record says when its bucket will be empty, or how many places each worker holds. What is empty
says nothing, and is removed. Knows nothing of what the table is.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from frontend.errors import LimitsUnavailable
from frontend.limits.buckets import Rule, Unit
from frontend.limits.gcra import MAX_FULL, decide, settled
from frontend.limits.store import Admission, Reservation

logger = logging.getLogger(__name__)

# Every so many acquires, twice as many records are looked at as were made, and some more: so at the
# most half of all records are empty ones.
SWEEP_INTERVAL = 32
MIN_SWEPT = 32
NUM_SWEPT_OF_FULL = 512
TIME = b"t"  # keys of records of the two kinds begin with
PLACES = b"p"
_time = struct.Struct("<d")
_places = struct.Struct("<QI")  # worker, its places


class Transaction(Protocol):
    """No other process' transaction runs at the same time; an exception undoes it."""

    def get(self, key: bytes, /) -> bytes | None: ...

    def put(self, key: bytes, value: bytes, /) -> object: ...

    def delete(self, key: bytes, /) -> object: ...


class Table(Protocol):
    errors: tuple[type[Exception], ...]  # of its methods and transactions
    max_records: int

    def open(self) -> None: ...

    def close(self) -> None: ...

    def begin(self) -> AbstractContextManager[Transaction]: ...

    def records(
        self, transaction: Transaction, first: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """In the order of their keys, from `first` on."""
        ...

    def num_records(self, transaction: Transaction) -> int: ...


class Workers(Protocol):
    """The processes that share the table."""

    own: int  # this one, in 64 bits

    def open(self) -> None: ...

    def close(self) -> None: ...

    def is_alive(self, worker: int) -> bool: ...


class LocalStore:
    """Nothing here waits but for another process' transaction: some microseconds.

    Args:
        clock: seconds, the same for all processes; where it steps back, time stands still.
    """

    def __init__(
        self, table: Table, workers: Workers, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._workers = workers
        self._clock = clock
        self._num_acquires = 0
        self._num_made = 0  # records, since the last sweep
        self._sweep_from = b""
        self._is_full = False
        self._problem: str | None = None

    async def open(self) -> None:
        try:
            self._table.open()
            self._workers.open()
        except OSError as exc:
            raise LimitsUnavailable(reason=str(exc)) from exc
        except self._table.errors as exc:
            raise LimitsUnavailable(reason=str(exc)) from exc

    async def close(self) -> None:
        self._workers.close()
        self._table.close()

    async def acquire(
        self, rules: Sequence[Rule], num_tokens: int, num_requests: int = 1
    ) -> Admission:
        try:
            with self._table.begin() as transaction:
                admission = self._acquire(transaction, rules, num_tokens, num_requests)
        except self._table.errors as exc:
            raise self._unavailable(str(exc)) from exc
        if admission is None:  # not raised before: it would undo what was swept
            raise self._unavailable("the table of limits is full")
        if self._problem and admission.reservation is not None and not self._is_full:
            self._problem = None
            logger.warning("limits: kept again")
        return admission

    def _acquire(
        self, transaction: Transaction, rules: Sequence[Rule], num_tokens: int, num_requests: int
    ) -> Admission | None:
        """None: there is no room for a bucket that is not in the table."""
        # Read when no other can write: otherwise it may be older than what another wrote.
        now = self._clock()
        self._num_acquires += 1
        if self._is_full or self._num_acquires % SWEEP_INTERVAL == 0:
            self._sweep(transaction, now)
        levels = [
            self._num_places(transaction, rule) if rule.is_place else _level(transaction, rule, now)
            for rule in rules
        ]
        decision = decide(rules, levels, num_tokens, num_requests)
        if not decision.is_admitted or not num_requests:
            return Admission(decision)
        num_new = levels.count(0.0)
        if self._is_full and num_new:
            return None
        self._num_made += num_new
        for rule, level in zip(rules, decision.levels, strict=True):
            if rule.is_place:
                self._add_places(transaction, rule, 1)
            else:
                transaction.put(TIME + rule.key, _time.pack(now + level))
        reservation = Reservation(store=self, rules=rules, num_tokens=num_tokens)
        return Admission(decision, reservation)

    async def settle(
        self, reservation: Reservation, num_tokens: int, num_requests: int = 1
    ) -> None:
        excess = {
            Unit.TOKENS: num_tokens - reservation.num_tokens,
            Unit.REQUESTS: num_requests - 1,
        }
        try:
            with self._table.begin() as transaction:
                now = self._clock()
                for rule in reservation.rules:
                    if rule.is_place:
                        self._add_places(transaction, rule, -1)
                    elif excess[rule.unit]:
                        _settle(transaction, rule, now, excess[rule.unit])
        except self._table.errors as exc:
            logger.error("limits: not settled", extra={"reason": str(exc)})

    def health(self) -> str:
        return "ok" if self._problem is None else f"not all requests are let in: {self._problem}"

    def _unavailable(self, problem: str) -> LimitsUnavailable:
        if self._problem is None:
            logger.error("limits: cannot be kept", extra={"reason": problem})
        self._problem = problem
        return LimitsUnavailable(reason=problem)

    def _num_places(self, transaction: Transaction, rule: Rule) -> float:
        """Places taken; those of dead workers are free as soon as one is wanted."""
        held = _unpack(transaction.get(PLACES + rule.key))
        taken = sum(held.values())
        if taken >= rule.capacity:
            alive = self._of_the_living(held)
            if alive != held:
                _put_places(transaction, PLACES + rule.key, alive)
                taken = sum(alive.values())
        return float(taken)

    def _add_places(self, transaction: Transaction, rule: Rule, number: int) -> None:
        key = PLACES + rule.key
        held = _unpack(transaction.get(key))
        held[self._workers.own] = max(held.get(self._workers.own, 0) + number, 0)
        _put_places(transaction, key, held)

    def _of_the_living(self, held: dict[int, int]) -> dict[int, int]:
        return {worker: n for worker, n in held.items() if self._workers.is_alive(worker)}

    def _sweep(self, transaction: Transaction, now: float) -> None:
        """Remove what is empty among some records: the next ones each time, then from the first."""
        limit = NUM_SWEPT_OF_FULL if self._is_full else MIN_SWEPT + 2 * self._num_made
        found = self._table.records(transaction, self._sweep_from, limit)
        for key, value in found:
            if key.startswith(TIME) and _time.unpack(value)[0] <= now:
                transaction.delete(key)
            elif key.startswith(PLACES):
                held = _unpack(value)
                alive = self._of_the_living(held)
                if alive != held:
                    _put_places(transaction, key, alive)
        self._sweep_from = found[-1][0] + b"\0" if len(found) == limit else b""
        self._num_made = 0
        self._is_full = self._table.num_records(transaction) >= self._table.max_records


def _level(transaction: Transaction, rule: Rule, now: float) -> float:
    record = transaction.get(TIME + rule.key)
    if record is None:
        return 0.0
    level: float = _time.unpack(record)[0] - now
    if level <= 0.0:
        return 0.0
    if level > MAX_FULL * rule.full:  # the clock was set back: from now on it runs empty
        level = MAX_FULL * rule.full
        transaction.put(TIME + rule.key, _time.pack(now + level))
    return level


def _settle(transaction: Transaction, rule: Rule, now: float, excess: int) -> None:
    level = settled(rule, _level(transaction, rule, now), excess)
    transaction.put(TIME + rule.key, _time.pack(now + level))


def _unpack(record: bytes | None) -> dict[int, int]:
    """Worker -> its places."""
    return dict(_places.iter_unpack(record or b""))


def _put_places(transaction: Transaction, key: bytes, held: dict[int, int]) -> None:
    record = b"".join(_places.pack(worker, number) for worker, number in held.items() if number)
    if record:
        transaction.put(key, record)
    else:
        transaction.delete(key)
