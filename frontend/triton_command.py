"""`inflight triton`: starts Triton alone, for the GPUs of this machine or of several.

Frontends on the same home folder are told of it by `inflight serve --triton-url`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from build_engines.artefacts.artefact import Artefact, list_artefacts
from build_engines.errors import BuildError, LaunchError
from build_engines.gpu.launch import (
    GPU_KINDS,
    NVIDIA_BINARY,
    Command,
    Launch,
    Mode,
    command,
    count_gpus,
    launched_model,
    parse_gpus,
)
from frontend.settings import Settings, SettingsError, load_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonOptions:
    """What is started; see `triton_command`."""

    names: Sequence[str]
    host: str
    mode: Mode | None
    num_nodes: int
    gpus_per_node: int | None


def triton_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="NAME or NAME/VARIANT of what to load; else what was loaded last."),
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of models and state.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Triton checks no keys: keep it private.")
    ] = "127.0.0.1",
    mode: Annotated[
        Mode | None, typer.Option(help="How a model spans GPUs; chosen by the models if left out.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines that one model spans (Slurm).")] = 1,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of each machine; counted if left out.")
    ] = None,
    triton_binary: Annotated[
        Path | None, typer.Option(help="The tritonserver to start; found if left out.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", help="Show the command line and start nothing.")
    ] = False,
) -> None:
    """Start Triton alone: in NVIDIA's container, or with several GPUs or machines."""
    from frontend.serve import ServeError  # imports what only this command needs
    from frontend.triton.installation import TritonStartError

    options = TritonOptions(
        names=models or [], host=host, mode=mode, num_nodes=nodes,
        gpus_per_node=gpus or count_gpus(),
    )  # fmt: skip
    try:
        settings = load_settings({"home": home, "triton_binary": triton_binary})
        if show:
            typer.echo(planned(settings, options, binary=triton_binary or NVIDIA_BINARY).shown())
        else:
            start(settings, options)
    except (SettingsError, ServeError, BuildError, TritonStartError) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(getattr(exc, "exit_code", 1)) from exc


def planned(
    settings: Settings, options: TritonOptions, *, binary: Path, backends: Path | None = None
) -> Command:
    """The command line for the chosen models. Raises LaunchError."""
    placed = parse_gpus(settings.gpus)
    launch = Launch(
        models=[
            launched_model(artefact, placed.get(artefact.manifest.name))
            for artefact in chosen_artefacts(settings, options.names)
        ],
        repository=settings.home / "repository",
        binary=binary,
        backends=backends,
        host=options.host,
        grpc_port=settings.triton_grpc_port,
        http_port=settings.triton_http_port,
        metrics_port=settings.triton_metrics_port,
        mode=options.mode,
        num_nodes=options.num_nodes,
        gpus_per_node=options.gpus_per_node,
    )
    return command(launch)


def start(settings: Settings, options: TritonOptions) -> None:
    """Become Triton. Raises LaunchError, ServeError, TritonStartError."""
    from frontend.serve import only_server_of
    from frontend.triton import guard
    from frontend.triton.desired import DesiredModels
    from frontend.triton.folders import remove_other_versions, write_model_folder
    from frontend.triton.installation import (
        check_loadable,
        find_installation,
        make_backend_directory,
        triton_environment,
    )

    installation = find_installation(settings.triton_binary)
    env = triton_environment(installation)
    check_loadable(installation, env)
    state = settings.home / "state"
    backends = make_backend_directory(installation, state / "triton_backends")
    ready = planned(settings, options, binary=installation.binary, backends=backends)
    program = shutil.which(ready.argv[0])
    if program is None:
        raise LaunchError(
            f"{ready.argv[0]} is not installed here: run this in the image of "
            "docker/triton.Dockerfile"
        )
    with only_server_of(settings.home) as lock:
        artefacts = chosen_artefacts(settings, options.names)
        for artefact in artefacts:
            write_model_folder(settings, artefact)
            remove_other_versions(settings.home, artefact.manifest.name)
        DesiredModels(settings.home).replace(one.manifest.name for one in artefacts)
        # of one that was killed on this port
        guard.remove_shared_memory(f"inflight_{settings.triton_grpc_port}_")
        os.set_inheritable(lock.fileno(), True)  # held for as long as Triton runs
        os.execve(program, ready.argv, {**env, **ready.env})  # noqa: S606, what is asked for


def chosen_artefacts(settings: Settings, names: Sequence[str]) -> list[Artefact]:
    """What is named, else what was loaded last, else the default model; GPU variants first.

    Raises LaunchError for what is not built.
    """
    from frontend.triton.desired import DesiredModels

    wanted = names or DesiredModels(settings.home).names() or [settings.model]
    built = list_artefacts(settings.home)
    return [_choose(built, *name.partition("/")[::2]) for name in wanted]


def _choose(built: Sequence[Artefact], name: str, variant: str) -> Artefact:
    fitting = [
        one for one in built if one.manifest.name == name and variant in ("", one.manifest.variant)
    ]
    if not fitting:
        known = ", ".join(f"{one.manifest.name}/{one.manifest.variant}" for one in built)
        wanted = f"{name}/{variant}" if variant else name
        raise LaunchError(f"{wanted} is not built: build it, or name one of {known or 'none'}")
    return min(fitting, key=lambda one: one.manifest.kind not in GPU_KINDS)
