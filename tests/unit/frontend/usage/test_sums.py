from __future__ import annotations

import csv
import io
from datetime import date

import pytest

from frontend.usage.sums import UsageSum, as_csv, columns, total_of

FIRST = UsageSum(
    group={"day": date(2026, 11, 1), "key": "key_1", "key_name": 'a "lab", 实验室', "batch": False},
    requests=2, prompt_tokens=10, cached_tokens=4, completion_tokens=5, reasoning_tokens=1,
    cost=1_500_000_000,
)  # fmt: skip
SECOND = UsageSum(
    group={"day": date(2026, 11, 2), "key": "", "key_name": "", "batch": True}, requests=1, cost=1
)
GROUPS = ("day", "key", "batch")


def test_csv_has_what_json_has() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([FIRST, SECOND], GROUPS))))
    shown = [
        {name: str(value).lower() if isinstance(value, bool) else str(value)
         for name, value in one.facts().items()}
        for one in (FIRST, SECOND)
    ]  # fmt: skip
    assert rows == shown
    assert list(rows[0]) == columns(GROUPS)
    assert rows[0]["key_name"] == 'a "lab", 实验室'
    assert (rows[0]["cost"], rows[1]["cost"]) == ("1.5", "0.000000001")
    assert rows[0]["total_tokens"] == "15"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_name_is_calculated_by_a_spreadsheet(name: str) -> None:
    text = as_csv([UsageSum(group={"tenant": name, "model": f"a{name}"})], ("tenant", "model"))
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["tenant"], row["model"], row["requests"]) == (f"'{name}", f"a{name}", "0")


def test_nothing_is_a_head_only() -> None:
    assert as_csv([], ("model",)).splitlines() == [",".join(columns(("model",)))]


def test_all_is_added_up() -> None:
    total = total_of([FIRST, SECOND])
    assert (total.group, total.requests, total.cost) == ({}, 3, 1_500_000_001)
    assert total_of([]).facts()["cost"] == "0"
