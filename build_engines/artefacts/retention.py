"""Which published versions stay: going back to the one before, removing a model, collecting what
nobody needs any more.

Whatever ends these in the middle, what is current stays whole, and the next collection goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from build_engines.artefacts.artefact import (
    MANIFEST_NAME,
    Artefact,
    artefact_dir,
    is_safe_name,
    models_dir,
    read_artefact,
)
from build_engines.artefacts.versions import (
    change_lock,
    current_version,
    half_removed,
    make_current,
    previous_version,
    remove_version,
    version_numbers,
)
from build_engines.errors import ArtefactError

_REMOVED = ".removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A directory that nobody needs, and why."""

    path: Path
    size_bytes: int
    reason: str


def published_variants(home: Path, name: str) -> list[str]:
    """The variants of a model that have a current version, or something that cannot be used."""
    if not is_safe_name(name):
        return []
    return [
        one.name
        for one in _variant_dirs(models_dir(home) / name)
        if current_version(one) is not None or (one / MANIFEST_NAME).exists()
    ]


def rollback(home: Path, name: str, variant: str) -> Artefact:
    """Makes the version before the current one current; done again, it goes forward again.

    Raises ArtefactError where there is none, or where it is damaged.
    """
    variant_dir = artefact_dir(home, name, variant)
    with change_lock(home, name, variant):
        number = previous_version(variant_dir)
        if number is None:
            current = current_version(variant_dir)
            raise ArtefactError(
                f"{name}/{variant} has no version but {current}: build it to publish another one"
            )
        artefact = read_artefact(variant_dir / str(number))
        make_current(variant_dir, number)
    return artefact


def remove(home: Path, name: str, variant: str) -> int:
    """Deletes all versions of a variant, damaged ones too. Returns the bytes that are freed.

    It is gone at once for all who look for models; its files a little later. Raises ArtefactError
    where there is none.
    """
    variant_dir = artefact_dir(home, name, variant)
    with change_lock(home, name, variant):
        if not variant_dir.is_dir():
            raise ArtefactError(f"there is no {name}/{variant} in {home}")
        size_bytes = _freed_bytes(variant_dir)
        hidden = variant_dir.with_name(f".{variant}{_REMOVED}")
        if hidden.exists():  # of a removal that was cut short
            shutil.rmtree(hidden)
        variant_dir.rename(hidden)
        shutil.rmtree(hidden)
    if not any(variant_dir.parent.iterdir()):
        variant_dir.parent.rmdir()
    return size_bytes


def collect(
    home: Path,
    *,
    in_use: Collection[Path],
    is_dry_run: bool = False,
    on_found: Callable[[Garbage], None] = lambda _: None,
) -> list[Garbage]:
    """Deletes versions that are neither current nor the last good one nor `in_use`, and what
    removals that were cut short have left.

    Args:
        in_use: directories of versions that a server has loaded.
        on_found: hears of each before it is deleted.
    """
    found = []
    for folder in sorted(models_dir(home).glob("*/")):
        for hidden in sorted(folder.glob(f".*{_REMOVED}")):
            found.append(
                Garbage(path=hidden, size_bytes=_freed_bytes(hidden), reason="half removed")
            )
            on_found(found[-1])
            if not is_dry_run:
                shutil.rmtree(hidden)
        for variant_dir in _variant_dirs(folder):
            with change_lock(home, folder.name, variant_dir.name):
                for garbage in _garbage_of(variant_dir, in_use):
                    found.append(garbage)
                    on_found(garbage)
                    if not is_dry_run:
                        _delete(garbage.path)
    return found


def _garbage_of(variant_dir: Path, in_use: Collection[Path]) -> Iterator[Garbage]:
    for path in half_removed(variant_dir):
        yield Garbage(path=path, size_bytes=_freed_bytes(path), reason="half removed")
    current, previous = current_version(variant_dir), previous_version(variant_dir)
    if current is None:  # a first publication that was cut short; the next one takes it up
        return
    for number in version_numbers(variant_dir):
        path = variant_dir / str(number)
        if number not in (current, previous) and path not in in_use:
            reason = f"neither current ({current}) nor the one before ({previous})"
            yield Garbage(path=path, size_bytes=_freed_bytes(path), reason=reason)


def _delete(path: Path) -> None:
    if path.name.startswith("."):
        shutil.rmtree(path)
    else:
        remove_version(path.parent, int(path.name))


def _variant_dirs(folder: Path) -> list[Path]:
    return [one for one in sorted(folder.glob("*/")) if is_safe_name(one.name)]


def _freed_bytes(path: Path) -> int:
    """What deleting a directory frees: files that are another version's, too, are no part of it."""
    states = (one.stat() for one in path.rglob("*") if one.is_file())
    return sum(state.st_size for state in states if state.st_nlink == 1)
