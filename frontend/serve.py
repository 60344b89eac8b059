"""`inflight serve`: builds what is missing, starts Triton and the workers, keeps them running."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import psutil
from rich.console import Console

from build_engines.artefacts.artefact import find_artefact, list_artefacts
from build_engines.gpu.launch import count_gpus, launched_model, starter
from build_engines.pipeline import build
from build_engines.progress import ShownProgress
from build_engines.spec import load_spec, spec_names
from frontend.limits.opening import check_url
from frontend.limits.policy_file import policy_file
from frontend.manage.server import write_server_file
from frontend.processes import StopRequestedError, StopSignal, Workers
from frontend.settings import Settings, is_loopback
from frontend.triton.desired import DesiredModels
from frontend.triton.folders import remove_other_versions, write_model_folder
from frontend.triton.server import EmbeddedTriton, Ports

logger = logging.getLogger(__name__)

POLL_S = 0.1
WORKER_START_TIMEOUT_S = 60.0
_AS_IT_IS: Any = {"markup": False, "highlight": False, "soft_wrap": True}
WRAP_UP_S = 20.0  # of a stop, for what workers settle and write when their requests have ended


class ServeError(RuntimeError):
    """The stack cannot be started; the message says what to do."""


def serve(settings: Settings, console: Console) -> None:
    """Run until SIGINT or SIGTERM; then let running requests end, and stop all that was started.

    Raises:
        ServeError, BuildError, TritonStartError: with one line that says what to do.
    """
    stop_signal = StopSignal()
    stop_signal.install()
    with suppress(StopRequestedError):
        _run(settings, console, stop_signal)


def _run(settings: Settings, console: Console, stop_signal: StopSignal) -> None:
    check_access(settings)
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(settings))
        if settings.database_url:
            asyncio.run(_check_database(settings.database_url))
        _ensure_built(settings)
        if settings.triton_url is None:
            stack.enter_context(only_server_of(settings.home))
            triton = _prepare_triton(settings)
            stack.callback(triton.stop)
            with console.status("Starting Triton and loading the model ..."):
                triton.start()
        workers = Workers(settings, listening, _metrics_dir(settings.home))
        stack.callback(workers.stop, settings.drain_timeout_s + WRAP_UP_S)
        workers.start(WORKER_START_TIMEOUT_S)
        url = _url(listening)
        stack.callback(write_server_file(settings.home, url).unlink, missing_ok=True)
        print_ready(settings, url, console)
        while not stop_signal.wait(POLL_S):
            workers.check()
        console.print("Stopping ...")


def check_access(settings: Settings) -> None:
    """
    Raises:
        ServeError: everybody on the network could use it, and nobody has said that they may.
        SettingsError: the issuers of JWTs, or the limits, cannot be used.
    """
    policy_file(settings).check()
    check_url(settings)
    if settings.is_authenticated:
        from frontend.access.setup import check_issuers  # what others need not load

        check_issuers(settings)
    is_open = not settings.is_authenticated and not settings.listen_without_authentication
    if is_open and not is_loopback(settings.host):
        raise ServeError(
            f"whoever can reach {settings.host} could use this server: let it ask for keys with "
            "--authentication on (and make one with `inflight keys create`), or say that it may be "
            "so with --listen-without-authentication"
        )


async def _check_database(url: str) -> None:
    """Open it first, too: workers could not.

    Raises:
        SettingsError: it cannot be used.
    """
    from frontend.store.database import Database  # what one machine need not load here

    await (await Database.open(url)).close()


def _listen(settings: Settings) -> socket.socket:
    """Open the port first: what holds it should be known before minutes of work."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as exc:
        raise ServeError(
            f"cannot listen on {settings.host}:{settings.port} ({exc.strerror}): "
            "choose another address with --host and --port"
        ) from exc
    listening.listen(1024)
    listening.setblocking(False)
    return listening


@contextmanager
def only_server_of(home: Path) -> Iterator[TextIO]:
    """Keep another Triton from the same repository folder and the list of what is to be loaded.

    Yields the file whose lock says so.

    Raises:
        ServeError: one runs there.
    """
    path = home / "state" / "serve.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:  # the system frees it, however this process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            raise ServeError(
                f"a server (process {lock.read()}) runs from {home} already: stop it, "
                "or choose another folder with --home"
            ) from exc
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _ensure_built(settings: Settings) -> None:
    """Build the served model's default variant unless any of its variants is built."""
    if any(found.manifest.name == settings.model for found in list_artefacts(settings.home)):
        return
    if settings.model not in spec_names():
        raise ServeError(
            f"there is no model {settings.model!r}: choose one of {', '.join(spec_names())} "
            "with --model, or build yours with `inflight build`"
        )
    with ShownProgress(settings.model) as progress:
        build(settings.model, None, settings.home, progress)


def _prepare_triton(settings: Settings) -> EmbeddedTriton:
    default = load_spec(settings.model).default_variant if settings.model in spec_names() else None
    artefact = find_artefact(settings.home, settings.model, default or "") or next(
        found for found in list_artefacts(settings.home) if found.manifest.name == settings.model
    )
    write_model_folder(settings, artefact)
    remove_other_versions(settings.home, settings.model)  # of loads by servers that have ended
    DesiredModels(settings.home).replace([settings.model])
    ports = Ports(
        grpc=settings.triton_grpc_port,
        metrics=settings.triton_metrics_port,
        http=settings.triton_http_port,
    )
    # Any built model may be loaded later: of engines, several or large ones need an orchestrator.
    built = [launched_model(one) for one in list_artefacts(settings.home)]
    wrap, variables = starter(built, count_gpus())
    return EmbeddedTriton(
        settings.home, ports, binary=settings.triton_binary, wrap=wrap, variables=variables
    )


def _metrics_dir(home: Path) -> Path:
    """An empty folder for the workers' shared counters; those of servers that ended are removed."""
    folders = home / "state" / "metrics"
    for folder in folders.glob("[0-9]*"):
        if not psutil.pid_exists(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    own = folders / str(os.getpid())
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    return own


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def print_ready(settings: Settings, url: str, console: Console) -> None:
    """Say where it serves, with commands that work when they are copied."""
    messages = '[{"role":"user","content":"What is the capital of France?"}]'
    console.print(f"\nInflight serves [bold]{settings.model}[/bold] at [bold]{url}[/bold]\n")
    key = ""
    if settings.is_authenticated:
        home = "" if settings.home == Settings().home else f" --home {settings.home}"
        command = f"export INFLIGHT_API_KEY=$(inflight keys create NAME{home})"
        console.print(f"It asks for a key; this makes one:\n\n{command}\n", **_AS_IT_IS)
        key = ' -H "Authorization: Bearer $INFLIGHT_API_KEY"'
    console.print(
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\\n"
        f'  -d \'{{"model":"{settings.model}","messages":{messages}}}\'\n',
        **_AS_IT_IS,
    )
