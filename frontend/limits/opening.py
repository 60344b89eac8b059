"""Which store the settings ask for."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from frontend.limits.lmdb_table import LmdbTable
from frontend.limits.local_store import LocalStore
from frontend.limits.store import LimitStore
from frontend.limits.worker_locks import WorkerLocks
from frontend.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  the folder in it is checked to be our own
SHARED_SCHEMES = frozenset({"redis", "rediss", "unix", "valkey", "valkeys"})
_DATABASE = re.compile(r"(/\d*)?")
FORMAT = 1  # of the records; another one makes another file


def limit_store(
    url: str | None, home: Path, *, has_local_fallback: bool, num_frontends: int
) -> LimitStore:
    """A store that is not open yet.

    Args:
        url: of a shared store, or lmdb:///PATH; None: shared memory.
        home: of this installation: what shares it shares its limits.

    Raises:
        ValueError: no store has such a URL.
    """
    parts = urlsplit(url or "lmdb:")
    if parts.scheme == "lmdb" and not parts.netloc:
        return _local_store(Path(parts.path) if parts.path else _usable_folder(home))
    if parts.scheme in SHARED_SCHEMES and url is not None:
        from frontend.limits.fallback import FallbackStore  # what one machine need not load
        from frontend.limits.redis_store import RedisStore

        local = _local_store(_usable_folder(home)) if has_local_fallback else None
        return FallbackStore(RedisStore(url), local, num_frontends=num_frontends)
    raise ValueError("must be redis://, rediss://, valkey://, valkeys://, unix:// or lmdb:///PATH")


def check_url(settings: Settings) -> None:
    """
    Raises:
        SettingsError: the limits cannot be kept there. The URL is not shown: it may have a password
            in it.
    """
    if not settings.limits_url:
        return
    try:
        _check_parts(settings.limits_url)
        limit_store(settings.limits_url, settings.home, has_local_fallback=False, num_frontends=1)
    except ValueError as exc:
        raise SettingsError(f"setting 'limits_url' {exc}") from exc


def _check_parts(url: str) -> None:
    """Raises ValueError, in words that show nothing of it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  reading it checks it
    except ValueError:
        # What is wrong is told with a part of the URL: of a password with a slash, that before it.
        raise ValueError(
            "cannot be read: what is a sign in URLs is written as %2F (/), %3F (?), %23 (#), "
            "%40 (@) in a password, and a port is a number"
        ) from None
    if not (parts.path if parts.scheme in ("lmdb", "unix") else parts.hostname):
        raise ValueError("must say where, as redis://HOST:PORT/0 or lmdb:///FOLDER")
    if parts.scheme not in ("lmdb", "unix") and not _DATABASE.fullmatch(parts.path):
        raise ValueError("must end with the number of a database, as redis://HOST:PORT/0")


def shared_folder(home: Path) -> Path:
    """Where an installation's buckets are, in shared memory; they outlive its servers."""
    digest = hashlib.blake2b(os.fsencode(home.absolute()), digest_size=6).hexdigest()
    return SHARED_MEMORY / f"inflight-{os.geteuid()}-{digest}"


def _local_store(folder: Path) -> LocalStore:
    return LocalStore(_table(folder), WorkerLocks(folder / "workers"))


def _table(folder: Path) -> LmdbTable:
    return LmdbTable(folder / f"limits-{FORMAT}")


def _usable_folder(home: Path) -> Path:
    """In shared memory; but in the home where that is small, not there or not to be written."""
    folder = shared_folder(home)
    table = _table(folder)
    errors: tuple[type[Exception], ...] = (OSError, *table.errors)
    try:
        table.open()
    except errors as exc:
        in_home = home / "state" / "limits"
        logger.warning(
            "limits: no shared memory", extra={"reason": str(exc), "folder": str(in_home)}
        )
        return in_home
    table.close()
    return folder
