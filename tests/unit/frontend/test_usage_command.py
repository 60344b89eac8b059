"""`inflight usage`, on a real database."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from frontend.cli import app
from frontend.manage.usage import usage_command
from frontend.settings import Settings
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database
from frontend.store.usage import UsageStore
from frontend.usage.record import UsageRow, time_of
from tests.fakes.usage import record

NOVEMBER_2 = time_of(date(2026, 11, 2))
DAY_S = 86_400


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With three requests of two days."""
    home = tmp_path_factory.mktemp("home")

    async def fill() -> None:
        database = await Database.open(Settings(home=home).database_address)
        key, _ = await ApiKeyStore(database).create(ApiKey(id="", name="the lab"))
        records = [
            record(at=NOVEMBER_2, principal=key.id),
            record(at=NOVEMBER_2 + DAY_S, tenant="[/other]"),
            record(at=NOVEMBER_2 + DAY_S, is_batch=True),
        ]
        rows = [
            UsageRow(id=str(number), record=one, cost=10**9) for number, one in enumerate(records)
        ]
        await UsageStore(database, retention_s=1e9).write(rows)
        await database.close()

    asyncio.run(fill())
    return home


def run(home: Path, *arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(app, ["usage", *arguments, "--home", str(home)])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def test_elsewhere_than_at_a_terminal_each_sum_is_a_line(home: Path) -> None:
    lines = run(home, "--month", "2026-11", "--by", "day").splitlines()
    assert [line.split("\t") for line in lines] == [
        ["2026-11-02", "1", "10", "0", "5", "0", "15", "1"],
        ["2026-11-03", "2", "20", "0", "10", "0", "30", "2"],
    ]


def test_at_a_terminal_there_is_a_head_and_a_sum_of_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, terminal = pty.openpty()
    for name, value in {"COLUMNS": "120", "LINES": "50", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    with os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        usage_command(month="2026-11", by=["day", "batch", "tenant"], home=home)
        stdout.flush()
        head, *rows = os.read(reading, 10_000).decode().splitlines()
    os.close(reading)
    assert head.split() == [
        "day", "batch", "tenant", "requests", "prompt", "cached", "completion", "reasoning",
        "total", "cost",
    ]  # fmt: skip
    assert [row.split()[:4] for row in rows[:3]] == [
        ["2026-11-02", "false", "acme", "1"],
        ["2026-11-03", "false", "[/other]", "1"],
        ["2026-11-03", "true", "acme", "1"],
    ]  # fmt: skip
    assert rows[3].split() == ["3", "30", "0", "15", "0", "45", "3"]


def test_keys_are_shown_by_id_and_name(home: Path) -> None:
    lines = run(home, "--month", "2026-11", "--tenant", "acme").splitlines()
    named = [line.split("\t")[1:3] for line in lines]
    assert ["key_1", ""] in named
    assert [name for key_id, name in named if key_id != "key_1"] == ["the lab"]


def test_csv_and_json_say_the_same(home: Path) -> None:
    asked = ("--since", "2026-11-01", "--until", "2026-11-30", "--by", "tenant,day")
    answer = json.loads(run(home, *asked, "--format", "json"))
    rows = list(csv.DictReader(io.StringIO(run(home, *asked, "--format", "csv"))))
    assert rows == [{name: str(value) for name, value in one.items()} for one in answer["data"]]
    assert len(rows) == 3
    assert answer["total"]["cost"] == "3"


def test_what_is_not_asked_for_is_left_out(home: Path) -> None:
    assert run(home, "--since", "2026-11-03", "--until", "2026-11-03", "--batch", "--by", "day") \
        .split("\t")[1] == "1"  # fmt: skip
    assert run(home, "--month", "2026-12") == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--month", "2026"], "--month"),
        (["--by", "week"], "--by"),
        (["--since", "today"], "--since"),
        (["--month", "2026-11", "--since", "2026-11-01"], "--month"),
        (["--format", "xml"], "--format"),
    ],
)
def test_what_cannot_be_asked_is_said(home: Path, arguments: list[str], named: str) -> None:
    assert named in run(home, *arguments, fails=True)
