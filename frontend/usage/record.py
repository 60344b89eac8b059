"""What one request has used, and when: days and months are UTC's. Knows nothing of prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """One request that has ended; an item of a batch is a request of its own."""

    at: float  # Unix seconds, of its end
    request_id: str
    tenant: str
    principal: str  # see `Identity.principal`
    model: str
    prompt_tokens: int
    cached_tokens: int = 0  # of the prompt: found in the prefix cache
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of the completion
    outcome: str  # a finish reason, an error's code, or "cancelled"
    is_batch: bool = False

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """A record as it is stored."""

    id: str  # its own: a row that is written again is known by it
    record: UsageRecord
    cost: int  # billionths of the currency


def day_of(at: float) -> date:
    return datetime.fromtimestamp(at, UTC).date()


def month_of(at: float) -> date:
    """The first day of its month."""
    return day_of(at).replace(day=1)


def next_month(month: date) -> date:
    """The first day of the month after."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def time_of(day: date) -> float:
    """Unix seconds of its first moment."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
