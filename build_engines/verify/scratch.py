"""A Triton of its own for one staged model, under a name that nobody else uses; gone afterwards."""

from __future__ import annotations

import logging
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO, TypeVar

from build_engines.artefacts.artefact import Artefact
from build_engines.errors import VerificationError
from build_engines.gpu.launch import CPP_KIND, count_gpus, launched_model, starter
from frontend.settings import Settings
from frontend.telemetry.memory import model_bytes
from frontend.triton.client import TritonClient
from frontend.triton.installation import TritonStartError, find_installation
from frontend.triton.repository import ModelRepository
from frontend.triton.server import LOOPBACK, EmbeddedTriton, Ports
from frontend.types import LoadedModel

T = TypeVar("T")
Ask = Callable[[TritonClient, LoadedModel], Awaitable[T]]

PREFIX = "verify-"  # of the temporary model's name
NUM_STARTS = 3  # another program may take a port between its choice and Triton's start
MAX_LOG_LINES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchTriton:
    """A running Triton over an empty repository."""

    settings: Settings  # of the scratch home folder
    triton: EmbeddedTriton

    async def ask(self, artefact: Artefact, ask: Ask[T]) -> tuple[T, int | None]:
        """What `ask` finds out of the loaded artefact, and the memory that its process took.

        The memory is None where Triton itself runs the model.

        Raises:
            ServingError: it cannot be loaded; and what `ask` raises.
        """
        renamed = _temporary(artefact)
        client = TritonClient(self.settings.triton_address)
        try:
            repository = ModelRepository(self.settings, client.rpc, client.capabilities)
            found = await ask(client, await repository.load(renamed))
            pid = self.triton.pid
            name = renamed.manifest.name
            return found, None if pid is None else model_bytes(pid, name)
        finally:
            await client.close()


@contextmanager
def scratch_triton(settings: Settings, artefact: Artefact, log: TextIO) -> Iterator[ScratchTriton]:
    """Start one that can serve the artefact on free loopback ports; afterwards stop it, and copy
    the end of its log.

    Raises:
        VerificationError: no such Triton can be started here.
    """
    with _quietly(), tempfile.TemporaryDirectory(prefix="inflight-verify-") as folder:
        home = Path(folder)
        try:
            check_backend(settings, artefact.manifest.kind)
            scratch = _start(settings, home, artefact)
            try:
                yield scratch
            finally:
                scratch.triton.stop()
        except TritonStartError as exc:
            raise VerificationError(f"no Triton can be started to verify it: {exc}") from exc
        finally:
            _copy_log(home / "logs" / "triton.log", log)


def _temporary(artefact: Artefact) -> Artefact:
    """The artefact under the temporary name."""
    manifest = replace(artefact.manifest, name=f"{PREFIX}{artefact.manifest.name}")
    return replace(artefact, manifest=manifest, path=artefact.path.resolve())


@contextmanager
def _quietly() -> Iterator[None]:
    """What this Triton starts and loads is no news of the server's own."""
    quieted = logging.getLogger("frontend.triton")
    level = quieted.level
    quieted.setLevel(logging.WARNING)
    try:
        yield
    finally:
        quieted.setLevel(level)


def check_backend(settings: Settings, kind: str) -> None:
    """TensorRT-LLM's backend is not in the wheel's Triton. Raises VerificationError."""
    if kind != CPP_KIND:
        return
    backends = find_installation(settings.triton_binary).backends
    if backends is None or not (backends / "tensorrtllm").is_dir():
        raise VerificationError(
            "a TensorRT engine is verified by NVIDIA's Triton, which is not here: build in the "
            "image of docker/triton.Dockerfile (docker/build-engine), or name a tritonserver with "
            "the tensorrtllm backend by INFLIGHT_TRITON_BINARY"
        )


def _start(settings: Settings, home: Path, artefact: Artefact) -> ScratchTriton:
    wrap, variables = starter([launched_model(artefact)], count_gpus())
    for attempt in range(NUM_STARTS):
        ports = _free_ports()
        own = replace(
            settings,
            home=home,
            triton_url=None,
            triton_grpc_port=ports.grpc,
            triton_metrics_port=ports.metrics,
            triton_http_port=ports.http,
        )
        triton = EmbeddedTriton(
            home,
            ports,
            binary=settings.triton_binary,
            wrap=wrap,
            variables=variables,
            stop_grace_s=0,
        )
        try:
            triton.start()
        except TritonStartError:
            if attempt + 1 == NUM_STARTS or not _is_port_taken(ports):
                raise
            continue
        return ScratchTriton(settings=own, triton=triton)
    raise AssertionError("the last attempt returns or raises")


def _free_ports() -> Ports:
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(3)]
    grpc, metrics, http = (one.getsockname()[1] for one in sockets)
    for one in sockets:
        one.close()
    return Ports(grpc=grpc, metrics=metrics, http=http)


def _is_port_taken(ports: Ports) -> bool:
    for port in (ports.grpc, ports.metrics, ports.http):
        try:
            socket.create_server((LOOPBACK, port)).close()
        except OSError:
            return True
    return False


def _copy_log(path: Path, log: TextIO) -> None:
    if path.is_file():
        lines = path.read_text(errors="replace").splitlines()
        log.writelines(f"triton: {line}\n" for line in lines[-MAX_LOG_LINES:])
