"""`inflight keys`, on a real database."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from frontend.bench.servers import free_ports
from frontend.cli import app
from frontend.manage.keys import list_command


def run(home: Path, *arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments, "--home", str(home)])
    assert isinstance(result.exception, SystemExit | None), "it is said in words"
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def made(home: Path, *arguments: str) -> dict[str, Any]:
    key: dict[str, Any] = json.loads(run(home, "create", *arguments, "--json"))
    return key


def listed(home: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(home, "list", "--json"))
    return found


def test_a_key_is_shown_once(tmp_path: Path) -> None:
    secret = run(tmp_path, "create", "lab").strip()
    assert re.fullmatch(r"sk-[\w-]{43}", secret)
    assert secret not in run(tmp_path, "list") + run(tmp_path, "list", "--json")
    assert secret[:8] in run(tmp_path, "list")


def test_a_key_is_made_as_it_is_asked_for(tmp_path: Path) -> None:
    key = made(
        tmp_path, "lab", "--tenant", "t", "--scope", "inference", "--scope", "metrics",
        "--model", "gemma-*", "--expires-in", "90d", "--tokens-per-minute", "1000",
    )  # fmt: skip
    assert (key["name"], key["tenant"], key["models"]) == ("lab", "t", ["gemma-*"])
    assert key["scopes"] == ["inference", "metrics"]
    assert key["limits"]["tokens_per_minute"] == 1000
    assert key["expires_at"] - key["created_at"] == pytest.approx(90 * 86400, abs=60)
    usual = made(tmp_path, "usual")
    assert usual["scopes"] == ["batch", "inference", "models:read"]
    assert (usual["models"], usual["limits"], usual["expires_at"]) == (["*"], None, None)


def test_a_key_is_limited_rotated_and_revoked(tmp_path: Path) -> None:
    key = made(tmp_path, "lab")
    run(tmp_path, "limits", key["id"], "--requests-per-minute", "5")
    assert listed(tmp_path)[0]["limits"]["requests_per_minute"] == 5
    run(tmp_path, "limits", key["id"])
    assert listed(tmp_path)[0]["limits"] is None
    rotated = json.loads(run(tmp_path, "rotate", key["id"], "--grace", "0s", "--json"))
    assert rotated["id"] == key["id"]
    assert rotated["key"] != key["key"]
    run(tmp_path, "revoke", key["id"])
    assert not listed(tmp_path)[0]["valid"]
    assert "revoked" in run(tmp_path, "list")
    assert "no valid key" in run(tmp_path, "rotate", key["id"], fails=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["revoke", "key_of_nobody"],
        ["limits", "key_of_nobody"],
        ["create", "lab", "--expires-in", "soon"],
        ["create", "lab", "--scope", "everything"],
        ["create", "lab", "--expires-in", "0s"],
        ["create", "lab", "--expires-in", "999999999d"],
        ["create", "lab", "--tokens-per-day", "0"],
        ["create", "lab", "--tokens-per-day", str(2**53 + 1)],
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: list[str]) -> None:
    assert "rror" in run(tmp_path, *arguments, fails=True)
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ("",),
        ("lab", "--tenant", " "),
        ("lab", "--model", ""),
        ("a\tb",),
        ("lab", "--tenant", "a\x1b[2J"),
        ("\udcff",),  # what is no UTF-8 on the command line
        ("x" * 257,),
    ],
)
def test_what_can_be_no_name_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    assert "must not be empty" in run(tmp_path, "create", *words, fails=True)
    assert not (tmp_path / "state").exists()


def test_a_database_that_is_away_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    url = f"postgresql://inflight:secret@127.0.0.1:{port}/inflight"
    monkeypatch.setenv("INFLIGHT_DATABASE_URL", url)
    output = run(tmp_path, "list", fails=True)
    assert output.startswith(f"error: the database inflight at 127.0.0.1:{port}: ")
    assert output.count("\n") == 1
    assert "secret" not in output


def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    made(tmp_path, "lab")
    with closing(sqlite3.connect(tmp_path / "state" / "inflight.db")) as connection:
        connection.execute("ALTER TABLE api_keys RENAME TO lost")
    for command in (["keys", "list"], ["usage"]):
        result = CliRunner().invoke(app, [*command, "--home", str(tmp_path)])
        assert result.exit_code == 1
        assert result.output.startswith("error: the database ")
        assert result.output.endswith("inflight.db: no such table: api_keys\n")
        assert result.output.count("\n") == 1


def test_at_a_terminal_keys_have_a_head_and_their_names_are_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, "create", "[red]:cat:[/x]", "--tenant", "甲公司")
    for name, value in {"COLUMNS": "200", "LINES": "50", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    reading, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        list_command(home=tmp_path)
        stdout.flush()
        head, row = os.read(reading, 10_000).decode().splitlines()
    os.close(reading)
    assert head.split()[:4] == ["id", "key", "name", "tenant"]
    assert row.split()[2:4] == ["[red]:cat:[/x]", "甲公司"]
    assert row.index("batch,") + len("甲公司") == head.index("scopes"), "they are twice as wide"
