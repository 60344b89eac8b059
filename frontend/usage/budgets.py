"""Monthly budgets of tenants, in tokens and in money, as one worker knows them.

What is used up is the month's total in the database, read about once a second, and what this
worker has counted since. So a tenant can use more than its budget by what is in flight when it is
reached, and by what its requests at other workers have used in the last 1.5 s or so (the time
between two reads, and that until a group is written). While the database is away only this worker's
own use is added.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from frontend.errors import QuotaExceeded
from frontend.limits.policy_file import PolicyFile
from frontend.usage.prices import billionths, shown
from frontend.usage.record import UsageRow, month_of, next_month, time_of

REFRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Used:
    """What somebody has used in a month."""

    tokens: int = 0
    cost: int = 0  # billionths of the currency

    def __add__(self, other: Used) -> Used:
        return Used(self.tokens + other.tokens, self.cost + other.cost)


class MonthTotals(Protocol):
    """What of `UsageStore` is asked here."""

    async def month_totals(
        self, month: date, tenants: Collection[str] | None = None
    ) -> Mapping[str, Used]: ...


class Budgets:
    """One worker's; `refresh` is the business of its `UsageLog`."""

    def __init__(
        self, totals: MonthTotals, limits: PolicyFile, *, refresh_s: float = REFRESH_S
    ) -> None:
        self._store = totals
        self._limits = limits
        self._refresh_s = refresh_s
        self._refreshed_at = float("-inf")  # time.monotonic()
        self._month = date.min
        self._month_begins = self._month_ends = float("-inf")  # Unix seconds
        self._stored: dict[str, Used] = {}  # by tenant: what the last read has shown
        self._unseen: dict[str, Used] = {}  # by tenant: what was not in that
        self._touched: set[str] = set()  # who has asked or used since

    def check(self, tenant: str) -> None:
        """
        Raises:
            QuotaExceeded: the tenant has used up its budget of this month.
        """
        budget = self._limits.policy.budget(tenant)
        if budget is None:
            return
        self._turn_page(time.time())
        self._touched.add(tenant)
        used = self._stored.get(tenant, Used()) + self._unseen.get(tenant, Used())
        if budget.tokens is not None and used.tokens >= budget.tokens:
            raise self._used_up(
                "budget_used_up.tokens", tenant, str(budget.tokens), str(used.tokens)
            )
        if budget.money is not None and used.cost >= (limit := billionths(budget.money)):
            raise self._used_up("budget_used_up.money", tenant, shown(limit), shown(used.cost))

    def add(self, row: UsageRow) -> None:
        """Count what is on its way to the database."""
        self._turn_page(time.time())
        self._count(row)

    async def open(self) -> None:
        """Read all of this month: a worker that starts knows who has used up what."""
        self._turn_page(time.time())
        self._stored = dict(await self._store.month_totals(self._month))

    async def refresh(self, waiting: Collection[UsageRow]) -> None:
        """Read what is used by now, of those whom it may concern, if it is time to.

        Nothing may be written while it runs: what is in the database, and what is not, is then
        known, and nothing counts twice.

        Args:
            waiting: rows that are not in the database; more may come into it meanwhile.
        """
        now = time.monotonic()
        if not self._touched or now < self._refreshed_at + self._refresh_s:
            return
        self._turn_page(time.time())
        month, asked_for = self._month, self._touched
        self._touched = set()
        try:
            found = await self._store.month_totals(month, asked_for)
        except BaseException:
            self._touched |= asked_for
            raise
        self._refreshed_at = now
        if month == self._month:
            self._stored.update(found)
            self._unseen.clear()
            self._count_all(waiting)

    def _count_all(self, rows: Iterable[UsageRow]) -> None:
        for row in rows:
            self._count(row)

    def _count(self, row: UsageRow) -> None:
        record = row.record
        if self._limits.policy.budget(record.tenant) is None or record.at < self._month_begins:
            return
        used = Used(record.tokens, row.cost)
        self._unseen[record.tenant] = self._unseen.get(record.tenant, Used()) + used
        self._touched.add(record.tenant)

    def _turn_page(self, now: float) -> None:
        """Begin anew with each month; a clock that steps back does not bring the last one back."""
        if now < self._month_ends:
            return
        self._month = month_of(now)
        self._month_begins = time_of(self._month)
        self._month_ends = time_of(next_month(self._month))
        self._stored, self._unseen = {}, {}

    def _used_up(self, key: str, tenant: str, limit: str, used: str) -> QuotaExceeded:
        return QuotaExceeded(
            key,
            tenant=tenant,
            month=f"{self._month:%Y-%m}",
            limit=limit,
            used=used,
            next_month=next_month(self._month).isoformat(),
        )
