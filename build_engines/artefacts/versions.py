"""The versions of one published variant: numbered directories, and two links that choose of them.

    models/<name>/<variant>/1/  2/  ...      never changed once they have their number
                            current          -> the version that is served
                            previous         -> the one before it, which a rollback goes back to

Knows directories and links only; what is in a version is `artefact.py`'s.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CURRENT = "current"
PREVIOUS = "previous"
_REMOVING = ".removing"


@contextmanager
def change_lock(home: Path, name: str, variant: str) -> Iterator[None]:
    """Makes changes of a variant's versions wait for each other; none of them takes long.

    Not the lock of a build, whose holder publishes. The system takes it from a process that dies.
    """
    # The file is never deleted: another process could be waiting for the lock of the deleted one.
    path = home / "state" / "locks" / f"versions-{name}-{variant}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def version_numbers(variant_dir: Path) -> list[int]:
    """All versions that there are, in their order."""
    if not variant_dir.is_dir():
        return []
    return sorted(int(one.name) for one in variant_dir.iterdir() if _is_number(one.name))


def current_version(variant_dir: Path) -> int | None:
    """The version that is served; None: none is published."""
    return _target(variant_dir / CURRENT)


def previous_version(variant_dir: Path) -> int | None:
    """The version that a rollback goes back to; None: there is none.

    A change that was cut short may have left `previous` on the current version: then it is the
    one before that in number.
    """
    current, there = current_version(variant_dir), version_numbers(variant_dir)
    chosen = _target(variant_dir / PREVIOUS)
    if chosen in there and chosen != current:
        return chosen
    others = [number for number in there if number != current]
    earlier = [number for number in others if number < (current or 0)]
    return max(earlier or others, default=None)


def make_current(variant_dir: Path, number: int) -> None:
    """Lets a version be served from now on; what was served is then the previous one.

    For the holder of the lock. Each link changes at once, and `previous` first: whatever ends the
    process in between, the last version that was served is one of the two.
    """
    before = current_version(variant_dir)
    if before == number:
        return
    if before is not None:
        _point(variant_dir / PREVIOUS, before)
    _point(variant_dir / CURRENT, number)


def add_version(variant_dir: Path, built: Path) -> int:
    """Moves a finished directory to its place as the next version; nothing chooses it yet."""
    number = next_version(variant_dir)
    variant_dir.mkdir(parents=True, exist_ok=True)
    built.rename(variant_dir / str(number))
    sync(variant_dir)
    return number


def next_version(variant_dir: Path) -> int:
    """One above all versions that there are or that a link remembers."""
    known = [current_version(variant_dir), _target(variant_dir / PREVIOUS)]
    return 1 + max([0, *version_numbers(variant_dir), *(one for one in known if one is not None)])


def remove_version(variant_dir: Path, number: int) -> None:
    """Deletes a version that nobody uses; it is gone at once, its bytes a little later."""
    hidden = variant_dir / f".{number}{_REMOVING}"
    (variant_dir / str(number)).rename(hidden)
    shutil.rmtree(hidden)


def half_removed(variant_dir: Path) -> list[Path]:
    """What the removal of versions has left when it was cut short."""
    return sorted(variant_dir.glob(f".*{_REMOVING}"))


def sync(path: Path) -> None:
    """Waits until a file's content, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(link: Path, number: int) -> None:
    new = link.with_name(f".{link.name}.new")  # one process at a time: the lock's holder
    new.unlink(missing_ok=True)
    new.symlink_to(str(number), target_is_directory=True)
    new.replace(link)
    sync(link.parent)


def _target(link: Path) -> int | None:
    try:
        target = os.readlink(link)
    except OSError:  # there is none, or it is no link
        return None
    return int(target) if _is_number(target) else None


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0")
