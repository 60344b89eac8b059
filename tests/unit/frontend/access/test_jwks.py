"""The cache of an issuer's keys, with a fetch that does what the test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from frontend.access.issuers import Issuer
from frontend.access.jwks import Allowance, FetchError, JwksCache
from frontend.errors import Unavailable
from tests.unit.frontend.access.issuer_keys import jwks, private_key, public_jwk

ALGORITHM: Literal["ES256"] = "ES256"


class FakeIssuer:
    """Answers with its keys, when `is_open`; `answer` stands for anything else."""

    def __init__(self, *kids: str) -> None:
        self.kids = list(kids)
        self.answer: bytes | Exception | None = None
        self.num_fetches = 0
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def fetch(self, url: str) -> bytes:
        assert url == "https://i/jwks"
        self.num_fetches += 1
        answer = self.answer or jwks(
            *(public_jwk(private_key(ALGORITHM), kid=k) for k in self.kids)
        )
        await self.is_open.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def opened(
    fake: FakeIssuer, *, allowance: Allowance | None = None, **settings: Any
) -> AsyncIterator[JwksCache]:
    issuer = Issuer(
        issuer="i", audience=("a",), algorithms=(ALGORITHM,), jwks_url="https://i/jwks", **settings
    )
    cache = JwksCache(issuer, fetch=fake.fetch, allowance=allowance)
    cache.open()
    try:
        yield cache
    finally:
        await cache.close()


async def kid_of(cache: JwksCache, kid: str) -> str | None:
    key = await cache.find(kid, ALGORITHM)
    return None if key is None else key.kid


async def test_keys_are_fetched_once_for_all_who_ask_at_first() -> None:
    fake = FakeIssuer("a")
    fake.is_open.clear()
    async with opened(fake) as cache:
        asking = asyncio.gather(*(kid_of(cache, "a") for _ in range(50)))
        await asyncio.sleep(0.01)
        fake.is_open.set()
        assert await asking == ["a"] * 50
        assert await kid_of(cache, "a") == "a"
    assert fake.num_fetches == 1


async def test_a_freshly_rotated_key_is_taken_at_once() -> None:
    fake = FakeIssuer("a")
    async with opened(fake) as cache:
        assert await kid_of(cache, "a") == "a"
        fake.kids = ["a", "b"]
        assert await kid_of(cache, "b") == "b"
        fake.kids = ["c"]
        assert await kid_of(cache, "c") == "c"
        assert await cache.find("a", ALGORITHM) is None, "it is withdrawn"


async def test_a_key_that_came_while_the_keys_were_fetched_is_taken_too() -> None:
    fake = FakeIssuer("a")
    fake.is_open.clear()
    async with opened(fake) as cache:
        await asyncio.sleep(0)
        asking = asyncio.create_task(kid_of(cache, "b"))
        await asyncio.sleep(0.01)  # the first fetch has its answer, which has no b
        fake.kids = ["a", "b"]
        fake.is_open.set()
        assert await asking == "b"
    assert fake.num_fetches == 2


async def test_a_flood_of_unknown_keys_costs_a_few_fetches() -> None:
    fake = FakeIssuer("a")
    async with opened(fake, allowance=Allowance(maximum=3, every_s=60)) as cache:
        await kid_of(cache, "a")
        assert [await kid_of(cache, str(i)) for i in range(50)] == [None] * 50
        assert await asyncio.gather(*(kid_of(cache, str(i)) for i in range(500))) == [None] * 500
        assert fake.num_fetches <= 1 + 3
        assert await kid_of(cache, "a") == "a"


async def test_after_a_flood_a_new_key_is_taken_soon() -> None:
    fake = FakeIssuer("a")
    async with opened(fake, allowance=Allowance(maximum=3, every_s=0.1)) as cache:
        for i in range(100):
            await kid_of(cache, str(i))
        fake.kids = ["b"]
        until = time.monotonic() + 1
        while await kid_of(cache, "b") is None:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
    assert fake.num_fetches < 20


@pytest.mark.parametrize("bad", [FetchError("down"), b"<html>", b'{"keys": 7}'])
async def test_keys_stay_while_the_issuer_is_away_but_not_for_ever(bad: bytes | Exception) -> None:
    fake = FakeIssuer("a")
    async with opened(fake, refresh_s=0.1, max_staleness_s=0.3) as cache:
        assert await kid_of(cache, "a") == "a"
        fake.answer = bad
        assert await cache.find("b", ALGORITHM) is None
        assert await kid_of(cache, "a") == "a"
        await asyncio.sleep(0.5)
        with pytest.raises(Unavailable):
            await cache.find("a", ALGORITHM)
        fake.answer = None
        await asyncio.sleep(0.2)
        assert await kid_of(cache, "a") == "a"


async def test_an_issuer_that_never_answered_is_tried_again_by_itself() -> None:
    fake = FakeIssuer("a")
    fake.answer = FetchError("down")
    none = Allowance(maximum=0)
    async with opened(fake, allowance=none, refresh_s=0.1) as cache:
        with pytest.raises(Unavailable):
            await cache.find("a", ALGORITHM)
        fake.answer = None
        await asyncio.sleep(0.2)
        assert await kid_of(cache, "a") == "a"


async def test_keys_are_fetched_anew_in_the_background() -> None:
    fake = FakeIssuer("a")
    async with opened(fake, refresh_s=0.1, allowance=Allowance(maximum=0)) as cache:
        assert await kid_of(cache, "a") == "a"
        fake.kids = []  # all are withdrawn
        await asyncio.sleep(0.15)
        assert fake.num_fetches == 2
        assert await cache.find("a", ALGORITHM) is None


async def test_one_who_stops_waiting_leaves_the_fetch_to_the_others() -> None:
    fake = FakeIssuer("a")
    fake.is_open.clear()
    async with opened(fake) as cache:
        leaving, staying = (asyncio.create_task(kid_of(cache, "a")) for _ in range(2))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.sleep(0.01)
        fake.is_open.set()
        assert await staying == "a"
    assert fake.num_fetches == 1
