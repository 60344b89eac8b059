"""Usage records of one worker on their way to the database: written in groups, behind answers."""

from __future__ import annotations

from typing import Protocol

from frontend.usage.prices import Price
from frontend.usage.record import UsageRecord


class PriceList(Protocol):
    """What of the policy is asked here."""

    def price(self, model: str) -> Price: ...


class UsageLog:
    """One worker's; `open` it when its loop runs."""

    def add(self, record: UsageRecord) -> None:
        """Keep a record until it is written; takes a microsecond and never waits."""
        raise NotImplementedError
