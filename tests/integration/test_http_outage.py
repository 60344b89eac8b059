"""The shared store of limits is away, stalls or drops connections: what is let in over HTTP."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from frontend.limits.redis_store import TIMEOUT_S
from frontend.settings import Settings
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step
from tests.fakes.server import Answer, RawClient, ServerThread, wait_until
from tests.integration.lossy_proxy import LossyProxy
from tests.integration.redis_server import RedisServer

LIMIT = 40  # requests a minute of this address: one comes back in 1.5 s
QUESTION = {"model": "tiny", "prompt": [7], "max_tokens": 1}
MANY = 30  # more than half of what is let in


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, "--appendonly", "no") as server:
        yield server


@contextmanager
def frontend(tiny_home: Path, home: Path, limits_url: str, mode: str) -> Iterator[ServerThread]:
    """One of two machines: all it shares with the other is the server of limits."""
    home.mkdir()
    (home / "models").symlink_to(tiny_home / "models", target_is_directory=True)
    (home / "limits.toml").write_text(f"[addresses]\nrequests_per_minute = {LIMIT}\n")
    settings = Settings(
        home=home,
        model="tiny",
        triton_metrics_url="127.0.0.1:1",  # nobody listens there
        limits_url=limits_url,
        limits_when_unavailable=mode,
        num_frontends=2,
    )
    engine = FakeEngine(Script(steps=[Step(token_ids=[100])]))
    engine.load("tiny")
    with ServerThread(settings, engine, FakeRepository(engine)) as server:
        yield server


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "local"))


@pytest.fixture
def timeout_s(request: pytest.FixtureRequest) -> float:
    """Long: on a busy machine a store that is there may be slow."""
    return float(getattr(request, "param", 5.0))


@pytest.fixture
def pair(
    tiny_home: Path, tmp_path: Path, own_redis: RedisServer, mode: str, timeout_s: float
) -> Iterator[tuple[ServerThread, ServerThread]]:
    url = f"{own_redis.url}?socket_timeout={timeout_s}"
    with (
        frontend(tiny_home, tmp_path / "first", url, mode) as first,
        frontend(tiny_home, tmp_path / "second", url, mode) as second,
    ):
        yield first, second


def ask(server: ServerThread) -> Answer:
    with RawClient(server.address) as client:
        client.send("POST", "/v1/completions", QUESTION)
        return client.receive()


@dataclass(frozen=True, slots=True)
class Asked:
    """How often each status came, of each server, and how long that took."""

    statuses: list[Counter[int]]
    passed_s: float

    def has_all_of(self, limit: int, number: int) -> bool:
        """Whether so many are all that the limit has, with what comes back meanwhile."""
        return limit <= number <= limit + self.passed_s * limit / 60 + 1


def ask_all(servers: tuple[ServerThread, ...], each: int = MANY) -> Asked:
    """So many requests at once of each."""
    started = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        asked = [[threads.submit(ask, server) for _ in range(each)] for server in servers]
        statuses = [Counter(one.result().status for one in found) for found in asked]
    return Asked(statuses, time.monotonic() - started)


def let_in(asked: Asked) -> int:
    return sum(one[200] for one in asked.statuses)


def limits_of(server: ServerThread) -> str:
    with RawClient(server.address) as client:
        client.send("GET", "/health")
        answer = client.receive()
    assert answer.status == 200, "it serves, as far as it may"
    return str(answer.json["limits"])


def all_say(servers: tuple[ServerThread, ...], word: str) -> Callable[[], bool]:
    return lambda: all(word in limits_of(server) for server in servers)


def logged(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return Counter(
        record.message for record in caplog.records if record.message.startswith("limits: ")
    )


def test_a_pair_lets_in_the_whole_in_sum_while_the_store_is_away(
    pair: tuple[ServerThread, ServerThread],
    own_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert all_say(pair, "ok")()
    assert let_in(ask_all(pair, 5)) == 10
    own_redis.stop()
    found = ask_all(pair)
    assert all(one.keys() == {200, 429} for one in found.statuses)
    assert all(found.has_all_of(LIMIT // 2, one[200]) for one in found.statuses)
    assert all_say(pair, "local limits, each 1/2 of the whole")()
    refused = ask(pair[0])
    assert refused.headers["x-ratelimit-limit"] == str(LIMIT // 2)
    assert 0 < int(refused.headers["retry-after"]) <= 60 / (LIMIT // 2)
    with caplog.at_level(logging.WARNING):
        own_redis.start()  # which has forgotten everything
        wait_until(all_say(pair, "ok"))
    found = ask_all(pair)
    assert found.has_all_of(LIMIT, let_in(found))
    assert logged(caplog) == {"limits: shared store lost": 2, "limits: shared store back": 2}


@pytest.mark.parametrize("mode", ["closed"], indirect=True)
def test_nothing_is_let_in_while_the_store_is_away_where_the_setting_says_so(
    pair: tuple[ServerThread, ServerThread], own_redis: RedisServer
) -> None:
    own_redis.stop()
    assert all_say(pair, "no requests are let in")()  # though none has been asked for
    assert ask_all(pair, 5).statuses == [Counter({503: 5})] * 2
    refused = ask(pair[0])
    assert refused.json["error"]["code"] == "limits_unavailable"
    assert (refused.headers["retry-after"], refused.headers["x-ratelimit-remaining"]) == ("1", "0")
    assert [server.engine.streams for server in pair] == [[], []]
    own_redis.start()
    wait_until(all_say(pair, "ok"))
    found = ask_all(pair)
    assert found.has_all_of(LIMIT, let_in(found))


@pytest.mark.parametrize("timeout_s", [TIMEOUT_S], indirect=True)
def test_a_store_that_stalls_holds_a_request_up_for_its_timeout_at_the_most(
    pair: tuple[ServerThread, ServerThread], own_redis: RedisServer
) -> None:
    ask_all(pair, 1)
    own_redis.signal(signal.SIGSTOP)
    started = time.monotonic()
    found = ask_all(pair)
    assert time.monotonic() - started < TIMEOUT_S + 3  # each after the other would take more
    assert all(found.has_all_of(LIMIT // 2, one[200]) for one in found.statuses)
    own_redis.signal(signal.SIGCONT)
    wait_until(all_say(pair, "ok"))


async def test_what_was_decided_on_a_connection_that_breaks_is_counted_once(
    tiny_home: Path, tmp_path: Path, own_redis: RedisServer
) -> None:
    async with LossyProxy(own_redis.port) as proxy:

        def ask_until_refused() -> int:
            with frontend(tiny_home, tmp_path / "home", proxy.url, "closed") as server:
                for number in range(2 * LIMIT):
                    proxy.num_to_lose = number % 2  # of the answers of the store
                    if (status := ask(server).status) != 200:
                        assert status == 429
                        return number
                raise AssertionError("there is no limit")

        started = time.monotonic()
        number = await asyncio.to_thread(ask_until_refused)
        passed_s = time.monotonic() - started
    assert LIMIT <= number <= LIMIT + passed_s * LIMIT / 60 + 1
