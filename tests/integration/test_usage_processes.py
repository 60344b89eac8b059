"""Real worker processes under load: what is counted when one is killed, and when one is stopped."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from frontend.store.database import Database
from frontend.store.schema import usage_records
from frontend.store.usage import UsageStore
from frontend.usage.record import day_of
from tests.fakes.postgres import Postgres
from tests.fakes.server import RawClient, wait_until

NUM_CLIENTS = 8
LOST_S = 1.0  # of what a killed worker has answered, at the most


@dataclass(slots=True)
class Worker:
    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    prompt: str  # as many tokens as letters
    answered_at: list[float] = field(default_factory=list)  # time.monotonic()

    def keep_asking(self) -> None:
        """Until the worker is gone."""
        body = {"prompt": self.prompt, "apply_chat_template": False}
        try:
            with RawClient(self.address) as client:
                while True:
                    client.send("POST", "/api/v1/generate", body)
                    assert client.receive().json["text"] == "abcd"
                    self.answered_at.append(time.monotonic())
        except OSError:
            return


@contextmanager
def running(home: Path, prompt: str, every_s: float, **settings: Any) -> Iterator[Worker]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        arguments = (home, listening.fileno(), json.dumps(settings), every_s)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.worker", *map(str, arguments)],
            pass_fds=(listening.fileno(),),
            stderr=subprocess.DEVNULL,
        )
        address = listening.getsockname()
    try:
        yield Worker(process, address, prompt)
    finally:
        process.kill()
        process.wait()


def wait_ready(worker: Worker) -> None:
    with RawClient(worker.address, timeout_s=30) as client:
        client.send("GET", "/health")
        assert client.receive().status == 200


@pytest.fixture
def home(tiny_home: Path, tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(tiny_home / "models", target_is_directory=True)
    return home


async def rows_and_sum(url: str) -> tuple[list[Any], int]:
    """All rows, and how many requests their days sum up to."""
    database = await Database.open(url)
    async with database.read() as connection:
        rows = list(await connection.execute(select(usage_records)))
    days = sorted(day_of(row.at) for row in rows)
    sums = await UsageStore(database, retention_s=1e9).sums(
        since=days[0], until=days[-1], group_by=(), only={}
    )
    await database.close()
    return rows, sums[0].requests


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_kill_costs_the_last_second_and_a_stop_nothing(
    kind: str, home: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{home / 'state' / 'inflight.db'}"
    settings: dict[str, Any] = {"log_level": "error"}
    if kind == "postgresql":
        url = settings["database_url"] = request.getfixturevalue("postgres").new_database()
    with ExitStack() as stack:
        victim, other = [
            stack.enter_context(running(home, prompt, 0.005, **settings)) for prompt in ("a", "ab")
        ]
        for worker in (victim, other):
            wait_ready(worker)
        threads = [
            threading.Thread(target=worker.keep_asking)
            for worker in (victim, other)
            for _ in range(NUM_CLIENTS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.6)
        victim.process.kill()
        killed_at = time.monotonic()
        time.sleep(0.2)
        other.process.terminate()
        assert other.process.wait(timeout=20) == 0
        for thread in threads:
            thread.join()
    rows, sum_of_days = asyncio.run(rows_and_sum(url))
    assert sum_of_days == len(rows)
    found = Counter(row.prompt_tokens for row in rows)
    assert {row.completion_tokens for row in rows} == {4}
    assert len(other.answered_at) > 20
    assert found[2] == len(other.answered_at), "of the one that was stopped"
    before = [at for at in victim.answered_at if at < killed_at - LOST_S]
    assert len(before) > 5
    # each client may have had one more that was counted, and not answered any more
    assert len(before) <= found[1] <= len(victim.answered_at) + NUM_CLIENTS


def test_a_stop_counts_what_it_does_not_wait_for(home: Path) -> None:
    with running(home, "a", 0.5, drain_timeout_s=0.3) as worker:
        wait_ready(worker)
        with RawClient(worker.address) as client:
            body = {"prompt": "a", "apply_chat_template": False}
            client.send("POST", "/api/v1/generate/stream", body)
            client.receive_head()
            client.wait_for_body()
            worker.process.send_signal(signal.SIGTERM)
            assert worker.process.wait(timeout=20) == 0
    rows, _ = asyncio.run(rows_and_sum(f"sqlite:///{home / 'state' / 'inflight.db'}"))
    assert [(row.outcome, row.prompt_tokens) for row in rows] == [("cancelled", 1)]


def test_a_database_that_was_away_gets_all_that_was_used_meanwhile(
    home: Path,
) -> None:
    with Postgres() as server:
        url = server.new_database()
        with running(home, "a", 0.005, database_url=url) as worker:
            wait_ready(worker)
            thread = threading.Thread(target=worker.keep_asking)
            thread.start()
            wait_until(lambda: len(worker.answered_at) > 5)
            server.kill()
            num_answered = len(worker.answered_at)
            time.sleep(0.8)
            assert len(worker.answered_at) > num_answered + 5, "requests do not wait for it"
            server.start()
            worker.process.terminate()
            assert worker.process.wait(timeout=20) == 0
            thread.join()
        rows, sum_of_days = asyncio.run(rows_and_sum(url))
    assert sum_of_days == len(rows) == len(worker.answered_at)
