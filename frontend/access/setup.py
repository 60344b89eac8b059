"""A worker's authenticator, made as the settings say."""

from __future__ import annotations

from contextlib import AsyncExitStack

from frontend.access.authenticator import Authenticator
from frontend.access.issuers import Issuer, load_issuers
from frontend.access.jwks import JwksCache
from frontend.access.key_cache import KeyCache
from frontend.access.tokens import TokenVerifier
from frontend.access.verification_keys import KeySource, read_key_file
from frontend.settings import Settings
from frontend.store.api_keys import ApiKeyStore


def open_authenticator(
    settings: Settings, keys: ApiKeyStore, opened: AsyncExitStack
) -> Authenticator:
    """Begin to keep keys; they are let go of when `opened` ends.

    Raises:
        SettingsError: the file of issuers cannot be used.
    """
    cache = KeyCache(keys)
    cache.open()
    opened.push_async_callback(cache.close)
    if settings.jwt_issuers is None:
        return Authenticator(cache)
    issuers = load_issuers(settings.jwt_issuers)
    return Authenticator(
        cache, TokenVerifier([(issuer, _source(issuer, opened)) for issuer in issuers])
    )


def check_issuers(settings: Settings) -> None:
    """
    Raises:
        SettingsError: the file of issuers, or a key that it names, cannot be used.
    """
    if settings.jwt_issuers is not None:
        for issuer in load_issuers(settings.jwt_issuers):
            if issuer.jwks_url is None:
                read_key_file(issuer)


def _source(issuer: Issuer, opened: AsyncExitStack) -> KeySource:
    if issuer.jwks_url is None:
        return read_key_file(issuer)
    cache = JwksCache(issuer)
    cache.open()
    opened.push_async_callback(cache.close)
    return cache
