"""A real PostgreSQL of one's own: Debian's programs, a folder that is deleted, loopback only."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

START_TIMEOUT_S = 30.0
# Nothing in it has to survive the machine; what is committed survives a kill all the same.
FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB")


class Postgres:
    """Runs from `with` to its end, as a user without rights: it refuses to run as root."""

    def __init__(self) -> None:
        self._programs = _find_programs()
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user = _unprivileged_user()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Postgres:
        if self._user is not None:
            shutil.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        initdb = ["--username=tests", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        self._run("initdb", *initdb, "--locale=C", f"--pgdata={self._folder / 'data'}")
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        settings = (*FAST, "listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}")
        options = [word for one in settings for word in ("-c", one)]
        self._process = self._popen("postgres", "-D", self._folder / "data",
                                    "-p", str(self.port), *options)  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            assert self._process.poll() is None, "PostgreSQL did not start"
            assert time.monotonic() < deadline, "PostgreSQL did not get ready"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, its connections too."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{uuid.uuid4().hex}"
        self._run("createdb", *self._server(), name)
        return f"postgresql://tests@127.0.0.1:{self.port}/{name}"

    def _server(self) -> list[str]:
        return ["--host=127.0.0.1", f"--port={self.port}", "--username=tests"]

    def _is_ready(self) -> bool:
        asked = [str(self._programs / "pg_isready"), "-q", *self._server()]
        return subprocess.run(asked, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        process = self._popen(program, *arguments)
        assert process.wait(START_TIMEOUT_S) == 0, f"{program} failed"

    def _popen(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        user = self._user
        return subprocess.Popen(
            [self._programs / program, *arguments],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            extra_groups=user and [],
        )


def _find_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "PostgreSQL is not installed: run scripts/debian-packages"
    return found[-1].parent


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Another than root; None: the one who runs the tests is not root."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None
