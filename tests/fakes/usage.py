"""A database for usage in memory, that can go away; and records to put into it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from frontend.limits.policy import Policy
from frontend.limits.policy_file import PolicyFile
from frontend.usage.budgets import Used
from frontend.usage.record import UsageRecord, UsageRow, month_of


def record(**fields: Any) -> UsageRecord:
    given: dict[str, Any] = {
        "at": time.time(),
        "request_id": "r",
        "tenant": "acme",
        "principal": "key_1",
        "model": "tiny",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "outcome": "stop",
    }
    return UsageRecord(**{**given, **fields})


def in_force(policy: Policy) -> PolicyFile:
    """As if it had been read from a file."""
    limits = PolicyFile(Path("limits.toml"), is_required=False)
    limits.policy = policy
    return limits


class FakeUsageStore:
    """As `UsageStore`. Its transactions take `delay_s`."""

    def __init__(self) -> None:
        self.rows: dict[str, UsageRow] = {}
        self.group_sizes: list[int] = []
        self.is_away = False
        self.commits_and_fails = 0  # so many groups are committed, and then the connection is lost
        self.delay_s = 0.0
        self.num_collectable = 0  # steps that find something to delete
        self.num_reads = 0

    async def write(self, rows: Sequence[UsageRow]) -> None:
        await self._begin()
        self.group_sizes.append(len(rows))
        self.rows |= {row.id: row for row in rows}
        if self.commits_and_fails:
            self.commits_and_fails -= 1
            raise ConnectionError("lost after the commit")

    async def month_totals(
        self, month: date, tenants: Collection[str] | None = None
    ) -> dict[str, Used]:
        rows = list(self.rows.values())  # the state that a transaction begins with
        await self._begin()
        self.num_reads += 1
        found: dict[str, Used] = {}
        for row in rows:
            tenant = row.record.tenant
            if month_of(row.record.at) == month and (tenants is None or tenant in tenants):
                used = Used(row.record.tokens, row.cost)
                found[tenant] = found.get(tenant, Used()) + used
        return found

    async def collect(self) -> bool:
        await self._begin()
        self.num_collectable -= 1
        return self.num_collectable > 0

    async def _begin(self) -> None:
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            raise ConnectionError("the database is away")
