"""The file of limits: what it may say, what is said of a bad one, and how a new one is taken."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from frontend.access.identity import ANYBODY, Identity
from frontend.limits import policy_file as module
from frontend.limits.policy import Budget, Price
from frontend.limits.policy_file import PolicyFile, load_policy, policy_file, read_policy
from frontend.serve import check_access
from frontend.settings import Settings, SettingsError, load_settings

EXAMPLE = Path(__file__).parents[4] / "docker" / "limits.example.toml"


def limit(file: PolicyFile) -> int:
    """What a client without a key may ask for in a minute."""
    return file.policy.rules(ANYBODY, "192.0.2.1")[0].capacity


def says(requests: int) -> str:
    return f"[addresses]\nrequests_per_minute = {requests}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text(says(1))
    return path


@pytest.fixture
def file(path: Path) -> PolicyFile:
    file = PolicyFile(path)
    file.check()
    return file


def look(file: PolicyFile, times: int = 2) -> None:
    for _ in range(times):
        file.look()


def test_the_docstrings_example_is_what_is_read() -> None:
    _, _, example = (module.__doc__ or "").partition("\n\n")
    policy = read_policy(example)
    key = Identity(tenant="acme", key_id="k")
    names = {rule.name: rule.capacity for rule in policy.rules(key, "", "llama-2")}
    assert names == {
        "key:k:requests/min": 600,
        "key:k:tokens/min": 200_000,
        "key:k:tokens/day": 10_000_000,
        "key:k:concurrent": 32,
        "tenant:acme:tokens/day": 100_000_000,
        "model:llama-2:concurrent": 8,
    }
    assert policy.budget("acme") == Budget(tokens=500_000_000, money=200.0)
    assert policy.budget("other") is None
    assert policy.price("any") == Price(prompt=0.1, cached=0.05, completion=0.4)
    assert policy.rules(ANYBODY, "192.0.2.1")[0].capacity == 60


def test_the_file_that_is_shipped_can_be_used() -> None:
    policy = load_policy(EXAMPLE)
    assert policy.rules(ANYBODY, "192.0.2.1")[0].capacity < 1_000_000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keys = 3", "keys: belongs into a table, as [keys]"),
        ("[users]", "users: unknown; there are keys, addresses, tenants, models, budgets, prices"),
        ("[keys]\nrpm = 3", "keys.rpm: unknown; there are requests_per_minute, tokens_per"),
        ("[keys]\nrequests_per_minute = 0", "keys.requests_per_minute: Expected int >= 1, not 0"),
        ("[keys]\ntokens_per_day = true", "keys.tokens_per_day: Expected int, got bool, not True"),
        ("[keys]\ntokens_per_day = 1.5", "keys.tokens_per_day: Expected int, got float, not 1.5"),
        (
            "[tenants]\ntokens_per_day = 1",
            'tenants.tokens_per_day: belongs into a table, as [tenants."*"]',
        ),
        ('[models."a b"]\ntpm = 1', 'models."a b".tpm: unknown; there are requests_per_minute'),
        ("[budgets.acme]\nmoney = nan", "budgets.acme.money: Expected float > 0.0, not nan"),
        ("[budgets.acme]\nmoney = inf", "budgets.acme.money: Expected float <= "),
        ("[budgets.acme]\nmoney = 9", 'budgets.acme.money: needs prices, as [prices."*"]'),
        ("[prices.m]\nprompt = 1", "prices.m: Object missing required field completion"),
        ("[prices.m]\nprompt = -1\ncompletion = 1", "prices.m.prompt: Expected float >= 0"),
        ("[keys", "Expected ']' at the end of a table declaration (at"),
        ("[keys]\n[keys]", "at line 2"),
        ("a = " + "[" * 5000, "recursion"),
    ],
)
def test_a_bad_file_stops_the_start_with_one_line_that_says_where_and_why(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        check_access(Settings(home=tmp_path))
    said = str(caught.value)
    assert said.startswith(f"limits_file: {path}: ")
    assert problem in said
    assert "\n" not in said


def test_a_file_may_be_missing_unless_it_is_named(tmp_path: Path) -> None:
    check_access(Settings(home=tmp_path))
    named = Settings(home=tmp_path, limits_file=tmp_path / "other.toml")
    with pytest.raises(SettingsError, match=r"other\.toml: No such file"):
        check_access(named)
    (tmp_path / "other.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"other\.toml: .*utf-8"):
        check_access(named)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Is a directory"):
        check_access(Settings(home=tmp_path, limits_file=tmp_path))


def test_the_settings_name_the_file(tmp_path: Path) -> None:
    environ = {"INFLIGHT_HOME": str(tmp_path), "INFLIGHT_LIMITS_FILE": str(tmp_path / "a.toml")}
    (tmp_path / "a.toml").write_text(says(5))
    (tmp_path / "limits.toml").write_text(says(6))
    named, unnamed = policy_file(load_settings({}, environ)), policy_file(Settings(home=tmp_path))
    named.check()
    unnamed.check()
    assert (limit(named), limit(unnamed)) == (5, 6)


def test_a_changed_file_takes_the_place_of_the_old_one(file: PolicyFile, path: Path) -> None:
    path.write_text(says(2))  # of the same size
    look(file)
    assert limit(file) == 2
    new = path.with_suffix(".new")
    new.write_text(says(3))
    new.rename(path)  # as editors do
    look(file)
    assert limit(file) == 3


def test_a_file_that_has_not_changed_is_not_read_again(
    file: PolicyFile, caplog: pytest.LogCaptureFixture
) -> None:
    policy = file.policy
    with caplog.at_level(logging.INFO):
        look(file, 5)
    assert file.policy is policy
    assert not caplog.records


def test_a_file_that_has_become_bad_is_logged_once_and_the_old_one_stays(
    file: PolicyFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(says(0))
    look(file, 5)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "addresses.requests_per_minute: Expected int >= 1" in vars(record)["reason"]
    assert limit(file) == 1
    path.write_text(says(4))
    look(file)
    assert limit(file) == 4


def test_a_file_that_has_gone_is_no_leave_to_take_more(
    file: PolicyFile, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = path.rename(path.with_suffix(".away"))
    look(file, 5)
    assert limit(file) == 1
    assert len(caplog.records) == 1
    away.rename(path)
    path.write_text(says(2))
    look(file)
    assert limit(file) == 2


def test_a_file_that_comes_later_is_taken(tmp_path: Path) -> None:
    file = policy_file(Settings(home=tmp_path))
    file.check()
    assert limit(file) == 1_000_000
    (tmp_path / "limits.toml").write_text(says(8))
    look(file)
    assert limit(file) == 8


def test_a_file_that_is_being_written_is_not_taken_in_parts(file: PolicyFile, path: Path) -> None:
    with path.open("w") as writing:  # empty from here on
        for part in ("[addresses]\n", "requests_per_minute = 9", "9"):
            file.look()
            writing.write(part)
            writing.flush()
    file.look()
    assert limit(file) == 1
    file.look()
    assert limit(file) == 99


def test_an_open_file_is_looked_at_by_itself_until_it_is_closed(path: Path) -> None:
    async def serve() -> None:
        file = PolicyFile(path, look_every_s=0.005)
        file.open()
        await asyncio.to_thread(path.write_text, says(2))
        async with asyncio.timeout(5):
            while limit(file) != 2:  # noqa: ASYNC110  a look says nothing when it is over
                await asyncio.sleep(0.005)
        await file.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(serve())
