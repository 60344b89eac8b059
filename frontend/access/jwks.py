"""An issuer's keys, fetched from its pinned address and kept.

They are fetched anew in the background. A token with a key that is not known starts a fetch at
once, for the key may be new, but only so many in a while: what tokens say costs nothing. While the
issuer is away its keys stay good for a time that is set.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from frontend.access.issuers import Issuer
from frontend.access.verification_keys import KeySetError, VerificationKey, pick, read_jwks
from frontend.errors import Unavailable

logger = logging.getLogger(__name__)

TIMEOUT_S = 4.0
MAX_BYTES = 256 * 2**10
RETRY_S = (1.0, 60.0)  # after the first failure, and at the most
Fetch = Callable[[str], Awaitable[bytes]]


class FetchError(Exception):
    """The issuer did not answer with something that may be a JWKS."""


@dataclass(slots=True)
class Allowance:
    """So many fetches at once, and one more each `every_s`, for keys that tokens name."""

    maximum: int = 3
    every_s: float = 10.0
    _left: float = 3.0
    _counted_at: float = 0.0  # time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        gained = (now - self._counted_at) / self.every_s
        self._left, self._counted_at = min(self.maximum, self._left + gained), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class JwksCache:
    """One issuer's keys in one worker. `open` it when its loop runs."""

    def __init__(
        self, issuer: Issuer, *, fetch: Fetch | None = None, allowance: Allowance | None = None
    ) -> None:
        assert issuer.jwks_url is not None
        self._issuer = issuer
        self._url = issuer.jwks_url
        self._fetch = fetch or fetch_bytes
        self._allowance = allowance or Allowance()
        self._keys: tuple[VerificationKey, ...] = ()
        self._fetched_at = float("-inf")  # time.monotonic() when the last good fetch began
        self._num_failures = 0  # since then
        self._fetching: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None

    def open(self) -> None:
        # who asks before the loop comes to the upkeep waits for this
        self._upkeep = asyncio.create_task(self._keep_up(self._begin()))

    async def close(self) -> None:
        tasks = [task for task in (self._upkeep, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def current(self) -> Sequence[VerificationKey] | None:
        return self._keys if self._is_usable() else None

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The key of that id, asked for at the issuer if it is not known.

        Raises:
            Unavailable: the issuer has not answered, or not for too long.
        """
        key = self._pick(kid, algorithm)
        if key is None and self._fetching is not None:
            await asyncio.wait([self._fetching])  # it may have begun before that key was there
            key = self._pick(kid, algorithm)
        if key is None and (self._fetching is not None or self._allowance.take()):
            await asyncio.wait([self._begin()])
            key = self._pick(kid, algorithm)
        if not self._is_usable():
            raise Unavailable
        return key

    def _pick(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        return pick(self._keys, kid, algorithm) if self._is_usable() else None

    def _is_usable(self) -> bool:
        return time.monotonic() - self._fetched_at <= self._issuer.max_staleness_s

    def _begin(self) -> asyncio.Task[None]:
        """The fetch that runs, or a new one."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._renew())
        return self._fetching

    async def _renew(self) -> None:
        began_at = time.monotonic()
        try:
            keys = read_jwks(await self._fetch(self._url))
            if keys != self._keys:  # what was proven with the same ones need not be proven again
                self._keys = keys
            self._fetched_at = began_at
            self._num_failures = 0
        except (FetchError, KeySetError) as exc:
            self._num_failures += 1
            extra = {"issuer": self._issuer.issuer, "reason": str(exc)}
            logger.warning("keys of an issuer not fetched", extra=extra)
        finally:
            self._fetching = None

    async def _keep_up(self, fetching: asyncio.Task[None]) -> None:
        while True:
            await asyncio.wait([fetching])
            pause_s = self._issuer.refresh_s
            if self._num_failures:
                first, most = RETRY_S
                pause_s = min(pause_s, most, first * 2 ** min(self._num_failures - 1, 10))
            await asyncio.sleep(pause_s * random.uniform(0.9, 1.0))  # noqa: S311  not all at once
            fetching = self._begin()


async def fetch_bytes(url: str) -> bytes:
    """GET url, and nowhere else: a pinned address redirects to nobody.

    Raises:
        FetchError: it does not answer 200 with at most MAX_BYTES within TIMEOUT_S.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise FetchError(f"it answered {answer.status}")
            content = b""
            async for part in answer.content.iter_chunked(2**16):
                content += part
                if len(content) > MAX_BYTES:
                    raise FetchError(f"its answer has more than {MAX_BYTES} bytes")
            return content
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        raise FetchError(repr(exc)) from exc
