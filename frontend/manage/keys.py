"""`inflight keys`: the commands, on the database itself: no server has to run."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from build_engines.cli import DEFAULT_HOME
from frontend.access.identity import DEFAULT_SCOPES, EVERY_MODEL, Scope
from frontend.access.names import MAX_LENGTH, is_name
from frontend.limits.buckets import MAX_COUNT, LimitSet
from frontend.manage.output import show_json, show_rows
from frontend.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from frontend.store.api_keys import ApiKey, ApiKeyStore

app = typer.Typer(name="keys", help="API keys: who may use a server.", no_args_is_help=True)
T = TypeVar("T")

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SECONDS = 100 * 365 * SECONDS["d"]
GRACE = "24h"
COLUMNS = ("id", "key", "name", "tenant", "scopes", "models", "state", "expires", "used")
USUAL_SCOPES = sorted(DEFAULT_SCOPES)
ALL_MODELS = list(EVERY_MODEL)

KeyId = Annotated[str, typer.Argument(help="Id of the key, as `inflight keys list` shows it.")]
Home = Annotated[
    Path, typer.Option("--home", envvar="INFLIGHT_HOME", help="Folder of models and state.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Rpm = Annotated[int | None, typer.Option("--requests-per-minute", min=1, help="Its limit.")]
Tpm = Annotated[
    int | None, typer.Option("--tokens-per-minute", min=1, help="Of prompts and answers.")
]
Concurrent = Annotated[int | None, typer.Option("--concurrent-requests", min=1, help="At once.")]
Tpd = Annotated[int | None, typer.Option("--tokens-per-day", min=1, help="Of prompts and answers.")]


@app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: Annotated[
        str, typer.Option(help="Whose it is: usage and budgets go by it.")
    ] = "default",
    scope: Annotated[
        list[Scope], typer.Option(help="What it may do; again for more.")
    ] = USUAL_SCOPES,
    model: Annotated[
        list[str], typer.Option(help="Names of models, * for any letters; again for more.")
    ] = ALL_MODELS,
    expires_in: Annotated[str | None, typer.Option(help="As 90d, 12h.")] = None,
    requests_per_minute: Rpm = None,
    tokens_per_minute: Tpm = None,
    concurrent_requests: Concurrent = None,
    tokens_per_day: Tpd = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Make a key, and show it: it is shown this once."""
    from frontend.store.api_keys import ApiKey

    with _one_line_errors():
        if not all(map(is_name, (name, tenant, *model))):
            raise KeysError(
                "the name, the tenant and the models must not be empty, nor have more than "
                f"{MAX_LENGTH} characters each, nor control characters"
            )
        limits = _limits(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrent_requests=concurrent_requests,
            tokens_per_day=tokens_per_day,
        )
        key = ApiKey(
            id="",
            name=name,
            tenant=tenant,
            scopes=frozenset(scope),
            models=tuple(model),
            limits=limits,
            expires_at=None if expires_in is None else _end(expires_in),
        )
        _show_secret(*_with_store(home, lambda store: store.create(key)), as_json)


@app.command("list")
def list_command(
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """List the keys, revoked and expired ones too."""
    with _one_line_errors():
        keys = _with_store(home, lambda store: store.list_keys(tenant=tenant))
        if as_json:
            show_json([key.facts() for key in keys])
            return
        show_rows(COLUMNS, map(_cells, keys))


@app.command("revoke")
def revoke_command(key_id: KeyId, home: Home = DEFAULT_HOME) -> None:
    """Refuse a key from now on; running servers hear of it within a second."""
    with _one_line_errors():
        _found(_with_store(home, lambda store: store.revoke(key_id)), key_id)


@app.command("rotate")
def rotate_command(
    key_id: KeyId,
    grace: Annotated[str, typer.Option(help="How long the old one is taken, as 24h, 0s.")] = GRACE,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret, and show it: it is shown this once."""
    with _one_line_errors():
        grace_s = _seconds(grace)
        rotated = _with_store(home, lambda store: store.rotate(key_id, grace_s=grace_s))
        _show_secret(*_found(rotated, key_id), as_json)


@app.command("limits")
def limits_command(
    key_id: KeyId,
    requests_per_minute: Rpm = None,
    tokens_per_minute: Tpm = None,
    concurrent_requests: Concurrent = None,
    tokens_per_day: Tpd = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Set what a key may use up, all anew; without options: what limits.toml says of all keys."""
    with _one_line_errors():
        limits = _limits(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrent_requests=concurrent_requests,
            tokens_per_day=tokens_per_day,
        )
        _found(_with_store(home, lambda store: store.set_limits(key_id, limits)), key_id)


class KeysError(ValueError):
    """The command cannot be done; the message says why."""


def _with_store(home: Path, work: Callable[[ApiKeyStore], Awaitable[T]]) -> T:
    from frontend.store.api_keys import ApiKeyStore  # imports what only these commands need
    from frontend.store.database import Database

    async def run() -> T:
        async with Database.opened(load_settings({"home": home}).database_address) as database:
            return await work(ApiKeyStore(database))

    return asyncio.run(run())


def _limits(**given: int | None) -> LimitSet | None:
    """None: none is given."""
    if any(limit is not None and limit > MAX_COUNT for limit in given.values()):
        raise KeysError(f"a limit is {MAX_COUNT} at the most")
    limits = LimitSet(**given)
    return None if limits == LimitSet() else limits


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if match is None:
        raise KeysError(f"{text!r} is no time: write it as 30m, 24h or 90d")
    if (seconds := int(match[1]) * SECONDS[match[2]]) > MAX_SECONDS:
        raise KeysError(f"{text!r} is more than a hundred years")
    return seconds


def _end(expires_in: str) -> float:
    if (seconds := _seconds(expires_in)) == 0:
        raise KeysError("a key that expires at once is of no use")
    return time.time() + seconds


def _found(result: T | None, key_id: str) -> T:
    if result is None:
        raise KeysError(f"there is no valid key {key_id!r}: see `inflight keys list`")
    return result


def _show_secret(key: ApiKey, secret: str, as_json: bool) -> None:
    if as_json:
        show_json({**key.facts(), "key": secret})
        return
    typer.echo(secret)
    if sys.stderr.isatty():
        typer.echo(f"{key.id}: keep it now, it is not shown again", err=True)


def _cells(key: ApiKey) -> tuple[str, ...]:
    state = "valid" if key.is_valid(time.time()) else "revoked" if key.revoked_at else "expired"
    return (
        key.id,
        f"{key.shown}...",
        key.name,
        key.tenant,
        ",".join(sorted(key.scopes)),
        ",".join(key.models),
        state,
        _day(key.expires_at),
        _day(key.last_used_at),
    )


def _day(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (KeysError, SettingsError) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(1) from exc
