"""Monthly budgets of tenants, in tokens and in money, as one worker knows them."""

from __future__ import annotations

from typing import Protocol

from frontend.usage.prices import Budget


class BudgetList(Protocol):
    """What of the policy is asked here."""

    def budget(self, tenant: str) -> Budget | None: ...


class Budgets:
    """One worker's."""

    def check(self, tenant: str) -> None:
        """
        Raises:
            QuotaExceeded: the tenant has used up its budget of this month.
        """
        raise NotImplementedError
