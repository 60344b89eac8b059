"""`inflight bench`: its options. Cheap to import, as every command's are at every start."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from build_engines.errors import BuildError
from frontend.bench.options import ENGINES, BenchError, Options
from frontend.settings import SettingsError, load_settings


def bench_command(
    url: Annotated[
        str | None, typer.Option(help="Measure this running server; else one is started.")
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(help="Measure the stack of this other checkout too; it has its own .venv."),
    ] = None,
    engines: Annotated[
        str, typer.Option(help="Any of stack, bare, llama; measured in turns.")
    ] = ",".join(ENGINES),
    streams: Annotated[str, typer.Option(help="Numbers of streams.")] = "1,2,4,8,16,32",
    prompt_tokens: Annotated[int, typer.Option(min=20, help="Length of the prompts.")] = 45,
    max_tokens: Annotated[int, typer.Option(min=2, help="Length of the answers.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="The figures are medians of these.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Frontend processes.")] = 1,
    shared_prefix: Annotated[
        bool, typer.Option("--shared-prefix", help="Send one prompt in all streams.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Measure what keys and limits cost; nothing else.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="The model.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of models and state.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file.")
    ] = None,
    plot_path: Annotated[
        Path | None, typer.Option("--plot", help="Draw tokens/s into this SVG file.")
    ] = None,
) -> None:
    """Measure the stack under load, and beside it the bare batcher and llama.cpp's own server."""
    signal.signal(signal.SIGTERM, _exit)  # an exception, so that all that was started is stopped
    # transformers would say that PyTorch is missing, which is meant
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if check:
        from frontend.bench.check import run_check  # imports what only this needs

        raise typer.Exit(0 if run_check(json_path) else 1)
    try:
        options = Options(
            engines=_engines(engines),
            streams=_streams(streams),
            url=url,
            before=_checkout(before),
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            repeats=repeats,
            workers=workers,
            shared_prefix=shared_prefix,
            json_path=json_path,
            plot_path=plot_path,
        )
        settings = load_settings({"model": model, "home": home})
        from frontend.bench.session import run_bench  # imports what only this command needs

        run_bench(options, settings)
    except (BenchError, BuildError, SettingsError) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(1) from exc


def _engines(text: str) -> list[str]:
    wanted = [name.strip() for name in text.split(",")]
    for name in wanted:
        if name not in ENGINES:
            raise BenchError(f"--engines: {name!r} is not one of {', '.join(ENGINES)}")
    return [name for name in ENGINES if name in wanted]


def _checkout(path: Path | None) -> Path | None:
    if path is not None and not (path / ".venv/bin/python").is_file():
        raise BenchError(f"--before: no {path}/.venv; run scripts/environment there")
    return path


def _streams(text: str) -> list[int]:
    try:
        streams = sorted({int(number) for number in text.split(",")})
    except ValueError as exc:
        raise BenchError(f"--streams: {text!r} is not a list of numbers") from exc
    if streams[0] < 1 or streams[-1] > 1024:
        raise BenchError("--streams: numbers between 1 and 1024")
    return streams


def _exit(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(143)
