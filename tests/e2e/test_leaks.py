"""1,000 requests of all kinds, a tenth of them cancelled: nothing of them is left."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx

from tests.e2e.answers import CHAT, GENERATE, STREAM, chat_body
from tests.e2e.stack import Stack, eventually

NUM_REQUESTS = 1000
CONCURRENCY = 24
KINDS = ("chat", "chat stream", "native", "native stream", "batch", "bad", "models", "gone")


def request(rng: random.Random) -> tuple[str, str, dict[str, Any] | None]:
    kind = rng.choice(KINDS)
    text = rng.choice(("Hello", "你好", "Tell me a story.", "What is 😀?"))
    body = chat_body(
        text,
        max_tokens=rng.randint(1, 16),
        temperature=rng.choice((0, 1)),
        n=rng.choice((1, 1, 1, 2)),
    )
    native = {"prompt": text, "max_tokens": rng.randint(1, 16), "stop": rng.choice((None, "e"))}
    match kind:
        case "chat":
            return "POST", CHAT, body
        case "chat stream":
            return "POST", CHAT, {**body, "stream": True}
        case "native":
            return "POST", GENERATE, native
        case "native stream":
            return "POST", STREAM, native
        case "batch":
            return "POST", "/api/v1/batch/generate", {"requests": [native] * 3}
        case "bad":
            return "POST", CHAT, {**body, "temperature": 9}
        case "models":
            return "GET", "/v1/models", None
        case _:
            return "GET", "/v1/nothing", None


async def run_requests(url: str, rng: random.Random, count: int) -> list[int | None]:
    """Statuses; None where the client left before the answer's end."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(client: httpx.AsyncClient, number: int) -> int | None:
        method, path, body = request(rng)
        leaves_after_s = rng.uniform(0, 0.4) if number % 10 == 0 else None
        async with slots:
            try:
                async with asyncio.timeout(leaves_after_s):
                    return (await client.request(method, path, json=body)).status_code
            except TimeoutError:
                return None

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        return list(await asyncio.gather(*(one(client, number) for number in range(count))))


# Pools of threads, and of connections to the database (each a file, its log and the log's index),
# grow to their bound as they are needed; a leak would be one for each request.
POOL_THREADS = 16
POOL_FDS = 5 * 3


async def test_1000_requests_leave_nothing_behind(stack: Stack) -> None:
    rng = random.Random(7)
    await run_requests(stack.url, rng, 100)  # whatever is opened once is open now
    await asyncio.to_thread(eventually, stack.is_engine_idle)
    fds, threads = stack.num_fds(), num_threads(stack)

    statuses = await run_requests(stack.url, rng, NUM_REQUESTS)

    assert {200, 400, 404} == {status for status in statuses if status is not None}
    assert statuses.count(None) > NUM_REQUESTS // 40  # many are faster than their client leaves
    await asyncio.to_thread(eventually, stack.is_engine_idle)
    allowed_fds = {name: number + POOL_FDS for name, number in fds.items()}
    await asyncio.to_thread(eventually, lambda: is_at_most(stack.num_fds(), allowed_fds))
    allowed = {name: number + POOL_THREADS for name, number in threads.items()}
    await asyncio.to_thread(eventually, lambda: is_at_most(num_threads(stack), allowed))
    metrics = await asyncio.to_thread(httpx.get, f"{stack.url}/metrics", timeout=30)
    assert "\nactive_connections 0.0\n" in metrics.text


def num_threads(stack: Stack) -> dict[str, int]:
    return {f"{p.name()} {p.pid}": p.num_threads() for p in stack.processes()}


def is_at_most(now: dict[str, int], before: dict[str, int]) -> bool:
    """The same processes, none with more than before."""
    return now.keys() == before.keys() and all(now[name] <= before[name] for name in now)
