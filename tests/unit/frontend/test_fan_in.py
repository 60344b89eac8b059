from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from frontend.fan_in import fan_in


class Numbers:
    """A stream that remembers how it ended."""

    def __init__(self, *numbers: int, failure: Exception | None = None, lasts: bool = False):
        self._numbers, self._failure, self._lasts = numbers, failure, lasts
        self.num_taken = 0
        self.is_closed = False

    async def stream(self) -> AsyncGenerator[int, None]:
        try:
            for number in self._numbers:
                await asyncio.sleep(0)
                self.num_taken += 1
                yield number
            if self._lasts:
                await asyncio.Event().wait()
            if self._failure is not None:
                raise self._failure
        finally:
            self.is_closed = True


async def test_all_items_come_in_each_streams_order() -> None:
    sources = [Numbers(*range(i * 10, i * 10 + i)) for i in range(4)]
    found = [item async for item in fan_in([source.stream() for source in sources])]
    assert sorted(found) == [(i, i * 10 + j) for i in range(4) for j in range(i)]
    for index in range(4):
        mine = [number for i, number in found if i == index]
        assert mine == sorted(mine)


async def test_streams_run_at_once() -> None:
    waiting = Numbers(lasts=True)
    async with aclosing(fan_in([waiting.stream(), Numbers(1, 2).stream()])) as merged:
        assert [await anext(merged), await anext(merged)] == [(1, 1), (1, 2)]


@pytest.mark.parametrize("count", [1, 3])
async def test_leaving_early_closes_every_stream(count: int) -> None:
    sources = [Numbers(1, lasts=True) for _ in range(count)]
    async with aclosing(fan_in([source.stream() for source in sources])) as merged:
        for _ in sources:
            await anext(merged)
    assert all(source.is_closed for source in sources)


@pytest.mark.parametrize("count", [1, 3])
async def test_a_failure_is_raised_and_ends_the_others(count: int) -> None:
    sources = [Numbers(1, failure=KeyError("x")), *(Numbers(lasts=True) for _ in range(count - 1))]
    with pytest.raises(KeyError):
        async for _ in fan_in([source.stream() for source in sources]):
            pass
    assert all(source.is_closed for source in sources)


@pytest.mark.parametrize("count", [1, 3])
async def test_a_cancelled_consumer_closes_every_stream(count: int) -> None:
    sources = [Numbers(1, lasts=True) for _ in range(count)]

    async def consume() -> None:
        async with aclosing(fan_in([source.stream() for source in sources])) as merged:
            async for _ in merged:
                pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert all(source.is_closed for source in sources)


async def test_a_slow_consumer_holds_the_streams_up() -> None:
    sources = [Numbers(*range(100)) for _ in range(2)]
    async with aclosing(fan_in([source.stream() for source in sources])) as merged:
        await anext(merged)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sum(source.num_taken for source in sources) <= 4


async def test_streams_that_fail_while_they_are_closed_hold_nobody_up() -> None:
    async def badly_closed() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
        finally:
            raise KeyError("x")

    async with asyncio.timeout(5):
        async with aclosing(fan_in([badly_closed() for _ in range(3)])) as merged:
            await anext(merged)
