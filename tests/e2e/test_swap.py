"""A model changes its version while 200 streams run, by a publication and by a rollback.

The two versions have other tokenizers, templates and limits: whatever is mixed up is seen.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from build_engines.artefacts.artefact import Artefact
from build_engines.artefacts.retention import rollback
from frontend.cli import app
from tests.e2e.conftest import load
from tests.e2e.stack import Stack, eventually
from tests.fakes.scripted import VARIANT, write_scripted_model
from tests.fakes.tokenizers import CHAT_TEMPLATE, byte_level_tokenizer, write_tokenizer
from triton_models.scripted.script import Scenario

MODEL = "changer"
NUM_STREAMS = 200
TEXTS = {1: " ".join(f"first {i}" for i in range(12)), 2: " ".join(f"二 {i}" for i in range(12))}
TAKEN_WITHIN_S = 10.0  # on a busy machine; a look a second, and the load


@dataclass(kw_only=True)
class Seen:
    """One stream, as its client saw it."""

    text: str = ""
    fingerprint: str = ""
    finish_reason: str | None = None
    failure: str | None = None


@dataclass(kw_only=True)
class Clients:
    """Clients that stream one answer after the other."""

    seen: list[Seen] = field(default_factory=list)
    num_running: int = 0
    is_stopping: bool = False

    @property
    def num_of(self) -> dict[int, int]:
        return {n: sum(one.text == text for one in self.seen) for n, text in TEXTS.items()}


def publish_version(home: Path, number: int, artefact: Artefact, tmp_path: Path) -> Artefact:
    """Version 1 has the default model's tokenizer, version 2 one of bytes."""
    if number == 2:
        write_tokenizer(tmp_path / "tokenizer", byte_level_tokenizer(), chat_template=CHAT_TEMPLATE)
        limits = replace(artefact.manifest.limits, max_seq_len=1024, max_input_len=1023)
        tokens = replace(artefact.manifest.tokens, eos_ids=[0])
        manifest = replace(artefact.manifest, limits=limits, tokens=tokens)
        artefact = replace(artefact, manifest=manifest, path=tmp_path)
    pieces = {1: 2, 2: 8}[number]
    scenario = Scenario(
        name="talk", text=TEXTS[number], step_delay_ms=100, tokens_per_response=pieces
    )
    return write_scripted_model(home, MODEL, [scenario], tokenizer_from=artefact)


async def stream(http: httpx.AsyncClient) -> Seen:
    seen = Seen()
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Talk."}]}
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            return Seen(failure=(await answer.aread()).decode())
        async for line in answer.aiter_lines():
            payload = line.removeprefix("data: ")
            if not line or payload == "[DONE]":
                continue
            event: dict[str, Any] = json.loads(payload)
            if "error" in event:
                return replace(seen, failure=payload)
            [choice] = event["choices"]
            seen.text += choice["delta"].get("content") or ""
            seen.fingerprint = event["system_fingerprint"]
            seen.finish_reason = choice["finish_reason"]
    return seen


@asynccontextmanager
async def running_clients(stack: Stack) -> AsyncIterator[Clients]:
    clients = Clients()
    limits = httpx.Limits(max_connections=NUM_STREAMS, max_keepalive_connections=0)

    async def work(http: httpx.AsyncClient) -> None:
        while not clients.is_stopping:
            clients.num_running += 1
            try:
                clients.seen.append(await stream(http))
            finally:
                clients.num_running -= 1

    async with (
        httpx.AsyncClient(base_url=stack.url, timeout=60, limits=limits) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(NUM_STREAMS):
            group.create_task(work(http))
        yield clients
        clients.is_stopping = True


async def wait_for_answers(clients: Clients, number: int, least: int) -> None:
    """Wait until so many more streams of a version have ended, and none of another runs."""
    before = clients.num_of[number]
    async with asyncio.timeout(TAKEN_WITHIN_S):
        while clients.num_of[number] < before + least:  # noqa: ASYNC110, no event for it
            await asyncio.sleep(0.05)


@pytest.fixture
def first_version(stack: Stack, home: Path, artefact: Artefact, tmp_path: Path) -> Artefact:
    first = publish_version(home, 1, artefact, tmp_path)
    load(stack, MODEL)
    return first


async def test_200_streams_survive_a_publication_and_a_rollback(
    stack: Stack, home: Path, artefact: Artefact, first_version: Artefact, tmp_path: Path
) -> None:
    async with running_clients(stack) as clients:
        await asyncio.sleep(1)
        assert clients.num_running == NUM_STREAMS
        await asyncio.to_thread(publish_version, home, 2, artefact, tmp_path)
        await wait_for_answers(clients, 2, NUM_STREAMS // 2)
        await asyncio.to_thread(rollback, home, MODEL, VARIANT)
        await wait_for_answers(clients, 1, NUM_STREAMS // 2)
    assert [one for one in clients.seen if one.failure is not None] == []
    assert {one.text for one in clients.seen} == set(TEXTS.values())
    assert {one.finish_reason for one in clients.seen} == {"stop"}
    fingerprints = {
        text: {s.fingerprint for s in clients.seen if s.text == text} for text in TEXTS.values()
    }
    assert [len(found) for found in fingerprints.values()] == [1, 1], "each names its own version"
    assert fingerprints[TEXTS[1]] != fingerprints[TEXTS[2]]


def described(stack: Stack) -> dict[str, Any]:
    models = httpx.get(f"{stack.url}/api/v1/models", timeout=30).json()["models"]
    return next(model for model in models if model["name"] == MODEL)


def says(stack: Stack) -> str:
    body = {"model": MODEL, "prompt": "Talk."}
    return str(httpx.post(f"{stack.url}/api/v1/generate", json=body, timeout=30).json()["text"])


def models_command(home: Path, *arguments: str) -> str:
    """`inflight models` finds the stack by its home folder."""
    result = CliRunner().invoke(app, ["models", *arguments, "--home", str(home)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_version_that_does_not_load_leaves_the_one_before_serving(
    stack: Stack, home: Path, artefact: Artefact, first_version: Artefact
) -> None:
    broken = Scenario(name="broken", text="x", token_ids=[1])  # either one or the other
    write_scripted_model(home, MODEL, [broken], tokenizer_from=artefact)
    failed = eventually(lambda: described(stack)["failed"], timeout_s=TAKEN_WITHIN_S)
    assert "either text or token_ids" in failed["reason"]
    assert described(stack)["version"] == first_version.manifest.version
    assert says(stack) == TEXTS[1]
    assert f"version {first_version.manifest.version} loaded" in models_command(home, "list")
    models_command(home, "rollback", MODEL)
    eventually(lambda: described(stack)["failed"] is None)
    assert says(stack) == TEXTS[1]
