"""What tokens can make us ask of an issuer: a real process counts who comes.

How the application lives with one that stalls, lies and dies: test_jwt_serving.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from frontend.access import jwks
from frontend.access.issuers import Defaults, Issuer
from frontend.access.jwks import Allowance, JwksCache
from frontend.access.tokens import CredentialRefused, TokenVerifier
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
