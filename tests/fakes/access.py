"""A server that asks for keys: keys are made in its database, and requests sent with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from frontend.access.identity import Scope
from frontend.settings import Settings
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database
from tests.fakes.server import Answer, RawClient, ServerThread


class Keys:
    """Makes keys in a server's database, as `inflight keys` does beside it."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_address

    def make(self, *scopes: Scope, **fields: Any) -> tuple[ApiKey, str]:
        key = ApiKey(id="", name="test", scopes=frozenset(scopes), **fields)
        made: tuple[ApiKey, str] = self.do(lambda store: store.create(key))
        return made

    def do(self, work: Callable[[ApiKeyStore], Any]) -> Any:
        async def run() -> Any:
            database = await Database.open(self._url)
            try:
                return await work(ApiKeyStore(database))
            finally:
                await database.close()

        return asyncio.run(run())


def ask(
    server: ServerThread, method: str, path: str, key: str | None = None, **rest: Any
) -> Answer:
    """One request on a connection of its own.

    Args:
        rest: `body`, `headers`.
    """
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    with RawClient(server.address) as client:
        client.send(method, path, rest.get("body"), {**headers, **rest.get("headers", {})})
        return client.receive()
