"""Where `inflight serve` listens without asking anybody who they are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from frontend.bench.servers import free_ports
from frontend.serve import ServeError, check_access, print_ready, serve
from frontend.settings import Settings, SettingsError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_others_are_let_in_only_when_somebody_says_so(host: str, tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="listen-without-authentication"):
        check_access(Settings(home=tmp_path, host=host))
    check_access(Settings(home=tmp_path, host=host, authentication="on"))
    check_access(Settings(home=tmp_path, host=host, listen_without_authentication=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_keys(host: str, tmp_path: Path) -> None:
    check_access(Settings(home=tmp_path, host=host))


@pytest.mark.parametrize("authentication", ["on", "off"])
def test_the_command_that_is_shown_has_a_key_where_one_is_asked_for(
    tmp_path: Path, authentication: str
) -> None:
    console = Console(file=io.StringIO(), record=True)
    settings = Settings(home=tmp_path, authentication=authentication)
    print_ready(settings, "http://localhost:8000", console)
    shown = console.export_text()
    assert "curl http://localhost:8000/v1/chat/completions" in shown
    needs_key = authentication == "on"
    assert ('-H "Authorization: Bearer $INFLIGHT_API_KEY"' in shown) == needs_key
    assert (f"$(inflight keys create NAME --home {tmp_path})\n" in shown) == needs_key


def test_issuers_that_cannot_be_used_stop_the_start(tmp_path: Path) -> None:
    path = tmp_path / "issuers.toml"
    settings = Settings(home=tmp_path, authentication="on", jwt_issuers=path)
    with pytest.raises(SettingsError, match=r"issuers\.toml"):
        check_access(settings)
    path.write_text(
        '[[issuers]]\nissuer = "i"\naudience = ["a"]\nalgorithms = ["HS256"]\n'
        f'hmac_key_file = "{tmp_path / "key"}"\n[issuers.defaults]\ntenant = "t"\n'
    )
    (tmp_path / "key").write_text("short")
    with pytest.raises(SettingsError, match="has 5 bytes"):
        check_access(settings)


@pytest.mark.parametrize(
    "url",
    [
        "redis://", "redis://:hunter2@:6379", "redis://host:none", "http://hunter2@host",
        "unix://", "lmdb://", "lmdb://hunter2/path", "host:6379", "rediss://host/0?nope=1&db=x",
        "redis://user:hunter2/x@host:6379", "redis://user:hunter2\u2100@host",
        "redis://host?ssl_cert_reqs=none", "rediss://host?ssl_cert_reqs=nope", "redis://host/name",
    ],
)  # fmt: skip
def test_a_store_of_limits_that_cannot_be_stops_the_start(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="limits_url") as refused:
        check_access(Settings(home=tmp_path, limits_url=url))
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["", "redis://host", "rediss://u:p@host:6380/1", "valkey://host", "unix:///run/r.sock",
            "lmdb:///var/lib/limits"],
)  # fmt: skip
def test_a_store_of_limits_is_not_looked_for_before_the_start(url: str, tmp_path: Path) -> None:
    check_access(Settings(home=tmp_path, limits_url=url))
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_stops_the_start_with_one_line(tmp_path: Path) -> None:
    port, own_port = free_ports(2)
    url = f"postgresql://inflight:secret@127.0.0.1:{port}/inflight"
    settings = Settings(home=tmp_path, port=own_port, database_url=url)
    with pytest.raises(SettingsError, match=f"inflight at 127.0.0.1:{port}: .*failed") as refused:
        serve(settings, Console(quiet=True))
    assert "secret" not in str(refused.value)
    assert not (tmp_path / "models").exists()  # before anything is built
