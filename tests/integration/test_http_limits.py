"""What a request takes from its buckets and gives back, over HTTP, however it ends.

Each test has a client address of its own, told by a proxy that the server trusts: so all share one
server, and each has full buckets.
"""

from __future__ import annotations

import itertools
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontend.access.identity import Scope
from frontend.errors import EngineUnavailable, ModelChanged
from frontend.limits.buckets import LimitSet
from frontend.limits.policy import DEFAULT_LIMITS
from frontend.routes import ROUTES
from frontend.settings import Settings
from frontend.types import GenerationRequest
from tests.fakes.access import Keys, ask
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step, one_token_a_step
from tests.fakes.server import Answer, RawClient, ServerThread, wait_until
from tests.fakes.tokenizers import byte_level_tokenizer
from tests.integration.redis_server import RedisServer

LIMITS = """
[addresses]
requests_per_minute = 6      # one comes back every ten seconds
tokens_per_day = 1_000
concurrent_requests = 1
"""
HEADERS = {
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    *(
        f"x-ratelimit-{what}-{unit}"
        for what in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    ),
}
IDS = byte_level_tokenizer().encode("four").ids
FOUR = Script(steps=one_token_a_step(IDS))
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
SURFACES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "completions": ("/v1/completions", {"prompt": ["hi", "you"], "max_tokens": 20}),
    "native": ("/api/v1/generate", {"prompt": "hi", "max_tokens": 20}),
    "messages": ("/v1/messages", {**CHAT, "model": "default"}),
    "responses": ("/v1/responses", {"input": "hi", "max_output_tokens": 20}),
}
COUNTING = {
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [1, 2]},
    "/v1/chat/completions/render": CHAT,
    "/v1/messages/count_tokens": {"model": "default", "messages": CHAT["messages"]},
    "/v1/responses/input_tokens": {"input": "hi"},
}
_numbers = itertools.count(1)


class Caller:
    """A client with an address of its own."""

    def __init__(self, server: ServerThread) -> None:
        self.server = server
        number = next(_numbers)
        self.headers = {"X-Forwarded-For": f"198.51.{number // 256}.{number % 256}"}

    def send(self, path: str, body: object) -> RawClient:
        client = RawClient(self.server.address)
        client.send("POST", path, body, self.headers)
        return client

    def post(self, path: str, body: object) -> Answer:
        with self.send(path, body) as client:
            return client.receive()

    def left(self) -> tuple[int, int]:
        """Requests of six a minute, and tokens of thousand a day."""
        with RawClient(self.server.address) as client:
            client.send("GET", "/v1/models", headers=self.headers)
            headers = client.receive().headers
        assert headers["x-ratelimit-limit-tokens"] == "1000"
        return int(headers["x-ratelimit-remaining"]), int(headers["x-ratelimit-remaining-tokens"])

    def has_place(self) -> bool:
        """Takes one of the requests, if there is a place."""
        return self.post("/tokenize", {"prompt": "x"}).status == 200


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.load("tiny")
    return engine


@pytest.fixture(scope="module")
def limits_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("limited")
    publish_model(home, "tiny", "q8_0")
    (home / "limits.toml").write_text(LIMITS)
    return home


@pytest.fixture(scope="module")
def limits_settings(limits_home: Path) -> Settings:
    return Settings(
        home=limits_home,
        model="tiny",
        triton_metrics_url="127.0.0.1:1",  # nobody listens there
        trusted_proxies=1,
        cors_origins="https://example.com",
        allowed_hosts="*",
        drain_timeout_s=0.5,
    )


@pytest.fixture(scope="module")
def limited(limits_settings: Settings, engine: FakeEngine) -> Iterator[ServerThread]:
    with ServerThread(limits_settings, engine, FakeRepository(engine)) as running:
        yield running


@pytest.fixture
def caller(limited: ServerThread, engine: FakeEngine) -> Iterator[Caller]:
    engine.script = FOUR
    engine.streams.clear()
    yield Caller(limited)
    wait_until(lambda: engine.num_running == 0)


def prompt_tokens(engine: FakeEngine) -> int:
    return sum(len(stream.request.prompt_token_ids) for stream in engine.streams)


def hanging(*steps: Step) -> Script:
    return Script(steps=[*steps, Step(token_ids=IDS, after_s=60)])


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("surface", SURFACES)
def test_what_an_answer_used_is_taken_when_it_has_ended(
    caller: Caller, engine: FakeEngine, surface: str, is_stream: bool
) -> None:
    path, body = SURFACES[surface]
    answer = caller.post(path, {**body, "stream": is_stream})
    assert answer.status == 200
    used = prompt_tokens(engine) + 4 * len(engine.streams)
    assert answer.headers["x-ratelimit-remaining"] == "5"
    reserved = prompt_tokens(engine) + 20 * len(engine.streams)
    assert answer.headers["x-ratelimit-remaining-tokens"] == str(1000 - reserved)
    # at once: what a client has seen the end of does not stand in its own way
    assert caller.left() == (5, 1000 - used)
    assert caller.has_place()


def test_items_of_a_batch_are_requests_of_their_own(caller: Caller, engine: FakeEngine) -> None:
    engine.script = Script(steps=one_token_a_step(IDS, every_s=0.02))
    items = [{"prompt": "hi", "max_tokens": 20}] * 3
    answer = caller.post("/api/v1/batch/generate", {"requests": items})
    assert answer.status == 200
    errors = [one.get("error", {}).get("code") for one in answer.json["results"]]
    # one place, and all ask at once
    assert sorted(errors, key=str) == [None, "RATE_LIMITED", "RATE_LIMITED"]
    assert "retry-after" not in answer.headers
    assert caller.left() == (5, 1000 - prompt_tokens(engine) - 4)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("surface", SURFACES)
def test_an_engine_that_fails_before_its_answer_costs_no_tokens(
    caller: Caller, engine: FakeEngine, surface: str, is_stream: bool
) -> None:
    engine.script = Script(steps=[Step(error=EngineUnavailable())])
    path, body = SURFACES[surface]
    answer = caller.post(path, {**body, "stream": is_stream})
    assert answer.status in (200, 503, 529)
    assert caller.left() == (5, 1000)
    assert caller.has_place()


@pytest.mark.parametrize("surface", SURFACES)
def test_a_client_that_leaves_pays_for_what_it_got(
    caller: Caller, engine: FakeEngine, surface: str
) -> None:
    path, body = SURFACES[surface]
    num_prompts = 2 if surface == "completions" else 1
    engine.script = hanging(Step(token_ids=IDS[:2]))
    with caller.send(path, {**body, "stream": True}) as client:
        client.receive_head()
        wait_until(lambda: sum(one.num_tokens_taken for one in engine.streams) == 2 * num_prompts)
    wait_until(lambda: engine.num_running == 0)
    assert caller.left() == (5, 1000 - prompt_tokens(engine) - 2 * num_prompts)
    assert caller.has_place()


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("surface", SURFACES)
def test_a_client_that_leaves_before_an_answer_pays_for_its_prompt(
    caller: Caller, engine: FakeEngine, surface: str, is_stream: bool
) -> None:
    path, body = SURFACES[surface]
    num_prompts = 2 if surface == "completions" else 1
    engine.script = hanging()
    with caller.send(path, {**body, "stream": is_stream}):
        wait_until(lambda: engine.num_running == num_prompts)
    wait_until(lambda: engine.num_running == 0)
    assert caller.left() == (5, 1000 - prompt_tokens(engine))
    assert caller.has_place()


@pytest.mark.parametrize("surface", SURFACES)
def test_a_request_that_is_prepared_again_is_one_request(
    caller: Caller, engine: FakeEngine, surface: str
) -> None:
    refusals = iter([ModelChanged(model="tiny")] * 3)

    def script(_: GenerationRequest) -> Script:
        error = next(refusals, None)
        return FOUR if error is None else Script(steps=[Step(error=error)])

    engine.script = script
    path, body = SURFACES[surface]
    answer = caller.post(path, body)
    assert answer.status == 200
    _, tokens = caller.left()
    last = engine.streams[-2:] if surface == "completions" else engine.streams[-1:]
    assert tokens == 1000 - sum(len(one.request.prompt_token_ids) + 4 for one in last)
    assert caller.left()[0] == 5


@pytest.mark.parametrize(
    ("surface", "code"),
    [
        ("chat", "rate_limit_exceeded"),
        ("completions", "rate_limit_exceeded"),
        ("native", "RATE_LIMITED"),
        ("messages", "rate_limit_error"),
        ("responses", "rate_limit_exceeded"),
    ],
)
def test_a_refusal_says_when_to_come_back_in_the_surfaces_own_words(
    caller: Caller, engine: FakeEngine, surface: str, code: str
) -> None:
    for _ in range(6):
        assert caller.has_place()
    path, body = SURFACES[surface]
    answer = caller.post(path, {**body, "stream": True})
    assert answer.status == 429
    error = answer.json["error"]
    assert code in (error.get("code"), error.get("type"))
    assert 9 <= int(answer.headers["retry-after"]) <= 10
    wait_ms = int(answer.headers["retry-after-ms"])
    assert 9000 < wait_ms <= 10_000
    assert answer.headers.keys() >= HEADERS
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert engine.streams == []
    assert caller.left() == (0, 1000)


def test_a_used_up_day_is_a_quota_and_not_to_be_retried(caller: Caller) -> None:
    body = {**CHAT, "max_tokens": 900}
    with caller.send("/v1/chat/completions", body) as client:
        assert client.receive().status == 200
    for _ in range(2):
        answer = caller.post("/v1/chat/completions", {**CHAT, "max_tokens": 960})
    assert answer.status == 429
    assert answer.json["error"]["code"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"


def test_what_can_never_fit_is_a_bad_request(caller: Caller) -> None:
    answer = caller.post("/v1/chat/completions", {**CHAT, "max_tokens": 1000})
    assert (answer.status, answer.json["error"]["code"]) == (400, "request_over_limit")
    assert "retry-after" not in answer.headers
    assert caller.left() == (6, 1000)


def test_an_answer_of_no_given_length_leaves_room_for_the_next(
    caller: Caller, engine: FakeEngine
) -> None:
    for _ in range(3):
        body = {"messages": CHAT["messages"]}
        assert caller.post("/v1/chat/completions", body).status == 200
    prompt = len(engine.streams[0].request.prompt_token_ids)
    assert engine.streams[0].request.max_new_tokens == (1000 - prompt) // 2


@pytest.mark.parametrize("path", COUNTING)
def test_counting_tokens_is_a_request_without_tokens(caller: Caller, path: str) -> None:
    assert caller.post(path, COUNTING[path]).status == 200
    assert caller.left() == (5, 1000)
    for _ in range(5):
        assert caller.has_place()
    assert caller.post(path, COUNTING[path]).status == 429


def test_an_embedding_costs_its_prompts(caller: Caller, engine: FakeEngine) -> None:
    chat_model = engine.models["tiny"]
    engine.models["tiny"] = replace(chat_model, embedding_size=4)
    try:
        answer = caller.post("/v1/embeddings", {"model": "tiny", "input": ["hello", "you"]})
        assert answer.status == 200
        used = answer.json["usage"]["prompt_tokens"]
        assert caller.left() == (5, 1000 - used)
        assert caller.has_place()
    finally:
        engine.models["tiny"] = chat_model


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "deleted"])
def test_a_background_run_is_charged_until_it_ends(
    caller: Caller, engine: FakeEngine, how: str
) -> None:
    last = Step(error=EngineUnavailable()) if how == "failed" else Step(token_ids=IDS[3:])
    wait_s = 0.1 if how in ("completed", "failed") else 60
    engine.script = Script(steps=[Step(token_ids=IDS[:3]), Step(after_s=wait_s), last])
    path, body = SURFACES["responses"]
    created = caller.post(path, {**body, "background": True})
    assert created.status == 200
    assert created.headers["x-ratelimit-remaining"] == "5"
    wait_until(lambda: sum(one.num_tokens_taken for one in engine.streams) == 3)
    assert not caller.has_place()
    own = f"{path}/{created.json['id']}"
    with RawClient(("127.0.0.1", caller.server.port)) as client:
        if how == "cancelled":
            client.send("POST", f"{own}/cancel", {}, caller.headers)
            assert client.receive().status == 200
        if how == "deleted":
            client.send("DELETE", own, None, caller.headers)
            assert client.receive().status == 200
    wait_until(lambda: engine.num_running == 0)
    num_tokens = 4 if how == "completed" else 3
    wait_until(lambda: caller.left()[1] == 1000 - prompt_tokens(engine) - num_tokens)
    assert caller.has_place()


def test_every_answer_tells_of_the_limits(caller: Caller, limited: ServerThread) -> None:
    asked = [(route.method, re.sub(r"<\w+>", "none", route.path)) for route in ROUTES]
    asked += [("GET", "/nowhere"), ("PUT", "/v1/models"), ("OPTIONS", "/v1/models")]
    with RawClient(limited.address) as client:
        for method, path in asked:
            client.send(method, path, {} if method == "POST" else None, caller.headers)
            answer = client.receive(has_body=method != "OPTIONS")
            assert answer.headers.keys() >= HEADERS, (method, path, answer.status)
        preflight = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
        client.send("OPTIONS", "/v1/models", None, caller.headers | preflight)
        assert client.receive_head().headers.keys() >= HEADERS
        client.sock.sendall(b"what is no HTTP\r\n\r\n")
        assert (answer := client.receive()).status == 400
        assert answer.headers.keys() >= HEADERS
    num_limited = sum(route.is_limited for route in ROUTES)
    assert caller.left() == (6 - num_limited, 1000)  # the others came to nothing


def test_pages_of_other_origins_may_read_all_of_it(caller: Caller) -> None:
    caller.headers["Origin"] = "https://example.com"
    for _ in range(7):
        answer = caller.post("/tokenize", {"prompt": "x"})
    assert answer.status == 429
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert HEADERS | {"retry-after", "retry-after-ms", "x-should-retry"} <= set(exposed)


def test_a_model_has_one_bucket_by_whatever_name_it_is_asked_for(
    limits_settings: Settings, engine: FakeEngine, tmp_path: Path
) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[models.tiny]\nrequests_per_minute = 4\n")
    engine.script = FOUR
    settings = replace(limits_settings, limits_file=limits)
    with ServerThread(settings, engine, FakeRepository(engine)) as server:
        for named in ({"model": "tiny"}, {"model": "default"}, {"model": ""}, {}):
            assert Caller(server).post("/v1/chat/completions", CHAT | named).status == 200
        for model in ("tiny", "default"):
            assert (
                Caller(server).post("/v1/chat/completions", {**CHAT, "model": model}).status == 429
            )
        assert Caller(server).has_place()  # who asks for no model takes none of its


def test_behind_a_proxy_each_client_has_its_own(limited: ServerThread) -> None:
    first, second = Caller(limited), Caller(limited)
    while first.has_place():
        pass
    assert second.has_place()
    # what a client itself says stands before what the proxy has seen
    second.headers["X-Forwarded-For"] = f"203.0.113.77, {first.headers['X-Forwarded-For']}"
    assert not second.has_place()


def test_a_client_that_leaves_while_the_store_decides_was_not_there(
    limits_settings: Settings, engine: FakeEngine, redis: RedisServer
) -> None:
    redis.flush()
    shared = replace(limits_settings, limits_url=redis.url)
    with ServerThread(shared, engine, FakeRepository(engine)) as server:
        caller = Caller(server)
        path, body = SURFACES["chat"]
        assert caller.left() == (6, 1000)
        redis.signal(signal.SIGSTOP)
        with caller.send(path, body):
            time.sleep(0.1)
        time.sleep(0.05)
        redis.signal(signal.SIGCONT)
        wait_until(lambda: caller.left() == (6, 1000))
        assert caller.has_place()
    redis.flush()


def test_who_does_not_say_who_they_are_is_told_of_nobody_elses_limits(
    closed: ServerThread, keys: Keys
) -> None:
    _, key = keys.make(Scope.MODELS_READ, limits=LimitSet(requests_per_minute=9))
    of_key = ask(closed, "GET", "/v1/models", key)
    assert (of_key.status, of_key.headers["x-ratelimit-limit"]) == (200, "9")
    forbidden = ask(closed, "POST", "/v1/completions", key, body={"prompt": "hi"})
    assert (forbidden.status, forbidden.headers["x-ratelimit-remaining"]) == (403, "9")
    for path in ("/v1/models", "/health"):
        unknown = ask(closed, "GET", path)
        assert unknown.status == (200 if path == "/health" else 401)
        assert unknown.headers["x-ratelimit-limit"] == str(DEFAULT_LIMITS.requests_per_minute)


def test_a_server_that_stops_settles_what_it_cuts_off(
    limits_settings: Settings, tmp_path: Path
) -> None:
    engine = FakeEngine(hanging(Step(token_ids=IDS[:2])))
    engine.load("tiny")
    with ServerThread(limits_settings, engine, FakeRepository(engine)) as server:
        callers = [Caller(server), Caller(server)]
        path, body = SURFACES["chat"]
        client = callers[0].send(path, {**body, "stream": True})
        client.receive_head()
        path, body = SURFACES["responses"]
        assert callers[1].post(path, {**body, "background": True}).status == 200
        wait_until(lambda: [one.num_tokens_taken for one in engine.streams] == [2, 2])
    client.sock.close()
    with ServerThread(limits_settings, engine, FakeRepository(engine)) as server:
        for caller, stream in zip(callers, engine.streams, strict=True):
            caller.server = server
            assert caller.left() == (5, 1000 - len(stream.request.prompt_token_ids) - 2)
            assert caller.has_place()
