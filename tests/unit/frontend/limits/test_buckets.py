from __future__ import annotations

import msgspec
import pytest

from frontend.limits.buckets import LimitSet, address_subject, rules_for, token_capacity


def test_only_what_is_limited_has_a_bucket() -> None:
    assert rules_for("key:a", LimitSet()) == ()
    [rule] = rules_for("key:a", LimitSet(tokens_per_day=7))
    assert (rule.name, rule.capacity, rule.is_quota) == ("key:a:tokens/day", 7, True)


def test_the_buckets_of_a_key_are_made_once() -> None:
    limits = LimitSet(requests_per_minute=3)
    assert rules_for("key:a", limits) is rules_for("key:a", LimitSet(requests_per_minute=3))
    assert rules_for("key:a", limits)[0].key != rules_for("key:b", limits)[0].key


def test_the_most_that_a_request_can_get_is_the_smallest_bucket() -> None:
    limits = LimitSet(requests_per_minute=1, tokens_per_minute=50, tokens_per_day=40)
    assert token_capacity(rules_for("key:a", limits)) == 40
    assert token_capacity(rules_for("key:a", LimitSet(requests_per_minute=1))) is None


@pytest.mark.parametrize("text", ['{"tokens_per_day": 0}', '{"tokens_per_week": 5}'])
def test_limits_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=LimitSet)


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("192.0.2.7", "ip:192.0.2.7"),
        ("::ffff:192.0.2.7", "ip:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
        ("fe80::1%eth0", "ip:fe80::/64"),
        ("192.0.2.7:51234", "ip:192.0.2.7"),
        ("[2001:db8:1:2::1]", "ip:2001:db8:1:2::/64"),
        ("[2001:db8:1:2::1]:443", "ip:2001:db8:1:2::/64"),
    ],
)
def test_an_address_stands_for_whom_it_belongs_to(address: str, subject: str) -> None:
    assert address_subject(address) == subject


@pytest.mark.parametrize("address", ["", "unknown", "_hidden", "example.com", "192.0.2.7:", "[]"])
def test_what_is_no_address_is_not_taken_for_one(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        address_subject(address)
