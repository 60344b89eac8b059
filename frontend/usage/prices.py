"""What tokens cost, and what a tenant may spend. Money is whole billionths of the currency."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

BILLION = 10**9
MILLION = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of a million tokens each, in billionths of the currency."""

    prompt: int
    cached: int  # of the prompt, found in the prefix cache
    completion: int  # with reasoning in it

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
        """Of one request, in billionths, rounded half up.

        Args:
            cached_tokens: of the prompt's; the others cost the full price.
        """
        millionths = (
            (prompt_tokens - cached_tokens) * self.prompt
            + cached_tokens * self.cached
            + completion_tokens * self.completion
        )
        return (millionths + MILLION // 2) // MILLION


FREE = Price(prompt=0, cached=0, completion=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a tenant may use in a calendar month (UTC); None: any amount."""

    tokens: int | None = None
    cost: int | None = None  # billionths of the currency


def billionths(amount: Decimal | float) -> int:
    """An amount of money as people write it; a float stands for the decimal that it shows.

    Raises:
        ValueError: it is negative, no number, or has more than nine decimals.
    """
    exact = Decimal(str(amount))
    if not exact.is_finite() or exact < 0 or (scaled := exact * BILLION) != int(scaled):
        raise ValueError(f"no amount of money with nine decimals at the most: {amount}")
    return int(scaled)


def shown(cost: int) -> str:
    """Billionths as people write money: exact, without zeros at the end."""
    text = f"{cost // BILLION}.{cost % BILLION:09d}"
    return text.rstrip("0").rstrip(".")
