"""The limits of a key, tenant, model or address, and the buckets that they make.

Knows nothing of where buckets are kept, nor of how they are decided.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import msgspec

MINUTE_S = 60.0
DAY_S = 86_400.0
_WITH_PORT = re.compile(r"\[(?P<v6>[^]]+)\](:\d+)?|(?P<v4>[\d.]+):\d+")
MAX_COUNT = 2**53
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]


class Unit(StrEnum):
    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENT = "concurrent"  # requests at once: each holds a place until it ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One bucket.

    Its level is how much of it is taken. A bucket of requests or tokens runs empty by itself, and
    its level is a time: that until it is empty. The level of places is their number.
    """

    name: str  # tells it from all others
    capacity: int
    period_s: float = 0.0  # in which a full bucket runs empty; 0 of places
    unit: Unit
    is_quota: bool = False  # used up, it is not worth waiting for
    # What every request would calculate again
    is_place: bool = field(init=False, repr=False, compare=False)
    key: bytes = field(init=False, repr=False, compare=False)  # the name, in 16 bytes
    full: float = field(init=False, repr=False, compare=False)  # its highest level
    step: float = field(init=False, repr=False, compare=False)  # what one unit adds to its level

    def __post_init__(self) -> None:
        is_place = self.unit is Unit.CONCURRENT
        digest = hashlib.blake2b(self.name.encode(), digest_size=16).digest()
        object.__setattr__(self, "is_place", is_place)
        object.__setattr__(self, "key", digest)
        object.__setattr__(self, "full", float(self.capacity) if is_place else self.period_s)
        object.__setattr__(self, "step", 1.0 if is_place else self.period_s / self.capacity)


class LimitSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody may use, as keys, claims and settings say it; None: without a limit."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None  # of prompts and answers
    tokens_per_day: Count | None = None
    concurrent_requests: Count | None = None


@functools.lru_cache(maxsize=16_384)  # made once for a key, not for each of its requests
def rules_for(subject: str, limits: LimitSet) -> tuple[Rule, ...]:
    """The buckets of one subject.

    Args:
        subject: who or what is limited, with its kind: "key:3f2a", "model:gemma-2b".
    """
    buckets = (
        ("requests/min", limits.requests_per_minute, MINUTE_S, Unit.REQUESTS, False),
        ("tokens/min", limits.tokens_per_minute, MINUTE_S, Unit.TOKENS, False),
        ("tokens/day", limits.tokens_per_day, DAY_S, Unit.TOKENS, True),
        ("concurrent", limits.concurrent_requests, 0.0, Unit.CONCURRENT, False),
    )
    return tuple(
        Rule(
            name=f"{subject}:{name}",
            capacity=capacity,
            period_s=period_s,
            unit=unit,
            is_quota=is_quota,
        )
        for name, capacity, period_s, unit, is_quota in buckets
        if capacity is not None
    )


def address_subject(address: str) -> str:
    """Who an address stands for: with IPv6 a customer has a whole /64 to choose from.

    Args:
        address: as it is, or in brackets, or with a port: so do some proxies name their clients.

    Raises:
        ValueError: it is no IP address.
    """
    if (found := _WITH_PORT.fullmatch(address)) is not None:
        address = found["v6"] or found["v4"]
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return f"ip:{ip.ipv4_mapped}"
        return f"ip:{ipaddress.ip_network((ip, 64), strict=False)}"
    return f"ip:{ip}"


def token_capacity(rules: Sequence[Rule]) -> int | None:
    """The most tokens that one request can ever be given; None: any number."""
    return min((rule.capacity for rule in rules if rule.unit is Unit.TOKENS), default=None)
