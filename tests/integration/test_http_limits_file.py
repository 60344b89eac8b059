"""The file of limits changes under a server that serves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from frontend.settings import Settings
from tests.fakes.engine import FakeEngine, FakeRepository
from tests.fakes.server import RawClient, ServerThread

WITHIN_S = 5.0  # about one on a machine that has time


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "limits.toml"


@pytest.fixture
def server(
    file: Path, tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> Iterator[ServerThread]:
    settings = replace(tiny_settings, limits_file=file)
    file.write_text(says(7))
    with ServerThread(settings, engine, repository) as running:
        yield running


def says(requests: int) -> str:
    return f"[addresses]\nrequests_per_minute = {requests}\n"


def limit(server: ServerThread) -> int:
    with RawClient(server.address) as client:
        client.send("GET", "/v1/models")
        return int(client.receive().headers["x-ratelimit-limit"])


def limit_after(server: ServerThread, before: int) -> int:
    until = time.monotonic() + WITHIN_S
    while (now := limit(server)) == before and time.monotonic() < until:
        time.sleep(0.05)
    return now


def test_new_limits_hold_for_requests_without_a_restart(
    server: ServerThread, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert limit(server) == 7
    file.write_text(says(8))
    assert limit_after(server, 7) == 8
    file.write_text(says(0))
    until = time.monotonic() + WITHIN_S
    while not any("limits not changed" in one.message for one in caplog.records):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert limit(server) == 8
