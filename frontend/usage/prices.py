"""What requests cost, exactly: money is whole billionths of the operator's currency.

Prices and budgets are floats in the policy, as TOML has them; each stands for the decimal that was
written.
"""

from __future__ import annotations

import functools
from decimal import ROUND_HALF_UP, Decimal

from frontend.limits.policy import Policy, Price
from frontend.usage.record import UsageRecord

BILLION = 10**9
MILLION = 10**6


def cost_of(record: UsageRecord, policy: Policy) -> int:
    """Of one request, in billionths of the currency, rounded half up."""
    price = policy.price(record.model)
    if price is None:
        return 0
    prompt, cached, completion = _per_million(price)
    millionths = (
        (record.prompt_tokens - record.cached_tokens) * prompt
        + record.cached_tokens * cached
        + record.completion_tokens * completion
    )
    return (millionths + MILLION // 2) // MILLION


@functools.lru_cache(maxsize=1024)
def billionths(amount: float) -> int:
    """An amount of money, rounded half up."""
    exact = Decimal(str(amount)) * BILLION
    return int(exact.to_integral_value(ROUND_HALF_UP))


def shown(cost: int) -> str:
    """Billionths as people write money: exact, without zeros at the end."""
    text = f"{cost // BILLION}.{cost % BILLION:09d}"
    return text.rstrip("0").rstrip(".")


@functools.lru_cache(maxsize=1024)
def _per_million(price: Price) -> tuple[int, int, int]:
    """Of prompt, cached and completion tokens, in billionths."""
    cached = price.prompt if price.cached is None else price.cached
    return billionths(price.prompt), billionths(cached), billionths(price.completion)
