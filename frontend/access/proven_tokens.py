"""The JWTs that one worker has verified, kept as long as verifying them again would do the same.

Knows only what was proven: whatever is not, or not any more, is to be verified (and refused) by the
verifier itself. Nothing but true tokens is kept, so nobody but an issuer can fill it.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from frontend.access.identity import Identity
from frontend.access.verification_keys import KeySource, VerificationKey

MAX_KEPT = 10_000  # tokens: some 10 MB


@dataclass(frozen=True, slots=True)
class Proven:
    identity: Identity
    expires_at: float  # Unix seconds
    source: KeySource
    keys: Sequence[VerificationKey]  # those of the source when it was verified


class ProvenTokens:
    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._kept: OrderedDict[bytes, Proven] = OrderedDict()  # the last used comes last

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, token: str) -> Identity | None:
        """None: not proven, not valid any more, or the issuer's keys are others or unknown now."""
        digest = _digest(token)
        found = self._kept.get(digest)
        if found is None:
            return None
        if found.expires_at <= time.time() or found.source.current is not found.keys:
            del self._kept[digest]
            return None
        self._kept.move_to_end(digest)
        return found.identity

    def keep(self, token: str, identity: Identity, source: KeySource) -> None:
        """To be called as soon as it is verified with the keys that the source has now."""
        keys = source.current
        if keys is None or identity.expires_at is None:
            return
        self._kept[_digest(token)] = Proven(identity, identity.expires_at, source, keys)
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)


def _digest(token: str) -> bytes:
    """Of the whole token, signature and all; it is no secret, other than the token."""
    return hashlib.sha256(token.encode()).digest()
