"""Sums of what requests have used, by what was asked for: as tables, as CSV.

Knows neither where they come from nor who may see them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from frontend.usage.prices import shown

GROUPS = ("day", "tenant", "key", "model", "outcome", "batch")  # what sums can be had by
AMOUNTS = (
    *("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"),
    "cost",
)
SHOWN_AMOUNTS = (*AMOUNTS[:-1], "total_tokens", "cost")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSum:
    """What the requests of one group have used. Money in billionths of the currency."""

    group: Mapping[str, Any]  # names of GROUPS, and `key_name` beside `key`
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt's
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of the completion's
    cost: int = 0

    def facts(self) -> dict[str, Any]:
        """It as JSON and CSV show it."""
        return {
            **{name: _shown(value) for name, value in self.group.items()},
            **{name: getattr(self, name) for name in AMOUNTS if name != "cost"},
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "cost": shown(self.cost),
        }


def total_of(sums: Iterable[UsageSum]) -> UsageSum:
    added = dict.fromkeys(AMOUNTS, 0)
    for one in sums:
        for name in AMOUNTS:
            added[name] += getattr(one, name)
    return UsageSum(group={}, **added)


def columns(group_by: Sequence[str]) -> list[str]:
    """Names of what `UsageSum.facts` has, in the order in which they are shown."""
    named = [name for group in group_by for name in _COLUMNS.get(group, (group,))]
    return [*named, *SHOWN_AMOUNTS]


def as_csv(sums: Iterable[UsageSum], group_by: Sequence[str]) -> str:
    """With a head. Source: RFC 4180, but for the ends of its lines, which are one character.

    A name that a spreadsheet would calculate has an apostrophe before it, which makes it a text:
    issuers may let users choose their tenants' names.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(group_by), lineterminator="\n")
    writer.writeheader()
    for one in sums:
        names = {name: _as_no_formula(as_text(value)) for name, value in one.group.items()}
        writer.writerow(one.facts() | names)
    return text.getvalue()


def as_text(value: object) -> str:
    """A value of `UsageSum.facts`, as JSON has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_no_formula(text: str) -> str:
    """Source: OWASP, CSV injection."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


_FORMULA_STARTS = ("=", "+", "-", "@")
_COLUMNS = {"key": ("key", "key_name")}


def _shown(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value
