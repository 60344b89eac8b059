"""A worker process that takes all that it gets, and writes down when it asked for what it got.

At its end it writes when it asked last, below 0.

Arguments: the store's URL, the file to append to, what to do, for how many seconds. Knows nothing
of what should be let in.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from pathlib import Path

from frontend.limits.buckets import LimitSet, rules_for
from frontend.limits.opening import limit_store
from frontend.limits.store import LimitStore

REQUESTS = rules_for("key:hot", LimitSet(requests_per_minute=600))
TOKENS = rules_for("key:hot", LimitSet(tokens_per_minute=60_000, tokens_per_day=10**9))
PLACES = rules_for("key:hot", LimitSet(concurrent_requests=20))
RESERVED, USED = 1000, 137


_time = struct.Struct("<d")


async def take_requests(store: LimitStore, log: int, until: float) -> None:
    while (asked := time.monotonic()) < until:
        if (await store.acquire(REQUESTS, 0)).decision.is_admitted:
            os.write(log, _time.pack(asked))
        last = asked
    os.write(log, _time.pack(-last))


async def take_tokens(store: LimitStore, log: int, until: float) -> None:
    """Far more is reserved than used."""
    while (asked := time.monotonic()) < until:
        admission = await store.acquire(TOKENS, RESERVED)
        if admission.reservation is not None:
            os.write(log, _time.pack(asked))
            await admission.reservation.settle(USED)
        last = asked
    os.write(log, _time.pack(-last))


async def hold_places(store: LimitStore, log: int, until: float) -> None:
    while (asked := time.monotonic()) < until:
        if (await store.acquire(PLACES, 0)).decision.is_admitted:
            os.write(log, _time.pack(asked))
        await asyncio.sleep(0.001)


def times_in(log: Path) -> list[float]:
    return [one for (one,) in _time.iter_unpack(log.read_bytes())] if log.exists() else []


async def main(url: str, log_file: str, what: str, seconds: str) -> None:
    store = limit_store(url, Path("/"), has_local_fallback=False, num_frontends=1)
    await store.open()
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    work = {"requests": take_requests, "tokens": take_tokens, "places": hold_places}[what]
    await work(store, log, time.monotonic() + float(seconds))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
