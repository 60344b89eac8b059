"""A table of records in LMDB, in shared memory: one machine's processes, and no server.

LMDB's lock is a robust mutex in the lock file: when its holder is killed the next one gets it, and
what the holder had begun is not there, for LMDB never changes a page that the last commit refers
to. All transactions here write, so there are no readers that could be left behind. A process that
is stopped (SIGSTOP) inside one of these microseconds holds the others up until it goes on.
"""

from __future__ import annotations

import itertools
import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import lmdb

from frontend.limits.local_store import Transaction

MAP_BYTES = 32 * 2**20  # Docker gives a container 64 MiB of shared memory
RECORD_BYTES = 128  # at the most: half-full pages, and the copies that a commit makes
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_KEY = b"boot"  # before all keys of records


class LmdbTable:
    """To be opened in the process that uses it, not before a fork, and once in it.

    Args:
        path: of the file; its folder is made, for its owner only.
    """

    errors: tuple[type[Exception], ...] = (lmdb.Error,)

    def __init__(self, path: Path, *, map_bytes: int = MAP_BYTES) -> None:
        self._path = path
        self._map_bytes = map_bytes
        self._environment: lmdb.Environment | None = None
        self.max_records = map_bytes // RECORD_BYTES

    def open(self) -> None:
        """Raises OSError: there is no room, or the folder is somebody else's."""
        _make_folder(self._path.parent)
        self._environment = lmdb.open(
            str(self._path),
            map_size=self._map_bytes,
            subdir=False,
            mode=0o600,
            sync=False,  # nothing here outlives the machine
            metasync=False,
            writemap=True,
        )
        try:
            self._take_room()
            self._forget_other_boots()
        except BaseException:
            self.close()
            raise

    def _take_room(self) -> None:
        """Now, when it can be said: a page that shared memory has no room for kills with SIGBUS."""
        with open(self._path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, self._map_bytes)

    def _forget_other_boots(self) -> None:
        """The clock began anew with the machine: times of before mean nothing."""
        boot = BOOT_ID.read_bytes()
        environment = self._opened()
        with environment.begin(write=True) as transaction:
            if transaction.get(_BOOT_KEY) != boot:
                transaction.drop(environment.open_db(None, transaction), delete=False)
                transaction.put(_BOOT_KEY, boot)

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def begin(self) -> AbstractContextManager[Transaction]:
        return cast("AbstractContextManager[Transaction]", self._opened().begin(write=True))

    def records(
        self, transaction: Transaction, first: bytes, limit: int
    ) -> list[tuple[bytes, bytes]]:
        cursor = cast("lmdb.Transaction[bytes]", transaction).cursor()
        found = cursor.set_range(max(first, _BOOT_KEY + b"\0"))
        return list(itertools.islice(cursor, limit)) if found else []

    def num_records(self, transaction: Transaction) -> int:
        return cast("lmdb.Transaction[bytes]", transaction).stat(None)["entries"]

    def _opened(self) -> lmdb.Environment:
        assert self._environment is not None, "open() comes first"
        return self._environment


def _make_folder(folder: Path) -> None:
    """Anybody may make names in shared memory: what is not our own folder is not used."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a folder of this user")
