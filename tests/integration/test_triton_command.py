"""`inflight triton`: a Triton by itself, and a frontend that shares its home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from build_engines.artefacts.artefact import EngineFacts
from frontend.bench.servers import free_ports
from frontend.cli import app
from tests.conftest import DEFAULT_MODEL
from tests.e2e.stack import eventually
from tests.fakes.artefacts import publish_model

QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


@contextmanager
def running(*arguments: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of `inflight` in a process of its own, ended by SIGTERM."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "frontend", *arguments],
            env=os.environ | variables,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(30) is not None


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_a_frontend_is_served_by_a_triton_of_the_same_home(home: Path, tmp_path: Path) -> None:
    port, grpc_port, http_port, metrics_port = free_ports(4)
    ports = {
        "INFLIGHT_TRITON_GRPC_PORT": str(grpc_port),
        "INFLIGHT_TRITON_HTTP_PORT": str(http_port),
        "INFLIGHT_TRITON_METRICS_PORT": str(metrics_port),
    }
    log = tmp_path / "log"
    place = ("--home", str(home))
    with (
        running("triton", DEFAULT_MODEL, *place, log=log, **ports) as triton,
        running(
            *("serve", "--port", str(port), "--triton-url", f"127.0.0.1:{grpc_port}", *place),
            log=log,
            INFLIGHT_TRITON_METRICS_URL=f"127.0.0.1:{metrics_port}",
        ),
    ):
        url = f"http://127.0.0.1:{http_port}/v2/models/{DEFAULT_MODEL}/ready"
        eventually(lambda: answers(url), timeout_s=60)
        eventually(lambda: answers(f"http://127.0.0.1:{port}/health"), timeout_s=60)
        body = {"model": DEFAULT_MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 8}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
        assert "Paris" in answer.json()["choices"][0]["message"]["content"], answer.text
        # the home is this Triton's for as long as it runs, though the command has become it
        second = subprocess.run(
            [sys.executable, "-m", "frontend", "triton", *place],
            env=os.environ | ports,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert f"a server (process {triton.pid}) runs from {home} already" in second.stderr


@pytest.fixture
def gpu_home(tmp_path: Path) -> Path:
    publish_model(tmp_path, "llama", "fp16", kind="tensorrt_llm", engine=EngineFacts(tp_size=2))
    publish_model(tmp_path, "tiny", "q8_0")
    return tmp_path


def shown(home: Path, *arguments: str) -> tuple[int, str]:
    command = ["triton", "--print", "--home", str(home), *arguments]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.output


def test_the_command_line_is_shown_and_nothing_is_started(gpu_home: Path) -> None:
    code, text = shown(gpu_home, "llama", "--gpus", "2")
    lines = [line.strip(" \\") for line in text.splitlines()]
    assert code == 0
    assert lines[:6] == [
        "TRTLLM_ORCHESTRATOR=1",
        "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES=1",
        "mpirun",
        "--allow-run-as-root",
        "-n",
        "1",
    ]
    assert f"--model-repository={gpu_home}/repository" in lines
    assert "--load-model=llama" in lines
    assert not (gpu_home / "repository").exists()


def test_the_variant_and_the_mode_can_be_chosen(gpu_home: Path) -> None:
    code, text = shown(gpu_home, "llama/fp16", "--mode", "leader", "--gpus", "2")
    assert code == 0
    assert text.count("--load-model=llama") == 2
    assert "TRTLLM_ORCHESTRATOR" not in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("llama", "--gpus", "1"), "llama needs 2 GPUs, this machine has 1"),
        (("mistral",), "mistral is not built: build it, or name one of llama/fp16, tiny/q8_0"),
        (("llama/fp8",), "llama/fp8 is not built"),
    ],
)
def test_what_cannot_be_started_is_an_error_of_one_line(
    gpu_home: Path, arguments: tuple[str, ...], reason: str
) -> None:
    code, text = shown(gpu_home, *arguments)
    assert code == 2
    assert text.startswith(f"error: {reason}")
    assert text.count("\n") == 1
