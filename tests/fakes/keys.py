"""API keys in a server's database, as `inflight keys create` makes them beside it."""

from __future__ import annotations

import asyncio

from frontend.limits.buckets import LimitSet
from frontend.settings import Settings
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database


def make_key_of(settings: Settings, limits: LimitSet) -> tuple[ApiKey, str]:
    """A key that the server of these settings takes, and its secret; for where no loop runs."""
    return asyncio.run(make_key(settings, limits))


async def make_key(settings: Settings, limits: LimitSet) -> tuple[ApiKey, str]:
    database = await Database.open(settings.database_address)
    try:
        return await ApiKeyStore(database).create(ApiKey(id="", name="hot", limits=limits))
    finally:
        await database.close()
