"""The keys that JWTs are verified with: read from a JWKS, a PEM file or a shared secret's file.

A key says itself which algorithms it can be used with, so that no token chooses (RFC 8725, 3.1).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from frontend.access.issuers import HMAC_KEY_BYTES, Issuer
from frontend.settings import SettingsError

logger = logging.getLogger(__name__)

MAX_KEYS = 64  # in one set
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # more take milliseconds each time
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_READERS: Mapping[object, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}


class KeySetError(ValueError):
    """What should be a set of keys is none."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    kid: str | None
    algorithms: frozenset[str]
    key: Any  # one of cryptography's public keys; bytes for HS*


class KeySource(Protocol):
    @property
    def current(self) -> Sequence[VerificationKey] | None:
        """The keys that are good now, one object until they change; None: they are not known."""
        ...

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The one key that a token can have been signed with.

        Raises:
            Unavailable: the keys are not known now.
        """
        ...


class FixedKeys:
    """Keys that do not change while the server runs."""

    def __init__(self, keys: Sequence[VerificationKey]) -> None:
        self._keys = tuple(keys)

    @property
    def current(self) -> Sequence[VerificationKey]:
        return self._keys

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        return pick(self._keys, kid, algorithm)


def pick(
    keys: Sequence[VerificationKey], kid: str | None, algorithm: str
) -> VerificationKey | None:
    """The key of that id; a token without one, or a key without one, must leave no choice."""
    fitting = [key for key in keys if algorithm in key.algorithms]
    named = [key for key in fitting if key.kid == kid or None in (key.kid, kid)]
    return named[0] if len(named) == 1 else None


def read_jwks(content: bytes) -> tuple[VerificationKey, ...]:
    """The usable public keys of a JWKS; others are passed over, and the log says why.

    Raises:
        KeySetError: it is no JWKS.
    """
    try:
        keys = msgspec.json.decode(content, type=_KeySet).keys
    except (msgspec.DecodeError, RecursionError) as exc:
        raise KeySetError(f"no JWKS: {exc}") from exc
    if len(keys) > MAX_KEYS:
        raise KeySetError(f"a JWKS with {len(keys)} keys: more than {MAX_KEYS}")
    return tuple(key for key in map(_read_jwk, keys) if key is not None)


def read_key_file(issuer: Issuer) -> FixedKeys:
    """
    Raises:
        SettingsError: with the file's name, and nothing of what is in it.
    """
    name = issuer.hmac_key_file or issuer.key_file
    assert name is not None
    path = Path(name).expanduser()
    try:
        content = path.read_bytes()
        keys = _shared_secret(content, issuer) if issuer.hmac_key_file else _public_keys(content)
    except OSError as exc:
        raise SettingsError(f"jwt_issuers: {issuer.issuer}: {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingsError(f"jwt_issuers: {issuer.issuer}: {path}: {exc}") from exc
    if not keys:
        raise SettingsError(f"jwt_issuers: {issuer.issuer}: {path}: has no usable key")
    return FixedKeys(keys)


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


def _read_jwk(jwk: Mapping[str, Any]) -> VerificationKey | None:
    kid = jwk.get("kid")
    problem = _problem(jwk)
    if problem is None:
        try:
            key = _READERS[jwk["kty"]].from_jwk(dict(jwk))
            algorithms = _algorithms(key)
        except (PyJWTError, ValueError, TypeError, KeyError) as exc:
            problem = repr(exc)
    if problem is None:
        wanted = jwk.get("alg")
        return VerificationKey(kid, algorithms if wanted is None else algorithms & {wanted}, key)
    logger.warning("key of a JWKS passed over", extra={"kid": repr(kid)[:80], "reason": problem})
    return None


def _problem(jwk: Mapping[str, Any]) -> str | None:
    if jwk.get("kty") not in ("RSA", "EC", "OKP"):
        return "not a public key"
    if "d" in jwk:
        return "a private key, which everybody has by now"
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or operations != ["verify"]:
        return "not for verifying signatures"
    if not isinstance(jwk.get("kid", ""), str) or not isinstance(jwk.get("alg", ""), str):
        return "its kid or alg is no text"
    return None


def _algorithms(key: object) -> frozenset[str]:
    """What a public key can verify.

    Raises:
        ValueError: nothing, or it is too weak.
    """
    match key:
        case RSAPublicKey():
            if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                raise ValueError(f"an RSA key of {key.key_size} bits")
            return _RSA
        case EllipticCurvePublicKey() if key.curve.name in _BY_CURVE:
            return frozenset({_BY_CURVE[key.curve.name]})
        case Ed25519PublicKey() | Ed448PublicKey():
            return frozenset({"EdDSA"})
        case _:
            raise ValueError(f"a {type(key).__name__} verifies nothing here")


def _public_keys(content: bytes) -> tuple[VerificationKey, ...]:
    if content.lstrip().startswith(b"{"):
        return read_jwks(content)
    key = load_pem_public_key(content)
    return (VerificationKey(None, _algorithms(key), key),)


def _shared_secret(content: bytes, issuer: Issuer) -> tuple[VerificationKey, ...]:
    secret = content.rstrip(b"\r\n")
    needed = max(HMAC_KEY_BYTES[name] for name in issuer.algorithms)
    if len(secret) < needed:
        raise ValueError(f"the key has {len(secret)} bytes: {needed} are needed at least")
    return (VerificationKey(None, frozenset(issuer.algorithms), secret),)
