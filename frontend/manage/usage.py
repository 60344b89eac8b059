"""`inflight usage`: what was used, from the database itself: no server has to run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from build_engines.cli import DEFAULT_HOME
from frontend.errors import InvalidParameter
from frontend.manage.output import plain_console, show_json, show_lines
from frontend.settings import SettingsError, load_settings
from frontend.usage.sums import UsageSum, as_csv, as_text, columns, total_of

if TYPE_CHECKING:
    from frontend.protocol.usage import UsageQuery


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def usage_command(
    by: Annotated[
        list[str] | None,
        typer.Option(help="day, tenant, key, model, outcome, batch; again or a comma for more."),
    ] = None,
    since: Annotated[str | None, typer.Option(help="First day (UTC), as 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day; else today.")] = None,
    month: Annotated[str | None, typer.Option(help="As 2026-11, in place of both.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    key: Annotated[str | None, typer.Option(help="Only of the API key with this id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only what ended so, as stop.")] = None,
    batch: Annotated[
        bool | None, typer.Option("--batch/--interactive", help="Only of batches, or of others.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to show it.")] = Format.TABLE,
    home: Annotated[
        Path, typer.Option("--home", envvar="INFLIGHT_HOME", help="Folder of models and state.")
    ] = DEFAULT_HOME,
) -> None:
    """Show what was used: requests, tokens and money; of this month, if nothing else is said."""
    from frontend.protocol.usage import UsageQuery

    given = {
        "since": since, "until": until, "month": month, "tenant": tenant, "key": key,
        "model": model, "outcome": outcome, "batch": None if batch is None else str(batch).lower(),
    }  # fmt: skip
    arguments = {name: [value] for name, value in given.items() if value is not None}
    try:
        query = UsageQuery.read(arguments | ({"group_by": by} if by else {}))
        sums = asyncio.run(_read(home, query))
    except InvalidParameter as exc:
        exc.rename("--by" if exc.param == "group_by" else f"--{exc.param}")
        typer.echo(f"error: {exc.message()}", err=True)
        raise typer.Exit(1) from exc
    except SettingsError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(1) from exc
    _show(query, sums, output)


async def _read(home: Path, query: UsageQuery) -> list[UsageSum]:
    from frontend.store.database import Database  # imports what only this command needs
    from frontend.store.usage import UsageStore

    async with Database.opened(load_settings({"home": home}).database_address) as database:
        return await UsageStore(database, retention_s=0).sums(
            since=query.since, until=query.until, group_by=query.group_by, only=query.filters()
        )


def _show(query: UsageQuery, sums: Sequence[UsageSum], output: Format) -> None:
    from frontend.protocol.usage import encode_usage

    match output:
        case Format.JSON:
            show_json(encode_usage(query, sums))
        case Format.CSV:
            typer.echo(as_csv(sums, query.group_by), nl=False)
        case Format.TABLE:
            names = columns(query.group_by)
            rows = [one.facts() for one in sums]
            if sys.stdout.isatty():
                _show_table(names, rows, total_of(sums).facts())
                return
            show_lines([as_text(row[name]) for name in names] for row in rows)


def _show_table(
    names: Sequence[str], rows: Sequence[dict[str, Any]], total: dict[str, Any]
) -> None:
    """With the sum of all below, where there is more than one."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        if name in total:
            table.add_column(name.removesuffix("_tokens"), justify="right", no_wrap=True)
        else:
            table.add_column(name.replace("_", " "), overflow="fold")
    for row in [*rows, total] if len(rows) > 1 else rows:
        table.add_row(*(_cell(row.get(name, "")) for name in names))
    plain_console().print(table)


def _cell(value: Any) -> str:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_count else as_text(value)
