"""A whole running stack, started as a person does, and what can be seen of it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from frontend.bench.servers import free_ports

MODEL = "smollm2-135m-instruct"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
REQUESTS = "nv_trt_llm_request_metrics"
KV_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"

T = TypeVar("T")


def eventually(check: Callable[[], T], *, timeout_s: float = 10.0, interval_s: float = 0.02) -> T:
    """Call until the result is true, and return it; fail with the last one."""
    deadline = time.monotonic() + timeout_s
    while not (result := check()):
        assert time.monotonic() < deadline, f"still {result!r} after {timeout_s} s"
        time.sleep(interval_s)
    return result


class Stack:
    """`inflight serve` as a child process on ports of its own."""

    def __init__(
        self,
        home: Path,
        log_path: Path,
        *,
        workers: int = 1,
        port: int | None = None,
        triton_of: Stack | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.log_path = log_path
        free_port, self.grpc_port, self.metrics_port, http_port = free_ports(4)
        self.port = free_port if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            **os.environ,
            **(variables or {}),
            "INFLIGHT_TRITON_GRPC_PORT": str(self.grpc_port),
            "INFLIGHT_TRITON_METRICS_PORT": str(self.metrics_port),
            "INFLIGHT_TRITON_HTTP_PORT": str(http_port),
        }
        command = [sys.executable, "-m", "frontend", "serve", "--port", str(self.port)]
        command += ["--home", str(home), "--workers", str(workers)]
        if triton_of is not None:
            command += ["--triton-url", f"127.0.0.1:{triton_of.grpc_port}"]
            environment["INFLIGHT_TRITON_METRICS_URL"] = f"127.0.0.1:{triton_of.metrics_port}"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self._process.pid

    # ---- life

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            assert self._process.poll() is None, f"it ended: {self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"not ready: {self.log()[-3000:]}"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        try:
            return bool(httpx.get(f"{self.url}/health", timeout=5).json()["model_loaded"])
        except httpx.HTTPError:
            return False

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_ended(self) -> int:
        return self._process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait_ended()

    def kill(self) -> None:
        """The last resort of a test's cleaning up."""
        for process in self.processes():
            process.kill()
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    # ---- its processes

    def processes(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def find(self, word: str) -> list[psutil.Process]:
        """Processes by a word among the first three of their command line."""
        found = []
        for process in self.processes():
            try:
                if any(word in part for part in process.cmdline()[:3]):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        return self.find("frontend.worker")

    def triton(self) -> psutil.Process:
        """The server itself, neither its guard nor a model's process."""
        stub = "triton_python_backend_stub"
        return next(p for p in self.find("tritonserver") if stub not in p.cmdline()[0])

    def has_other_triton(self, than: psutil.Process) -> bool:
        """Whether a server took the place of one that died, and the stack is ready with it.

        For a second a worker may think of the old one: what a model can do is remembered so long.
        """
        stub = "triton_python_backend_stub"
        pids = [p.pid for p in self.find("tritonserver") if stub not in p.cmdline()[0]]
        return bool(pids) and than.pid not in pids and self.is_ready()

    def num_fds(self) -> dict[str, int]:
        """Open file descriptors by process."""
        return {f"{p.name()} {p.pid}": p.num_fds() for p in self.processes()}

    # ---- Triton's metrics

    def gauge(self, family: str, value: str) -> float:
        """Of the engine; its families have one label that tells the values apart."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5).text
        for found in text_string_to_metric_families(text):
            for sample in found.samples:
                if sample.name == family and value in sample.labels.values():
                    return sample.value
        raise AssertionError(f"no {family} {value} in {text}")

    def is_engine_idle(self) -> bool:
        """No request in the engine, no KV block in use."""
        return self.gauge(REQUESTS, "active") == 0 and self.gauge(KV_BLOCKS, "used") == 0
