"""How the commands answer: tables for a person at a terminal, lines or JSON for everybody else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from frontend.manage.inventory import Entry
from frontend.telemetry.memory import human_size

COLUMNS = ("model", "variant", "version", "format", "size", "context", "adapters", "state")


def show_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def show_entries(found: Sequence[Entry]) -> None:
    """A row for each variant, and what is wrong with it."""
    show_rows(COLUMNS, map(_cells, found))
    if not sys.stdout.isatty():
        return
    for entry in found:
        if problem := entry.facts()["problem"]:
            typer.echo(f"{entry.name}/{entry.variant}: {problem}", err=True)


def show_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table at a terminal, with their names first; elsewhere lines."""
    if not sys.stdout.isatty():
        show_lines(rows)
        return
    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name == head[0])  # that is typed elsewhere
    for row in rows:
        table.add_row(*row)
    plain_console().print(table)


def show_lines(rows: Iterable[Sequence[str]]) -> None:
    """Each row's cells with tabs between, and no head."""
    for row in rows:
        typer.echo("\t".join(row))


def plain_console() -> Console:
    """Shows texts as they are: others give names, which may look like markup of ours."""
    return Console(markup=False, emoji=False, highlight=False)


def show_details(details: Mapping[str, Any]) -> None:
    """A line for each fact that is known; what has parts of its own in a line for each of them."""
    for key, value in _flat(details):
        typer.echo(f"{key}\t{value}" if not sys.stdout.isatty() else f"{key:<28}{value}")


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            lines += [(f"{prefix}{key}", " ".join(map(str, value)))] if value else []
        elif value is not None:
            lines.append((f"{prefix}{key}", str(value)))
    return lines


def _cells(entry: Entry) -> tuple[str, ...]:
    facts = entry.facts()
    size, context = facts["size_bytes"], facts["max_seq_len"]
    return (
        entry.name,
        entry.variant,
        _versions(entry),
        facts["format"] or "-",
        "-" if size is None else human_size(size),
        "-" if context is None else str(context),
        ",".join(facts["adapters"]) or "-",
        _state(entry),
    )


def _versions(entry: Entry) -> str:
    if entry.version is None:
        return "-"
    others = [str(number) for number in entry.versions if number != entry.version]
    return f"{entry.version} ({', '.join(others)})" if others else str(entry.version)


def _state(entry: Entry) -> str:
    if entry.problem:
        return "damaged"
    if entry.load_failure:
        return f"version {entry.loaded_version} loaded, {entry.version} failed"
    if entry.is_loaded and entry.loaded_version not in (None, entry.version):
        return f"version {entry.loaded_version} loaded"
    return {None: "-", True: "loaded", False: "not loaded"}[entry.is_loaded]
