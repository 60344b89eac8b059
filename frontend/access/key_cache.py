"""The API keys that one worker has met, kept until they change.

A worker reads one number twice a second, and nothing for a request with a known key. What has
changed since is forgotten and looked up again when it is asked for. While that number cannot be
read, keys are good for `max_staleness_s` more: a revocation that is not heard of binds no longer.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from frontend.access.identity import Identity
from frontend.access.secrets import hash_of, is_secret
from frontend.errors import Unavailable
from frontend.store.api_keys import LAST_USE_STEP_S, Lookup

logger = logging.getLogger(__name__)

POLL_S = 0.5
MAX_STALENESS_S = 5.0
MAX_KEPT = 100_000  # secrets that prove something; and as many that do not
MAX_LOOKUPS = 8  # in the database at once: a flood of unknown keys leaves it to others as well
CLOSE_TIMEOUT_S = 2.0  # for the last uses that are written


class Keys(Protocol):
    """What of `ApiKeyStore` is asked here."""

    async def find(self, secret_hash: bytes) -> Lookup: ...
    async def change_number(self) -> int: ...
    async def changed_since(self, number: int) -> set[bytes]: ...
    async def note_uses(self, used_at: Mapping[str, float]) -> None: ...


class KeyCache:
    """One worker's. `open` it when its loop runs."""

    def __init__(
        self, keys: Keys, *, poll_s: float = POLL_S, max_staleness_s: float = MAX_STALENESS_S
    ) -> None:
        self._keys = keys
        self._poll_s = poll_s
        self._max_staleness_s = max_staleness_s
        self._seen = -1  # the last change that is known of here
        self._seen_at = float("-inf")  # time.monotonic() when that was asked for
        self._valid: OrderedDict[bytes, Lookup] = OrderedDict()
        self._refused: OrderedDict[bytes, Lookup] = OrderedDict()  # else each asks the database
        self._looking: dict[bytes, asyncio.Task[Lookup]] = {}
        self._lookups = asyncio.Semaphore(MAX_LOOKUPS)
        self._used_at: dict[str, float] = {}  # not written yet, by key id
        self._upkeep: asyncio.Task[None] | None = None
        self._is_failing = False

    def open(self) -> None:
        self._upkeep = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """Write the last uses."""
        if self._upkeep is None:
            return
        self._upkeep.cancel()
        await asyncio.wait([self._upkeep, *self._looking.values()], timeout=CLOSE_TIMEOUT_S)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._write_uses()
        except Exception:  # they are coarse: the server stops all the same
            logger.warning("last uses of keys not written", exc_info=True)

    async def identify(self, secret: str) -> Identity | None:
        """Whose key it is; None: nobody's, or one that is revoked or expired.

        Raises:
            Unavailable: the database cannot be asked.
        """
        if not is_secret(secret):
            return None
        secret_hash = hash_of(secret)
        found = self._valid.get(secret_hash) or self._refused.get(secret_hash)
        if found is None or self._is_stale():
            found = await self._look_up(secret_hash)
        now = time.time()
        if found.identity is None or (found.expires_at is not None and found.expires_at <= now):
            return None
        assert found.identity.key_id is not None
        self._used_at[found.identity.key_id] = now
        return found.identity

    def _is_stale(self) -> bool:
        return time.monotonic() - self._seen_at > self._max_staleness_s

    async def _look_up(self, secret_hash: bytes) -> Lookup:
        """Ask the database; those who ask for the same at the same time wait for one answer."""
        task = self._looking.get(secret_hash)
        if task is None:
            task = asyncio.create_task(self._find(secret_hash))
            self._looking[secret_hash] = task
            task.add_done_callback(functools.partial(self._forget_task, secret_hash))
        try:
            return await asyncio.shield(task)  # one who leaves does not end it for the others
        except Exception as exc:
            raise Unavailable from exc

    def _forget_task(self, secret_hash: bytes, task: asyncio.Task[Lookup]) -> None:
        del self._looking[secret_hash]
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.warning("API key not looked up", extra={"reason": repr(exc)})

    async def _find(self, secret_hash: bytes) -> Lookup:
        async with asyncio.timeout(self._max_staleness_s), self._lookups:
            found = await self._keys.find(secret_hash)
        # What is older than what is known here may have been changed meanwhile, and that change
        # been passed over, for the secret was not kept yet: it serves this once.
        if found.change_number >= self._seen:
            kept = self._refused if found.identity is None else self._valid
            kept[secret_hash] = found
            if len(kept) > MAX_KEPT:
                kept.popitem(last=False)
        return found

    async def _keep_up(self) -> None:
        written_at = time.monotonic()
        while True:
            try:
                await self._hear_of_changes()
                if time.monotonic() >= written_at + LAST_USE_STEP_S:
                    written_at = time.monotonic()
                    await self._write_uses()
            except Exception as exc:  # the database may be there again the next time
                if not self._is_failing:
                    logger.exception("changes of API keys cannot be read", exc_info=exc)
                self._is_failing = True
            await asyncio.sleep(self._poll_s)

    async def _hear_of_changes(self) -> None:
        asked_at = time.monotonic()
        async with asyncio.timeout(self._max_staleness_s):
            number = await self._keys.change_number()
            if self._seen < 0:  # of what was looked up before this nothing is known
                self._valid.clear()
                self._refused.clear()
            elif number != self._seen:
                for secret_hash in await self._keys.changed_since(self._seen):
                    self._valid.pop(secret_hash, None)
                    self._refused.pop(secret_hash, None)
        self._seen, self._seen_at = number, asked_at
        if self._is_failing:
            logger.info("changes of API keys can be read again")
        self._is_failing = False

    async def _write_uses(self) -> None:
        used_at, self._used_at = self._used_at, {}
        try:
            await self._keys.note_uses(used_at)
        except BaseException:
            self._used_at = {**used_at, **self._used_at}
            raise
