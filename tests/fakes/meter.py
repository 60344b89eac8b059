"""A meter over buckets in memory, by a clock that can be set, and a list of what was used."""

from __future__ import annotations

from dataclasses import dataclass, field

from frontend.limits.buckets import Rule
from frontend.limits.local_store import LocalStore
from frontend.limits.policy import Policy
from frontend.meter import Meter
from frontend.telemetry.metrics import Metrics
from frontend.usage.budgets import Budgets
from frontend.usage.record import UsageRecord
from tests.fakes.limits import FakeClock, FakeWorkers, MemoryTable
from tests.fakes.usage import FakeUsageStore, in_force


@dataclass(slots=True)
class UsageList:
    records: list[UsageRecord] = field(default_factory=list)

    def add(self, record: UsageRecord) -> None:
        self.records.append(record)


@dataclass(slots=True)
class MeterWorld:
    policy: Policy
    usage: UsageList = field(default_factory=UsageList)
    budgets: Budgets = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    store: LocalStore = field(
        default_factory=lambda: LocalStore(MemoryTable(), FakeWorkers(1, set()), clock=FakeClock())
    )

    def meter(self) -> Meter:
        limits = in_force(self.policy)
        self.budgets = Budgets(FakeUsageStore(), limits)
        return Meter(
            limits=limits,
            store=self.store,
            metrics=self.metrics,
            usage=self.usage,
            budgets=self.budgets,
        )

    async def remaining(self, rules: tuple[Rule, ...]) -> dict[str, int]:
        """What is left in each bucket, by its name's last part; nothing runs out of it."""
        decision = (await self.store.acquire(rules, 0, num_requests=0)).decision
        return {state.rule.name.rpartition(":")[2]: state.remaining for state in decision.states()}
