"""Holds command lines that stand in files to what our command line takes."""

from __future__ import annotations

import typer

from frontend.cli import app


def check_command(words: list[str]) -> None:
    """The command, every option and every argument is there. Raises click's UsageError, KeyError.

    Args:
        words: behind `inflight`.
    """
    command = typer.main.get_command(app)
    path = "inflight"
    while hasattr(command, "commands"):
        path, (name, *words) = f"{path} {words[0]}", words
        command = command.commands[name]
    command.make_context(path, words)
