"""The worker processes of `inflight serve` and nothing else of it; they are killed when it is told.

python -m tests.fakes.killed_workers: a line of JSON comes on its standard input, {"settings",
"socket_fd", "metrics_dir", "is_forked"}, then lines of a number of kills and the longest pause
before each; it says "ready", and "killed" when all of a line's are done. Its input's end ends it.

Forked workers have what `frontend.worker` imports from here, which is most of a worker's start.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import orjson

from frontend import processes, worker
from frontend.processes import Workers, settings_dict
from frontend.settings import Settings

CHECK_INTERVAL_S = 0.005
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class KilledWorkers(Workers):
    def kill_one(self, randomness: random.Random) -> None:
        """kill -9 of one that takes requests, as soon as half of all do."""
        while len(victims := self._accepting()) * 2 < len(self._workers):
            self.watch(CHECK_INTERVAL_S)
        os.kill(randomness.choice(victims), signal.SIGKILL)

    def watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, CHECK_INTERVAL_S))
            self.check()

    def wait_all(self) -> None:
        while len(self._accepting()) < len(self._workers):
            self.watch(CHECK_INTERVAL_S)

    def _accepting(self) -> list[int]:
        """Process ids."""
        found = []
        for one in self._workers:
            process = one._process
            if process is not None and process.poll() is None:
                readable, _, _ = select.select([one._ready_fd], [], [], 0)
                found += [process.pid] * bool(readable)
        return found


class ForkedWorkers(KilledWorkers):
    def _spawn(self) -> tuple[subprocess.Popen[bytes], int]:
        ready_fd, child_ready_fd = os.pipe()
        options_fd, own_options_fd = os.pipe()
        options = {
            "settings": settings_dict(self._settings),
            "socket_fd": os.dup(self._listening.fileno()),
            "ready_fd": child_ready_fd,
        }
        os.write(own_options_fd, orjson.dumps(options))
        os.close(own_options_fd)
        pid = os.fork()
        if not pid:
            _be_worker(options_fd)
        for one in (child_ready_fd, options_fd, options["socket_fd"]):
            os.close(cast("int", one))
        return cast("subprocess.Popen[bytes]", ForkedProcess(pid)), ready_fd


def _be_worker(options_fd: int) -> None:
    try:
        os.setsid()
        os.dup2(options_fd, 0)
        os.dup2(2, 1)
        worker.main()
    finally:
        os._exit(1)


class ForkedProcess:
    """As much of a Popen as is asked for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        until = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("worker", timeout_s)
            time.sleep(CHECK_INTERVAL_S)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def main() -> None:
    processes.STABLE_S = 0.0  # each is started again at once, as if it had lived for long
    options = orjson.loads(sys.stdin.readline())
    settings = Settings(**options["settings"])
    kind = ForkedWorkers if options["is_forked"] else KilledWorkers
    listening = socket.socket(fileno=options["socket_fd"])
    workers = kind(settings, listening, Path(options["metrics_dir"]))
    randomness = random.Random(5)
    workers.start(START_TIMEOUT_S)
    _say("ready")
    try:
        for line in iter(lambda: _next_line(workers), ""):
            number, pause_s = line.split()
            for _ in range(int(number)):
                workers.watch(randomness.uniform(0.0, float(pause_s)))
                workers.kill_one(randomness)
            workers.wait_all()
            _say("killed")
    finally:
        workers.stop(STOP_TIMEOUT_S)


def _next_line(workers: Workers) -> str:
    while not select.select([sys.stdin], [], [], CHECK_INTERVAL_S)[0]:
        workers.check()
    return sys.stdin.readline()


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
