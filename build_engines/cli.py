"""The command `python -m build_engines`; `inflight build` is the same function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from build_engines.artefacts.artefact import list_artefacts
from build_engines.errors import BuildError
from build_engines.ordering import Request, order_of
from build_engines.pipeline import build_order
from build_engines.progress import ShownProgress
from build_engines.spec import load_spec, spec_names

DEFAULT_HOME = Path("~/.local/share/inflight")


def build_command(
    model: Annotated[
        str | None, typer.Argument(help="Name of the model; with --checkpoint, any name.")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option("--variant", "-v", help="Quantization; the model's default if not given."),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="A spec of your own (TOML); see --init.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Weights: a folder, a GGUF file or a Hugging Face id (OWNER/NAME)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name to publish it under, if not the model's own.")
    ] = None,
    show_plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be done, and what it takes; do nothing.")
    ] = False,
    init: Annotated[
        str | None, typer.Option("--init", help="Draft the spec of this checkpoint, and print it.")
    ] = None,
    home: Annotated[
        Path, typer.Option("--home", envvar="INFLIGHT_HOME", help="Directory of the built models.")
    ] = DEFAULT_HOME,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show what can be built and what is built.")
    ] = False,
) -> None:
    """Build a model and publish it; what is built already is not built again."""
    home = home.expanduser().absolute()
    request = Request(
        model=model, variant=variant, spec_file=spec, checkpoint=checkpoint, name=name
    )
    with _errors_in_one_line(home):
        if show_list:
            _list(home)
        elif init is not None:
            _init(init, name)
        elif show_plan:
            _plan(request, home)
        else:
            _build(request, home)


def main() -> None:
    """Runs the command with the process's arguments."""
    typer.run(build_command)


@contextmanager
def _errors_in_one_line(home: Path) -> Iterator[None]:
    try:
        yield
    except BuildError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(exc.exit_code) from exc
    except OSError as exc:
        typer.echo(f"error: {exc.filename or home}: {exc.strerror}", err=True)
        raise typer.Exit(1) from exc


def _build(request: Request, home: Path) -> None:
    order = order_of(request, home)
    with ShownProgress(order.spec.name) as progress:
        artefact = build_order(order, progress)
    typer.echo(artefact.path)


def _plan(request: Request, home: Path) -> None:
    from build_engines.plan import plan_lines

    for line in plan_lines(order_of(request, home)):
        typer.echo(line)


def _init(checkpoint: str, name: str | None) -> None:
    from build_engines.draft import draft_spec

    typer.echo(draft_spec(checkpoint, name), nl=False)


def _list(home: Path) -> None:
    built = {(found.manifest.name, found.manifest.variant): found for found in list_artefacts(home)}
    for name in spec_names():
        spec = load_spec(name)
        for variant in spec.variants or filter(None, [spec.default_variant]):
            found = built.pop((name, variant), None)
            mark = " (default)" if variant == spec.default_variant else ""
            state = f"{found.manifest.size_bytes / 1e6:.0f} MB" if found else "not built"
            typer.echo(f"{name}\t{variant}{mark}\t{state}")
    for (name, variant), found in built.items():
        origin = "of its own" if name in spec_names() else "no spec"
        typer.echo(f"{name}\t{variant}\t{found.manifest.size_bytes / 1e6:.0f} MB ({origin})")
