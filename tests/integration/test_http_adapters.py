"""`model:adapter` as a model's name, on every surface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build_engines.artefacts.artefact import Adapter
from frontend.settings import Settings
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import ALL_INPUTS, FakeEngine, FakeRepository, Script, one_token_a_step
from tests.fakes.server import RawClient, ServerThread, parse_events
from tests.fakes.tokenizers import byte_level_tokenizer

ADAPTERS = {
    "pirate": Adapter(directory="adapters/pirate", rank=8, task_id=11),
    "poet": Adapter(directory="adapters/poet", rank=16, task_id=2**63 - 1),
}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
SURFACES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 9},
    "/api/v1/generate": {"prompt": "hi"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("adapters")
    publish_model(home, "tuned", "fp16", kind="tensorrt_llm", adapters=ADAPTERS)
    publish_model(home, "plain", "q8_0")
    return home


@pytest.fixture
def tuned() -> FakeEngine:
    tokens = byte_level_tokenizer().encode("ok").ids
    engine = FakeEngine(Script(steps=one_token_a_step(tokens)))
    engine.load("tuned", variant="fp16")
    engine.load("plain")
    return engine


@pytest.fixture
def http(home: Path, tuned: FakeEngine) -> Iterator[RawClient]:
    settings = Settings(home=home, model="tuned", triton_metrics_url="127.0.0.1:1")
    with (
        ServerThread(settings, tuned, FakeRepository(tuned)) as server,
        RawClient(server.address) as client,
    ):
        yield client


def post(http: RawClient, path: str, body: dict[str, Any]) -> Any:
    http.send("POST", path, body)
    return http.receive()


@pytest.mark.parametrize("path", SURFACES)
def test_an_adapter_is_chosen_by_name_on_every_surface(
    http: RawClient, tuned: FakeEngine, home: Path, path: str
) -> None:
    answer = post(http, path, {**SURFACES[path], "model": "tuned:poet"})
    assert answer.status == 200, answer.body
    if path.startswith("/v1"):
        assert answer.json["model"] == "tuned:poet"
    adapter = tuned.streams[0].request.adapter
    assert adapter is not None
    assert (adapter.name, adapter.task_id) == ("poet", 2**63 - 1)
    assert adapter.directory == str(home / "models/tuned/fp16/1/adapters/poet")
    assert tuned.streams[0].request.model == "tuned"


def test_the_default_model_has_its_adapters_too(http: RawClient, tuned: FakeEngine) -> None:
    for name in ("default:pirate", ":pirate"):
        assert post(http, "/v1/chat/completions", {**CHAT, "model": name}).status == 200
    assert [stream.request.adapter and stream.request.adapter.name for stream in tuned.streams] == [
        "pirate",
        "pirate",
    ]
    assert post(http, "/v1/chat/completions", CHAT).json["model"] == "tuned"
    assert tuned.streams[-1].request.adapter is None


def test_a_stream_names_the_adapter(http: RawClient) -> None:
    http.send("POST", "/v1/chat/completions", {**CHAT, "model": "tuned:pirate", "stream": True})
    events = parse_events(http.receive().body)
    assert {event["model"] for event in events[:-1]} == {"tuned:pirate"}


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("adapter", ["parrot", ""])
def test_an_unknown_adapter_is_404_and_names_those_there_are(
    http: RawClient, path: str, adapter: str
) -> None:
    answer = post(http, path, {**SURFACES[path], "model": f"tuned:{adapter}"})
    assert answer.status == 404
    message = answer.json["error"]["message"]
    assert "pirate, poet" in message
    assert f"'{adapter}'" in message


def test_a_model_whose_engine_takes_none_says_so(http: RawClient, tuned: FakeEngine) -> None:
    answer = post(http, "/v1/chat/completions", {**CHAT, "model": "plain:pirate"})
    assert (answer.status, answer.json["error"]["param"]) == (400, "model")
    assert "takes no LoRA adapters" in answer.json["error"]["message"]
    without = replace(tuned.models["tuned"], inputs=ALL_INPUTS - {"lora_task_id"})
    tuned.models["tuned"] = without
    answer = post(http, "/v1/chat/completions", {**CHAT, "model": "tuned:pirate"})
    assert answer.status == 400
    assert tuned.streams == []


def test_both_lists_show_adapters(http: RawClient) -> None:
    http.send("GET", "/v1/models")
    models = {model["id"]: model for model in http.receive().json["data"]}
    assert list(models) == ["plain", "tuned", "tuned:pirate", "tuned:poet"]
    assert models["tuned:poet"]["parent"] == "tuned"
    assert "parent" not in models["tuned"]
    http.send("GET", "/api/v1/models")
    native = {model["name"]: model["adapters"] for model in http.receive().json["models"]}
    assert native == {"plain": [], "tuned": ["pirate", "poet"]}


def test_an_adapter_is_retrieved_as_a_model(http: RawClient) -> None:
    for path, status in (("tuned:poet", 200), ("tuned%3Apoet", 200), ("tuned:parrot", 404)):
        http.send("GET", f"/v1/models/{path}")
        answer = http.receive()
        assert answer.status == status
        assert status != 200 or answer.json["id"] == "tuned:poet"


def test_an_adapter_is_nothing_to_load(http: RawClient, tuned: FakeEngine) -> None:
    assert post(http, "/api/v1/models/tuned:poet/unload", {}).status == 404
    assert "tuned" in tuned.models
