"""What an issuer signs with: keys of every kind, made once, and tokens as any JWT library or an
attacker would write them."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://login.example.com/"
AUDIENCE = "inflight"


@functools.cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@functools.cache
def private_key(kind: str, number: int = 0) -> Any:
    """Args: kind: an algorithm; number: of several keys of that kind."""
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    return ed25519.Ed25519PrivateKey.generate() if kind == "EdDSA" else rsa_key(2048, number)


def public_jwk(key: Any, **fields: Any) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return {**RSAAlgorithm.to_jwk(public, as_dict=True), **fields}
    if isinstance(public, ec.EllipticCurvePublicKey):
        return {**ECAlgorithm.to_jwk(public, as_dict=True), **fields}
    return {**OKPAlgorithm.to_jwk(public, as_dict=True), **fields}


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def good_claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; a change to None takes one away."""
    now = int(time.time())
    given = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, "iat": now, "sub": "u1", **changes}
    return {name: value for name, value in given.items() if value is not None}


def signed(
    key: Any, algorithm: str = "RS256", *, header: dict[str, Any] | None = None, **claims: Any
) -> str:
    head = {"typ": "at+jwt", "kid": "k1", **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(good_claims(**claims), key, algorithm=algorithm, headers=head)


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def raw_token(header: bytes, payload: bytes, signature: bytes = b"") -> str:
    return ".".join((encoded(header), encoded(payload), encoded(signature)))


def raw_signed(header: dict[str, Any], payload: bytes, key: rsa.RSAPrivateKey) -> str:
    """Any bytes as claims, with a true RS256 signature."""
    head = json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": "k1", **header}).encode()
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    signature = algorithm.sign(f"{encoded(head)}.{encoded(payload)}".encode(), key)
    return raw_token(head, payload, signature)


def mac_signed(secret: bytes, *, header: dict[str, Any], **claims: Any) -> str:
    """HS256 with any bytes as its secret: PyJWT itself would refuse to use a public key so."""
    head = json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": "k1", **header}).encode()
    payload = json.dumps(good_claims(**claims)).encode()
    text = f"{encoded(head)}.{encoded(payload)}".encode()
    return raw_token(head, payload, hmac.new(secret, text, hashlib.sha256).digest())
