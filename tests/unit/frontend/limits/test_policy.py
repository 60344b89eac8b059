"""Which buckets a request takes from, and what a tenant and a model have of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from frontend.access.identity import ANYBODY, Identity
from frontend.limits.buckets import LimitSet, Rule, Unit
from frontend.limits.policy import DEFAULT_LIMITS, MAX_REMEMBERED, Budget, Policy, Price

FEW = LimitSet(requests_per_minute=3, tokens_per_minute=30)
KEY = Identity(tenant="acme", key_id="key_1")
TOKEN = Identity(tenant="acme", subject="ann", issuer="https://login.example.com/")


def capacities(rules: tuple[Rule, ...]) -> dict[str, int]:
    return {rule.name: rule.capacity for rule in rules}


def default_of(subject: str) -> dict[str, int]:
    return {f"{subject}:requests/min": 1_000_000, f"{subject}:tokens/min": 1_000_000_000}


def test_without_a_file_there_are_buckets_to_tell_of_that_nobody_empties() -> None:
    policy = Policy()
    assert capacities(policy.rules(KEY, "192.0.2.1", "m")) == default_of("key:key_1")
    assert capacities(policy.rules(ANYBODY, "192.0.2.1", "m")) == default_of("ip:192.0.2.1")


@pytest.mark.parametrize(
    ("identity", "subject"),
    [(KEY, "key:key_1"), (TOKEN, "key:https://login.example.com/ ann"), (ANYBODY, "ip:192.0.2.1")],
)
def test_who_has_said_who_they_are_is_not_limited_by_address(
    identity: Identity, subject: str
) -> None:
    policy = Policy(keys=FEW, addresses=FEW)
    assert capacities(policy.rules(identity, "192.0.2.1")) == {
        f"{subject}:requests/min": 3,
        f"{subject}:tokens/min": 30,
    }


@pytest.mark.parametrize("identity", [KEY, TOKEN])
def test_limits_of_ones_own_win(identity: Identity) -> None:
    own = replace(identity, limits=LimitSet(requests_per_minute=7, tokens_per_day=70))
    policy = Policy(keys=LimitSet(requests_per_minute=3, concurrent_requests=1))
    found = {rule.name.rsplit(":", 1)[1]: rule.capacity for rule in policy.rules(own, "")}
    # those of [keys] are not mixed in; a bucket of tokens a minute is there for the headers
    assert found == {"requests/min": 7, "tokens/min": 1_000_000_000, "tokens/day": 70}


def test_there_is_always_a_bucket_of_requests_and_one_of_tokens() -> None:
    policy = Policy(keys=LimitSet(concurrent_requests=2), addresses=LimitSet())
    for identity in (KEY, TOKEN, ANYBODY):
        units = [rule.unit for rule in policy.rules(identity, "192.0.2.1")]
        assert {Unit.REQUESTS, Unit.TOKENS} <= set(units)


def test_clients_of_one_ipv6_network_share_a_bucket_and_so_do_those_without_an_address() -> None:
    policy = Policy(addresses=FEW)
    assert policy.rules(ANYBODY, "2001:db8::1") == policy.rules(ANYBODY, "2001:db8::2")
    assert policy.rules(ANYBODY, "2001:db8::1") != policy.rules(ANYBODY, "2001:db8:0:1::1")
    assert policy.rules(ANYBODY, "") == policy.rules(ANYBODY, "unknown") != ()


def test_each_tenant_and_model_that_a_glob_fits_has_buckets_of_its_own() -> None:
    policy = Policy(
        tenants={"*": LimitSet(tokens_per_day=5)}, models={"llama-*": LimitSet(tokens_per_day=6)}
    )
    other = Identity(tenant="umbra", key_id="key_2")
    assert capacities(policy.rules(KEY, "", "llama-2")) == {
        **default_of("key:key_1"), "tenant:acme:tokens/day": 5, "model:llama-2:tokens/day": 6,
    }  # fmt: skip
    assert capacities(policy.rules(other, "", "llama-2:sql")) == {
        **default_of("key:key_2"),
        "tenant:umbra:tokens/day": 5,
        "model:llama-2:sql:tokens/day": 6,
    }
    assert capacities(policy.rules(KEY, "", "gemma-2b")) == {
        **default_of("key:key_1"), "tenant:acme:tokens/day": 5,
    }  # fmt: skip
    assert policy.rules(KEY, "", None) == policy.rules(KEY, "", "gemma-2b")


def test_an_exact_name_wins_then_the_first_glob() -> None:
    one, two, three = (Budget(tokens=number) for number in (1, 2, 3))
    policy = Policy(budgets={"a*": one, "*": two, "acme": three})
    assert [policy.budget(name) for name in ("acme", "acne", "other")] == [three, one, two]


def test_a_name_is_exempted_from_a_glob_by_an_entry_without_limits() -> None:
    policy = Policy(tenants={"*": FEW, "acme": LimitSet()}, models={"*": FEW, "m": LimitSet()})
    assert capacities(policy.rules(KEY, "", "m")) == default_of("key:key_1")


def test_names_are_not_globs_of_other_names() -> None:
    prices = {"llama.2": Price(prompt=1, completion=1), "LLAMA*": Price(prompt=2, completion=2)}
    policy = Policy(prices=prices)
    assert policy.price("llama-2") is None
    assert policy.price("llama.2") == Price(prompt=1, completion=1)


def test_rules_are_made_once_and_a_flood_of_addresses_is_not_kept() -> None:
    policy = Policy(addresses=FEW)
    first = policy.rules(ANYBODY, "192.0.2.1", "m")
    assert policy.rules(ANYBODY, "192.0.2.1", "m") is first
    assert policy.num_remembered == 1
    # who has a key may come from anywhere: that makes no rules anew
    assert policy.rules(KEY, "192.0.2.1", "m") is policy.rules(KEY, "192.0.2.2", "m")
    assert policy.num_remembered == 2
    for number in range(MAX_REMEMBERED + 10):
        policy.rules(ANYBODY, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert policy.num_remembered <= MAX_REMEMBERED


def test_defaults_are_beyond_any_machine() -> None:
    assert DEFAULT_LIMITS.requests_per_minute == 1_000_000
    assert DEFAULT_LIMITS.tokens_per_minute == 1_000_000_000
