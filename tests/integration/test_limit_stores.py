"""What every store of limits must keep, whatever is done to it: memory, LMDB and Redis alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.limits import local_store
from frontend.limits.buckets import LimitSet, Rule, Unit, rules_for
from frontend.limits.gcra import MAX_FULL, BucketState, decide
from frontend.limits.store import Admission, LimitStore, Reservation
from tests.integration.limit_worlds import LmdbWorld, MemoryWorld, RedisWorld, World
from tests.integration.redis_server import RedisServer

LIMITS = LimitSet(
    requests_per_minute=5, tokens_per_minute=100, tokens_per_day=400, concurrent_requests=3
)
RULES = rules_for("key:a", LIMITS)
# Of the random steps: none of them is the tightest for long.
PLAYED = rules_for(
    "key:p",
    LimitSet(
        requests_per_minute=12, tokens_per_minute=100, tokens_per_day=900, concurrent_requests=3
    ),
) + rules_for(
    "tenant:p", LimitSet(requests_per_minute=9, tokens_per_minute=150, concurrent_requests=4)
)
TIMED = [rule for rule in PLAYED if not rule.is_place]
DAY_S = 86_400.0
EDGE = 0.45  # of a unit


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["memory", "lmdb", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def world_of(kind: str, redis: RedisServer, runner: asyncio.Runner) -> Iterator[World]:
    with TemporaryDirectory(dir="/dev/shm") as folder:
        world: World
        match kind:
            case "memory":
                world = MemoryWorld()
            case "lmdb":
                world = LmdbWorld(Path(folder))
            case _:
                world = RedisWorld(redis.url)
        try:
            yield world
        finally:
            runner.run(world.end())


@pytest.fixture
def world(kind: str, redis: RedisServer, runner: asyncio.Runner) -> Iterator[World]:
    with world_of(kind, redis, runner) as world:
        yield world


def states_of(admission: Admission) -> dict[str, BucketState]:
    return {state.rule.name.partition(":")[2]: state for state in admission.decision.states()}


async def take_all(store: LimitStore, rules: Sequence[Rule], num_tokens: int = 0) -> int:
    number = 0
    while (await store.acquire(rules, num_tokens)).decision.is_admitted:
        number += 1
        assert number < 10_000, "there is no limit"
    return number


async def reserve(store: LimitStore, rules: Sequence[Rule], num_tokens: int) -> Reservation:
    admission = await store.acquire(rules, num_tokens)
    assert admission.reservation is not None
    return admission.reservation


def test_a_refused_request_is_taken_from_no_bucket(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await world.worker()
        await reserve(store, RULES, 90)
        refused = await store.acquire(RULES, 11)
        assert refused.reservation is None
        assert refused.decision.refused_by is not None
        assert refused.decision.refused_by.name == "key:a:tokens/min"
        assert refused.decision.retry_after_s == pytest.approx(0.6, abs=0.2)
        states = states_of(await store.acquire(RULES, 0, 0))
        assert states["a:requests/min"].remaining == 4
        assert states["a:tokens/min"].remaining == 10
        assert states["a:tokens/day"].remaining == 310
        assert states["a:concurrent"].remaining == 2

    runner.run(scenario())


def test_what_can_never_fit_is_told_apart(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await world.worker()
        assert (await store.acquire(RULES, 101)).decision.never_fits
        full = await store.acquire(RULES, 100)
        assert full.decision.is_admitted
        assert not (await store.acquire(RULES, 100)).decision.never_fits

    runner.run(scenario())


def test_what_was_not_used_comes_back(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await world.worker()
        reservation = await reserve(store, RULES, 100)
        await reservation.settle(30)
        await reservation.settle(0)  # only the first one counts
        states = states_of(await store.acquire(RULES, 0, 0))
        assert states["a:tokens/min"].remaining == 70
        assert states["a:tokens/day"].remaining == 370
        assert states["a:requests/min"].remaining == 4  # the request was one
        assert states["a:concurrent"].remaining == 3

    runner.run(scenario())


def test_looking_at_buckets_again_and_again_changes_nothing(
    world: World, runner: asyncio.Runner
) -> None:
    """What a store removes meanwhile is empty: a bucket that is nearly so is not."""

    async def scenario() -> None:
        store = await world.worker()
        await reserve(store, RULES, 3)
        for _ in range(3 * local_store.SWEEP_INTERVAL):
            states = states_of(await store.acquire(RULES, 0, 0))
        assert states["a:tokens/day"].remaining == 397
        assert states["a:tokens/min"].remaining in (97, 98)

    runner.run(scenario())


def test_what_is_cancelled_was_never_asked(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await world.worker()
        reservation = await reserve(store, RULES, 100)
        await reservation.cancel()
        await reservation.settle(50)  # only the first one counts
        states = (await store.acquire(RULES, 0, 0)).decision.states()
        assert [state.remaining for state in states] == [rule.capacity for rule in RULES]

    runner.run(scenario())


def test_what_was_used_beyond_is_owed(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await world.worker()
        await (await reserve(store, RULES, 80)).settle(140)
        refused = await store.acquire(RULES, 10)
        assert refused.decision.retry_after_s == pytest.approx(
            30, abs=1
        )  # 50 too many of 100 a minute
        await world.advance(30.1)
        assert (await store.acquire(RULES, 10)).decision.is_admitted

    runner.run(scenario())


def test_the_bucket_fills_as_time_passes(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await world.worker()
        rules = RULES[:1]
        assert await take_all(store, rules) == 5
        await world.advance(24.5)  # one comes back in 12 s
        assert await take_all(store, rules) == 2
        await world.advance(1000)
        assert await take_all(store, rules) == 5

    runner.run(scenario())


def test_workers_share_and_places_of_a_killed_one_come_free(
    world: World, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        places = RULES[3:]
        first, second = await world.worker(), await world.worker()
        await reserve(first, places, 0)
        await reserve(first, places, 0)
        kept = await reserve(second, places, 0)
        refused = await second.acquire(places, 0)
        assert not refused.decision.is_admitted
        assert refused.decision.retry_after_s == 1
        await world.kill(first)
        await world.advance(world.lease_s)
        assert await take_all(second, places) == 2
        await kept.settle(0)
        assert await take_all(second, places) == 1

    runner.run(scenario())


def test_a_running_request_keeps_its_place_for_ever(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        places = RULES[3:]
        store = await world.worker()
        for _ in range(3):
            await reserve(store, places, 0)
        for _ in range(5):
            await world.advance(50.0)
            assert not (await store.acquire(places, 0)).decision.is_admitted

    runner.run(scenario())


@pytest.mark.parametrize("back_s", [1.0, 3600.0, 10 * DAY_S])
def test_a_clock_that_is_set_back_neither_gives_nor_blocks(
    world: World, runner: asyncio.Runner, back_s: float
) -> None:
    async def scenario() -> None:
        store = await world.worker()
        rules = (RULES[0], RULES[3])
        for _ in range(3):
            await (await reserve(store, rules, 0)).settle(0)
        held = await reserve(store, rules, 0)
        await world.advance(-back_s)
        assert await take_all(store, rules) <= 1
        await held.settle(0)
        await world.advance(121.0)  # twice the period
        assert await take_all(store, RULES[:1]) == 5

    runner.run(scenario())


def test_places_of_a_killed_worker_come_free_though_the_clock_was_set_back(
    world: World, runner: asyncio.Runner
) -> None:
    async def scenario() -> None:
        places = RULES[3:]
        killed, other = await world.worker(), await world.worker()
        assert await take_all(killed, places) == 3
        await world.kill(killed)
        await world.advance(-3600)
        await other.acquire(places, 0, 0)
        await world.advance(world.lease_s + 1)
        assert await take_all(other, places) == 3

    runner.run(scenario())


def test_no_limits_admit_everything(world: World, runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        store = await world.worker()
        reservation = await reserve(store, (), 10**9)
        await reservation.settle(5)

    runner.run(scenario())


Step = tuple[str, int, int]
STEP = st.one_of(
    st.tuples(st.just("acquire"), st.integers(0, 2), st.integers(0, 110)),
    st.tuples(st.just("acquire"), st.integers(0, 2), st.integers(0, 40)),
    st.tuples(st.just("use up"), st.integers(0, 2), st.integers(5, 60)),
    st.tuples(st.just("settle"), st.integers(0, 2), st.integers(0, 250)),
    st.tuples(st.just("settle"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("kill"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("advance"), st.integers(0, 90), st.just(0)),
    st.tuples(st.just("advance"), st.integers(0, 5), st.just(0)),
)
SET_BACK = st.tuples(
    st.just("set back"), st.sampled_from([1, 60, 5000, 10 * int(DAY_S)]), st.just(0)
)
STEPS = st.one_of(  # of as many as it takes to fill a bucket
    st.lists(STEP, min_size=20, max_size=50),
    st.lists(st.one_of(STEP, SET_BACK), min_size=20, max_size=50),
)


class Book:
    """What was let in, by bucket: no stretch of time may have more than it holds and what ran out.

    Time is what has passed, whatever the clock was set to. Until it is set back, the book knows how
    much is in each bucket, too, counted in units.
    """

    def __init__(self) -> None:
        self._passed_s = 0.0
        self._started = time.monotonic()
        self._net: dict[str, float] = {}
        self._least: dict[str, float] = {}
        self._counted: dict[str, tuple[float, float]] = {}  # units taken, when
        self.is_exact = True

    def pass_time(self, seconds: float) -> None:
        self._passed_s += seconds

    def add(self, rule: Rule, number: int) -> None:
        """Above 0: let in; below: given back."""
        before = self._net.get(rule.name, 0.0) - self._now() / rule.step
        self._least[rule.name] = min(self._least.get(rule.name, 0.0), before)
        self._net[rule.name] = self._net.get(rule.name, 0.0) + number
        assert before + number - self._least[rule.name] <= rule.capacity + 0.01, rule

    def count(self, rule: Rule, number: int) -> None:
        """As `add`, and what was used beyond a reservation."""
        counted = min(max(self.level(rule) + number, 0.0), MAX_FULL * rule.capacity)
        self._counted[rule.name] = (counted, self._now())

    def level(self, rule: Rule) -> float:
        """Units that are taken."""
        counted, then = self._counted.get(rule.name, (0.0, 0.0))
        return max(counted - (self._now() - then) / rule.step, 0.0)

    def _now(self) -> float:
        return self._passed_s + time.monotonic() - self._started


class Play:
    """Raises AssertionError where a bucket gives more than it has."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._book = Book()
        self._workers: list[LimitStore] = []
        self._running: list[tuple[LimitStore, Reservation]] = []
        self._may_be_held = False  # places of killed workers

    async def run(self, steps: list[Step]) -> None:
        self._workers = [await self._world.worker() for _ in range(3)]
        actions = {
            "acquire": self._acquire,
            "use up": self._use_up,
            "settle": self._settle,
            "cancel": self._cancel,
            "kill": self._kill,
            "advance": self._advance,
            "set back": self._set_back,
        }
        for what, first, second in steps:
            await actions[what](first, second)
        await self._come_right_again()

    async def _use_up(self, worker: int, num_tokens: int) -> None:
        """One after the other, until one is refused."""
        num_running = len(self._running)
        while True:
            await self._acquire(worker, num_tokens)
            if len(self._running) == num_running:
                return
            await self._settle(num_running, 100)

    async def _acquire(self, worker: int, num_tokens: int) -> None:
        store = self._workers[worker]
        admission = await store.acquire(PLAYED, num_tokens)
        self._check_exactly(admission, num_tokens)
        if admission.reservation is not None:
            self._running.append((store, admission.reservation))
            for rule in TIMED:
                number = num_tokens if rule.unit is Unit.TOKENS else 1
                self._book.add(rule, number)
                self._book.count(rule, number)
        assert len(self._running) <= 3

    def _check_exactly(self, admission: Admission, num_tokens: int) -> None:
        """What fits is let in, and what does not fit is not; the edge itself is rounding's."""
        over = [
            self._book.level(rule) + (num_tokens if rule.unit is Unit.TOKENS else 1) - rule.capacity
            for rule in TIMED
            if rule.unit is not Unit.TOKENS or num_tokens
        ]
        if not self._may_be_held:
            over.append(len(self._running) + 1 - 3)
        elif max(over) <= EDGE:
            return  # there may be a place, or none
        if self._book.is_exact and abs(max(over)) > EDGE:
            assert admission.decision.is_admitted == (max(over) <= 0), over

    async def _settle(self, which: int, percent: int) -> None:
        if self._running:
            _, reservation = self._running.pop(which % len(self._running))
            num_tokens = reservation.num_tokens * percent // 100
            await reservation.settle(num_tokens)
            excess = num_tokens - reservation.num_tokens
            for rule in TIMED:
                if rule.unit is Unit.TOKENS:
                    self._book.count(rule, excess)
                    if excess < 0:
                        self._book.add(rule, excess)

    async def _cancel(self, which: int, _percent: int) -> None:
        if self._running:
            _, reservation = self._running.pop(which % len(self._running))
            await reservation.cancel()
            for rule in TIMED:
                number = reservation.num_tokens if rule.unit is Unit.TOKENS else 1
                self._book.count(rule, -number)
                self._book.add(rule, -number)

    async def _kill(self, worker: int, _: int) -> None:
        killed = self._workers[worker]
        await self._world.kill(killed)
        self._workers[worker] = await self._world.worker()
        self._running = [one for one in self._running if one[0] is not killed]
        self._may_be_held = True

    async def _advance(self, seconds: int, _: int) -> None:
        await self._world.advance(seconds)
        self._book.pass_time(seconds)
        if seconds >= self._world.lease_s:
            self._may_be_held = False

    async def _set_back(self, seconds: int, _: int) -> None:
        await self._world.advance(-seconds)
        self._book.is_exact = False

    async def _come_right_again(self) -> None:
        for worker in self._workers:
            await worker.acquire(PLAYED, 0, 0)  # sees that the clock was set back
            await self._world.kill(worker)
        await self._world.advance(max(self._world.lease_s, 2 * DAY_S))
        last = await self._world.worker()
        for rule in PLAYED:
            part = max(rule.capacity // 3, 1) if rule.unit is Unit.TOKENS else 1
            assert await take_all(last, [rule], part) == rule.capacity // part
        await self._world.kill(last)
        await self._world.advance(2 * DAY_S)


@pytest.mark.parametrize(("kind", "num_examples"), [("memory", 100), ("lmdb", 80), ("redis", 40)])
def test_nothing_makes_a_bucket_give_more_than_it_has_and_all_come_right_again(
    kind: str,
    num_examples: int,
    redis: RedisServer,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local_store, "SWEEP_INTERVAL", 3)  # as it comes with many requests
    with world_of(kind, redis, runner) as world:

        @settings(max_examples=num_examples, derandomize=True)
        @given(STEPS)
        def any_steps(steps: list[Step]) -> None:
            runner.run(Play(world).run(steps))

        any_steps()


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 200)), max_size=30),
    st.integers(1, 150),
)
def test_the_decision_is_that_of_counted_units(
    arrivals: list[tuple[float, int]], capacity: int
) -> None:
    """A bucket of units that fill it and run out of it, counted one by one."""
    rule = Rule(name="x", capacity=capacity, period_s=60.0, unit=Unit.TOKENS)
    level = counted = 0.0
    for pause_s, cost in arrivals:
        level = max(level - pause_s, 0.0)
        counted = max(counted - pause_s * capacity / 60, 0.0)
        decision = decide([rule], [level], cost)
        if abs(counted + cost - capacity) > 0.01:  # the edge itself is rounding's
            assert decision.is_admitted == (counted + cost <= capacity or not cost)
        if decision.is_admitted:
            counted += cost
        [level] = decision.levels
        assert level == pytest.approx(counted * 60 / capacity, abs=1e-6)
