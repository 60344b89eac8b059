"""Which store the settings ask for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from frontend.limits.fallback import FallbackStore
from frontend.limits.lmdb_table import LmdbTable
from frontend.limits.local_store import LocalStore
from frontend.limits.redis_store import RedisStore
from frontend.limits.store import LimitStore
from frontend.limits.worker_locks import WorkerLocks

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  the folder in it is checked to be our own
SHARED_SCHEMES = frozenset({"redis", "rediss", "unix", "valkey", "valkeys"})
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
        return _local_store(Path(parts.path) if parts.path else _folder_of(home))
    if parts.scheme in SHARED_SCHEMES and url is not None:
        local = _local_store(_folder_of(home)) if has_local_fallback else None
        return FallbackStore(RedisStore(url), local, num_frontends=num_frontends)
    raise ValueError("must be redis://, rediss://, valkey://, valkeys://, unix:// or lmdb:///PATH")


def _local_store(folder: Path) -> LocalStore:
    file = folder / f"limits-{FORMAT}"
    return LocalStore(LmdbTable(file), WorkerLocks(folder / "workers"))


def _folder_of(home: Path) -> Path:
    digest = hashlib.blake2b(os.fsencode(home.absolute()), digest_size=6).hexdigest()
    return SHARED_MEMORY / f"inflight-{os.geteuid()}-{digest}"
