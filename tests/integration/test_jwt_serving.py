"""The application serves on while a real issuer process rotates its keys, stalls, lies and dies."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest

from frontend.access import jwks
from frontend.access.identity import Scope
from frontend.settings import Settings
from tests.fakes.access import Keys, ask
from tests.fakes.engine import FakeEngine, FakeRepository
from tests.fakes.issuer import IssuerProcess
from tests.fakes.server import RawClient, ServerThread, wait_until
from tests.unit.frontend.access.issuer_keys import (
    AUDIENCE,
    ISSUER,
    private_key,
    public_jwk,
    signed,
)

PATH = "/v1/chat/completions"
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
STALL_S = 10.0  # of the issuer
EVERY_S = 0.006  # one of the other requests is due
WINDOW_S = 0.35
NUM_WINDOWS = 7
NUM_STRANGERS = 5  # who wait for the issuer at once


def jwk(number: int) -> dict[str, Any]:
    return public_jwk(private_key("RS256", number), kid=f"k{number}")


def token(number: int, **claims: Any) -> str:
    key = private_key("RS256", number)
    return signed(key, header={"kid": f"k{number}"}, scope="inference", **claims)


@pytest.fixture(scope="module")
def issuer() -> Iterator[IssuerProcess]:
    with IssuerProcess() as running:
        yield running


@pytest.fixture
def taking_tokens(
    closed_settings: Settings,
    issuer: IssuerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[int, float], Settings]:
    """Settings with that issuer, by how many seconds its keys are good, and a fetch may take."""
    # so that each window has a fetch in it: how few there may be is shown elsewhere
    plenty = jwks.Allowance(maximum=10_000, _left=10_000)
    monkeypatch.setattr(jwks, "Allowance", lambda: plenty)

    monkeypatch.setattr(jwks, "RETRY_S", (0.1, 60.0))

    def make(max_staleness_s: int, timeout_s: float) -> Settings:
        monkeypatch.setattr(jwks, "TIMEOUT_S", timeout_s)
        path = tmp_path / "issuers.toml"
        path.write_text(
            f'[[issuers]]\nissuer = "{ISSUER}"\naudience = ["{AUDIENCE}"]\n'
            f'algorithms = ["RS256"]\njwks_url = "{issuer.jwks_url}"\n'
            f"refresh_s = 1\nmax_staleness_s = {max_staleness_s}\n"
            '[issuers.claims]\nscopes = "scope"\n[issuers.defaults]\ntenant = "lab"\n'
        )
        issuer.answer("good", jwk(0))
        return replace(closed_settings, jwt_issuers=path)

    return make


@dataclass(slots=True)
class Pulse:
    """The longest time for which a loop did nothing else."""

    longest_s: float = 0.0

    async def beat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.longest_s = max(self.longest_s, time.perf_counter() - before - 0.005)


@dataclass(slots=True)
class Others:
    """Requests that need no issuer: one is due every EVERY_S, whether or not the last is answered,
    so that a server which does nothing for a second is late for all of that second's.
    """

    server: ServerThread
    credentials: tuple[str, ...]
    statuses: set[int] = field(default_factory=set)
    latencies_s: list[float] = field(default_factory=list)

    @contextmanager
    def sent(self) -> Iterator[list[float]]:
        """Meanwhile; their latencies, each from when it was due."""
        self.latencies_s = []
        is_over = threading.Event()
        thread = threading.Thread(target=self._send, args=(is_over,))
        thread.start()
        try:
            yield self.latencies_s
        finally:
            is_over.set()
            thread.join()

    def _send(self, is_over: threading.Event) -> None:
        with RawClient(self.server.address) as client:
            due = time.perf_counter()
            while not is_over.is_set():
                credential = self.credentials[len(self.latencies_s) % len(self.credentials)]
                client.send("POST", PATH, CHAT, {"Authorization": f"Bearer {credential}"})
                self.statuses.add(client.receive().status)
                self.latencies_s.append(time.perf_counter() - due)
                due += EVERY_S
                time.sleep(max(0.0, due - time.perf_counter()))


def p99(latencies_s: list[float]) -> float:
    return quantiles(latencies_s, n=100)[98]


def test_other_requests_are_no_slower_while_the_issuer_stalls(
    taking_tokens: Callable[[int, float], Settings],
    engine: FakeEngine,
    repository: FakeRepository,
    keys: Keys,
    issuer: IssuerProcess,
) -> None:
    """Windows with and without a stall by turns, so that a busy machine slows both down."""
    strangers = [token(1, jti=str(number)) for number in range(NUM_STRANGERS)]
    pulse, usual, stalled = Pulse(), [], []
    with (
        ServerThread(taking_tokens(60, WINDOW_S), engine, repository) as server,
        ThreadPoolExecutor(NUM_STRANGERS) as pool,
    ):
        others = Others(server, (keys.make(Scope.INFERENCE)[1], token(0)))
        with others.sent():
            time.sleep(WINDOW_S)  # what is loaded and looked up once is there now
        server.spawn(pulse.beat())
        for _ in range(NUM_WINDOWS):
            with others.sent() as latencies:
                time.sleep(WINDOW_S)
            usual.append(p99(latencies))
            issuer.answer("stall")
            with others.sent() as latencies:
                waiting = [
                    pool.submit(ask, server, "POST", PATH, one, body=CHAT) for one in strangers
                ]
                assert {one.result().status for one in waiting} == {401}
            stalled.append(p99(latencies))
            assert issuer.answer("good") > 0, "it was asked, and has not answered"
    assert others.statuses == {200}
    # Neighbours on the machine move windows of both kinds; a loop that waits moves these by 100.
    assert median(stalled) < 3 * max(usual), (stalled, usual)
    assert pulse.longest_s < STALL_S / 10


def test_the_application_lives_through_all_that_an_issuer_does(
    taking_tokens: Callable[[int, float], Settings],
    engine: FakeEngine,
    repository: FakeRepository,
    keys: Keys,
    issuer: IssuerProcess,
) -> None:
    pulse = Pulse()
    with ServerThread(taking_tokens(3, 1.0), engine, repository) as server:

        def status(number: int) -> int:
            return ask(server, "POST", PATH, token(number), body=CHAT).status

        others = Others(server, (keys.make(Scope.INFERENCE)[1],))
        server.spawn(pulse.beat())
        with others.sent() as latencies:
            assert (status(0), status(1)) == (200, 401)
            issuer.answer("good", jwk(0), jwk(1))
            assert (status(1), status(0)) == (200, 200), "what is rotated in is taken at once"
            for mode in ("stall", "drip", "garbage", "no http", "huge", "error"):
                issuer.answer(mode, jwk(0), jwk(1), jwk(2))
                assert (status(2), status(1)) == (401, 200), mode
                issuer.answer("good", jwk(0), jwk(1))
                wait_until(lambda: issuer.answer("good") > 0)
            issuer.answer("good", jwk(2))
            assert status(2) == 200
            wait_until(lambda: status(0) == 401)  # it was rotated out
            issuer.kill()
            assert status(2) == 200, "its keys are good for a while"
            wait_until(lambda: status(2) == 503, timeout_s=10)
            issuer.start()
            issuer.answer("good", jwk(2))
            wait_until(lambda: status(2) == 200)
    assert others.statuses == {200}
    assert len(latencies) > 100
    assert pulse.longest_s < STALL_S / 10
