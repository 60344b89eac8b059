from __future__ import annotations

from datetime import date

import pytest

from frontend.usage.record import day_of, month_of, next_month, time_of


@pytest.mark.parametrize(
    ("month", "after"),
    [
        (date(2026, 11, 1), date(2026, 12, 1)),
        (date(2026, 12, 1), date(2027, 1, 1)),
        (date(2027, 1, 1), date(2027, 2, 1)),
    ],
)
def test_a_year_begins_after_december(month: date, after: date) -> None:
    assert next_month(month) == after


def test_days_and_months_begin_at_midnight_of_utc() -> None:
    begin = time_of(date(2026, 12, 1))
    assert begin == 1_796_083_200
    assert (day_of(begin), month_of(begin)) == (date(2026, 12, 1), date(2026, 12, 1))
    assert (day_of(begin - 0.001), month_of(begin - 0.001)) == (
        date(2026, 11, 30),
        date(2026, 11, 1),
    )
