"""JWTs of a real issuer process whose JWKS rotates, stalls, lies and dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from frontend.access import jwks
from frontend.access.issuers import Defaults, Issuer
from frontend.access.jwks import Allowance, JwksCache
from frontend.access.tokens import CredentialRefused, TokenVerifier
from frontend.errors import Unavailable
from tests.fakes.issuer import IssuerProcess
from tests.unit.frontend.access.issuer_keys import (
    AUDIENCE,
    ISSUER,
    private_key,
    public_jwk,
    signed,
)


@pytest.fixture(scope="module")
def process() -> Iterator[IssuerProcess]:
    with IssuerProcess() as running:
        yield running


@pytest.fixture(autouse=True)
def good_again(process: IssuerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    process.answer("good", jwk(0))
    process.answer("good")
    monkeypatch.setattr(jwks, "TIMEOUT_S", 0.5)


def jwk(number: int) -> dict[str, Any]:
    return public_jwk(private_key("RS256", number), kid=f"k{number}")


def token(number: int = 0) -> str:
    return signed(private_key("RS256", number), header={"kid": f"k{number}"})


@asynccontextmanager
async def opened(process: IssuerProcess, **changes: Any) -> AsyncIterator[TokenVerifier]:
    settings: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": (AUDIENCE,),
        "algorithms": ("RS256",),
        "jwks_url": process.jwks_url,
        "defaults": Defaults(tenant="t"),
    }
    issuer = Issuer(**{**settings, **changes})
    cache = JwksCache(issuer, allowance=Allowance(every_s=60))
    cache.open()
    try:
        yield TokenVerifier([(issuer, cache)])
    finally:
        await cache.close()


class Pulse:
    """The longest time for which the event loop did nothing else."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def beat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.longest_s = max(self.longest_s, time.perf_counter() - before - 0.005)


async def test_a_key_that_the_issuer_rotates_in_is_taken_at_once(process: IssuerProcess) -> None:
    async with opened(process) as verifier:
        assert (await verifier.identify(token())).subject == "u1"
        await asyncio.to_thread(process.answer, "good", jwk(0), jwk(1))
        assert (await verifier.identify(token(1))).subject == "u1"
        assert (await verifier.identify(token())).subject == "u1"


@pytest.mark.parametrize(
    "mode", ["stall", "drip", "garbage", "no http", "huge", "redirect", "error"]
)
async def test_an_issuer_that_does_not_answer_well_holds_up_nobody(
    process: IssuerProcess, mode: str
) -> None:
    async with opened(process, refresh_s=0.3) as verifier:
        assert (await verifier.identify(token())).subject == "u1"
        await asyncio.to_thread(process.answer, mode, jwk(0), jwk(1))
        pulse = Pulse()
        beating = asyncio.create_task(pulse.beat())
        new = asyncio.create_task(verifier.identify(token(1)))
        until = time.monotonic() + 0.8
        slowest_s = 0.0
        while time.monotonic() < until:
            began = time.perf_counter()
            assert (await verifier.identify(token())).subject == "u1"
            slowest_s = max(slowest_s, time.perf_counter() - began)
            await asyncio.sleep(0.01)
        beating.cancel()
        if mode != "redirect":  # which is good again behind it
            with pytest.raises(CredentialRefused, match="unknown key id"):
                await new
        assert slowest_s < 0.25
        assert pulse.longest_s < 0.25
        await asyncio.gather(new, return_exceptions=True)


async def test_a_flood_of_unknown_key_ids_reaches_the_issuer_a_few_times(
    process: IssuerProcess,
) -> None:
    key = private_key("RS256")
    flood = [signed(key, header={"kid": f"unknown-{i}"}) for i in range(200)]
    async with opened(process) as verifier:
        assert await verifier.identify(token())
        answers = await asyncio.gather(*map(verifier.identify, flood), return_exceptions=True)
        assert {str(one) for one in answers} == {"unknown key id"}
    assert await asyncio.to_thread(process.answer, "good") <= 1 + 3


async def test_nobody_else_is_asked_for_keys(process: IssuerProcess) -> None:
    with IssuerProcess() as evil:
        evil.answer("good", public_jwk(private_key("RS256", 1), kid="k0"))
        theirs = private_key("RS256", 1)
        header = {"jku": evil.jwks_url, "x5u": evil.jwks_url, "kid": evil.jwks_url}
        async with opened(process) as verifier:
            for one in (header, {**header, "kid": "k0"}):
                with pytest.raises(CredentialRefused):
                    await verifier.identify(signed(theirs, header=one))
        assert await asyncio.to_thread(evil.answer, "good") == 0


async def test_the_issuer_may_die_and_come_back(process: IssuerProcess) -> None:
    with IssuerProcess() as dying:
        dying.answer("good", jwk(0))
        async with opened(dying, refresh_s=0.1, max_staleness_s=0.6) as verifier:
            assert await verifier.identify(token())
            dying.kill()
            assert await verifier.identify(token()), "its keys are good for a while"
            await asyncio.sleep(0.8)
            with pytest.raises(Unavailable):
                await verifier.identify(token())
            await asyncio.to_thread(dying.start)
            await asyncio.to_thread(dying.answer, "good", jwk(0))
            until = time.monotonic() + 3
            while True:
                try:
                    assert await verifier.identify(token())
                    break
                except Unavailable:
                    assert time.monotonic() < until
                    await asyncio.sleep(0.05)
