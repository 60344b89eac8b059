"""Tokens that are not verified again: as long as that would do the same, and no longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from frontend.access.issuers import Defaults, Issuer
from frontend.access.jwks import Allowance, FetchError, JwksCache
from frontend.access.proven_tokens import ProvenTokens
from frontend.access.tokens import CredentialRefused, TokenVerifier, read_claims
from frontend.access.verification_keys import FixedKeys, VerificationKey, read_jwks
from frontend.errors import Unavailable
from tests.unit.frontend.access.issuer_keys import (
    AUDIENCE,
    ISSUER,
    good_claims,
    jwks,
    private_key,
    public_jwk,
    signed,
)

SETTINGS: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": (AUDIENCE,),
    "algorithms": ("RS256",),
    "jwks_url": "https://login.example.com/jwks",
    "defaults": Defaults(tenant="t"),
}


def jwk(number: int) -> dict[str, Any]:
    return public_jwk(private_key("RS256", number), kid=f"k{number}")


def token(number: int = 0, **claims: Any) -> str:
    return signed(private_key("RS256", number), header={"kid": f"k{number}"}, **claims)


class FakeIssuer:
    """Its JWKS, and how often a token was verified with a key of it."""

    def __init__(self, **settings: Any) -> None:
        self.keys = [jwk(0)]
        self.is_away = False
        self.num_verified = 0
        self.issuer = Issuer(**{**SETTINGS, **settings})
        self.cache = JwksCache(self.issuer, fetch=self.fetch, allowance=Allowance(maximum=0))
        self.verifier = TokenVerifier([(self.issuer, self)])

    async def fetch(self, url: str) -> bytes:
        if self.is_away:
            raise FetchError(url)
        return jwks(*self.keys)

    @property
    def current(self) -> Any:
        return self.cache.current

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        self.num_verified += 1
        return await self.cache.find(kid, algorithm)

    async def refreshed(self) -> None:
        await asyncio.wait([self.cache._begin()])


@pytest.fixture
async def fake() -> AsyncIterator[FakeIssuer]:
    fake = FakeIssuer()
    fake.cache.open()
    yield fake
    await fake.cache.close()


async def test_a_token_is_verified_once(fake: FakeIssuer) -> None:
    text = token()
    first = await fake.verifier.identify(text)
    assert await fake.verifier.identify(text) is first
    assert fake.num_verified == 1
    assert (await fake.verifier.identify(token(sub="u2"))).subject == "u2"
    assert fake.num_verified == 2


async def test_whatever_is_changed_of_a_proven_token_it_proves_nothing(fake: FakeIssuer) -> None:
    text = token()
    header, claims, signature = text.split(".")
    forged = token(1, sub="admin").split(".")
    await fake.verifier.identify(text)
    for parts in (
        (forged[0], claims, signature),
        (header, forged[1], signature),
        (header, claims, forged[2]),
        (header, claims, ""),
        (header, claims, signature[:-2]),
        (header, claims, signature[1:] + signature[0]),
    ):
        with pytest.raises(CredentialRefused):
            await fake.verifier.identify(".".join(parts))


async def test_a_proven_token_expires_with_the_leeway_that_is_set(
    fake: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = token()
    expires_at = (await fake.verifier.identify(text)).expires_at or 0.0
    assert expires_at == pytest.approx(time.time() + 600 + 30, abs=5)
    monkeypatch.setattr(time, "time", lambda: expires_at - 0.01)
    assert await fake.verifier.identify(text)
    assert fake.num_verified == 1
    monkeypatch.setattr(time, "time", lambda: expires_at)
    with pytest.raises(CredentialRefused, match="ExpiredSignatureError"):
        await fake.verifier.identify(text)


async def test_a_part_of_a_second_adds_nothing_as_with_pyjwt(fake: FakeIssuer) -> None:
    exp = int(time.time()) + 600
    assert (await fake.verifier.identify(token(exp=exp + 0.9))).expires_at == exp + 30


async def test_a_key_that_leaves_the_jwks_takes_its_proven_tokens_along(fake: FakeIssuer) -> None:
    fake.keys = [jwk(0), jwk(1)]
    await fake.refreshed()
    old, new = token(0), token(1)
    for text in (old, new):
        await fake.verifier.identify(text)
    fake.keys = [jwk(1)]
    await fake.refreshed()
    with pytest.raises(CredentialRefused, match="unknown key id"):
        await fake.verifier.identify(old)
    assert await fake.verifier.identify(new)


async def test_a_key_that_is_replaced_under_its_id_does_too(fake: FakeIssuer) -> None:
    text = token()
    await fake.verifier.identify(text)
    fake.keys = [public_jwk(private_key("RS256", 1), kid="k0")]
    await fake.refreshed()
    with pytest.raises(CredentialRefused, match="InvalidSignatureError"):
        await fake.verifier.identify(text)


async def test_a_jwks_that_is_fetched_anew_and_is_the_same_ends_nothing(fake: FakeIssuer) -> None:
    text = token()
    await fake.verifier.identify(text)
    await fake.refreshed()
    await fake.verifier.identify(text)
    assert fake.num_verified == 1


async def test_keys_that_are_too_stale_end_what_they_have_proven() -> None:
    fake = FakeIssuer(refresh_s=1.0, max_staleness_s=2.0)
    fake.cache.open()
    text = token()
    await fake.verifier.identify(text)
    fake.is_away = True
    await fake.refreshed()
    assert await fake.verifier.identify(text), "they are good for a while"
    fake.cache._fetched_at -= 2.0
    with pytest.raises(Unavailable):
        await fake.verifier.identify(text)
    fake.is_away = False
    await fake.refreshed()
    assert await fake.verifier.identify(text)
    await fake.cache.close()


async def test_what_is_refused_is_not_kept(fake: FakeIssuer) -> None:
    for text in (token(1), token(aud="other"), token(nbf=time.time() + 900), token(tenant=1)):
        for _ in range(2):
            try:
                await fake.verifier.identify(text)
            except CredentialRefused:
                continue
    assert len(fake.verifier._proven) == 1  # the last is good


def test_so_many_are_kept_those_used_last() -> None:
    source = FixedKeys(read_jwks(jwks(jwk(0))))
    identity = read_claims(good_claims(), Issuer(**SETTINGS))
    proven = ProvenTokens(max_kept=2)
    for text in ("a", "b"):
        proven.keep(text, identity, source)
    assert proven.find("a") is identity
    proven.keep("c", identity, source)
    assert [proven.find(text) for text in "abc"] == [identity, None, identity]
    assert len(proven) == 2
