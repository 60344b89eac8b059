"""What schemathesis finds when it tries the server on the server's own description."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build_engines.artefacts.artefact import Artefact
from frontend.routes import ROUTES
from frontend.settings import Settings
from frontend.types import LoadedModel
from tests.e2e.stack import MODEL, Stack
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository, Script, one_token_a_step
from tests.fakes.server import ServerThread, wait_until

CLIENT = Path(__file__).parent / "clients/schemathesis/client.py"
TIMEOUT_S = 280.0
EMBEDDINGS = "/v1/embeddings"


class SteadyRepository(FakeRepository):
    """Loads and unloads without effect: other requests of the run must find what they found."""

    async def load(self, artefact: Artefact) -> LoadedModel:
        return self._engine.models[artefact.manifest.name]

    async def unload(self, name: str) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerThread]:
    """A real server with a fake engine of two models; one makes vectors."""
    engine = FakeEngine(Script(steps=one_token_a_step([40, 41, 42])))
    for name in ("tiny", "vectors"):
        publish_model(tmp_path, name)
        engine.load(name)
    engine.models["vectors"] = replace(engine.models["vectors"], embedding_size=4)
    settings = Settings(home=tmp_path, model="tiny", triton_metrics_url="127.0.0.1:1")
    with ServerThread(settings, engine, SteadyRepository(engine)) as running:
        yield running


def run_schemathesis(
    python: str, url: str, *options: str, max_tokens: int, models: dict[str, str]
) -> dict[str, Any]:
    """Its report; fails with what it found."""
    done = subprocess.run(
        [python, str(CLIENT), url, str(max_tokens), json.dumps(models), *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["exit_code"] == 0, found["output"]
    report: dict[str, Any] = found["report"]
    operations = report["operations"]
    assert operations["tested"] == operations["selected"] > 0
    assert report["test_cases"]["with_failures"] == report["test_cases"]["errored"] == 0
    return report


def test_no_answer_breaks_its_own_schema_in_two_thousand_cases(
    server: ServerThread, client_python: Callable[[str], str]
) -> None:
    report = run_schemathesis(
        client_python("schemathesis"),
        server.url,
        *("--max-examples", "30"),
        max_tokens=8,
        models={"": "tiny", EMBEDDINGS: "vectors"},
    )
    assert report["operations"]["selected"] == len(ROUTES) - 1  # the description is read before
    assert report["test_cases"]["generated"] >= 2000
    wait_until(lambda: server.engine.num_running == 0)


def test_the_whole_stack_keeps_to_the_description_too(
    stack: Stack, client_python: Callable[[str], str]
) -> None:
    """Without loading and unloading, which other tests of this stack would feel."""
    report = run_schemathesis(
        client_python("schemathesis"),
        stack.url,
        *("--phases", "examples,fuzzing", "--max-examples", "15"),
        *("--exclude-path-regex", "load$"),
        max_tokens=2,
        models={"": MODEL},
    )
    assert report["test_cases"]["generated"] >= 100
    assert stack.is_ready()
