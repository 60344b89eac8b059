"""What this machine has for a build, asked before the build needs it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from build_engines.errors import BuildError, DiskSpaceError, MemoryShortError
from build_engines.figures import size
from build_engines.stages import Stage

FULL_BYTES = 1 << 20  # a disk with less is taken for full


def free_bytes(path: Path) -> int:
    """Room on the file system of a directory, be it there yet or not."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def available_memory_bytes() -> int:
    """What programs may still take without swapping."""
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Room on the disk and in memory."""

    free_bytes: Callable[[Path], int] = free_bytes
    available_memory_bytes: Callable[[], int] = available_memory_bytes

    def check(self, stages: Sequence[Stage], home: Path) -> None:
        """Raises the first of the obstacles."""
        for exc in self.obstacles(stages, home):
            raise exc

    def obstacles(self, stages: Sequence[Stage], home: Path) -> Iterator[BuildError]:
        """What would end these stages here: a lack of tools, DiskSpaceError, MemoryShortError."""
        for stage in stages:
            try:
                stage.check()
            except BuildError as exc:
                yield exc
        required, free = sum(stage.required_bytes for stage in stages), self.free_bytes(home)
        if free < required:
            yield DiskSpaceError(
                f"the build needs {size(required)} in {home}, {size(free)} are "
                "free: make room or choose another directory by --home"
            )
        memory = max((stage.required_memory_bytes for stage in stages), default=0)
        available = self.available_memory_bytes()
        if available < memory:
            yield MemoryShortError(
                f"the build needs {size(memory)} of memory, {size(available)} are "
                "free: end other programs, choose a smaller variant or build on a larger machine"
            )

    @contextmanager
    def full_disk_is_named(self, home: Path) -> Iterator[None]:
        """Raises DiskSpaceError for what fails on a full disk: libraries word that as they like."""
        try:
            yield
        except Exception as exc:
            number = exc.errno if isinstance(exc, OSError) else None
            if number in (errno.ENOSPC, errno.EDQUOT) or self.free_bytes(home) < FULL_BYTES:
                message = f"the disk of {home} is full: make room and build again"
                raise DiskSpaceError(message) from exc
            raise


THIS_MACHINE = Machine()
