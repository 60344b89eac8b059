"""The embedded Triton: starts it, supervises it, restarts it when it dies, stops it.

It knows ports, folders and names of models; nothing of tensors and requests. Threads and
subprocesses only, no event loop.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from frontend.triton import guard
from frontend.triton.desired import DesiredModels
from frontend.triton.installation import (
    Installation,
    TritonStartError,
    check_loadable,
    find_installation,
    make_backend_directory,
    triton_environment,
)

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
LIVE_TIMEOUT_S = 60.0
STOP_GRACE_S = 10.0
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.25, 30.0
STABLE_AFTER_S = 60.0  # a server that ran so long has not died of its start
POLL_S = 0.1
MAX_LOG_BYTES = 10 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports of one embedded Triton."""

    grpc: int = 8001
    metrics: int = 8002
    http: int = 8003


class EmbeddedTriton:
    """One Triton over the models of $INFLIGHT_HOME/repository.

    Which of them are loaded, at the start and after a crash, says state/loaded.json.
    `on_event(name, values)` hears "started", "ready", "died" and "stopped", in the supervisor's
    thread.
    """

    def __init__(
        self,
        home: Path,
        ports: Ports,
        *,
        binary: Path | None = None,
        wrap: Callable[[list[str]], list[str]] = list,
        variables: Mapping[str, str] | None = None,
        load_timeout_s: float = 3600.0,
        stop_grace_s: float = STOP_GRACE_S,
        on_event: Callable[[str, dict[str, object]], None] | None = None,
    ) -> None:
        """
        Args:
            binary: the tritonserver to start; None: the one that is found.
            wrap: makes of its command line the one that is run (mpirun, for several GPUs).
            variables: of its environment, besides this process's.
            stop_grace_s: what it gets to end by itself; without work it takes two seconds.
        """
        self._home, self._ports = home, ports
        self._binary, self._wrap, self._variables = binary, wrap, variables or {}
        self._load_timeout_s, self._stop_grace_s = load_timeout_s, stop_grace_s
        self._on_event = on_event
        self._desired = DesiredModels(home)
        self._backends = home / "state" / "triton_backends"
        self._log_path = home / "logs" / "triton.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = threading.Event()
        self._is_first_ready = threading.Event()
        self._failure: TritonStartError | None = None
        self._is_ready = False
        self._num_restarts = 0
        self._supervisor: threading.Thread | None = None

    def start(self) -> None:
        """Start Triton and return once it serves every model of loaded.json.

        A model that cannot be loaded does not end it: that is logged with Triton's reason.

        Raises:
            TritonStartError: it cannot run here, a port is taken, or it died while starting.
        """
        installation = find_installation(self._binary)
        env = {**triton_environment(installation), **self._variables}
        check_loadable(installation, env)
        self._check_ports()
        for folder in ("repository", "state", "logs"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        self._backends = make_backend_directory(
            installation, self._home / "state" / "triton_backends"
        )
        self._supervisor = threading.Thread(
            target=self._supervise, args=(installation, env), name="triton-supervisor", daemon=True
        )
        self._supervisor.start()
        self._is_first_ready.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure

    def stop(self) -> None:
        """Stop Triton, all that it started, and the supervisor; leave nothing behind."""
        self._is_stopping.set()
        if self._supervisor is not None:
            self._supervisor.join()
            self._supervisor = None

    def __enter__(self) -> EmbeddedTriton:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_ready(self) -> bool:
        """Whether it runs and has loaded what it is to load."""
        return self._is_ready

    @property
    def num_restarts(self) -> int:
        return self._num_restarts

    @property
    def pid(self) -> int | None:
        """The process id of tritonserver itself; None while it does not run."""
        process = self._process
        if process is None or process.poll() is not None:
            return None
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        except FileNotFoundError:
            return None
        return int(children.split()[0]) if children.split() else None

    # ---- the supervisor's thread

    def _supervise(self, installation: Installation, env: dict[str, str]) -> None:
        backoff_s = FIRST_BACKOFF_S
        try:
            while not self._is_stopping.is_set():
                started_s = time.monotonic()
                exit_code = self._run_once(installation, env)
                self._is_ready = False
                if self._is_stopping.is_set():
                    break
                self._event("died", exit_code=exit_code, log=str(self._log_path))
                if not self._is_first_ready.is_set():
                    self._failure = TritonStartError(self._why_died(exit_code))
                    break
                if time.monotonic() - started_s > STABLE_AFTER_S:
                    backoff_s = FIRST_BACKOFF_S
                self._is_stopping.wait(backoff_s)
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
                self._num_restarts += 1
        except Exception as exc:
            logger.exception("triton supervisor failed")
            self._failure = TritonStartError(f"cannot supervise Triton: {exc}")
        finally:
            self._is_ready = False
            self._is_first_ready.set()
            self._event("stopped")

    def _run_once(self, installation: Installation, env: dict[str, str]) -> int:
        """Run Triton until it ends or is to stop; return its exit code."""
        models = self._desired.with_folders()
        self._process = process = self._spawn(installation, env, models)
        self._event("started", models=models)
        try:
            if not self._wait_ready(process, models):
                return _end(process)
            self._is_ready = True
            self._is_first_ready.set()
            self._event("ready", models=models)
            while process.poll() is None and not self._is_stopping.is_set():
                self._is_stopping.wait(POLL_S)
        finally:
            exit_code = _end(process)
            self._process = None
        return exit_code

    def _spawn(
        self, installation: Installation, env: dict[str, str], models: list[str]
    ) -> subprocess.Popen[bytes]:
        _rotate(self._log_path)
        shm_prefix = f"inflight_{self._ports.grpc}_"  # of this port: no other server can have it
        guard.remove_shared_memory(shm_prefix)
        # -I -S: the guard needs the standard library only, and starts at once
        command = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid())]
        command += [str(self._stop_grace_s), shm_prefix]
        command += self._wrap([str(installation.binary), *self._flags(shm_prefix, models)])
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                start_new_session=True,  # a Ctrl-C in the terminal is for this process to handle
            )

    def _flags(self, shm_prefix: str, models: list[str]) -> list[str]:
        ports = self._ports
        flags = {
            "model-repository": self._home / "repository",
            "model-control-mode": "explicit",
            "disable-auto-complete-config": None,
            "backend-directory": self._backends,
            "backend-config": f"python,shm-region-prefix-name={shm_prefix}",
            "grpc-address": LOOPBACK,
            "grpc-port": ports.grpc,
            "grpc-infer-allocation-pool-size": 64,
            "http-address": LOOPBACK,
            "http-port": ports.http,
            "http-thread-count": 2,
            "metrics-address": LOOPBACK,
            "metrics-port": ports.metrics,
            "metrics-config": "histogram_latencies=true",
            "allow-gpu-metrics": "false",
            "exit-on-error": "false",  # one broken model must not take the others down
            "strict-readiness": "false",
            "exit-timeout-secs": 5,
            "log-format": "ISO8601",
        }
        arguments = [f"--{name}" if v is None else f"--{name}={v}" for name, v in flags.items()]
        return arguments + [f"--load-model={name}" for name in models]

    def _wait_ready(self, process: subprocess.Popen[bytes], models: list[str]) -> bool:
        """Wait until Triton has tried to load all models; tell of those that it could not."""
        deadline_s = time.monotonic() + LIVE_TIMEOUT_S + (self._load_timeout_s if models else 0)
        while time.monotonic() < deadline_s:
            if process.poll() is not None or self._is_stopping.is_set():
                return False
            states = _repository_index(self._ports.http)
            if states is not None:
                for name in models:
                    if states.get(name, ("", ""))[0] != "READY":
                        reason = states.get(name, ("", "not in the repository"))[1]
                        logger.error("model not loaded", extra={"model": name, "reason": reason})
                return True
            self._is_stopping.wait(POLL_S)
        logger.error("triton does not become ready", extra={"log": str(self._log_path)})
        return False

    def _check_ports(self) -> None:
        for name in ("grpc", "metrics", "http"):
            port = getattr(self._ports, name)
            with socket.socket() as probe:
                # as Triton does: a port in TIME_WAIT can be taken
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((LOOPBACK, port))
                except OSError as exc:
                    raise TritonStartError(
                        f"port {port} for Triton's {name} cannot be used: {exc.strerror}; "
                        f"choose another one with INFLIGHT_TRITON_{name.upper()}_PORT"
                    ) from exc

    def _why_died(self, exit_code: int) -> str:
        tail = self._log_path.read_text(errors="replace").splitlines()[-40:]
        errors = [line for line in tail if " E " in line or line.startswith(("E", "error"))]
        last = (errors or tail or ["no output"])[-1].strip()
        return f"Triton ended while starting (exit code {exit_code}): {last} [{self._log_path}]"

    def _event(self, name: str, **values: object) -> None:
        level = logging.ERROR if name == "died" else logging.INFO
        logger.log(level, "triton %s", name, extra=values)
        if self._on_event is not None:
            self._on_event(name, values)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Let the guard end Triton and all that it started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_GRACE_S + 10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _repository_index(http_port: int) -> dict[str, tuple[str, str]] | None:
    """Return model name -> (state, reason); None while Triton does not answer."""
    connection = http.client.HTTPConnection(LOOPBACK, http_port, timeout=5)
    try:
        connection.request("POST", "/v2/repository/index")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        return None
    return {one["name"]: (one.get("state", ""), one.get("reason", "")) for one in json.loads(body)}


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
