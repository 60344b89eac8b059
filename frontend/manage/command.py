"""`inflight models`: the commands. Cheap to import, as every command's are at every start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from build_engines.cli import DEFAULT_HOME
from build_engines.errors import BuildError
from frontend.manage import actions, inventory, output
from frontend.manage.server import NoServerError, Server, ServerError, find_server

app = typer.Typer(
    name="models",
    help="Published models: list, add, remove, load, roll back, verify.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the model.")]
Variant = Annotated[
    str | None, typer.Option("--variant", "-v", help="One variant; else all, or the only one.")
]
Home = Annotated[
    Path, typer.Option("--home", envvar="INFLIGHT_HOME", help="Folder of the published models.")
]
Url = Annotated[
    str | None,
    typer.Option(envvar="INFLIGHT_URL", help="Server; else the one that runs from the home."),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="INFLIGHT_API_KEY",
        help="Of that server. Others see options in the list of processes, but no variables.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command("list")
def list_command(
    home: Home = DEFAULT_HOME, url: Url = None, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """List the published models, and which of them a running server has loaded."""
    with _one_line_errors(home) as home:
        found = inventory.entries(home, _loaded(find_server(home, url, api_key)))
        if as_json:
            output.show_json([entry.facts() for entry in found])
        else:
            output.show_entries(found)


@app.command("show")
def show_command(
    name: Name,
    variant: Variant = None,
    home: Home = DEFAULT_HOME,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of a model."""
    with _one_line_errors(home) as home:
        loaded = _loaded(find_server(home, url, api_key))
        found = inventory.entries_of(home, name, variant, loaded)
        if as_json:
            output.show_json([entry.details() for entry in found])
            return
        for number, entry in enumerate(found):
            if number:
                typer.echo()
            output.show_details(entry.details())


@app.command("add")
def add_command(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a TensorRT engine, an OpenVINO IR or an artefact of another machine; "
            "a GGUF file; with --adapter, the name of a published model."
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="What to call it.")] = None,
    variant: Variant = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoint, for its tokenizer.")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option(help="One of ours, in place of the checkpoint's.")
    ] = None,
    max_seq_len: Annotated[
        int | None, typer.Option(min=2, help="Context of an OpenVINO IR, in tokens.")
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER of a LoRA adapter (PEFT).")
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Publish what is built already, without building it; or LoRA adapters for a model."""
    with _one_line_errors(home) as home:
        if adapter:
            artefact = actions.add_adapters(home, source, variant, adapter)
        else:
            given = actions.Given(
                source=Path(source).expanduser(), name=name, variant=variant, tokenizer=tokenizer,
                chat_template=chat_template, max_seq_len=max_seq_len,
            )  # fmt: skip
            artefact = actions.add(home, given)
        typer.echo(artefact.path)


@app.command("remove")
def remove_command(
    name: Name,
    variant: Variant = None,
    force: Annotated[
        bool, typer.Option("--force", help="Unload it first if it is loaded.")
    ] = False,
    home: Home = DEFAULT_HOME,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Delete a model, or one variant of it, with all its versions."""
    with _one_line_errors(home) as home:
        server = find_server(home, url, api_key)
        for line in actions.remove(home, name, variant, server, is_forced=force):
            typer.echo(line)


@app.command("load")
def load_command(
    name: Name,
    variant: Variant = None,
    prefer_gpu: Annotated[bool, typer.Option("--gpu", help="Rather a variant for a GPU.")] = False,
    home: Home = DEFAULT_HOME,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let the running server load a model."""
    with _one_line_errors(home) as home:
        server = _server(home, url, api_key)
        _show_model(server.load(name, variant, prefer_gpu=prefer_gpu), as_json=as_json)


@app.command("unload")
def unload_command(
    name: Name,
    home: Home = DEFAULT_HOME,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let the running server unload a model."""
    with _one_line_errors(home) as home:
        _show_model(_server(home, url, api_key).unload(name), as_json=as_json)


@app.command("rollback")
def rollback_command(name: Name, variant: Variant = None, home: Home = DEFAULT_HOME) -> None:
    """Go back to the version before; done again, forward. Running servers follow by themselves."""
    with _one_line_errors(home) as home:
        artefact = actions.rollback(home, name, variant)
        found = artefact.manifest
        typer.echo(f"{found.name}/{found.variant}: version {found.version} is current")


@app.command("verify")
def verify_command(
    name: Name,
    variant: Variant = None,
    hashes_only: Annotated[
        bool, typer.Option("--hashes-only", help="Read all files; do not ask the model anything.")
    ] = False,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Check a model's files, then ask it in a Triton of its own, as before its publication."""
    with _one_line_errors(home) as home:
        results = []
        for result in actions.verify(home, name, variant, hashes_only=hashes_only):
            results.append(result)
            if not as_json:
                output.show_details(result)
        if as_json:
            output.show_json(results)


@app.command("gc")
def gc_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing.")] = False,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Delete versions that nobody needs: not current, not the one before, not loaded."""
    with _one_line_errors(home) as home:
        found = actions.collect(home, is_dry_run=dry_run)
        if as_json:
            output.show_json(found)
            return
        for one in found:
            typer.echo(f"{one['path']}\t{one['size_bytes'] / 1e6:.1f} MB\t{one['reason']}")
        total = sum(one["size_bytes"] for one in found) / 1e6
        typer.echo(f"{total:.1f} MB {'would be' if dry_run else 'are'} freed")


def _server(home: Path, url: str | None, api_key: str | None) -> Server:
    server = find_server(home, url, api_key)
    if server is None:
        raise NoServerError(
            f"no server runs from {home}: start it with `inflight serve`, or give its --url"
        )
    return server


def _loaded(server: Server | None) -> dict[str, dict[str, Any]] | None:
    return None if server is None else server.models()


def _show_model(model: dict[str, Any], *, as_json: bool) -> None:
    (output.show_json if as_json else output.show_details)(model)


@contextmanager
def _one_line_errors(home: Path) -> Iterator[Path]:
    """The home folder; what fails in it is one line and an exit code."""
    home = home.expanduser().absolute()
    try:
        yield home
    except (BuildError, ServerError) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(exc.exit_code) from exc
    except OSError as exc:
        typer.echo(f"error: {exc.filename or home}: {exc.strerror}", err=True)
        raise typer.Exit(1) from exc
