"""Whose JWTs are taken: the file that the setting `jwt_issuers` names, checked whole at the start.

[[issuers]]
issuer = "https://login.example.com/"    # their `iss`
audience = ["inflight"]                  # one of these must stand in `aud`
algorithms = ["RS256", "ES256"]
jwks_url = "https://login.example.com/.well-known/jwks.json"
[issuers.claims]                         # where in a token it stands; a.b: b within a
tenant = "org.id"
models = "inflight.models"
scopes = "scope"
[issuers.scope_names]                    # theirs = ours
"llm.use" = "inference"
[issuers.defaults]                       # of tokens without such a claim
tenant = "example"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from frontend.access.identity import Scope
from frontend.limits.buckets import LimitSet
from frontend.settings import SettingsError

# By the key that verifies: a public one, or a secret that the issuer shares with us.
ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
              "EdDSA")  # fmt: skip
HMAC_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # at least: RFC 7518, section 3.2
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
                    "ES512", "EdDSA", "HS256", "HS384", "HS512"]  # fmt: skip
Text = Annotated[str, msgspec.Meta(min_length=1)]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]


class ClaimNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of claims, or paths to them with dots between; None: not in the tokens."""

    tenant: Text | None = None
    models: Text | None = None  # globs: a list, or one text with blanks between
    scopes: Text | None = None  # the same
    limits: Text | None = None  # an object with the fields of `LimitSet`


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token without the claim has. None: what the claim is named for is not granted then,
    without a name it is granted as to a new key.
    """

    tenant: Text | None = None
    models: tuple[Text, ...] | None = None
    scopes: tuple[Scope, ...] | None = None
    limits: LimitSet | None = None


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    issuer: Text
    audience: Texts
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)]
    # where its keys are: one of these
    jwks_url: Text | None = None
    key_file: Text | None = None  # a public key in PEM, or a JWKS
    hmac_key_file: Text | None = None  # the shared secret, for HS256 to HS512 only
    # RFC 9068's; issuers that send none or others ("JWT") have to be known to send no ID tokens
    # for the same audience. "": `typ` is missing.
    types: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("at+jwt",)
    leeway_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 30.0
    refresh_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 300.0
    # how long keys are good that cannot be fetched anew
    max_staleness_s: Annotated[float, msgspec.Meta(ge=1, le=604800)] = 3600.0
    claims: ClaimNames = ClaimNames()
    # Left out: the scopes' own names, but no token is then an administrator's.
    scope_names: Mapping[str, Scope] | None = None
    defaults: Defaults = Defaults()

    def problem(self) -> str | None:
        """What cannot be used of it; None: nothing."""
        sources = (self.jwks_url, self.key_file, self.hmac_key_file)
        if sum(source is not None for source in sources) != 1:
            return "needs one of jwks_url, key_file and hmac_key_file"
        own = tuple(HMAC_KEY_BYTES) if self.hmac_key_file else ASYMMETRIC
        if wrong := [name for name in self.algorithms if name not in own]:
            return f"cannot verify {', '.join(wrong)}: its algorithms are among {', '.join(own)}"
        if self.jwks_url is not None and not _is_safe(self.jwks_url):
            return "jwks_url must be https (http on loopback only)"
        if self.max_staleness_s < 2 * self.refresh_s:
            return "max_staleness_s must be twice refresh_s at least"
        if self.claims.tenant is None and self.defaults.tenant is None:
            return "needs claims.tenant or defaults.tenant"
        return None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    issuers: Annotated[tuple[Issuer, ...], msgspec.Meta(min_length=1)]


def load_issuers(path: Path) -> tuple[Issuer, ...]:
    """
    Raises:
        SettingsError: the file cannot be read or used; with one line that says why.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        issuers = msgspec.convert(table, _File).issuers
    except OSError as exc:
        raise SettingsError(f"jwt_issuers: {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingsError(f"jwt_issuers: {path}: {exc}") from exc
    for issuer in issuers:
        if problem := issuer.problem():
            raise SettingsError(f"jwt_issuers: {path}: {issuer.issuer}: {problem}")
    names = [issuer.issuer for issuer in issuers]
    if len(set(names)) < len(names):
        raise SettingsError(f"jwt_issuers: {path}: an issuer is there twice")
    return issuers


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    )
