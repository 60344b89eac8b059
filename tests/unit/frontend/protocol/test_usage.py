from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from frontend.errors import InvalidParameter
from frontend.protocol.usage import UsageQuery

TODAY = datetime.now(UTC).date()


def read(text: str = "") -> UsageQuery:
    arguments: dict[str, list[str]] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        arguments.setdefault(name, []).append(value)
    return UsageQuery.read(arguments)


def test_nothing_asks_for_this_month_by_tenant_key_and_model() -> None:
    query = read()
    assert (query.since, query.until) == (TODAY.replace(day=1), TODAY)
    assert query.group_by == ("tenant", "key", "model")
    assert query.filters() == {}
    assert query.format is None


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("month=2026-11", date(2026, 11, 1), date(2026, 11, 30)),
        ("month=2026-12", date(2026, 12, 1), date(2026, 12, 31)),
        ("month=2028-02", date(2028, 2, 1), date(2028, 2, 29)),
        ("since=2026-01-31&until=2026-02-01", date(2026, 1, 31), date(2026, 2, 1)),
        ("until=2026-02-10", date(2026, 2, 1), date(2026, 2, 10)),
        ("since=2026-01-31", date(2026, 1, 31), TODAY),
    ],
)
def test_the_days_are_those_that_are_asked_for(text: str, since: date, until: date) -> None:
    query = read(text)
    assert (query.since, query.until) == (since, until)


def test_filters_and_groups_are_read() -> None:
    query = read("tenant=a&key=k&model=m&outcome=stop&batch=false&group_by=day,model&group_by=key")
    assert query.filters() == {
        "tenant": "a", "key": "k", "model": "m", "outcome": "stop", "batch": False,
    }  # fmt: skip
    assert query.group_by == ("day", "model", "key")
    assert read("group_by=").group_by == ()
    assert read("key=").filters() == {"key": ""}, "of whom nobody knows"
    assert read("batch=true&format=csv").format == "csv"


@pytest.mark.parametrize(
    ("text", "param", "key"),
    [
        ("modle=m", "modle", "unknown_field"),
        ("model=a&model=b", "model", "duplicate"),
        ("month=2026-11&since=2026-11-01", "month", "conflict"),
        ("month=2026-11&until=2026-11-01", "month", "conflict"),
        ("month=2026-13", "month", "not_a_month"),
        ("month=9999-12", "month", "not_a_month"),
        ("month=2026-11-01", "month", "not_a_month"),
        ("since=20261101", "since", "not_a_day"),
        ("since=", "since", "not_a_day"),
        ("until=2026-11-31", "until", "not_a_day"),
        ("since=2026-11-02&until=2026-11-01", "since", "not_after"),
        ("batch=maybe", "batch", "not_one_of"),
        ("format=xml", "format", "not_one_of"),
        ("group_by=day,week", "group_by", "not_one_of"),
        ("group_by=day&group_by=day", "group_by", "duplicate"),
    ],
)
def test_what_is_wrong_is_named(text: str, param: str, key: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        read(text)
    assert (refused.value.param, refused.value.key) == (param, key)
