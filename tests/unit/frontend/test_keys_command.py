"""`inflight keys`, on a real database."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from frontend.bench.servers import free_ports
from frontend.cli import app


def run(home: Path, *arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments, "--home", str(home)])
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
        ["create", "lab", "--tokens-per-day", "0"],
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: list[str]) -> None:
    assert "rror" in run(tmp_path, *arguments, fails=True)
    assert listed(tmp_path) == []


@pytest.mark.parametrize("words", [("",), ("lab", "--tenant", " "), ("lab", "--model", "")])
def test_what_names_nothing_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
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
