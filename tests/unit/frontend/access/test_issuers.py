"""The file of issuers, and the keys that it names."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from frontend.access.identity import Scope
from frontend.access.issuers import Issuer, load_issuers
from frontend.access.verification_keys import (
    MAX_KEYS,
    KeySetError,
    pick,
    read_jwks,
    read_key_file,
)
from frontend.settings import SettingsError
from tests.unit.frontend.access.issuer_keys import (
    jwks,
    private_key,
    public_jwk,
    public_pem,
    rsa_key,
)

GOOD = """
[[issuers]]
issuer = "https://login.example.com/"
audience = ["inflight"]
algorithms = ["RS256"]
jwks_url = "https://login.example.com/jwks"
[issuers.claims]
tenant = "org.id"
[issuers.scope_names]
"llm.use" = "inference"
"""


def issuer(**changes: Any) -> Issuer:
    given: dict[str, Any] = {"issuer": "i", "audience": ("a",), "algorithms": ("RS256",)}
    return Issuer(**{**given, **changes})


def test_an_issuer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "issuers.toml"
    path.write_text(GOOD)
    (one,) = load_issuers(path)
    assert (one.issuer, one.audience, one.types) == (
        "https://login.example.com/", ("inflight",), ("at+jwt",),
    )  # fmt: skip
    assert one.claims.tenant == "org.id"
    assert one.scope_names == {"llm.use": Scope.INFERENCE}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[[issuers]]", "[[issuer]]", "issuer"),
        ("audience", "audiences", "audience"),
        ('["inflight"]', "[]", "audience"),
        ('["RS256"]', "[]", "algorithms"),
        ('["RS256"]', '["none"]', "algorithms"),
        ('["RS256"]', '["RS256", "HS256"]', "HS256"),
        ("https://login.example.com/jwks", "http://login.example.com/jwks", "https"),
        ("https://login.example.com/jwks", "file:///etc/keys", "https"),
        ("jwks_url", "key_file = 'x'\njwks_url", "one of"),
        ("jwks_url", "# jwks_url", "one of"),
        ("jwks_url", "hmac_key_file", "RS256"),
        ("jwks_url", "leeway_s = 3000\njwks_url", "leeway_s"),
        ("jwks_url", "refresh_s = 1801\njwks_url", "max_staleness_s"),
        ('tenant = "org.id"', "", "tenant"),
        ('= "inference"', '= "everything"', "everything"),
        ("[issuers.claims]", "[issuers.claims", "issuers.toml"),
        ("", "\ufffe\0", "issuers.toml"),
    ],
)
def test_what_cannot_be_used_stops_the_start(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    path = tmp_path / "issuers.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(SettingsError, match=problem) as failure:
        load_issuers(path)
    assert "\n" not in str(failure.value).strip()


def test_an_issuer_stands_there_once(tmp_path: Path) -> None:
    path = tmp_path / "issuers.toml"
    path.write_text(GOOD + GOOD)
    with pytest.raises(SettingsError, match="twice"):
        load_issuers(path)
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_issuers(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/k", "http://localhost/k", "https://a/k"])
def test_plain_http_is_for_this_machine_only(tmp_path: Path, url: str) -> None:
    path = tmp_path / "issuers.toml"
    path.write_text(GOOD.replace("https://login.example.com/jwks", url))
    assert load_issuers(path)[0].jwks_url == url


async def test_a_key_file_is_a_public_key_or_a_set(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(public_pem(private_key("ES256")))
    pem = await read_key_file(issuer(key_file=str(path))).find("any", "ES256")
    path.write_bytes(jwks(public_jwk(private_key("ES256"), kid="k1")))
    keys = read_key_file(issuer(key_file=str(path)))
    found = await keys.find("k1", "ES256")
    assert pem is not None
    assert found is not None
    assert found.key.public_numbers() == pem.key.public_numbers()
    assert await keys.find("k2", "ES256") is None


@pytest.mark.parametrize(
    ("algorithms", "size", "is_enough"),
    [
        (("HS256",), 31, False),
        (("HS256",), 32, True),
        (("HS256", "HS512"), 63, False),
        (("HS256", "HS512"), 64, True),
    ],
)
async def test_a_shared_secret_is_as_long_as_its_hash(
    tmp_path: Path, algorithms: tuple[str, ...], size: int, is_enough: bool
) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"s" * size + b"\n")
    one = issuer(algorithms=algorithms, hmac_key_file=str(path))
    if is_enough:
        assert await read_key_file(one).find(None, "HS256")
        assert await read_key_file(one).find(None, "RS256") is None
        return
    with pytest.raises(SettingsError, match=f"has {size} bytes") as failure:
        read_key_file(one)
    assert "sss" not in str(failure.value)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"{}", jwks(), public_pem(rsa_key(1024)), b'{"keys": 5}']
)
def test_a_file_without_a_usable_key_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="key"):
        read_key_file(issuer(key_file=str(path)))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [5]}', b'{"keys": null}', b"\xff",
     b"[" * 100_000, jwks(*({"kty": "x"} for _ in range(MAX_KEYS + 1)))],
)  # fmt: skip
def test_garbage_is_no_key_set(content: bytes) -> None:
    with pytest.raises(KeySetError):
        read_jwks(content)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["RSA"]},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": "RSA", "n": "!!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1", "x": "A" * 43, "y": "A" * 43},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        public_jwk(private_key("ES256"), use="enc"),
        public_jwk(private_key("ES256"), key_ops=["encrypt"]),
        public_jwk(private_key("ES256"), key_ops=5),
        public_jwk(private_key("ES256"), kid=5),
        public_jwk(private_key("ES256"), alg=["ES256"]),
        public_jwk(private_key("ES256"), d="c2VjcmV0"),
        public_jwk(rsa_key(1024)),
    ],
)
def test_keys_that_cannot_be_used_leave_the_others_alone(
    jwk: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    good = public_jwk(private_key("ES256"), kid="good")
    assert [key.kid for key in read_jwks(json.dumps({"keys": [jwk, good]}).encode())] == ["good"]
    assert "passed over" in caplog.text
    assert "c2VjcmV0" not in caplog.text


def test_a_key_id_that_is_there_twice_leaves_no_doubt() -> None:
    one, two = private_key("RS256"), private_key("RS256", 1)
    same = read_jwks(jwks(public_jwk(one, kid="k"), public_jwk(two, kid="k")))
    assert pick(same, "k", "RS256") is None
    by_use = [public_jwk(one, kid="k", alg="RS256"), public_jwk(two, kid="k", alg="PS256")]
    found = pick(read_jwks(jwks(*by_use)), "k", "PS256")
    assert found is not None
    assert found.key.public_numbers() == two.public_key().public_numbers()
