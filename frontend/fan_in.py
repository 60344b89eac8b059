"""Several streams of one request as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def fan_in(
    streams: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """Run all streams at once; yield what they bring, each behind its stream's index.

    The first failure of one ends all of them, and is raised; so does leaving early. No stream is
    more than an item ahead of the consumer.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    arrived: asyncio.Queue[tuple[int, T] | _End] = asyncio.Queue(maxsize=1)
    tasks = [
        asyncio.create_task(_pump(index, stream, arrived)) for index, stream in enumerate(streams)
    ]
    num_running = len(tasks)
    try:
        while num_running:
            got = await arrived.get()
            if not isinstance(got, _End):
                yield got
                continue
            if got.failure is not None:
                raise got.failure
            num_running -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class _End:
    """A stream is over."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure


async def _pump(
    index: int, stream: AsyncGenerator[T, None], arrived: asyncio.Queue[tuple[int, T] | _End]
) -> None:
    end = _End()
    try:
        async with aclosing(stream):
            async for item in stream:
                await arrived.put((index, item))
    except Exception as exc:
        if (task := asyncio.current_task()) and task.cancelling():
            raise  # while the stream was closed: nobody takes it from the queue any more
        end = _End(exc)
    await arrived.put(end)
