"""A way to a server that loses answers: what was asked is done, and nobody hears of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self


class LossyProxy:
    """Connections to it go to a port on loopback."""

    def __init__(self, port: int) -> None:
        self.server_port = port  # of new connections
        self._server: asyncio.Server | None = None
        self.num_to_lose = 0  # answers; the connection ends in place of each
        self.port = 0
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(client, to_client))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port)
        asking = asyncio.create_task(_pass_on(client, to_server))
        try:
            while answer := await server.read(2**16):
                if self.num_to_lose:
                    self.num_to_lose -= 1
                    break
                to_client.write(answer)
        finally:
            asking.cancel()
            for one in (to_server, to_client):
                one.close()
                with suppress(ConnectionError):
                    await one.wait_closed()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while read := await source.read(2**16):
            target.write(read)
    target.close()
