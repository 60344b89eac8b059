"""What clients are told of a decision: headers of every answer, and the error of a refusal."""

from __future__ import annotations

from math import ceil, inf
from typing import Any

from frontend.errors import QuotaExceeded, RateLimited, RequestOverLimit, ServingError
from frontend.limits.buckets import Unit
from frontend.limits.gcra import BucketState, Decision, remaining

REFUSALS = {
    Unit.REQUESTS: "rate_limited.requests",
    Unit.TOKENS: "rate_limited.tokens",
    Unit.CONCURRENT: "rate_limited.concurrent",
}


def limit_headers(decision: Decision, now: float) -> dict[str, str]:
    """Of the tightest bucket of requests, and of tokens: the one with the least left.

    OpenAI's six give durations, X-RateLimit-Reset a time: both until the bucket is whole again.

    Args:
        now: Unix seconds.
    """
    headers: dict[str, str] = {}
    if (requests := _tightest(decision, Unit.REQUESTS)) is not None:
        headers["X-RateLimit-Limit"] = str(requests.rule.capacity)
        headers["X-RateLimit-Remaining"] = str(requests.remaining)
        headers["X-RateLimit-Reset"] = str(_round_up(now + requests.reset_s))
        _add_openai_headers(headers, requests, "requests")
    if (tokens := _tightest(decision, Unit.TOKENS)) is not None:
        _add_openai_headers(headers, tokens, "tokens")
    if decision.refused_by is not None and not decision.never_fits:
        headers["Retry-After"] = str(_round_up(decision.retry_after_s))
        headers["retry-after-ms"] = str(_round_up(decision.retry_after_s * 1000))
        if decision.refused_by.is_quota:
            headers["x-should-retry"] = "false"
    return headers


def _tightest(decision: Decision, unit: Unit) -> BucketState | None:
    """Of time, as requests and tokens are."""
    tightest = None
    least = inf
    for rule, level in zip(decision.rules, decision.levels, strict=True):
        if rule.unit is unit:
            room = (rule.full - level) / rule.step
            if room < least:
                tightest, least = (rule, level), room
    if tightest is None:
        return None
    rule, level = tightest
    return BucketState(rule=rule, remaining=remaining(rule, level), reset_s=level)


def _add_openai_headers(headers: dict[str, str], state: BucketState, what: str) -> None:
    headers[f"x-ratelimit-limit-{what}"] = str(state.rule.capacity)
    headers[f"x-ratelimit-remaining-{what}"] = str(state.remaining)
    headers[f"x-ratelimit-reset-{what}"] = duration(state.reset_s)


def duration(seconds: float) -> str:
    """As OpenAI writes it, which is as Go does: 12ms, 1.5s, 6m0s, 1h0m0s. Rounded up."""
    total_ms = _round_up(seconds * 1000)
    if total_ms < 1000:
        return f"{total_ms}ms" if total_ms else "0s"
    minutes, ms = divmod(total_ms, 60_000)
    rest = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}"
    return f"{minutes}m{rest}" if minutes else rest


def refusal(decision: Decision) -> ServingError:
    """The error of a decision that is not admitted."""
    rule = decision.refused_by
    assert rule is not None, "nothing is refused"
    requested = decision.num_tokens if rule.unit is Unit.TOKENS else 1
    if decision.never_fits:
        return RequestOverLimit(limit=rule.capacity, requested=requested)
    left = remaining(rule, decision.levels[decision.rules.index(rule)])
    values: dict[str, Any] = {
        "limit": rule.capacity,
        "remaining": left,
        "requested": requested,
        "wait": duration(decision.retry_after_s),
    }
    if rule.is_quota:
        return QuotaExceeded(**values)
    error = RateLimited(REFUSALS[rule.unit], **values)
    if rule.unit is Unit.TOKENS:
        error.type = "tokens"
    return error


def _round_up(value: float) -> int:
    """To a whole number; what is above one by rounding errors only is that one."""
    return ceil(value - 1e-6)
