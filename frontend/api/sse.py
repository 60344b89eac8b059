"""Server-Sent Events: one network write an event, comments while it is quiet, errors to the end.

Source: the HTML standard, section 9.2 (lines that begin with a colon are comments).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Self

from sanic import Request
from sanic.compat import Header

from frontend.api.errors import error_event
from frontend.context import context_of
from frontend.errors import ServingError

logger = logging.getLogger(__name__)

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
CONTENT_TYPE = "text/event-stream; charset=utf-8"
KEEP_ALIVE_COMMENT = b": keep-alive\n\n"


async def send_events(
    request: Request,
    events: AsyncGenerator[bytes, None],
    *,
    keep_alive: bytes = KEEP_ALIVE_COMMENT,
    gap_s: float = 0.0,
) -> None:
    """Send a stream of events.

    With `gap_s` they are at least so far apart, comments too: for clients that take what one read
    gives for one event. What comes meanwhile is in the next one.

    A failure before the first event is raised, so that it keeps its HTTP status; but when that
    event takes longer than the keep-alive interval, the answer begins without it. After that an
    error is the stream's last event, for its 200 has been sent.
    """
    interval_s = context_of(request).settings.keep_alive_interval_s
    first = asyncio.ensure_future(anext(events))
    try:
        await asyncio.wait((first,), timeout=interval_s)
        if first.done():
            first.result()
        out = KeepAlive(request, interval_s, keep_alive, gap_s)
        await _stream(out, first, events)
    finally:
        if not first.done():
            first.cancel()
            await asyncio.wait((first,))
        await events.aclose()


async def _stream(
    out: KeepAlive, first: asyncio.Future[bytes], events: AsyncGenerator[bytes, None]
) -> None:
    async with out:
        try:
            if not first.done():
                await out.send_keep_alive()
            await out.send(await first)
            async for event in events:
                await out.send(event)
        except ServingError as exc:
            logger.warning("stream failed", extra={"code": exc.code})
            await out.send_error(exc)
        except Exception:
            logger.exception("stream failed")
            await out.send_error(ServingError())


class KeepAlive:
    """An answer of events, with `keep_alive` whenever nothing was sent for an interval.

    A proxy or client that hears nothing for long closes the connection. A timer costs the token
    path one store a token, where a timeout around each event would cost a task.
    """

    def __init__(
        self, request: Request, interval_s: float, keep_alive: bytes, gap_s: float = 0.0
    ) -> None:
        self._request = request
        self._interval_s = interval_s
        self._keep_alive = keep_alive
        self._gap_s = gap_s
        self._is_quiet = True
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        response = await self._request.respond(headers=Header(HEADERS), content_type=CONTENT_TYPE)
        assert response is not None, "only a websocket handler has none"
        self._response = response
        self._timer = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._timer.cancel()
        await asyncio.wait((self._timer,))
        if exc[0] is None:
            await self._response.eof()

    async def send(self, event: bytes) -> None:
        self._is_quiet = False
        await self._write(event)

    async def send_error(self, error: ServingError) -> None:
        """The stream's last event."""
        await self.send(error_event(self._request, error))

    async def send_keep_alive(self) -> None:
        await self._write(self._keep_alive)

    async def _write(self, event: bytes) -> None:
        async with self._lock:
            await self._response.send(event)
            if self._gap_s:
                await asyncio.sleep(self._gap_s)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            if self._is_quiet:
                await self.send_keep_alive()
            self._is_quiet = True
