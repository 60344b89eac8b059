"""JWTs: verified as RFC 8725 asks, and their claims read as the issuer's settings say.

PyJWT verifies signatures and registered claims; what it leaves open is decided here: which issuer
and which algorithms, types, sizes, and claims that stand there twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jwt
import msgspec
from jwt.utils import base64url_decode

from frontend.access.identity import DEFAULT_SCOPES, EVERY_MODEL, Identity, Scope
from frontend.access.issuers import Issuer
from frontend.access.names import is_name
from frontend.access.proven_tokens import ProvenTokens
from frontend.access.verification_keys import KeySource
from frontend.limits.buckets import LimitSet

MAX_TOKEN_BYTES = 16 * 2**10
MAX_KID_LENGTH = 256
MAX_TIME_S = 1e12  # Unix seconds: the year 33658
_REQUIRED = ["iss", "aud", "exp"]
_TIMES = ("exp", "nbf", "iat")
_verifier = jwt.PyJWT({"enforce_minimum_key_length": True})


class CredentialRefused(Exception):
    """Why, for the log; the client is told nothing of it. Has no part of the credential."""


def is_token(credential: str) -> bool:
    return credential.count(".") == 2


class TokenVerifier:
    def __init__(self, issuers: Sequence[tuple[Issuer, KeySource]]) -> None:
        self._issuers = {issuer.issuer: (issuer, keys) for issuer, keys in issuers}
        self._proven = ProvenTokens()

    async def identify(self, token: str) -> Identity:
        """Whose token it is.

        Raises:
            CredentialRefused: it proves nothing.
            Unavailable: the issuer's keys are not known now.
        """
        if len(token) > MAX_TOKEN_BYTES:
            _refuse("token too long")
        if not token.isascii() or not is_token(token):
            _refuse("malformed token")
        return self._proven.find(token) or await self._verify(token)

    async def _verify(self, token: str) -> Identity:
        header, claims = (_parse(segment) for segment in token.split(".")[:2])
        known = self._issuers.get(_text(claims, "iss"))
        if known is None:
            _refuse("unknown issuer")
        issuer, keys = known
        algorithm = _check_header(header, issuer)
        _check_times(claims, issuer)  # before its key is asked for anywhere
        key = await keys.find(_kid(header), algorithm)
        if key is None:
            _refuse("unknown key id")
        try:
            verified = _verifier.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=list(issuer.audience),
                issuer=issuer.issuer,
                leeway=issuer.leeway_s,
                options={"require": _REQUIRED},
            )
        except jwt.PyJWTError as exc:
            raise CredentialRefused(type(exc).__name__) from exc
        identity = read_claims(verified, issuer)
        self._proven.keep(token, identity, keys)
        return identity


def read_claims(claims: Mapping[str, Any], issuer: Issuer) -> Identity:
    """What the claims of a verified token grant.

    Raises:
        CredentialRefused: one of them is not as it should be, or no tenant is named: who signs may
            have let a user choose what stands there.
    """
    names, defaults = issuer.claims, issuer.defaults
    tenant = _claim(claims, names.tenant) or defaults.tenant
    if not isinstance(tenant, str):
        _refuse("no tenant")
    if not is_name(tenant):
        _refuse("malformed tenant")
    subject = claims.get("sub")
    if subject is not None and not is_name(subject):
        _refuse("malformed subject")
    models = _texts(_claim(claims, names.models))
    if models is None:
        models = defaults.models
    if models is None:
        models = () if names.models else EVERY_MODEL
    limits = _claim(claims, names.limits)
    try:
        own_limits = defaults.limits if limits is None else msgspec.convert(limits, LimitSet)
    except msgspec.ValidationError:
        _refuse("malformed limits")
    return Identity(
        tenant=tenant,
        subject=subject,
        issuer=issuer.issuer,
        scopes=_scopes(claims, issuer),
        models=models,
        limits=own_limits,
        expires_at=int(claims["exp"]) + issuer.leeway_s,  # whole seconds, as PyJWT reads it
    )


def _scopes(claims: Mapping[str, Any], issuer: Issuer) -> frozenset[Scope]:
    named = _texts(_claim(claims, issuer.claims.scopes))
    if named is None:
        default = issuer.defaults.scopes
        if default is not None:
            return frozenset(default)
        return frozenset() if issuer.claims.scopes else DEFAULT_SCOPES
    ours: Mapping[str, Scope] = {scope.value: scope for scope in Scope if scope is not Scope.ADMIN}
    if issuer.scope_names is not None:
        ours = issuer.scope_names
    return frozenset(ours[name] for name in named if name in ours)


def _claim(claims: Mapping[str, Any], path: str | None) -> Any:
    """A claim by its name, or by the names on the way to it; None: it is not there."""
    if path is None:
        return None
    if path in claims:  # names may have dots: https://example.com/tenant
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _texts(claim: object) -> tuple[str, ...] | None:
    """A list of texts, or one with blanks between them (RFC 8693, section 4.2)."""
    if claim is None:
        return None
    if isinstance(claim, str):
        return tuple(claim.split())
    if isinstance(claim, list) and all(isinstance(one, str) for one in claim):
        return tuple(claim)
    _refuse("malformed claim")


def _check_header(header: Mapping[str, Any], issuer: Issuer) -> str:
    """The token's algorithm, which is one of the issuer's."""
    if "crit" in header:
        _refuse("critical extension")
    algorithm = _text(header, "alg")
    if algorithm not in issuer.algorithms:
        _refuse("algorithm not allowed")
    if _type(header.get("typ", "")) not in {_type(one) for one in issuer.types}:
        _refuse("wrong type")
    return algorithm


def _type(typ: object) -> str:
    """Media types are the same in any letters, and `application/` may be left out (RFC 7515)."""
    return str(typ).lower().removeprefix("application/")


def _check_times(claims: Mapping[str, Any], issuer: Issuer) -> None:
    for name in _TIMES:
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            _refuse(f"{name} is no number")
        if not 0 <= value < MAX_TIME_S:
            _refuse(f"{name} is no time")
    if claims.get("exp", MAX_TIME_S) <= time.time() - issuer.leeway_s:
        _refuse("ExpiredSignatureError")


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        _refuse("malformed key id")
    return kid


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        _refuse(f"no {name}")
    return value


def _parse(segment: str) -> dict[str, Any]:
    """A JSON object in which no name stands twice: others might read another one of them."""
    try:
        parsed = json.loads(
            base64url_decode(segment),
            object_pairs_hook=_without_doubles,
            parse_constant=lambda name: _refuse(f"{name} is no JSON"),
        )
    except (ValueError, RecursionError) as exc:
        raise CredentialRefused("malformed token") from exc
    if not isinstance(parsed, dict):
        _refuse("malformed token")
    return parsed


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _refuse("duplicate claim")
    return found


def _refuse(reason: str) -> NoReturn:
    raise CredentialRefused(reason)
