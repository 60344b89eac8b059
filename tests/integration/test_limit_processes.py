"""Limits that processes share: exact when four take all that they can, and when some are killed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from frontend.limits.redis_store import LEASE_S
from tests.integration.limit_hammer import PLACES, REQUESTS, RESERVED, TOKENS, USED, times_in
from tests.integration.redis_server import RedisServer

HAMMER_S = 1.0
LONG_S = 60.0  # they are killed before
NUM_KILLS = 25


@pytest.fixture(params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[str]:
    if request.param == "redis":
        redis.flush()
        yield redis.url
        redis.flush()
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield f"lmdb://{folder}/limits"


def hammer(url: str, log: Path, what: str, seconds: float) -> subprocess.Popen[bytes]:
    arguments = [url, str(log), what, str(seconds)]
    return subprocess.Popen([sys.executable, "-m", "tests.integration.limit_hammer", *arguments])


def size(log: Path) -> int:
    return len(times_in(log))


@pytest.mark.parametrize("what", ["requests", "tokens"])
def test_four_processes_are_let_in_exactly_as_often_as_the_bucket_says(
    url: str, what: str, tmp_path: Path
) -> None:
    """What is let in is what is in the bucket and what has run out of it, to the unit."""
    log = tmp_path / "log"
    processes = [hammer(url, log, what, HAMMER_S) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    ended = time.monotonic()
    admitted = sorted(asked for asked in times_in(log) if asked > 0)
    last_asked = max(-asked for asked in times_in(log) if asked < 0)
    rule, cost = (REQUESTS[0], 1) if what == "requests" else (TOKENS[0], USED)
    taken = len(admitted) * cost
    assert taken <= rule.capacity + (ended - admitted[0]) / rule.step + 1
    # The last one was refused, or got the last that there was: of tokens there may have been what
    # all four had reserved.
    room = 1 if what == "requests" else 4 * RESERVED
    assert taken >= rule.capacity + (last_asked - admitted[0]) / rule.step - room - 1


def test_killed_processes_leave_neither_more_nor_a_lock(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    randomness = random.Random(7)
    started = time.monotonic()
    processes = [hammer(url, log, "tokens", LONG_S) for _ in range(4)]
    while size(log) == 0:
        time.sleep(0.01)
    for _ in range(NUM_KILLS):
        time.sleep(randomness.uniform(0.0, 0.1))
        number = randomness.randrange(4)
        processes[number].kill()
        processes[number].wait()
        processes[number] = hammer(url, log, "tokens", LONG_S)
    rule = TOKENS[0]
    before = size(log)
    while size(log) == before:  # none waits for ever for what a killed one held
        assert time.monotonic() < started + 50
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.wait()
    # Of those killed between the decision and its line nothing is known: they make it less.
    assert size(log) * USED <= rule.capacity + (time.monotonic() - started) / rule.step + 1


def test_the_places_of_killed_processes_come_free_within_seconds(url: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    killed = [hammer(url, first, "places", LONG_S) for _ in range(2)]
    while size(first) < PLACES[0].capacity:
        time.sleep(0.01)
    other = hammer(url, second, "places", LONG_S)
    time.sleep(0.7)
    assert size(first) == PLACES[0].capacity
    assert size(second) == 0
    for process in killed:
        process.kill()
        process.wait()
    died = time.monotonic()
    while size(second) < PLACES[0].capacity:
        assert time.monotonic() < died + LEASE_S + 2
        time.sleep(0.01)
    if url.startswith("lmdb"):
        assert time.monotonic() < died + LEASE_S - 1  # nobody waits for a lease there
    other.kill()
    other.wait()
    assert size(second) == PLACES[0].capacity
