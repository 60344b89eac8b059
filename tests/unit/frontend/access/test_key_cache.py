"""What a worker remembers of keys, against a store that answers when the test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from frontend.access.authenticator import Authenticator
from frontend.access.identity import Identity
from frontend.access.key_cache import KeyCache
from frontend.access.secrets import hash_of, new_secret
from frontend.errors import AuthenticationFailed, Unavailable
from frontend.messages import Language
from frontend.store.api_keys import Lookup

POLL_S = 0.02


class FakeKeys:
    """Keys by hash; a change gets the next number as the real store's do."""

    def __init__(self) -> None:
        self.valid: dict[bytes, Identity] = {}
        self.changed_in: dict[bytes, int] = {}
        self.number = 0
        self.used: dict[str, float] = {}
        self.num_lookups = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.failure: Exception | None = None
        self.note_failure: Exception | None = None

    def change(self, secret: str, identity: Identity | None) -> None:
        self.number += 1
        self.changed_in[hash_of(secret)] = self.number
        if identity is None:
            del self.valid[hash_of(secret)]
        else:
            self.valid[hash_of(secret)] = identity

    async def find(self, secret_hash: bytes) -> Lookup:
        self.num_lookups += 1
        identity = self.valid.get(secret_hash)
        found = Lookup(
            change_number=self.number,
            identity=identity,
            expires_at=None if identity is None else identity.expires_at,
        )
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return found

    async def change_number(self) -> int:
        if self.failure is not None:
            raise self.failure
        return self.number

    async def changed_since(self, number: int) -> set[bytes]:
        return {one for one, changed_in in self.changed_in.items() if changed_in > number}

    async def note_uses(self, used_at: Mapping[str, float]) -> None:
        if failure := self.failure or self.note_failure:
            raise failure
        self.used |= used_at


@asynccontextmanager
async def opened(keys: FakeKeys, *, max_staleness_s: float = 5.0) -> AsyncIterator[KeyCache]:
    cache = KeyCache(keys, poll_s=POLL_S, max_staleness_s=max_staleness_s)
    cache.open()
    await asyncio.sleep(POLL_S)
    try:
        yield cache
    finally:
        await cache.close()


def made(keys: FakeKeys, *, expires_at: float | None = None) -> str:
    secret = new_secret()
    keys.change(secret, Identity(tenant="t", key_id=secret[3:9], expires_at=expires_at))
    return secret


async def test_the_database_is_asked_once_for_each_secret() -> None:
    keys = FakeKeys()
    good, bad = made(keys), new_secret()
    async with opened(keys) as cache:
        for _ in range(20):
            assert await cache.identify(good) is not None
            assert await cache.identify(bad) is None
        assert await asyncio.gather(*(cache.identify(good) for _ in range(20)))
    assert keys.num_lookups == 2


async def test_who_asks_at_the_same_time_waits_for_one_answer() -> None:
    keys = FakeKeys()
    secret = made(keys)
    keys.may_answer.clear()
    async with opened(keys) as cache:
        asking = [asyncio.create_task(cache.identify(secret)) for _ in range(20)]
        await asyncio.sleep(0)
        asking.pop().cancel()
        await asyncio.sleep(0)
        keys.may_answer.set()
        assert all(await asyncio.gather(*asking))
    assert keys.num_lookups == 1


async def test_what_cannot_be_a_key_costs_no_look() -> None:
    keys = FakeKeys()
    async with opened(keys) as cache:
        assert await cache.identify("any-key") is None
    assert keys.num_lookups == 0


async def test_a_change_is_heard_of_by_the_next_look_at_the_number() -> None:
    keys = FakeKeys()
    secret, other = made(keys), made(keys)
    async with opened(keys) as cache:
        assert await cache.identify(secret) is not None
        assert await cache.identify(other) is not None
        keys.change(secret, None)
        await asyncio.sleep(3 * POLL_S)
        assert await cache.identify(secret) is None
        keys.change(secret, Identity(tenant="t", key_id="new"))
        await asyncio.sleep(3 * POLL_S)
        assert await cache.identify(secret) is not None
        before = keys.num_lookups
        assert await cache.identify(other) is not None
        assert keys.num_lookups == before, "others are not forgotten"


async def test_an_answer_that_a_change_has_overtaken_is_not_kept() -> None:
    keys = FakeKeys()
    secret = made(keys)
    keys.may_answer.clear()
    async with opened(keys) as cache:
        asking = asyncio.create_task(cache.identify(secret))
        await asyncio.sleep(POLL_S)
        keys.change(secret, None)  # after the database has looked
        await asyncio.sleep(3 * POLL_S)
        keys.may_answer.set()
        assert await asking is not None
        assert await cache.identify(secret) is None


async def test_a_key_ends_on_time_whether_it_is_kept_or_not() -> None:
    keys = FakeKeys()
    secret = made(keys, expires_at=time.time() + 0.1)
    async with opened(keys) as cache:
        assert await cache.identify(secret) is not None
        await asyncio.sleep(0.12)
        assert await cache.identify(secret) is None


async def test_keys_are_good_for_a_while_only_when_changes_cannot_be_heard_of() -> None:
    keys = FakeKeys()
    secret = made(keys)
    async with opened(keys, max_staleness_s=0.2) as cache:
        assert await cache.identify(secret) is not None
        keys.failure = OSError("away")
        await asyncio.sleep(2 * POLL_S)
        assert await cache.identify(secret) is not None
        await asyncio.sleep(0.3)
        with pytest.raises(Unavailable):
            await cache.identify(secret)
        keys.failure = None
        assert await cache.identify(secret) is not None


async def test_a_database_that_hangs_is_not_waited_for() -> None:
    keys = FakeKeys()
    keys.may_answer.clear()
    async with opened(keys, max_staleness_s=0.1) as cache:
        with pytest.raises(Unavailable):
            await cache.identify(new_secret())
        keys.may_answer.set()


async def test_uses_are_written_behind() -> None:
    keys = FakeKeys()
    secret = made(keys)
    async with opened(keys) as cache:
        await cache.identify(secret)
        assert keys.used == {}
    assert keys.used == {secret[3:9]: pytest.approx(time.time(), abs=5)}


async def test_uses_that_cannot_be_written_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.access.key_cache.LAST_USE_STEP_S", 0.0)  # at each look
    keys = FakeKeys()
    secret = made(keys)
    async with opened(keys) as cache:
        await cache.identify(secret)
        keys.note_failure = OSError("away")
        await asyncio.sleep(3 * POLL_S)
        assert keys.used == {}
        keys.note_failure = None
        await asyncio.sleep(3 * POLL_S)
        assert keys.used.keys() == {secret[3:9]}


async def test_all_that_proves_nothing_gets_one_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    keys = FakeKeys()
    revoked, expired, unknown = made(keys), made(keys, expires_at=1.0), new_secret()
    keys.change(revoked, None)
    answers = set()
    async with opened(keys) as cache:
        authenticator = Authenticator(cache)
        for text in (revoked, expired, unknown, "any-key", "a.b.c", ""):
            with pytest.raises(AuthenticationFailed) as failed:
                await authenticator.identify([f"Bearer {text}"], [])
            error = failed.value
            answers.add((error.status, error.code, *(error.message(one) for one in Language)))
            assert error.__cause__ is None
    assert len(answers) == 1
    for text in (revoked, expired, unknown):
        assert text[4:] not in caplog.text
