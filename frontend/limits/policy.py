"""What the operator lets everybody use: limits of keys, addresses, tenants and models, budgets of
tenants, prices of models. Knows nothing of the file that it is read from, nor of what was used.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Mapping
from typing import Annotated, Generic, TypeVar

import msgspec

from frontend.access.identity import Identity
from frontend.limits.buckets import Count, LimitSet, Rule, address_subject, rules_for

T = TypeVar("T")

# Of keys and addresses, where nothing else is said. No machine reaches them: they are there because
# every answer says how its buckets of requests and tokens stand.
DEFAULT_LIMITS = LimitSet(requests_per_minute=1_000_000, tokens_per_minute=1_000_000_000)
MAX_REMEMBERED = 16_384  # combinations of who asks and for which model: some 25 MB
MAX_MONEY = 1e9  # sums are billionths in the database's 64 bits: 9.2e9 is the most of them
_GLOB_SIGNS = frozenset("*?[")

Money = Annotated[float, msgspec.Meta(gt=0, le=MAX_MONEY)]
PricePerMillion = Annotated[float, msgspec.Meta(ge=0, le=MAX_MONEY)]


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tenant may use in a calendar month (UTC); None: without a limit."""

    tokens: Count | None = None  # of prompts and answers
    money: Money | None = None  # in the currency of the prices


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a million tokens, in the operator's currency."""

    prompt: PricePerMillion
    completion: PricePerMillion  # has reasoning in it
    cached: PricePerMillion | None = None  # of the prompt, found in the prefix cache; None: as it


class ByName(Generic[T]):
    """What holds for a name: what stands under just that name, or under the first glob for it.

    Globs (`*`, `?`, `[abc]`; letters as they are) are held against the whole name.
    """

    def __init__(self, entries: Mapping[str, T]) -> None:
        self._entries = entries
        self._globs = [
            (re.compile(fnmatch.translate(name)), value)
            for name, value in entries.items()
            if not _GLOB_SIGNS.isdisjoint(name)
        ]

    def find(self, name: str) -> T | None:
        if name in self._entries:
            return self._entries[name]
        return next((value for glob, value in self._globs if glob.fullmatch(name)), None)


class Policy:
    """Never changed: another file makes another policy.

    Args:
        keys: of each key, or JWT's subject, that has no limits of its own; None: DEFAULT_LIMITS.
        addresses: of each client address, where nobody has to say who they are; the same.
        tenants, models, budgets, prices: by names or globs; each name that a glob fits has all of
            it to itself.
    """

    def __init__(
        self,
        *,
        keys: LimitSet | None = None,
        addresses: LimitSet | None = None,
        tenants: Mapping[str, LimitSet] | None = None,
        models: Mapping[str, LimitSet] | None = None,
        budgets: Mapping[str, Budget] | None = None,
        prices: Mapping[str, Price] | None = None,
    ) -> None:
        self._keys = keys
        self._addresses = addresses
        self._tenants = ByName(tenants or {})
        self._models = ByName(models or {})
        self._budgets = ByName(budgets or {})
        self._prices = ByName(prices or {})
        # Made here, not by a decorator: what an old policy remembers goes with it.
        self._remembered = functools.lru_cache(MAX_REMEMBERED)(self._rules)

    def rules(self, identity: Identity, address: str, model: str | None = None) -> tuple[Rule, ...]:
        """The buckets that a request takes from.

        Args:
            address: of the client; counts only for whoever has not said who they are.
            model: as clients call it, with an adapter's name; None: the request is for none.
        """
        principal = identity.principal
        return self._remembered(
            principal, "" if principal else address, identity.tenant, identity.limits, model
        )

    def budget(self, tenant: str) -> Budget | None:
        return self._budgets.find(tenant)

    def price(self, model: str) -> Price | None:
        """None: it costs nothing."""
        return self._prices.find(model)

    @property
    def num_remembered(self) -> int:
        return self._remembered.cache_info().currsize

    def _rules(
        self,
        principal: str,
        address: str,
        tenant: str,
        own_limits: LimitSet | None,
        model: str | None,
    ) -> tuple[Rule, ...]:
        if principal:
            rules = rules_for(f"key:{principal}", _with_defaults(own_limits or self._keys))
        else:
            limits = _with_defaults(own_limits or self._addresses)
            rules = rules_for(_address_subject(address), limits)
        if (limits_of_tenant := self._tenants.find(tenant)) is not None:
            rules += rules_for(f"tenant:{tenant}", limits_of_tenant)
        if model is not None and (limits_of_model := self._models.find(model)) is not None:
            rules += rules_for(f"model:{model}", limits_of_model)
        return rules


def _with_defaults(limits: LimitSet | None) -> LimitSet:
    """Always with a bucket of requests and one of tokens, for the headers."""
    if limits is None:
        return DEFAULT_LIMITS
    return msgspec.structs.replace(
        limits,
        requests_per_minute=limits.requests_per_minute or DEFAULT_LIMITS.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute or DEFAULT_LIMITS.tokens_per_minute,
    )


def _address_subject(address: str) -> str:
    """All whose address is not known (a socket's file, a proxy that hides it) stand together."""
    try:
        return address_subject(address)
    except ValueError:
        return "ip:unknown"
