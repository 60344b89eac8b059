"""Buckets in Redis or Valkey, shared by the workers of many machines.

Each decision is one script, by the server's clock. A place is a lease that its worker renews: those
of a worker that has died come free when their lease ends. All keys have one hash tag, for a cluster
runs a script only where all of its keys are.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from frontend.errors import LimitsUnavailable
from frontend.limits.buckets import Rule, Unit
from frontend.limits.gcra import decide
from frontend.limits.store import Admission, Reservation

PREFIX = b"{inflight}:limits:"
STEPS = "{inflight}:steps:"  # what is done once for a request, though it may be asked for twice
LEASE_S = 5.0  # a worker whose event loop stands still for longer loses its places
RENEWALS = 5  # in a lease
TIMEOUT_S = 0.5
MAX_CONNECTIONS = 32  # of a worker; more decisions at once wait for one
NUM_RETRIES = 3
POOL_TIMEOUT_S = 2.0
PLACES_AT_ONCE = 500  # renewed by one script: others wait for it
SCRIPTS = Path(__file__).with_name("scripts")

T = TypeVar("T")


class RedisStore:
    """
    Args:
        url: redis://, rediss:// (TLS), unix://; valkey:// and valkeys:// are the first two.

    Raises:
        ValueError: the URL has an option that there is not.
    """

    def __init__(self, url: str, *, lease_s: float = LEASE_S, timeout_s: float = TIMEOUT_S) -> None:
        connections = BlockingConnectionPool.from_url(
            url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
            max_connections=MAX_CONNECTIONS,
            timeout=POOL_TIMEOUT_S,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Of connections that the server closes. The scripts know what they have done already.
            retry=Retry(NoBackoff(), NUM_RETRIES, supported_errors=(RedisConnectionError,)),
        )
        _check_options(connections)
        self._redis = Redis.from_pool(connections)
        self._acquire = self._redis.register_script(_script("acquire"))
        self._settle = self._redis.register_script(_script("settle"))
        self._renew = self._redis.register_script(_script("renew"))
        self._lease_s = lease_s
        self._worker = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._held: dict[str, list[bytes]] = {}  # place -> keys of its buckets
        self._running: set[asyncio.Task[Any]] = set()  # goes on when who waits for it is cancelled
        self._renewing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._renewing = asyncio.create_task(self._renew_for_ever(), name="renew places")
        await self.check()

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        while self._running:
            await asyncio.wait(self._running)
        await self._redis.aclose()

    async def check(self) -> None:
        """Raises LimitsUnavailable unless a decision can be made, and written."""
        # By a new connection: the name of a server that has become a replica is another's by now.
        await _try(self._redis.connection_pool.disconnect(inuse_connections=False))
        probe = Rule(name="check", capacity=10**9, period_s=1.0, unit=Unit.REQUESTS)
        await self.acquire([probe], 0)

    async def acquire(
        self, rules: Sequence[Rule], num_tokens: int, num_requests: int = 1
    ) -> Admission:
        deciding = self._run(self._decide(rules, num_tokens, num_requests))
        try:
            return await asyncio.shield(deciding)
        except asyncio.CancelledError:
            # It may have been taken by now, or will be: the question is on its way.
            self._run(_give_back(deciding))
            raise

    async def _decide(self, rules: Sequence[Rule], num_tokens: int, num_requests: int) -> Admission:
        place = f"{self._worker}:{next(self._numbers)}"
        arguments: list[str | float] = [place, self._lease_s, num_requests]
        for rule in rules:
            cost = num_tokens if rule.unit is Unit.TOKENS else num_requests
            arguments += (_kind(rule), rule.full, rule.step, cost)
        try:
            is_admitted, *levels = await self._acquire(
                keys=[f"{STEPS}asked:{place}", *(PREFIX + rule.key for rule in rules)],
                args=arguments,
            )
        except (RedisError, OSError) as exc:
            raise LimitsUnavailable(reason=f"{type(exc).__name__}: {exc}") from exc
        decision = decide(rules, [float(level) for level in levels], num_tokens, num_requests)
        assert decision.is_admitted == bool(is_admitted), "both calculate alike"
        if not is_admitted or not num_requests:
            return Admission(decision)
        if keys := [PREFIX + rule.key for rule in rules if rule.is_place]:
            self._held[place] = keys
        reservation = Reservation(store=self, rules=rules, num_tokens=num_tokens, place=place)
        return Admission(decision, reservation)

    async def settle(
        self, reservation: Reservation, num_tokens: int, num_requests: int = 1
    ) -> None:
        self._held.pop(reservation.place, None)
        excess = {
            Unit.TOKENS: num_tokens - reservation.num_tokens,
            Unit.REQUESTS: num_requests - 1,
            Unit.CONCURRENT: -1,
        }
        keys: list[str | bytes] = [f"{STEPS}settled:{reservation.place}"]
        arguments: list[str | float] = [reservation.place]
        for rule in reservation.rules:
            if excess[rule.unit]:
                keys.append(PREFIX + rule.key)
                arguments += (_kind(rule), rule.full, excess[rule.unit] * rule.step)
        if len(keys) > 1:
            await asyncio.shield(self._run(_try(self._settle(keys=keys, args=arguments))))

    def _run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS)
            await self.renew()

    async def renew(self) -> None:
        """Keep all places that are held for as long again."""
        held = [(key, place) for place, keys in self._held.items() for key in keys]
        for first in range(0, len(held), PLACES_AT_ONCE):
            await self._renew_places(held[first : first + PLACES_AT_ONCE])

    async def _renew_places(self, places: Iterable[tuple[bytes, str]]) -> None:
        still = [(key, place) for key, place in places if place in self._held]
        if still:
            keys, names = zip(*still, strict=True)
            await _try(self._renew(keys=list(keys), args=[self._lease_s, *names]))

    def health(self) -> str:
        return "ok"


def _check_options(connections: BlockingConnectionPool) -> None:
    try:
        connections.connection_class(**connections.connection_kwargs)  # connects to nothing
    except (TypeError, RedisError) as exc:
        raise ValueError(f"has an option that cannot be: {exc}") from exc


async def _give_back(deciding: asyncio.Task[Admission]) -> None:
    """Nobody waits for the decision any more."""
    with suppress(LimitsUnavailable):  # then it was not made
        admission = await deciding
        if admission.reservation is not None:
            await admission.reservation.cancel()


async def _try(answer: Awaitable[object]) -> None:
    """What cannot be told the server comes right without it: buckets run empty, leases end.

    Who asks next is told that the server has gone.
    """
    try:
        await answer
    except (RedisError, OSError):
        return


def _kind(rule: Rule) -> str:
    return "place" if rule.is_place else "time"


def _script(name: str) -> str:
    return "\n".join((SCRIPTS / f"{part}.lua").read_text("utf-8") for part in ("common", name))
