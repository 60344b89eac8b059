"""`inflight bench --check`: the CPU time that keys, limits and their headers cost a request.

All in this process, with the product's own parts, one request after another: no HTTP, no engine.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from frontend.access.authenticator import Authenticator
from frontend.access.key_cache import KeyCache
from frontend.bench import report
from frontend.bench.goals import check_goal
from frontend.limits.buckets import LimitSet
from frontend.limits.headers import limit_headers
from frontend.limits.opening import SHARED_MEMORY, limit_store
from frontend.limits.policy import Policy
from frontend.limits.store import LimitStore
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database

NUM_KEYS = 100
NUM_REQUESTS = 1000  # in a round
NUM_ROUNDS = 21
MODEL = "llama-2-7b-chat"
RESERVED_TOKENS, USED_TOKENS = 2000, 300
PARTS = ("key", "rules", "acquire", "headers", "settle")
# Eight buckets, which nothing here empties: four of the key, two of its tenant, two of the model.
_ALL = LimitSet(
    requests_per_minute=10**9,
    tokens_per_minute=10**12,
    tokens_per_day=10**12,
    concurrent_requests=10**6,
)
_TWO = LimitSet(requests_per_minute=10**9, tokens_per_day=10**12)
POLICY = Policy(keys=_ALL, tenants={"*": _TWO}, models={"llama-*": _TWO})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU time of one request, in microseconds: medians over the rounds."""

    whole_us: float
    parts_us: dict[str, float]


@dataclass(frozen=True, slots=True)
class Check:
    """What is done for each request: by the guard, the meter, and the answer's headers."""

    authenticator: Authenticator
    policy: Policy
    store: LimitStore

    async def request(self, secret: str) -> dict[str, str]:
        """One request, from its header to those of its answer."""
        identity = await self.authenticator.identify((f"Bearer {secret}",), ())
        rules = self.policy.rules(identity, "192.0.2.1", MODEL)
        admission = await self.store.acquire(rules, RESERVED_TOKENS)
        headers = limit_headers(admission.decision, time.time())
        assert admission.reservation is not None, "the buckets are larger than what is asked for"
        await admission.reservation.settle(USED_TOKENS)
        return headers

    async def parts(self, secrets: Sequence[str]) -> list[float]:
        """CPU seconds of each part, all requests one part after the other."""
        at = [time.process_time()]
        identities = [await self.authenticator.identify((f"Bearer {one}",), ()) for one in secrets]
        at.append(time.process_time())
        rules = [self.policy.rules(one, "192.0.2.1", MODEL) for one in identities]
        at.append(time.process_time())
        admissions = [await self.store.acquire(one, RESERVED_TOKENS) for one in rules]
        at.append(time.process_time())
        for one in admissions:
            limit_headers(one.decision, time.time())
        at.append(time.process_time())
        for one in admissions:
            assert one.reservation is not None
            await one.reservation.settle(USED_TOKENS)
        at.append(time.process_time())
        return [end - begin for begin, end in pairwise(at)]


def run_check(json_path: Path | None = None) -> bool:
    """Measure, print, and write to a file; whether the goal is met."""
    cost = asyncio.run(measure())
    goal = check_goal(cost.whole_us)
    table = Table("part", title="CPU of a request in µs")
    table.add_column("median", justify="right")
    for name, cost_us in [*cost.parts_us.items(), ("whole", cost.whole_us)]:
        table.add_row(name, f"{cost_us:.1f}")
    console = Console()
    console.width = max(console.width, report.MIN_WIDTH)
    console.print(table, report.goals_table([goal]))
    if json_path is not None:
        content = {"machine": report.machine(), "check": cost, "goals": [report.described(goal)]}
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    return bool(goal.is_met)


async def measure(num_rounds: int = NUM_ROUNDS, num_requests: int = NUM_REQUESTS) -> Cost:
    whole, parts = [], []
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="inflight-bench-") as folder:
        async with opened(Path(folder)) as (check, keys):
            secrets = list(islice(cycle(keys), num_requests))
            for _ in range(num_rounds):
                began = time.process_time()
                for secret in secrets:
                    await check.request(secret)
                whole.append(time.process_time() - began)
                parts.append(await check.parts(secrets))
    us = 1e6 / num_requests
    medians = (statistics.median(one) * us for one in zip(*parts, strict=True))
    return Cost(
        whole_us=statistics.median(whole) * us, parts_us=dict(zip(PARTS, medians, strict=True))
    )


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Check, list[str]]]:
    """A check of a new installation, and the secrets of its keys, which it has met."""
    database = await Database.open(f"sqlite:///{folder / 'keys.db'}")
    api_keys = ApiKeyStore(database)
    cache = KeyCache(api_keys)
    store = limit_store(f"lmdb://{folder}", folder, has_local_fallback=False, num_frontends=1)
    try:
        await store.open()
        cache.open()
        made = [await api_keys.create(ApiKey(id="", name=f"{n}")) for n in range(NUM_KEYS)]
        secrets = [secret for _, secret in made]
        check = Check(Authenticator(cache), POLICY, store)
        for secret in secrets:
            await check.request(secret)
        yield check, secrets
    finally:
        await cache.close()
        await store.close()
        await database.close()
