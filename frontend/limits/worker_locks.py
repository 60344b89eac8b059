"""Which of a machine's worker processes live, told by a lock that the kernel drops with its holder.

Each holds one byte of a file, at an offset drawn by chance: nothing is left of a process that was
killed, and no process can be taken for another one. Source: fcntl(2), open file description locks.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from pathlib import Path

_flock = struct.Struct("hhqqi4x")  # type, whence, start, length, pid


class WorkerLocks:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self.own = secrets.randbits(62)

    def open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._control(fcntl.F_OFD_SETLK, self.own)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def is_alive(self, worker: int) -> bool:
        if worker == self.own:
            return True
        type_, *_ = _flock.unpack(self._control(fcntl.F_OFD_GETLK, worker))
        return bool(type_ != fcntl.F_UNLCK)

    def _control(self, command: int, worker: int) -> bytes:
        request = _flock.pack(fcntl.F_WRLCK, os.SEEK_SET, worker, 1, 0)
        return fcntl.fcntl(self._fd, command, request)
