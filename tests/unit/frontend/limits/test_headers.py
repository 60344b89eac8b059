from __future__ import annotations

import pytest

from frontend.errors import QuotaExceeded, RateLimited, RequestOverLimit
from frontend.limits.buckets import LimitSet, rules_for
from frontend.limits.gcra import Decision, decide
from frontend.limits.headers import duration, limit_headers, refusal
from frontend.messages import Language

KEY = rules_for(
    "key:a", LimitSet(requests_per_minute=100, tokens_per_minute=6_000, concurrent_requests=2)
)
TENANT = rules_for("tenant:t", LimitSet(requests_per_minute=60, tokens_per_day=8_640))
NOW = 1_633_046_340.5


def decided(*levels: float, num_tokens: int = 0) -> Decision:
    return decide(KEY + TENANT, list(levels), num_tokens)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.6000000000000014, "600ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (7.66, "7.66s"),
        (59.9999, "1m0s"),
        (179.56, "2m59.56s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86_400, "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_headers_are_of_the_tightest_buckets() -> None:
    headers = limit_headers(decided(0.0, 0.0, 0.0, 3.0, 0.0, num_tokens=600), NOW)
    assert headers == {
        "X-RateLimit-Limit": "60",  # the tenant's: 56 are less than 99
        "X-RateLimit-Remaining": "56",
        "X-RateLimit-Reset": "1633046345",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "56",
        "x-ratelimit-reset-requests": "4s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5400",
        "x-ratelimit-reset-tokens": "6s",
    }


def test_a_refused_one_is_told_when_to_come_back() -> None:
    decision = decided(60.0, 0.0, 0.0, 0.0, 0.0)
    headers = limit_headers(decision, NOW)
    assert headers["Retry-After"] == "1"
    assert headers["retry-after-ms"] == "600"
    assert headers["X-RateLimit-Remaining"] == "0"
    assert "x-should-retry" not in headers
    error = refusal(decision)
    assert type(error) is RateLimited
    assert error.type == "requests"
    assert "limit 100, remaining 0, requested 1. Try again in 600ms." in error.message()
    assert "100" in error.message(Language.ZH)


def test_tokens_are_named_as_what_is_too_many() -> None:
    error = refusal(decided(0.0, 50.0, 0.0, 0.0, 0.0, num_tokens=1_500))
    assert error.type == "tokens"
    assert "remaining 1000, requested 1500. Try again in 5s." in error.message()


def test_more_at_once_than_allowed_may_come_again_soon() -> None:
    decision = decided(0.0, 0.0, 2.0, 0.0, 0.0)
    assert limit_headers(decision, NOW)["Retry-After"] == "1"
    assert "at once are running: 2" in refusal(decision).message()


def test_an_exhausted_quota_is_not_to_be_retried() -> None:
    decision = decided(0.0, 0.0, 0.0, 0.0, 86_400.0, num_tokens=100)
    headers = limit_headers(decision, NOW)
    assert headers["x-should-retry"] == "false"
    assert headers["Retry-After"] == "1000"
    error = refusal(decision)
    assert isinstance(error, QuotaExceeded)
    assert (error.status, error.code) == (429, "insufficient_quota")


def test_what_never_fits_is_the_requests_own_fault() -> None:
    decision = decided(0.0, 0.0, 0.0, 60.0, 0.0, num_tokens=6_001)
    error = refusal(decision)
    assert isinstance(error, RequestOverLimit)
    assert error.status == 400
    assert "6001" in error.message()
    assert "Retry-After" not in limit_headers(decision, NOW)


def test_without_limits_there_is_nothing_to_say() -> None:
    assert limit_headers(decide((), [], 10), NOW) == {}
