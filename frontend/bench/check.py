"""`inflight bench --check`: the CPU time that keys, limits and their headers cost a request.

All in this process, with the product's own parts, one request after another: no HTTP, no engine.
The whole has also what is done for usage, but for its writing behind the answers.
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
from frontend.access.identity import current_identity
from frontend.access.key_cache import KeyCache
from frontend.bench import report
from frontend.bench.goals import check_goal
from frontend.limits.headers import limit_headers
from frontend.limits.opening import SHARED_MEMORY, limit_store
from frontend.limits.policy_file import PolicyFile
from frontend.limits.store import LimitStore
from frontend.meter import Meter
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database
from frontend.store.usage import UsageStore
from frontend.telemetry.metrics import Metrics
from frontend.telemetry.requests import RequestRecord, current_request
from frontend.usage.budgets import Budgets
from frontend.usage.record import UsageRecord

NUM_KEYS = 100
NUM_REQUESTS = 1000  # in a round
NUM_ROUNDS = 21
MODEL = "llama-2-7b-chat"
NUM_TOKENS = 2000
PARTS = ("key", "rules", "acquire", "headers", "settle")
# Eight buckets, which nothing here empties: four of the key, two of its tenant, two of the model.
LIMITS = """
[keys]
requests_per_minute = 1_000_000_000
tokens_per_minute = 1_000_000_000_000
tokens_per_day = 1_000_000_000_000
concurrent_requests = 1_000_000
[tenants."*"]
requests_per_minute = 1_000_000_000
tokens_per_day = 1_000_000_000_000
[models."llama-*"]
requests_per_minute = 1_000_000_000
tokens_per_day = 1_000_000_000_000
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU time of one request, in microseconds: medians over the rounds."""

    whole_us: float
    parts_us: dict[str, float]


class _NoUsage:
    """Records are made, and not written."""

    def add(self, record: UsageRecord) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Check:
    """What is done for each request: by the guard, the meter, and the answer's headers."""

    authenticator: Authenticator
    limits: PolicyFile
    store: LimitStore
    meter: Meter

    async def request(self, secret: str) -> dict[str, str]:
        """One request, from its header to those of its answer."""
        record = RequestRecord(request_id="1", method="POST", path="/v1/completions")
        current_request.set(record)
        record.identity = await self.authenticator.identify((f"Bearer {secret}",), ())
        current_identity.set(record.identity)
        async with self.meter.charge_prompts(record.request_id, MODEL, NUM_TOKENS):
            pass
        return await self.meter.headers(record)

    async def parts(self, secrets: Sequence[str]) -> list[float]:
        """CPU seconds of each part, for all requests one part after the other."""
        at = [time.process_time()]
        identities = [await self.authenticator.identify((f"Bearer {one}",), ()) for one in secrets]
        at.append(time.process_time())
        rules = [self.limits.policy.rules(one, "", MODEL) for one in identities]
        at.append(time.process_time())
        admissions = [await self.store.acquire(one, NUM_TOKENS) for one in rules]
        at.append(time.process_time())
        for one in admissions:
            limit_headers(one.decision, time.time())
        at.append(time.process_time())
        for one in admissions:
            assert one.reservation is not None, "nothing here empties a bucket"
            await one.reservation.settle(0)
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
    limits = PolicyFile(folder / "limits.toml")
    (folder / "limits.toml").write_text(LIMITS)
    meter = Meter(
        limits=limits,
        store=store,
        metrics=Metrics(),
        usage=_NoUsage(),
        budgets=Budgets(UsageStore(database, retention_s=0), limits),
    )
    try:
        limits.check()
        await store.open()
        cache.open()
        made = [await api_keys.create(ApiKey(id="", name=f"{n}")) for n in range(NUM_KEYS)]
        secrets = [secret for _, secret in made]
        check = Check(Authenticator(cache), limits, store, meter)
        for secret in secrets:
            await check.request(secret)
        yield check, secrets
    finally:
        await cache.close()
        await meter.close()
        await database.close()
