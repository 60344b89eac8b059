"""What a table keeps, and what it costs; how it decides is shown by the tests of all stores."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from frontend.errors import LimitsUnavailable
from frontend.limits import lmdb_table, opening
from frontend.limits.buckets import LimitSet, rules_for
from frontend.limits.headers import limit_headers
from frontend.limits.lmdb_table import LmdbTable
from frontend.limits.local_store import LocalStore
from frontend.limits.opening import limit_store
from frontend.limits.worker_locks import WorkerLocks
from tests.fakes.limits import FakeClock

ONE = LimitSet(requests_per_minute=2)
ALL = LimitSet(
    requests_per_minute=10**9,
    tokens_per_minute=10**12,
    tokens_per_day=10**12,
    concurrent_requests=100,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def store_in(folder: Path, clock: FakeClock, *, map_bytes: int = 2**20) -> LocalStore:
    table = LmdbTable(folder / "limits", map_bytes=map_bytes)
    return LocalStore(table, WorkerLocks(folder / "workers"), clock=clock)


async def num_records(store: LocalStore) -> int:
    with store._table.begin() as transaction:
        return store._table.num_records(transaction)


async def test_empty_buckets_are_removed(folder: Path) -> None:
    clock = FakeClock()
    store = store_in(folder, clock)
    await store.open()
    for number in range(20_000):  # five minutes of addresses, far more than there is room for
        clock.now += 0.015
        assert (await store.acquire(rules_for(f"ip:{number}", ONE), 0)).decision.is_admitted
    assert await num_records(store) < 2 * 60 / 0.015
    await store.close()


async def test_a_full_table_refuses_what_it_could_not_count_and_frees_itself(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = store_in(folder, clock)
    await store.open()
    known = rules_for("key:known", ALL)[:3]
    await store.acquire(known, 10)

    async def flood(count: int) -> None:
        for number in range(count):
            await store.acquire(rules_for(f"ip:{number}", ONE), 0)

    with pytest.raises(LimitsUnavailable):
        await flood(20_000)
    assert (await store.acquire(known, 10)).decision.is_admitted  # has its records
    assert store.health() == "not all requests are let in: the table of limits is full"
    clock.now += 100
    num_refused = 0
    for number in range(1000):
        try:
            await store.acquire(rules_for(f"ip:late-{number}", ONE), 0)
        except LimitsUnavailable:
            num_refused += 1
    assert num_refused < 100
    assert store.health() == "ok"
    said = [record.message for record in caplog.records]
    assert said == ["limits: cannot be kept", "limits: kept again"]
    await store.close()


async def test_times_of_before_the_machine_started_mean_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    rules = rules_for("key:a", ONE)
    for boot, remaining in (("first", 1), ("first", 0), ("second", 1)):
        (folder / "boot").write_text(boot)
        monkeypatch.setattr(lmdb_table, "BOOT_ID", folder / "boot")
        store = store_in(folder, clock)
        await store.open()
        admission = await store.acquire(rules, 0)
        assert admission.decision.states()[0].remaining == remaining
        await store.close()


async def test_somebody_elses_folder_is_not_used(folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "link").symlink_to(folder / "own")
    with pytest.raises(LimitsUnavailable, match="cannot be checked"):
        await store_in(folder / "link", FakeClock()).open()
    assert not list((folder / "own").iterdir())


async def test_shared_memory_without_room_is_said_at_the_start(folder: Path) -> None:
    with pytest.raises(LimitsUnavailable) as caught:
        await store_in(folder, FakeClock(), map_bytes=2**42).open()
    assert "No space left" in str(caught.value.values["reason"])


async def test_a_file_that_is_none_of_ours_is_said(folder: Path) -> None:
    (folder / "limits").write_bytes(b"x" * 8192)
    with pytest.raises(LimitsUnavailable) as caught:
        await store_in(folder, FakeClock()).open()
    assert "limits" in str(caught.value.values["reason"])


def test_a_worker_lives_until_it_is_killed(folder: Path) -> None:
    locks = WorkerLocks(folder / "workers")
    locks.open()
    code = (
        "import sys, pathlib; from frontend.limits.worker_locks import WorkerLocks;"
        "own = WorkerLocks(pathlib.Path(sys.argv[1])); own.open();"
        "print(own.own, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "workers")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    worker = int(other.stdout.readline())
    assert locks.is_alive(worker)
    assert locks.is_alive(locks.own)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked for it
    assert not locks.is_alive(worker)
    other.communicate()
    locks.close()


@pytest.mark.parametrize(
    "url", ["http://host", "lmdb://host/path", "redis", "memory:", "postgresql://host"]
)
def test_a_url_of_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be redis://"):
        limit_store(url, Path("/home"), has_local_fallback=True, num_frontends=2)


def no_room(*_: int) -> None:
    raise OSError(errno.ENOSPC, "no space")


@pytest.mark.parametrize("trouble", ["no folder", "not ours", "too small"])
async def test_limits_are_kept_in_the_home_where_there_is_no_shared_memory(
    folder: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = folder / "home"
    monkeypatch.setattr(opening, "SHARED_MEMORY", folder / "shm")
    match trouble:
        case "no folder":
            (folder / "shm").touch()
        case "not ours":
            opening.shared_folder(home).mkdir(parents=True)
            own = os.geteuid()
            monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        case _:
            monkeypatch.setattr(os, "posix_fallocate", no_room)
    store = limit_store(None, home, has_local_fallback=False, num_frontends=1)
    monkeypatch.undo()
    await store.open()
    assert (await store.acquire(rules_for("key:a", ONE), 0)).decision.is_admitted
    await store.close()
    assert (home / "state" / "limits").is_dir()
    [said] = [record for record in caplog.records if record.message == "limits: no shared memory"]
    assert said.levelname == "WARNING"


async def test_workers_of_one_home_share_their_limits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "SHARED_MEMORY", folder)
    for home, is_admitted in (("one", True), ("one", True), ("one", False), ("other", True)):
        store = limit_store(None, Path(home), has_local_fallback=False, num_frontends=1)
        await store.open()
        admission = await store.acquire(rules_for("key:a", ONE), 0)
        assert admission.decision.is_admitted is is_admitted
        await store.close()


async def test_a_request_costs_microseconds(folder: Path) -> None:
    """Eight buckets: taken, told of in headers, settled. Measured with 29 us on a busy machine."""
    table = LmdbTable(folder / "limits")
    store = LocalStore(table, WorkerLocks(folder / "workers"))
    await store.open()
    best_us = float("inf")
    for _ in range(20):
        started = time.process_time()
        for _ in range(50):
            rules = rules_for("key:a", ALL) + rules_for("tenant:t", ALL)
            admission = await store.acquire(rules, 500)
            limit_headers(admission.decision, 1e9)
            assert admission.reservation is not None
            await admission.reservation.settle(120)
        best_us = min(best_us, (time.process_time() - started) / 50 * 1e6)
    assert best_us < 300  # far from what it is; what it is not is a file system or a server
    await store.close()
