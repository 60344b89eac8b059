"""Whose address a request counts for, behind proxies and without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from frontend.settings import Settings
from tests.fakes.engine import FakeEngine, FakeRepository
from tests.fakes.server import RawClient, ServerThread

LIMIT = 50
BODY = {"model": "tiny", "prompt": "hi"}
Start = Callable[[int], ServerThread]


@pytest.fixture
def start(
    tiny_settings: Settings, tmp_path: Path, engine: FakeEngine, repository: FakeRepository
) -> Iterator[Start]:
    """Starts a server behind so many proxies, with buckets of its own."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(tiny_settings.home / "models", target_is_directory=True)
    (home / "limits.toml").write_text(f"[addresses]\nrequests_per_minute = {LIMIT}\n")
    with ExitStack() as stack:

        def start(num_proxies: int) -> ServerThread:
            settings = replace(tiny_settings, home=home, trusted_proxies=num_proxies)
            return stack.enter_context(ServerThread(settings, engine, repository))

        yield start


def used(server: ServerThread, forwarded_for: str = "", **others: str) -> int:
    """How many requests its client has used up with this one."""
    headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
    headers |= {name.replace("_", "-"): value for name, value in others.items()}
    with RawClient(server.address) as client:
        client.send("POST", "/tokenize", BODY, headers)
        answer = client.receive()
    assert (answer.status, answer.headers["x-ratelimit-limit"]) == (200, str(LIMIT))
    return LIMIT - int(answer.headers["x-ratelimit-remaining"])


def test_without_a_trusted_proxy_no_header_makes_another_client(start: Start) -> None:
    server = start(0)
    assert used(server) == 1
    assert used(server, "192.0.2.1") == 2
    assert used(server, "192.0.2.2, 192.0.2.3") == 3
    assert used(server, X_Real_IP="192.0.2.4", Forwarded="for=192.0.2.5") == 4
    assert used(server, True_Client_IP="192.0.2.6", CF_Connecting_IP="192.0.2.7") == 5


def test_behind_one_proxy_the_last_address_is_the_one_that_it_has_seen(start: Start) -> None:
    server = start(1)
    assert used(server, "192.0.2.1") == 1
    assert used(server, "192.0.2.2") == 1
    assert used(server, "192.0.2.99, 192.0.2.1") == 2, "the client wrote the first one"
    assert used(server, "192.0.2.98,,, ,192.0.2.1") == 3
    assert used(server, "192.0.2.1:51234") == 4
    others = {"X_Real_IP": "192.0.2.4", "Forwarded": "for=192.0.2.5"}
    assert used(server, "192.0.2.1", **others) == 5
    assert used(server, "2001:db8::1") == 1
    assert used(server, "[2001:db8::2]:443") == 2


def test_behind_two_proxies_it_is_the_last_but_one(start: Start) -> None:
    server = start(2)
    assert used(server, "192.0.2.1, 198.51.100.1") == 1
    assert used(server, "192.0.2.99, 192.0.2.1, 198.51.100.2") == 2
    # who comes past the first proxy is the one who is connected
    assert used(server, "192.0.2.1") == 1
    assert used(server) == 2


def test_clients_whom_a_proxy_does_not_name_share_one_bucket(start: Start) -> None:
    server = start(1)
    assert [used(server, "_hidden"), used(server, "_other"), used(server, "nonsense")] == [1, 2, 3]
