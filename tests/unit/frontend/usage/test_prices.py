from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.limits.policy import Policy, Price
from frontend.usage.prices import billionths, cost_of, shown
from tests.fakes.usage import record

POLICY = Policy(
    prices={
        "exact": Price(prompt=0.10, cached=0.05, completion=0.40),
        "fine": Price(prompt=0.0375, completion=0.15),
        "tiny-*": Price(prompt=0, completion=1e-9),
    }
)


def cost(model: str, prompt: int, cached: int, completion: int) -> int:
    one = record(
        model=model, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion
    )
    return cost_of(one, POLICY)


def test_cached_tokens_are_a_part_of_the_prompt_with_a_price_of_their_own() -> None:
    assert cost("exact", 1000, 0, 0) == 100_000
    assert cost("exact", 1000, 400, 0) == 600 * 100 + 400 * 50
    assert cost("exact", 0, 0, 1000) == 400_000
    assert cost("exact", 10**6, 10**6, 10**6) == 450_000_000, "0.45"


def test_cached_tokens_cost_as_the_prompt_where_nothing_else_is_said() -> None:
    assert cost("fine", 1000, 600, 0) == cost("fine", 1000, 0, 0) == 37_500


def test_half_a_billionth_is_rounded_up_once_a_request() -> None:
    assert cost("fine", 1, 0, 0) == 38, "37.5"
    assert cost("fine", 2, 0, 0) == 75
    assert cost("tiny-1", 0, 0, 499_999) == 0
    assert cost("tiny-1", 0, 0, 500_000) == 1


def test_a_model_without_a_price_costs_nothing() -> None:
    assert cost("other", 10**9, 0, 10**9) == 0


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0.1, 10**8), (200.0, 200 * 10**9), (0.000_000_001, 1), (1e-10, 0), (0.3, 3 * 10**8)],
)
def test_a_float_is_the_decimal_that_was_written(amount: float, expected: int) -> None:
    assert billionths(amount) == expected


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(0, "0"), (1, "0.000000001"), (10**9, "1"), (1_500_000_000, "1.5"), (10**11, "100")],
)
def test_money_is_shown_exactly(cost: int, expected: str) -> None:
    assert shown(cost) == expected


@given(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(0, 10**8))
def test_a_cost_is_never_more_than_half_a_billionth_off(full: int, cached: int, out: int) -> None:
    exact_millionths = full * 37_500_000 + cached * 37_500_000 + out * 150_000_000
    found = cost("fine", full + cached, cached, out)
    assert abs(found * 10**6 - exact_millionths) <= 500_000
