"""RFC 8725's attacks, and what PyJWT would let pass."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.access.identity import DEFAULT_SCOPES, Identity, Scope
from frontend.access.issuers import ClaimNames, Defaults, Issuer
from frontend.access.tokens import (
    MAX_TOKEN_BYTES,
    CredentialRefused,
    TokenVerifier,
    is_token,
    read_claims,
)
from frontend.access.verification_keys import FixedKeys, VerificationKey, read_jwks
from frontend.limits.buckets import LimitSet
from tests.unit.frontend.access.issuer_keys import (
    AUDIENCE,
    ISSUER,
    encoded,
    good_claims,
    jwks,
    mac_signed,
    private_key,
    public_jwk,
    public_pem,
    raw_signed,
    raw_token,
    rsa_key,
    signed,
)

SETTINGS: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": (AUDIENCE, "other"),
    "algorithms": ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"),
    "jwks_url": "https://login.example.com/jwks",
    "defaults": Defaults(tenant="t"),
}
KINDS = ("RS256", "ES256", "ES384", "ES512", "EdDSA")


def issuer(**changes: Any) -> Issuer:
    return Issuer(**{**SETTINGS, **changes})


class CountingKeys(FixedKeys):
    """Keys of all kinds, and how often one was asked for."""

    def __init__(self) -> None:
        jwk = [public_jwk(private_key(kind), kid=kind) for kind in KINDS]
        super().__init__(read_jwks(jwks(*jwk, public_jwk(private_key("RS256"), kid="k1"))))
        self.num_asked = 0

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        self.num_asked += 1
        return await super().find(kid, algorithm)


def verifier(keys: CountingKeys | None = None, **changes: Any) -> TokenVerifier:
    return TokenVerifier([(issuer(**changes), keys or CountingKeys())])


def token(kid: str = "k1", **claims: Any) -> str:
    return signed(private_key("RS256"), header={"kid": kid}, **claims)


async def refusal(text: str, **changes: Any) -> str:
    """Why it is refused, by a verifier that has met it and that remembers a good token, too."""
    one = verifier(**changes)
    with suppress(CredentialRefused):  # it may not be good where something is changed
        await one.identify(token())
    reasons = set()
    for _ in range(2):
        with pytest.raises(CredentialRefused) as refused:
            await one.identify(text)
        reasons.add(str(refused.value))
    (reason,) = reasons
    return reason


@pytest.mark.parametrize("kind", [*KINDS, "PS256"])
async def test_each_algorithm_verifies_with_its_own_key(kind: str) -> None:
    kid = "RS256" if kind == "PS256" else kind
    text = signed(private_key(kid), kind, header={"kid": kid})
    assert is_token(text)
    identity = await verifier().identify(text)
    assert (identity.tenant, identity.subject, identity.issuer) == ("t", "u1", ISSUER)
    assert identity.key_id is None
    assert identity.expires_at == pytest.approx(time.time() + 630, abs=5)
    with pytest.raises(CredentialRefused, match="InvalidSignatureError"):
        await verifier().identify(text[:-8] + ("AAAAAAAA" if text[-8:] != "AAAAAAAA" else "B" * 8))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
async def test_an_unsigned_token_proves_nothing(name: str) -> None:
    header = json.dumps({"alg": name, "typ": "at+jwt", "kid": "k1"}).encode()
    text = raw_token(header, json.dumps(good_claims()).encode())
    assert await refusal(text) == "algorithm not allowed"


async def test_a_public_key_is_no_shared_secret() -> None:
    """HS256 signed with the text of the RSA public key, which everybody has."""
    key = private_key("RS256")
    secrets = [public_pem(key), public_pem(key).strip(), json.dumps(public_jwk(key)).encode()]
    for secret in secrets:
        assert await refusal(mac_signed(secret, header={})) == "algorithm not allowed"
        # not even where somebody has allowed it beside: the key has its own algorithms
        both = SETTINGS["algorithms"] + ("HS256",)
        assert await refusal(mac_signed(secret, header={}), algorithms=both) == "unknown key id"


async def test_a_key_verifies_with_its_algorithms_only() -> None:
    only = read_jwks(jwks(public_jwk(private_key("RS256"), kid="k1", alg="PS256")))
    one = TokenVerifier([(issuer(), FixedKeys(only))])
    with pytest.raises(CredentialRefused, match="unknown key id"):
        await one.identify(token())
    good = signed(private_key("RS256"), "PS256")
    assert (await one.identify(good)).subject == "u1"


async def test_an_algorithm_that_the_issuer_does_not_use_is_refused() -> None:
    assert await refusal(token(), algorithms=("ES256",)) == "algorithm not allowed"


@pytest.mark.parametrize(
    "kid",
    ["../../../../dev/null", "' OR '1'='1", "k1\0", "k1 ", "K1", "", "https://evil.example/jwks"],
)
async def test_a_key_id_is_a_name_and_nothing_else(kid: str) -> None:
    assert await refusal(token(kid)) == "unknown key id"


@pytest.mark.parametrize("kid", [1, ["k1"], {"k1": 1}, True, "k" * 257])
async def test_a_key_id_that_is_no_short_text_is_refused(kid: object) -> None:
    text = raw_signed({"kid": kid}, json.dumps(good_claims()).encode(), private_key("RS256"))
    assert await refusal(text) == "malformed key id"


async def test_a_token_may_leave_the_key_out_where_there_is_one() -> None:
    key = private_key("ES256")
    text = signed(key, "ES256", header={"kid": None})
    assert (await verifier().identify(text)).subject == "u1"
    rs = signed(private_key("RS256"), header={"kid": None})
    assert await refusal(rs) == "unknown key id", "two of the set fit"


async def test_keys_that_a_token_brings_are_not_looked_at() -> None:
    theirs = private_key("RS256", 1)
    places = {
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/cert",
        "jwk": public_jwk(theirs, kid="k1"),
        "x5c": ["MIIB"],
    }
    for name, value in places.items():
        assert await refusal(signed(theirs, header={name: value})) == "InvalidSignatureError"


@pytest.mark.parametrize("typ", ["JWT", "logout+jwt", "", None, "id+jwt", "at+jwt;x=1"])
async def test_a_token_of_another_type_is_refused(typ: str | None) -> None:
    assert await refusal(signed(private_key("RS256"), header={"typ": typ})) == "wrong type"


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
async def test_types_are_compared_as_media_types(typ: str) -> None:
    assert await verifier().identify(signed(private_key("RS256"), header={"typ": typ}))


async def test_an_issuer_may_have_other_types_or_none() -> None:
    text = signed(private_key("RS256"), header={"typ": "JWT"})
    assert await verifier(types=("JWT",)).identify(text)
    # PyJWT would write JWT where it is left out
    head = json.dumps({"alg": "RS256", "kid": "k1"}).encode()
    payload = json.dumps(good_claims()).encode()
    assert await refusal(raw_token(head, payload, b"x"), types=("JWT",)) == "wrong type"
    assert await refusal(raw_token(head, payload, b"x"), types=("",)) == "InvalidSignatureError"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": None}, "MissingRequiredClaimError"),
        ({"aud": "somebody else"}, "InvalidAudienceError"),
        ({"aud": ["a", "b"]}, "InvalidAudienceError"),
        ({"aud": []}, "MissingRequiredClaimError"),
        ({"aud": {"inflight": 1}}, "InvalidAudienceError"),
        ({"exp": None}, "MissingRequiredClaimError"),
        ({"exp": time.time() - 31}, "ExpiredSignatureError"),
        ({"exp": "9999999999"}, "exp is no number"),
        ({"exp": True}, "exp is no number"),
        ({"exp": [1]}, "exp is no number"),
        ({"exp": -1}, "exp is no time"),
        ({"exp": 10**400}, "exp is no time"),
        ({"nbf": time.time() + 120}, "ImmatureSignatureError"),
        ({"nbf": "0"}, "nbf is no number"),
        ({"iat": time.time() + 120}, "ImmatureSignatureError"),
        ({"iss": None}, "no iss"),
        ({"iss": "https://evil.example/"}, "unknown issuer"),
        ({"iss": ISSUER.rstrip("/")}, "unknown issuer"),
        ({"sub": 5}, "InvalidSubjectError"),
    ],
)
async def test_claims_that_are_wrong_or_missing(claims: dict[str, Any], reason: str) -> None:
    payload = json.dumps(good_claims(**claims)).encode()
    assert await refusal(raw_signed({}, payload, private_key("RS256"))) == reason


async def test_an_issuer_that_is_a_list_is_refused() -> None:
    payload = json.dumps(good_claims(iss=[ISSUER])).encode()
    assert await refusal(raw_signed({}, payload, private_key("RS256"))) == "no iss"


async def test_the_leeway_is_the_one_that_is_set() -> None:
    late = time.time() - 20
    assert await verifier().identify(token(exp=late))
    assert await refusal(token(exp=late), leeway_s=10.0) == "ExpiredSignatureError"
    early = time.time() + 20
    assert await verifier().identify(token(nbf=early, iat=early))
    assert await refusal(token(nbf=early), leeway_s=10.0) == "ImmatureSignatureError"


async def test_any_one_of_the_audiences_will_do() -> None:
    assert await verifier().identify(token(aud=["somebody", "other"]))


@pytest.mark.parametrize("bits", [1024, 1536])
async def test_a_weak_key_verifies_nothing(bits: int) -> None:
    weak = rsa_key(bits)
    keys = FixedKeys(read_jwks(jwks(public_jwk(weak, kid="k1"))))
    payload = json.dumps(good_claims()).encode()
    with pytest.raises(CredentialRefused, match="unknown key id"):
        await TokenVerifier([(issuer(), keys)]).identify(raw_signed({}, payload, weak))


async def test_one_issuer_does_not_speak_for_another() -> None:
    other = issuer(issuer="https://other.example/")
    theirs = private_key("RS256", 1)
    their_keys = FixedKeys(read_jwks(jwks(public_jwk(theirs, kid="k1"))))
    both = TokenVerifier([(issuer(), CountingKeys()), (other, their_keys)])
    assert (await both.identify(signed(theirs, iss=other.issuer))).issuer == other.issuer
    with pytest.raises(CredentialRefused, match="InvalidSignatureError"):
        await both.identify(signed(theirs, iss=ISSUER))


async def test_a_token_that_is_too_long_is_not_read() -> None:
    keys = CountingKeys()
    with pytest.raises(CredentialRefused, match="token too long"):
        await verifier(keys).identify(token(padding="x" * MAX_TOKEN_BYTES))
    assert keys.num_asked == 0
    assert await verifier(keys).identify(token(padding="x" * 8000))


@pytest.mark.parametrize(
    "claims",
    [
        '"aud":"inflight","exp":9999999999,"sub":"a","sub":"b"',
        '"iss":"https://evil.example/","aud":"inflight","exp":9999999999',
        '"aud":"inflight","exp":1,"exp":9999999999',
        '"aud":"inflight","exp":9999999999,"a":{"b":1,"b":2}',
    ],
)
async def test_what_stands_there_twice_is_refused(claims: str) -> None:
    payload = f'{{"iss":"{ISSUER}",{claims}}}'.encode()
    assert await refusal(raw_signed({}, payload, private_key("RS256"))) == "duplicate claim"


async def test_a_header_with_two_algorithms_is_refused() -> None:
    header = b'{"alg":"none","alg":"RS256","typ":"at+jwt","kid":"k1"}'
    text = raw_token(header, json.dumps(good_claims()).encode(), b"x")
    assert await refusal(text) == "duplicate claim"


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], "b64"])
async def test_no_critical_extension_is_understood(crit: object) -> None:
    text = raw_signed(
        {"crit": crit, "b64": True}, json.dumps(good_claims()).encode(), private_key("RS256")
    )
    assert await refusal(text) == "critical extension"


@pytest.mark.parametrize(
    "text",
    [
        "a.b",
        "a.b.c.d",
        "..",
        "a.b.c",
        "é.é.é",
        raw_token(b"[]", b"{}"),
        raw_token(b"{}", b"[]"),
        raw_token(b'{"alg":NaN}', b"{}"),
        raw_token(b"[" * 5000, b"{}"),
        raw_token(b"\xff\xfe", b"{}"),
        f"{encoded(b'{}')}.%%%.",
    ],
)
async def test_what_is_no_token_is_refused(text: str) -> None:
    assert await refusal(text)


async def test_nothing_is_asked_for_a_token_that_proves_nothing_anyway() -> None:
    keys = CountingKeys()
    for text in (token(exp=5), token(iss="https://x/"), signed(private_key("RS256"), "RS384")):
        with pytest.raises(CredentialRefused):
            await verifier(keys).identify(text)
    assert keys.num_asked == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    changes=st.dictionaries(st.sampled_from(["iss", "aud", "exp", "nbf", "sub", "jti", "t"]), JSON)
)
async def test_whatever_claims_say_it_is_a_plain_refusal(changes: dict[str, Any]) -> None:
    payload = json.dumps({**good_claims(), **changes}).encode()
    one = verifier(claims=ClaimNames(tenant="t", models="t", scopes="t", limits="t"))
    with suppress(CredentialRefused):
        await one.identify(raw_signed({}, payload, private_key("RS256")))


@given(text=st.text(max_size=60) | st.from_regex(r"[\w-]{0,20}\.[\w-]{0,20}\.[\w-]{0,20}"))
async def test_whatever_is_sent_it_is_a_plain_refusal(text: str) -> None:
    with pytest.raises(CredentialRefused):
        await verifier().identify(text)


def granted(given: dict[str, Any], **changes: Any) -> Identity:
    return read_claims(good_claims(**given), issuer(**changes))


MAPPED: dict[str, Any] = {
    "claims": ClaimNames("org.id", "https://inflight.example/models", "scope", "inflight.limits"),
    "scope_names": {"llm.use": Scope.INFERENCE, "llm.rule": Scope.ADMIN},
    "defaults": Defaults(),
}


def test_claims_become_what_is_granted() -> None:
    claims = {
        "org": {"id": "lab"},
        "https://inflight.example/models": ["gemma-*"],
        "scope": "openid llm.use other",
        "inflight": {"limits": {"tokens_per_minute": 100}},
    }
    identity = granted(claims, **MAPPED)
    assert (identity.tenant, identity.models) == ("lab", ("gemma-*",))
    assert identity.scopes == {Scope.INFERENCE}
    assert identity.limits == LimitSet(tokens_per_minute=100)


def test_what_a_claim_is_named_for_is_not_granted_without_it() -> None:
    identity = granted({"org": {"id": "lab"}}, **MAPPED)
    assert (identity.models, identity.scopes, identity.limits) == ((), frozenset(), None)
    assert not identity.may_use("gemma-2b")


def test_defaults_stand_in_for_what_is_missing() -> None:
    limits = LimitSet(requests_per_minute=1)
    defaults = Defaults("guests", ("tiny",), (Scope.INFERENCE,), limits)
    identity = granted({}, **{**MAPPED, "defaults": defaults})
    assert (identity.tenant, identity.models) == ("guests", ("tiny",))
    assert (identity.scopes, identity.limits) == (frozenset({Scope.INFERENCE}), limits)


def test_without_names_a_token_has_what_a_new_key_has() -> None:
    identity = granted({})
    assert (identity.models, identity.scopes) == (("*",), DEFAULT_SCOPES)


def test_scopes_by_their_own_names_make_no_administrator() -> None:
    names = {"claims": ClaimNames(scopes="scope")}
    identity = granted({"scope": ["inference", "admin", "models:write"]}, **names)
    assert identity.scopes == {Scope.INFERENCE, Scope.MODELS_WRITE}
    assert granted({"org": {"id": "x"}, "scope": "llm.rule"}, **MAPPED).is_admin


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, "no tenant"),
        ({"org": {"id": 5}}, "no tenant"),
        ({"org": {"id": ""}}, "no tenant"),
        ({"org": "lab"}, "no tenant"),
        ({"org": {"id": "a\0"}}, "malformed tenant"),
        ({"org": {"id": "a\ud800"}}, "malformed tenant"),
        ({"org": {"id": "a\x1b[2J"}}, "malformed tenant"),
        ({"org": {"id": "x" * 257}}, "malformed tenant"),
        ({"org": {"id": "x"}, "sub": "x" * 257}, "malformed subject"),
        ({"org": {"id": "x"}, "sub": "a\nb"}, "malformed subject"),
        ({"org": {"id": "x"}, "scope": 5}, "malformed claim"),
        ({"org": {"id": "x"}, "scope": [5]}, "malformed claim"),
        ({"org": {"id": "x"}, "inflight": {"limits": 5}}, "malformed limits"),
        ({"org": {"id": "x"}, "inflight": {"limits": {"tpm": 5}}}, "malformed limits"),
        ({"org": {"id": "x"}, "inflight": {"limits": {"tokens_per_day": 0}}}, "malformed limits"),
    ],
)
def test_malformed_claims_grant_nothing(claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(CredentialRefused, match=reason):
        granted(claims, **MAPPED)
