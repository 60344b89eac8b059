"""How soon a revoked key is refused: by each worker of a machine, and by another machine's."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from frontend.access.identity import Scope
from frontend.processes import Workers
from frontend.settings import Settings
from tests.fakes.access import Keys
from tests.fakes.postgres import Postgres
from tests.fakes.server import RawClient

NO_TRITON = "127.0.0.1:1"
PASSWORD = "not-for-everybody"
HERE, ELSEWHERE = "the machine where it is revoked", "another machine"
WITHIN_S = {HERE: 1.0, ELSEWHERE: 5.0}
NUM_WORKERS = {HERE: 2, ELSEWHERE: 1}


@dataclass(frozen=True, slots=True)
class Machine:
    """Worker processes on a socket of their own, and a connection to each of them."""

    clients: list[RawClient]

    def ask(self, method: str, path: str, key: str) -> list[int]:
        """What each worker answers."""
        for client in self.clients:
            client.send(method, path, headers={"Authorization": f"Bearer {key}"})
        return [client.receive().status for client in self.clients]


@pytest.fixture(scope="module")
def settings(
    tiny_home: Path, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    home = tmp_path_factory.mktemp("machines")
    (home / "models").symlink_to(tiny_home / "models", target_is_directory=True)
    url = postgres.new_database().replace("tests@", f"tests:{PASSWORD}@")
    return Settings(
        home=home,
        model="tiny",
        authentication="on",
        database_url=url,
        triton_url=NO_TRITON,
        log_level="error",
    )


@pytest.fixture(scope="module")
def machines(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Machine]]:
    with ExitStack() as stack:
        found = {}
        for name, num_workers in NUM_WORKERS.items():
            before = worker_pids()
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listening.setblocking(False)
            own = replace(settings, workers=num_workers)
            workers = Workers(own, listening, tmp_path_factory.mktemp("metrics"))
            stack.callback(workers.stop, 10)
            workers.start(60)
            pids = worker_pids() - before
            clients = [stack.enter_context(client_of(pid, listening)) for pid in pids]
            found[name] = Machine(clients)
        yield found


def worker_pids() -> set[int]:
    return {one.pid for one in psutil.Process().children() if "frontend.worker" in one.cmdline()}


def client_of(pid: int, listening: socket.socket) -> RawClient:
    """A connection that this worker has taken; whoever is idle takes one, so some are let go."""
    worker = psutil.Process(pid)
    while True:
        client = RawClient(listening.getsockname())
        client.send("GET", "/health")
        client.receive()
        own_port = client.sock.getsockname()[1]
        if any(one.raddr and one.raddr.port == own_port for one in worker.net_connections("tcp")):
            return client
        client.sock.close()


def test_a_revoked_key_is_refused_by_every_worker_of_every_machine(
    machines: dict[str, Machine], settings: Settings
) -> None:
    # The best of three: a neighbour may take the processor for longer than a second.
    found = [seconds_until_refused(machines, Keys(settings)) for _ in range(3)]
    for name, longest_s in WITHIN_S.items():
        assert min(one[name] for one in found) < longest_s


def seconds_until_refused(machines: dict[str, Machine], keys: Keys) -> dict[str, float]:
    """From a revocation by one worker until all of a machine's refuse the key, by machine."""
    key, secret = keys.make(Scope.MODELS_READ)
    _, admin = keys.make(Scope.ADMIN)
    for machine in machines.values():
        assert set(machine.ask("GET", "/v1/models", secret)) == {200}, "all of them know it now"
    revoking = Machine(machines[HERE].clients[:1])
    assert revoking.ask("DELETE", f"/api/v1/keys/{key.id}", admin) == [200]
    revoked_at = time.monotonic()
    passed_s = {}
    for name, machine in machines.items():
        while set(machine.ask("GET", "/v1/models", secret)) != {401}:
            assert time.monotonic() - revoked_at < 30.0
        passed_s[name] = time.monotonic() - revoked_at
        assert set(machine.ask("GET", "/api/v1/keys", admin)) == {200}, "others are not"
    return passed_s


def test_the_list_of_processes_shows_no_secret(machines: dict[str, Machine]) -> None:
    assert machines
    for pid in worker_pids():
        shown = psutil.Process(pid).cmdline()
        assert "frontend.worker" in shown
        assert PASSWORD not in " ".join(shown)
