"""A key with models: ["gemma-*"] can neither use nor see others, on any surface.

Every route of the table is walked with such a key and with one that may use all: a route that is
added later has to say here how a model can be named or shown by it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from build_engines.artefacts.artefact import Adapter
from frontend.access.identity import Scope
from frontend.api.route import Route
from frontend.routes import ROUTES
from frontend.settings import Settings
from tests.fakes.access import Keys, ask
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository, Script, one_token_a_step
from tests.fakes.server import Answer, ServerThread, wait_until
from tests.fakes.tokenizers import byte_level_tokenizer

ALLOWED, HIDDEN, NEVER = "gemma-2b", "zebra-7b", "never-7b"  # the last was never there
VECTORS = {ALLOWED: "gemma-vectors", HIDDEN: "zebra-vectors", NEVER: "never-vectors"}
ADAPTERS = {"sql": Adapter(directory="adapters/sql", rank=8, task_id=11)}
# The default model is a hidden one: no alias may lead to it, and no text may name it.
ALIASES = (None, "", "default", "default:sql", ":sql")
IDS = re.compile(r"[0-9a-f]{32}")

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
MESSAGES = {**CHAT, "max_tokens": 5}


@dataclass(frozen=True, slots=True)
class Named:
    """A model is named in the body, in the path or in the query."""

    body: dict[str, Any] | None = None  # without `model`
    is_for_vectors: bool = False
    can_stream: bool = False

    def bodies(self) -> list[dict[str, Any] | None]:
        return [self.body, *([{**(self.body or {}), "stream": True}] if self.can_stream else [])]


@dataclass(frozen=True, slots=True)
class Batch:
    """Each item names one."""

    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer shows names, without one being asked for."""

    query: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was made by a model is asked for by its id."""

    path: str = ""  # in place of the route's


@dataclass(frozen=True, slots=True)
class Silent:
    """The answer has the name of no model in it, whoever asks."""


@dataclass(frozen=True, slots=True)
class Exempt:
    why: str


RULES = Exempt("who has the scope `admin` rules over all keys, and reads what each of them may use")
RESPONSE = {"input": "hi"}
TRIALS: dict[str, Named | Batch | Shown | Stored | Silent | Exempt] = {
    "GET /health": Silent(),
    "GET /api/v1/health": Silent(),
    "GET /openapi.json": Silent(),
    "GET /docs": Silent(),
    "GET /metrics": Shown(),
    "GET /api/v1/metrics": Shown(),
    "POST /api/v1/generate": Named({"prompt": "hi"}, can_stream=True),
    "POST /api/v1/generate/stream": Named({"prompt": "hi"}),
    "POST /api/v1/batch/generate": Batch(),
    "GET /api/v1/models": Shown(),
    "POST /api/v1/models/<model_name>/load": Named({}),
    "POST /api/v1/models/<model_name>/unload": Named(),
    "POST /v1/chat/completions": Named(CHAT, can_stream=True),
    "POST /v1/chat/completions/render": Named(CHAT),
    "POST /v1/completions": Named({"prompt": "hi"}, can_stream=True),
    "POST /tokenize": Named({"prompt": "hi"}),
    "POST /detokenize": Named({"tokens": [10]}),
    "GET /tokenizer_info": Named(),
    "POST /v1/messages": Named(MESSAGES, can_stream=True),
    "POST /v1/messages/count_tokens": Named(CHAT),
    "POST /v1/responses": Named(RESPONSE, can_stream=True),
    "POST /v1/responses/input_tokens": Named(RESPONSE),
    "GET /v1/responses/<response_id>": Stored(),
    "DELETE /v1/responses/<response_id>": Stored(),
    "POST /v1/responses/<response_id>/cancel": Stored(),
    "GET /v1/responses/<response_id>/input_items": Stored(),
    "POST /v1/embeddings": Named({"input": "hi"}, is_for_vectors=True),
    "GET /v1/models": Shown(),
    "GET /v1/models/<model_name>": Named(),
    "GET /v1/usage": Shown("?group_by=model"),  # of the key itself, to who is no administrator
    "GET /api/v1/keys": RULES,
    "POST /api/v1/keys": RULES,
    "DELETE /api/v1/keys/<key_id>": RULES,
    "POST /api/v1/keys/<key_id>/rotate": RULES,
    "POST /api/v1/keys/<key_id>/limits": RULES,
}


class TritonMetrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        names = (ALLOWED, HIDDEN)
        lines = [f'nv_requests{{model="{name}",version="1"}} 3\n' for name in names]
        self.wfile.write(f"HTTP/1.0 200 OK\r\n\r\n{''.join(lines)}".encode())

    def log_message(self, *_args: object) -> None:
        """Quiet."""


@dataclass(slots=True)
class World:
    """A server with both kinds of models, all loaded, and the two keys."""

    server: ServerThread
    engine: FakeEngine
    some: str  # may use gemma-* only
    every: str

    def load_all(self) -> None:
        for name in (ALLOWED, HIDDEN):
            self.engine.load(name, variant="fp16")
            vectors = VECTORS[name]
            self.engine.models[vectors] = replace(self.engine.load(vectors), embedding_size=4)

    def ask(self, route: Route, key: str, name: str | None, body: Any) -> Answer:
        """Name the model wherever the route takes it."""
        path = re.sub(r"<[^>]*>", name or "default", route.path)
        if route.method == "GET":
            path += f"?model={name or ''}" if route.query is not None else ""
        elif body is not None and "<" not in route.path and name is not None:
            body = {**body, "model": name}
        answer = ask(self.server, route.method, path, key, body=body)
        self.load_all()  # one of them may have been unloaded
        return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp("allowed")
    for name in (ALLOWED, HIDDEN):
        publish_model(home, name, "fp16", kind="tensorrt_llm", adapters=ADAPTERS)
        publish_model(home, name, "q8_0")  # can be loaded here
        publish_model(home, VECTORS[name])
    engine = FakeEngine(Script(steps=one_token_a_step(byte_level_tokenizer().encode("ok").ids)))
    triton = ThreadingHTTPServer(("127.0.0.1", 0), TritonMetrics)
    threading.Thread(target=triton.serve_forever).start()
    address = f"127.0.0.1:{triton.server_port}"
    settings = Settings(home=home, model=HIDDEN, authentication="on", triton_metrics_url=address)
    keys = Keys(settings)
    some = keys.make(*(set(Scope) - {Scope.ADMIN}), models=("gemma-*",))[1]
    every = keys.make(*Scope)[1]
    with ServerThread(settings, engine, FakeRepository(engine)) as server:
        found = World(server, engine, some, every)
        found.load_all()
        yield found
    triton.shutdown()
    triton.server_close()


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def text_of(answer: Answer) -> str:
    return f"{sorted(answer.headers.items())} {answer.body.decode()}"


def comparable(answer: Answer, name: str) -> tuple[int, str]:
    """What must be the same for what is hidden and what was never there."""
    return answer.status, IDS.sub("ID", answer.body.decode().replace(name, "MODEL"))


def test_each_route_says_how_it_names_models() -> None:
    assert set(TRIALS) == {name_of(route) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_other_models_can_be_neither_used_nor_seen(world: World, route: Route) -> None:
    match TRIALS[name_of(route)]:
        case Named() as trial:
            for body in trial.bodies():
                try_named(world, route, trial, body)
        case Batch():
            try_batch(world, route)
        case Shown() as trial:
            try_shown(world, route.path + trial.query)
        case Stored():
            try_stored(world, route)
        case Silent():
            assert "zebra" not in text_of(world.ask(route, world.every, None, None))
        case Exempt():
            pass


def try_named(world: World, route: Route, trial: Named, body: dict[str, Any] | None) -> None:
    hidden, never, allowed = (
        VECTORS[name] if trial.is_for_vectors else name for name in (HIDDEN, NEVER, ALLOWED)
    )
    assert world.ask(route, world.some, allowed, body).status == 200
    assert world.ask(route, world.every, hidden, body).status == 200
    num_streams = len(world.engine.streams)
    for adapter in ("", ":sql", ":nothing", ":"):
        theirs = world.ask(route, world.some, f"{hidden}{adapter}", body)
        nobodys = world.ask(route, world.some, f"{never}{adapter}", body)
        assert theirs.status == 404
        assert comparable(theirs, hidden) == comparable(nobodys, never)
    for alias in ALIASES:
        answer = world.ask(route, world.some, alias, body)
        assert answer.status == 404 or "required" in answer.json["error"]["message"], alias
        assert "zebra" not in text_of(answer), alias
    unknown = world.ask(route, world.some, f"{allowed}:nothing", body)
    assert "zebra" not in text_of(unknown)
    assert len(world.engine.streams) == num_streams, "the engine has heard of none of it"


def try_batch(world: World, route: Route) -> None:
    names = [HIDDEN, NEVER, ALLOWED, "default", f"{HIDDEN}:sql", f"{ALLOWED}:sql"]
    body = {"requests": [{"prompt": "a", "model": name} for name in names] + [{"prompt": "b"}]}
    answer = world.ask(route, world.some, None, body)
    results = answer.json["results"]
    assert ["error" in one for one in results] == [True, True, False, True, True, False, True]
    assert str(results[0]).replace(HIDDEN, NEVER) == str(results[1])
    assert answer.body.decode().replace("zebra-7b:sql", "").count("zebra") == 1, "as was asked"
    every = world.ask(route, world.every, None, body).json["results"]
    assert ["error" in one for one in every] == [False, True, *[False] * 5]


def try_shown(world: World, path: str) -> None:
    for key, name in ((world.some, ALLOWED), (world.every, HIDDEN)):
        body = {**CHAT, "model": name}
        assert ask(world.server, "POST", "/v1/chat/completions", key, body=body).status == 200

    def shown(key: str, query: str = "") -> str:
        answer = ask(world.server, "GET", path + query, key)
        assert answer.status == 200
        return text_of(answer)

    # what is counted is counted a moment behind the answer
    wait_until(lambda: ALLOWED in shown(world.some) and HIDDEN in shown(world.every))
    assert "zebra" not in shown(world.some)


def test_usage_of_a_hidden_model_is_that_of_one_that_was_never_there(world: World) -> None:
    assert ask(
        world.server, "POST", "/v1/completions", world.every, body={"prompt": "x", "model": HIDDEN}
    ).json
    answers = [
        comparable(ask(world.server, "GET", f"/v1/usage?model={name}", world.some), name)
        for name in (HIDDEN, NEVER)
    ]
    assert answers[0] == answers[1]


def try_stored(world: World, route: Route) -> None:
    def make(name: str) -> str:
        body = {"input": "hi", "model": name, "background": True}
        made = ask(world.server, "POST", "/v1/responses", world.every, body=body)
        return str(made.json["id"])

    def status(response_id: str, key: str) -> tuple[int, str]:
        path = route.path.replace("<response_id>", response_id)
        return comparable(ask(world.server, route.method, path, key), response_id)

    hidden, allowed = make(HIDDEN), make(ALLOWED)
    theirs = status(hidden, world.some)
    assert theirs == status("resp_nobody", world.some)
    assert theirs[0] == 404
    assert status(allowed, world.some)[0] != 404
    assert status(hidden, world.every)[0] != 404


def test_what_a_hidden_model_has_said_cannot_be_built_upon(world: World) -> None:
    body = {"input": "hi", "model": HIDDEN}
    made = ask(world.server, "POST", "/v1/responses", world.every, body=body).json
    reference = {"type": "item_reference", "id": made["output"][0]["id"]}
    paths = ("/v1/responses/input_tokens", "/v1/responses")
    bodies: list[dict[str, Any]] = [
        {"input": "more", "previous_response_id": made["id"], "model": ALLOWED},
        {"input": [reference, {"role": "user", "content": "?"}], "model": ALLOWED},
    ]
    for key, status in ((world.some, 400), (world.every, 200)):
        for path in paths:
            for asked in bodies:
                assert ask(world.server, "POST", path, key, body=asked).status == status


def test_lists_have_the_allowed_models_and_adapters_only(world: World) -> None:
    native = ask(world.server, "GET", "/api/v1/models", world.some).json["models"]
    openai = ask(world.server, "GET", "/v1/models", world.some).json["data"]
    assert [one["name"] for one in native] == ["gemma-2b", "gemma-vectors"]
    assert [one["id"] for one in openai] == ["gemma-2b", "gemma-2b:sql", "gemma-vectors"]
