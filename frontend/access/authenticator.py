"""From a request's credential to who asks, whatever kind of credential it is.

One answer for all that proves nothing: who tries keys learns nothing from it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from frontend.access.credential import read_credential
from frontend.access.identity import Identity
from frontend.access.tokens import CredentialRefused, TokenVerifier, is_token
from frontend.errors import AuthenticationFailed

logger = logging.getLogger(__name__)


class KeyRing(Protocol):
    async def identify(self, secret: str) -> Identity | None: ...


class Authenticator:
    """One worker's.

    Args:
        tokens: None: no JWT is taken.
    """

    def __init__(self, keys: KeyRing, tokens: TokenVerifier | None = None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def identify(self, authorization: Sequence[str], api_key: Sequence[str]) -> Identity:
        """Who asks, by the values of these two headers.

        Raises:
            AuthenticationFailed: nobody, or nobody who is known (any more).
            Unavailable: what would tell cannot be reached.
        """
        try:
            return await self._identify(read_credential(authorization, api_key))
        except CredentialRefused as exc:
            logger.info("credential refused", extra={"reason": str(exc)})
            raise AuthenticationFailed from None

    async def _identify(self, credential: str | None) -> Identity:
        if credential is None:
            raise CredentialRefused("none, or several")
        if self._tokens is not None and is_token(credential):
            return await self._tokens.identify(credential)
        identity = await self._keys.identify(credential)
        if identity is None:
            raise CredentialRefused("unknown, revoked or expired key")
        return identity
