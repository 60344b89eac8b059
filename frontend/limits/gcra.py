"""The decision over all of a request's buckets at once: arithmetic, no clock and no storage.

Source: the generic cell rate algorithm (ITU-T I.371) in its virtual scheduling form. A store keeps
one number of a bucket, when it will be empty; what is left of that time is its level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from frontend.limits.buckets import Rule, Unit

# A thousandth of a unit: so much may the rounding of many additions amount to.
TOLERANCE = 1e-3
# Nobody knows when a place becomes free.
PLACE_RETRY_S = 1.0
# A level may be above full by what an answer took beyond its reservation, but no higher than this
# many times full: a bucket is usable again after a period, whatever has happened to the clock.
MAX_FULL = 2.0


@dataclass(slots=True, kw_only=True)  # a frozen class takes four times as long to make
class Decision:
    """Nobody changes it. `levels` are those after the decision, one a rule."""

    rules: Sequence[Rule]
    levels: list[float]
    num_tokens: int = 0  # asked for
    refused_by: Rule | None = None  # the one that is to be waited for longest
    retry_after_s: float = 0.0  # inf: never, for it does not fit into an empty bucket

    @property
    def is_admitted(self) -> bool:
        return self.refused_by is None

    @property
    def never_fits(self) -> bool:
        return self.retry_after_s == inf

    def states(self) -> list[BucketState]:
        """How the buckets stand, in the order of the rules."""
        return [
            BucketState(rule=rule, remaining=remaining(rule, level), reset_s=reset_s(rule, level))
            for rule, level in zip(self.rules, self.levels, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketState:
    rule: Rule
    remaining: int
    reset_s: float  # until it is empty, when nothing more comes; 0 of places


def decide(
    rules: Sequence[Rule], levels: list[float], num_tokens: int, num_requests: int = 1
) -> Decision:
    """Whether the request fits into every bucket; if not, it is taken from none.

    Args:
        levels: of the rules, as they are now.
        num_requests: 0 to see how the buckets stand.
    """
    after = []
    wait_s, refused_by = 0.0, None
    for rule, level in zip(rules, levels, strict=True):
        cost = num_tokens if rule.unit is Unit.TOKENS else num_requests
        new = level + cost * rule.step
        over = new - rule.full
        if cost and over > rule.step * TOLERANCE:
            own_wait_s = inf if cost > rule.capacity else PLACE_RETRY_S if rule.is_place else over
            if own_wait_s > wait_s:
                wait_s, refused_by = own_wait_s, rule
        after.append(new)
    return Decision(
        rules=rules,
        levels=after if refused_by is None else levels,
        num_tokens=num_tokens,
        refused_by=refused_by,
        retry_after_s=wait_s,
    )


def settled(rule: Rule, level: float, num_tokens: int) -> float:
    """The level after `num_tokens` more than were reserved; fewer give the rest back.

    Giving back is exact whatever has run out of the bucket since: over any stretch of time, what
    is taken less what is given back is at most the capacity and what ran out. What a client may use
    in that stretch is that, and what it had reserved before.
    """
    return min(max(level + num_tokens * rule.step, 0.0), MAX_FULL * rule.full)


def remaining(rule: Rule, level: float) -> int:
    """Whole units that the bucket has room for."""
    return max(int((rule.full - level) / rule.step + TOLERANCE), 0)


def reset_s(rule: Rule, level: float) -> float:
    return 0.0 if rule.is_place else level
