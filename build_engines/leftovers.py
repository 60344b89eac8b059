"""What builds leave for the next ones: stages that were done before a kill, and downloads.

`inflight models gc` deletes it; nothing that is published needs it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from build_engines.artefacts.retention import Garbage
from build_engines.checkpoints.hub import downloads_dir
from build_engines.lock import try_build_lock
from build_engines.stages import PARTIAL_SUFFIX, SMALL_BYTES, own_bytes


def collect_builds(
    home: Path,
    *,
    is_dry_run: bool = False,
    on_found: Callable[[Garbage], None] = lambda _: None,
) -> list[Garbage]:
    """Deletes the stages of builds that nobody is at and, while nobody builds, all downloads.

    What is small (logs, links to checkpoints) stays: it saves the next build its work. `on_found`
    hears of each before it is deleted.
    """
    found = []
    with ExitStack() as locks:
        for garbage in _garbage(home, locks):
            on_found(garbage)
            found.append(garbage)
            if not is_dry_run:
                _delete(garbage.path)
    return found


def _garbage(home: Path, locks: ExitStack) -> Iterator[Garbage]:
    """Holds the lock of each build that it looks into, so that none begins meanwhile."""
    is_anybody_building = False
    for root in sorted((home / "builds").glob("*/*/")):
        if not locks.enter_context(try_build_lock(home, root.parent.name, root.name)):
            is_anybody_building = True
            continue
        for path in sorted(root.iterdir()):
            size = own_bytes(path)
            if size > SMALL_BYTES or path.name.endswith(PARTIAL_SUFFIX):
                reason = f"of the build of {root.parent.name}/{root.name}"
                yield Garbage(path=path, size_bytes=size, reason=reason)
    if is_anybody_building:
        return
    for path in sorted(downloads_dir(home).glob("*/*/")):
        yield Garbage(path=path, size_bytes=own_bytes(path), reason="downloaded, and built")


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
