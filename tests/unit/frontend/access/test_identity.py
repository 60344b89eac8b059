from __future__ import annotations

import pytest

from frontend.access.credential import read_credential
from frontend.access.identity import ANYBODY, DEFAULT_SCOPES, Identity, Scope
from frontend.access.secrets import hash_of, is_secret, new_secret, shown


def who(*models: str) -> Identity:
    return Identity(tenant="t", models=models)


@pytest.mark.parametrize(
    ("globs", "model", "may"),
    [
        (("*",), "gemma-2b", True),
        (("*",), "gemma-2b:sql", True),
        (("gemma-*",), "gemma-2b", True),
        (("gemma-*",), "gemma-2b:sql", True),
        (("gemma-*",), "my-gemma-2b", False),
        (("gemma-*",), "Gemma-2b", False),
        (("gemma-2b",), "gemma-2b", True),
        (("gemma-2b",), "gemma-2b:sql", False),
        (("gemma-2b",), "gemma-2bx", False),
        (("gemma-2b:*",), "gemma-2b", False),
        (("gemma-2b:sql",), "gemma-2b:sql", True),
        (("gemma-2b:sql",), "gemma-2b:poetry", False),
        (("gemma-?b",), "gemma-7b", True),
        (("gemma-[27]b",), "gemma-7b", True),
        (("gemma-[!7]b",), "gemma-7b", False),
        (("a", "b*"), "bc", True),
        (("a", "b*"), "a", True),
        (("a", "b*"), "ab", False),
        (("gemma.2b",), "gemma-2b", False),
        ((), "gemma-2b", False),
        (("",), "gemma-2b", False),
        (("*",), "two\nlines", True),
        (("gemma",), "gemma\n", False),
    ],
)
def test_a_model_is_held_against_the_globs(globs: tuple[str, ...], model: str, may: bool) -> None:
    assert who(*globs).may_use(model) is may


def test_no_scope_has_another_in_it() -> None:
    for scope in Scope:
        only = Identity(tenant="t", scopes=frozenset({scope}))
        assert [other for other in Scope if only.may(other)] == [scope]
        assert only.is_admin == (scope is Scope.ADMIN)
    assert Identity(tenant="t", scopes=frozenset()).may(None)


def test_a_new_key_rules_over_nothing() -> None:
    assert not DEFAULT_SCOPES & {Scope.ADMIN, Scope.MODELS_WRITE}


def test_without_authentication_anybody_may_do_anything() -> None:
    assert all(ANYBODY.may(scope) for scope in Scope)
    assert ANYBODY.may_use("anything")


def test_a_secret_is_256_random_bits() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(is_secret(one) and len(one) == 3 + 43 for one in secrets)
    assert all(len(hash_of(one)) == 32 and one.startswith(shown(one)) for one in secrets)


@pytest.mark.parametrize(
    "text", ["", "sk-", "sk-" + "a" * 42, "sk-" + "a" * 44, "pk-" + "a" * 43, "sk-" + "ä" * 43,
             "sk-" + "a" * 42 + "\n", " sk-" + "a" * 43, "SK-" + "a" * 43],
)  # fmt: skip
def test_what_cannot_be_a_secret_is_seen(text: str) -> None:
    assert not is_secret(text)


@pytest.mark.parametrize(
    ("authorization", "api_key", "credential"),
    [
        (["Bearer abc"], [], "abc"),
        (["bearer  abc "], [], "abc"),
        (["BEARER abc"], [], "abc"),
        ([], ["abc"], "abc"),
        ([], [" abc "], "abc"),
        (["Bearer abc"], ["other"], "abc"),  # Anthropic's SDK sends both when it has both
        (["Basic dTpw"], ["abc"], "abc"),  # a proxy's
        (["Basic dTpw"], [], None),
        (["abc"], [], None),
        (["Bearer"], [], None),
        (["Bearer "], [], None),
        ([], [""], None),
        ([], [], None),
        (["Bearer abc", "Bearer abc"], [], "abc"),
        (["Bearer abc", "Bearer def"], [], None),
        ([], ["abc", "def"], None),
    ],
)
def test_where_a_credential_is(
    authorization: list[str], api_key: list[str], credential: str | None
) -> None:
    assert read_credential(authorization, api_key) == credential


def test_a_token_counts_for_its_issuers_subject_and_a_key_for_itself() -> None:
    token = Identity(tenant="t", issuer="https://login.example", subject="ann")
    assert token.principal == "https://login.example ann"
    assert Identity(tenant="t", key_id="3f2a").principal == "3f2a"
    assert ANYBODY.principal == ""
