"""API keys as texts: how they are made, recognized, shown and hashed.

256 random bits cannot be guessed, so a plain SHA-256 keeps them: slow hashes are for passwords.
"""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "sk-"
NUM_BYTES = 32
NUM_SHOWN = 8  # characters of a key that may be shown: 30 of its 256 bits
_KEY = re.compile(r"sk-[A-Za-z0-9_-]{43}")


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(NUM_BYTES)


def new_key_id() -> str:
    return f"key_{secrets.token_hex(8)}"


def is_secret(text: str) -> bool:
    """Whether it looks like a key at all; what does not costs no look into the database."""
    return _KEY.fullmatch(text) is not None


def hash_of(secret: str) -> bytes:
    """32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


def shown(secret: str) -> str:
    """By what a person recognizes a key."""
    return secret[:NUM_SHOWN]
