"""API keys in real databases, and how soon each worker hears of their changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from frontend.access.identity import Identity, Scope
from frontend.access.key_cache import KeyCache
from frontend.access.secrets import hash_of, is_secret
from frontend.errors import Unavailable
from frontend.limits.buckets import LimitSet
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database
from tests.fakes.postgres import Postgres

GIVEN = ApiKey(
    id="",
    name="the lab",
    tenant="lab",
    scopes=frozenset({Scope.INFERENCE, Scope.METRICS}),
    models=("gemma-*", "qwen-7b-chat"),
    limits=LimitSet(requests_per_minute=100, tokens_per_day=10**9),
)


@pytest.fixture
def store(database: Database) -> ApiKeyStore:
    return ApiKeyStore(database)


@asynccontextmanager
async def opened(cache: KeyCache) -> AsyncIterator[KeyCache]:
    cache.open()
    try:
        yield cache
    finally:
        await cache.close()


async def is_known(store: ApiKeyStore, secret: str) -> bool:
    return (await store.find(hash_of(secret))).identity is not None


async def test_a_key_is_what_it_was_made_as(store: ApiKeyStore) -> None:
    key, secret = await store.create(GIVEN)
    assert is_secret(secret)
    assert key.shown == secret[:8]
    assert (key.name, key.tenant, key.scopes, key.models, key.limits) == (
        GIVEN.name, GIVEN.tenant, GIVEN.scopes, GIVEN.models, GIVEN.limits,
    )  # fmt: skip
    assert abs(key.created_at - time.time()) < 5
    assert await store.get(key.id) == key
    assert (await store.find(hash_of(secret))).identity == Identity(
        key_id=key.id,
        tenant="lab",
        scopes=GIVEN.scopes,
        models=GIVEN.models,
        limits=GIVEN.limits,
    )


async def test_of_a_secret_only_its_hash_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "inflight.db"
    database = await Database.open(f"sqlite:///{path}")
    _, secret = await ApiKeyStore(database).create(GIVEN)
    await database.close()
    content = path.read_bytes()  # closed: all is in the one file
    assert hash_of(secret) in content
    assert secret.encode() not in content
    assert secret[9:].encode() not in content


async def test_keys_are_listed_by_tenant_oldest_first(store: ApiKeyStore) -> None:
    made = [
        await store.create(ApiKey(id="", name=name, tenant=name[0])) for name in ("a1", "b1", "a2")
    ]
    await store.revoke(made[0][0].id)
    assert [key.name for key in await store.list_keys()] == ["a1", "b1", "a2"]
    assert [key.name for key in await store.list_keys(tenant="a")] == ["a1", "a2"]
    assert await store.list_keys(tenant="c") == []


async def test_a_revoked_key_proves_nothing_and_keeps_its_first_time(store: ApiKeyStore) -> None:
    key, secret = await store.create(GIVEN)
    revoked = await store.revoke(key.id)
    assert revoked is not None
    assert not revoked.is_valid(time.time())
    assert not await is_known(store, secret)
    assert await store.revoke(key.id) == revoked
    assert await store.rotate(key.id, grace_s=60) is None
    assert await store.revoke("key_of_nobody") is None


async def test_a_rotated_key_has_two_secrets_for_a_while(store: ApiKeyStore) -> None:
    key, first = await store.create(GIVEN)
    rotated = await store.rotate(key.id, grace_s=60)
    assert rotated is not None
    same, second = rotated
    assert same.id == key.id
    assert same.shown == second[:8]
    old, new = await store.find(hash_of(first)), await store.find(hash_of(second))
    assert old.identity is not None
    assert old.expires_at is not None
    assert 0 < old.expires_at - time.time() <= 60
    assert new.identity is not None
    assert new.expires_at is None
    third = await store.rotate(key.id, grace_s=3600)
    assert third is not None
    assert (await store.find(hash_of(first))).expires_at == old.expires_at, "it is not prolonged"
    assert await store.rotate("key_of_nobody", grace_s=1) is None


async def test_the_end_of_a_key_is_that_of_its_secrets_too(store: ApiKeyStore) -> None:
    end = time.time() + 30
    key, first = await store.create(ApiKey(id="", name="short", expires_at=end))
    await store.rotate(key.id, grace_s=3600)
    assert (await store.find(hash_of(first))).expires_at == pytest.approx(end)


async def test_limits_are_changed_and_taken_away(store: ApiKeyStore) -> None:
    key, secret = await store.create(GIVEN)
    changed = await store.set_limits(key.id, LimitSet(tokens_per_minute=5))
    assert changed is not None
    identity = (await store.find(hash_of(secret))).identity
    assert identity is not None
    assert identity.limits == changed.limits == LimitSet(tokens_per_minute=5)
    without = await store.set_limits(key.id, None)
    assert without is not None
    assert without.limits is None
    assert await store.set_limits("key_of_nobody", None) is None


async def test_each_change_has_a_number_of_its_own(database_url: str) -> None:
    """Whoever has seen a number has seen all changes up to it, whoever made them."""
    databases = [await Database.open(database_url) for _ in range(3)]
    stores = [ApiKeyStore(database) for database in databases]
    await asyncio.gather(*(store.create(GIVEN) for store in stores for _ in range(5)))
    assert await stores[0].change_number() == 15
    assert len(await stores[1].changed_since(0)) == 15
    assert len(await stores[2].changed_since(14)) == 1
    for database in databases:
        await database.close()


async def test_uses_are_noted_and_never_go_back(store: ApiKeyStore) -> None:
    keys = [(await store.create(GIVEN))[0] for _ in range(3)]
    before = await store.change_number()
    await store.note_uses({})
    await store.note_uses({keys[0].id: 1000.0, keys[1].id: 2000.0})
    await store.note_uses({keys[0].id: 3000.0, keys[1].id: 1500.0})
    assert [key.last_used_at for key in await store.list_keys()] == [3000.0, 2000.0, None]
    assert await store.change_number() == before, "no worker has to hear of it"


async def test_a_revocation_reaches_each_worker_within_a_second(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        databases = [await Database.open(database_url) for _ in range(4)]
        for database in databases:
            stack.push_async_callback(database.close)
        stores = [ApiKeyStore(database) for database in databases]
        caches = [await stack.enter_async_context(opened(KeyCache(one))) for one in stores]
        key, secret = await stores[0].create(GIVEN)
        for cache in caches:
            found = await cache.identify(secret)
            assert found is not None
            assert found.key_id == key.id
        await stores[0].revoke(key.id)
        revoked_at = time.monotonic()
        while any([await cache.identify(secret) for cache in caches]):
            assert time.monotonic() - revoked_at < 1.0
            await asyncio.sleep(0.02)


async def test_a_key_that_was_unknown_is_taken_once_it_is_made(store: ApiKeyStore) -> None:
    async with opened(KeyCache(store)) as cache:
        key, secret = await store.create(GIVEN)
        await asyncio.sleep(0.6)  # the cache has seen this change
        rotated = await store.rotate(key.id, grace_s=0)
        assert rotated is not None
        deadline = time.monotonic() + 1.0
        while await cache.identify(secret) is not None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert await cache.identify(rotated[1]) is not None


async def test_last_uses_are_written_when_the_worker_ends(store: ApiKeyStore) -> None:
    key, secret = await store.create(GIVEN)
    async with opened(KeyCache(store)) as cache:
        await cache.identify(secret)
    found = await store.get(key.id)
    assert found is not None
    assert found.last_used_at == pytest.approx(time.time(), abs=5)


async def test_postgresql_may_go_away_and_come_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Postgres() as server:
        database = await Database.open(server.new_database())
        store = ApiKeyStore(database)
        _, secret = await store.create(GIVEN)
        async with opened(KeyCache(store, poll_s=0.05, max_staleness_s=1.0)) as cache:
            assert await cache.identify(secret) is not None
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.kill)
            assert await cache.identify(secret) is not None, "it is known, and was just asked for"
            await asyncio.sleep(1.2)
            with pytest.raises(Unavailable):  # it may have been revoked meanwhile
                await cache.identify(secret)
            await asyncio.to_thread(server.start)
            deadline = time.monotonic() + 5
            while True:
                try:
                    assert await cache.identify(secret) is not None
                    break
                except Unavailable:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
        await database.close()
    assert "changes of API keys can be read again" in caplog.messages
    assert secret not in caplog.text
    assert hash_of(secret).hex() not in caplog.text
