"""The command line, `inflight`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from build_engines.cli import build_command
from build_engines.errors import BuildError
from frontend.bench.command import bench_command
from frontend.manage.command import app as models_app
from frontend.manage.keys import app as keys_app
from frontend.manage.usage import usage_command
from frontend.settings import SettingsError, load_settings
from frontend.telemetry.logs import configure_logging
from frontend.triton_command import triton_command

app = typer.Typer(
    name="inflight", help="Serves LLMs.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Frontend processes.")] = None,
    model: Annotated[str | None, typer.Option(help="The default model.")] = None,
    triton_url: Annotated[
        str | None, typer.Option(help="HOST:PORT of a running Triton's gRPC; none is started.")
    ] = None,
    cors_origins: Annotated[
        str | None, typer.Option(help="Origins of web pages that may use it; * for all.")
    ] = None,
    authentication: Annotated[
        str | None, typer.Option(help="on: only who has an API key or a JWT; off: everybody.")
    ] = None,
    listen_without_authentication: Annotated[
        bool | None,
        typer.Option(
            "--listen-without-authentication",
            help="Let everybody who can reach the address use it.",
        ),
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of models and state.")] = None,
) -> None:
    """Start Triton and the frontend, and serve until Ctrl-C.

    Each option can also be given as a variable: INFLIGHT_HOST, INFLIGHT_PORT, ...
    """
    from frontend.processes import WorkerStartError  # imports what only this command needs
    from frontend.serve import ServeError, serve
    from frontend.triton.installation import TritonStartError

    flags = {
        "host": host, "port": port, "workers": workers, "model": model,
        "triton_url": triton_url, "home": home, "cors_origins": cors_origins,
        "authentication": authentication,
        "listen_without_authentication": listen_without_authentication,
    }  # fmt: skip
    try:
        settings = load_settings(flags)
        configure_logging(settings.log_level, settings.log_format)
        serve(settings, Console(stderr=True))
    except (SettingsError, ServeError, BuildError, TritonStartError, WorkerStartError) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(getattr(exc, "exit_code", 1)) from exc


# in the order in which --help lists them; those that have commands of their own are its last
app.command("build")(build_command)
app.command("usage")(usage_command)
app.command("triton")(triton_command)
app.command("bench")(bench_command)
app.add_typer(models_app)
app.add_typer(keys_app)


def main() -> None:
    app(prog_name="inflight")
