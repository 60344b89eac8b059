"""What every request and answer has in common: ids, headers, CORS, encodings, the log's line."""

from __future__ import annotations

import gzip
import json
import logging
import re
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import brotli
import msgspec
import pytest

from frontend.api.route import Route
from frontend.api.surfaces import Surface
from frontend.errors import EngineUnavailable
from frontend.routes import ROUTES
from frontend.settings import Settings
from frontend.telemetry.logs import JsonFormatter
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step, one_token_a_step
from tests.fakes.server import Answer, RawClient, ServerThread, parse_events, wait_until

CHAT = "/v1/chat/completions"
NATIVE = "/api/v1/generate"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
PAGE = "https://page.example"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}

Log = Callable[[], list[dict[str, Any]]]


def ask(
    client: RawClient,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
    *,
    method: str | None = None,
) -> Answer:
    client.send(method or ("GET" if body is None else "POST"), path, body, headers)
    return client.receive()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """The lines that are written once a request, as JSON has them."""
    caplog.set_level(logging.DEBUG, "frontend.requests")

    def lines() -> list[dict[str, Any]]:
        own = [record for record in caplog.records if record.name == "frontend.requests"]
        return [json.loads(JsonFormatter().format(record)) for record in own]

    return lines


def one_line(log: Log) -> dict[str, Any]:
    wait_until(lambda: bool(log()))
    (line,) = log()
    return line


# ---- request ids and OpenAI's headers


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (CHAT, HELLO, 200),
        (CHAT, {**HELLO, "stream": True}, 200),
        (CHAT, {**HELLO, "temperature": 9}, 400),
        (CHAT, {**HELLO, "model": "none"}, 404),
        (CHAT, b"{", 400),
        (NATIVE, {"prompt": "x"}, 200),
        ("/v1/models", None, 200),
        ("/v1/nothing", None, 404),
        ("/health", None, 200),
        ("/openapi.json", None, 200),
    ],
)
def test_every_answer_has_the_requests_id(
    client: RawClient, path: str, body: object, status: int
) -> None:
    answer = ask(client, path, body, {"X-Request-Id": "mine-1"})
    assert (answer.status, answer.headers["x-request-id"]) == (status, "mine-1")
    made = [ask(client, path, body).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert re.fullmatch("[0-9a-f]{32}", made[0])


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä"])
def test_an_id_that_is_not_fit_for_a_log_is_replaced(client: RawClient, given: str) -> None:
    answer = ask(client, "/health", headers={"X-Request-Id": given})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_an_answer_to_no_http_at_all_has_an_id(client: RawClient) -> None:
    client.sock.sendall(b"GARBAGE\r\n\r\n")
    answer = client.receive()
    assert answer.status == 400
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "body", [HELLO, {**HELLO, "stream": True}, {**HELLO, "n": 0}], ids=["plain", "stream", "error"]
)
def test_answers_under_v1_have_openais_headers(client: RawClient, body: object) -> None:
    answer = ask(client, CHAT, body)
    assert answer.headers["openai-version"] == "2020-10-01"
    assert answer.headers["openai-processing-ms"].isdecimal()
    assert "openai-version" not in ask(client, "/health").headers


def test_processing_time_of_a_stream_is_that_to_its_head(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.script = Script(steps=[Step(token_ids=[72], after_s=0.1), Step(after_s=0.5)])
    answer = ask(client, CHAT, {**HELLO, "stream": True})
    assert 100 <= int(answer.headers["openai-processing-ms"]) < 500


# ---- methods


@pytest.mark.parametrize("path", sorted({r.path for r in ROUTES if "<" not in r.path}))
def test_options_names_the_methods_of_a_path(client: RawClient, path: str) -> None:
    client.send("OPTIONS", path)
    answer = client.receive_head()
    own = {route.method for route in ROUTES if route.path == path} | {"OPTIONS"}
    assert answer.status == 204
    assert set(answer.headers["allow"].split(", ")) == own | ({"HEAD"} if "GET" in own else set())


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/tiny", "/metrics", "/docs"])
def test_head_is_get_without_the_body(client: RawClient, path: str) -> None:
    client.send("HEAD", path)
    head = client.receive_head()
    assert (head.status, ask(client, path).status) == (200, 200)
    assert head.headers["content-type"] == ask(client, path).headers["content-type"]


# ---- pages of other origins


@contextmanager
def serving(settings: Settings, engine: FakeEngine) -> Iterator[RawClient]:
    with (
        ServerThread(settings, engine, FakeRepository(engine)) as server,
        RawClient(server.address) as client,
    ):
        yield client


@pytest.fixture
def cors_client(tiny_settings: Settings, engine: FakeEngine) -> Iterator[RawClient]:
    origins = f"http://localhost:3000, {PAGE}"
    with serving(replace(tiny_settings, cors_origins=origins), engine) as client:
        yield client


def test_without_the_setting_no_page_is_let_in(client: RawClient) -> None:
    client.send("OPTIONS", CHAT, headers=PREFLIGHT)
    preflight = client.receive_head()
    answer = ask(client, CHAT, HELLO, {"Origin": PAGE})
    for headers in (preflight.headers, answer.headers):
        assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", [CHAT, "/v1/models/tiny", "/api/v1/generate/stream"])
def test_a_preflight_of_an_allowed_page_is_granted(cors_client: RawClient, path: str) -> None:
    asked = {**PREFLIGHT, "Access-Control-Request-Headers": "authorization,content-type"}
    cors_client.send("OPTIONS", path, headers=asked)
    headers = cors_client.receive_head().headers
    assert headers["access-control-allow-origin"] == PAGE
    assert {"GET", "POST", "DELETE"} <= set(headers["access-control-allow-methods"].split(", "))
    assert headers["access-control-allow-headers"] == "authorization,content-type"
    assert headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, HELLO),
        (CHAT, {**HELLO, "stream": True}),
        (CHAT, {**HELLO, "n": 0}),
        ("/v1/nothing", None),
        ("/health", None),
    ],
    ids=["plain", "stream", "error", "404", "native"],
)
def test_an_allowed_page_may_read_every_answer(
    cors_client: RawClient, path: str, body: object
) -> None:
    headers = ask(cors_client, path, body, {"Origin": PAGE}).headers
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["vary"] == "Origin"
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "x-ratelimit-remaining", "retry-after"} <= set(exposed)


def test_another_page_may_not(cors_client: RawClient) -> None:
    other = {"Origin": "https://other.example"}
    cors_client.send("OPTIONS", CHAT, headers={**PREFLIGHT, **other})
    preflight = cors_client.receive_head()
    answer = ask(cors_client, CHAT, HELLO, other)
    for found in (preflight, answer):
        assert "access-control-allow-origin" not in found.headers
        assert found.headers["vary"] == "Origin"


def test_a_star_lets_every_page_in(tiny_settings: Settings, engine: FakeEngine) -> None:
    with serving(replace(tiny_settings, cors_origins="*"), engine) as client:
        answer = ask(client, CHAT, HELLO, {"Origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == "*"


# ---- encoded bodies


def encoded(body: object, encoding: str) -> bytes:
    plain = json.dumps(body).encode()
    return gzip.compress(plain) if encoding == "gzip" else bytes(brotli.compress(plain))


@pytest.mark.parametrize("encoding", ["gzip", "br"])
@pytest.mark.parametrize("path", [CHAT, NATIVE])
def test_encoded_bodies_are_taken(client: RawClient, encoding: str, path: str) -> None:
    body = HELLO if path == CHAT else {"prompt": "你好"}
    answer = ask(client, path, encoded(body, encoding), {"Content-Encoding": encoding})
    assert answer.status == 200


def test_a_gzip_body_may_have_several_members(client: RawClient) -> None:
    plain = json.dumps(HELLO).encode()
    body = gzip.compress(plain[:10]) + gzip.compress(plain[10:])
    assert ask(client, CHAT, body, {"Content-Encoding": "gzip"}).status == 200


def test_a_gzip_body_of_countless_members_is_400(client: RawClient) -> None:
    body = gzip.compress(b"") * 1000 + gzip.compress(json.dumps(HELLO).encode())
    answer = ask(client, CHAT, body, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("encoding", ["deflate", "zstd", "gzip, gzip", "nonsense"])
def test_other_encodings_are_415_and_name_those_that_work(client: RawClient, encoding: str) -> None:
    answer = ask(client, CHAT, zlib.compress(b"{}"), {"Content-Encoding": encoding})
    assert answer.status == 415
    assert "gzip" in answer.json["error"]["message"]
    assert "br" in answer.json["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br"])
@pytest.mark.parametrize("damage", ["none of it", "cut", "changed"])
def test_a_damaged_body_is_400(client: RawClient, encoding: str, damage: str) -> None:
    whole = encoded(HELLO, encoding)
    body = {
        "none of it": json.dumps(HELLO).encode(),
        "cut": whole[:-3],
        "changed": whole[: len(whole) // 2] + b"\xff\x00\xff" + whole[len(whole) // 2 :],
    }[damage]
    answer = ask(client, CHAT, body, {"Content-Encoding": encoding})
    assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")


def bomb(encoding: str, size: int) -> bytes:
    """So many spaces, made piece by piece."""
    if encoding == "gzip":
        compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        pieces = [compressor.compress(b" " * 2**20) for _ in range(size // 2**20)]
        return b"".join(pieces) + compressor.flush()
    stream = brotli.Compressor(quality=5)
    return bytes(
        b"".join(stream.process(b" " * 2**20) for _ in range(size // 2**20)) + stream.finish()
    )


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_a_bomb_is_413_and_is_not_blown_up(client: RawClient, encoding: str) -> None:
    size = 400 * 2**20  # the limit is 1 MiB here
    body = bomb(encoding, size)
    assert len(body) < 2**20
    tracemalloc.start()
    answer = ask(client, CHAT, body, {"Content-Encoding": encoding})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status == 413
    assert peak < 16 * 2**20
    assert ask(client, "/health").status == 200


# ---- the log's line


def test_a_request_is_one_line_of_the_log(client: RawClient, engine: FakeEngine, log: Log) -> None:
    engine.script = Script(steps=one_token_a_step([72, 73, 74], every_s=0.01))
    answer = ask(client, CHAT, HELLO, {"X-Request-Id": "mine"})
    line = one_line(log)
    assert line["request_id"] == "mine"
    assert (line["method"], line["path"], line["status"]) == ("POST", CHAT, 200)
    assert (line["model"], line["outcome"], line["stream"]) == ("tiny", "stop", False)
    assert line["generation_id"] == answer.json["id"]
    assert line["completion_tokens"] == answer.json["usage"]["completion_tokens"] == 3
    assert line["prompt_tokens"] == answer.json["usage"]["prompt_tokens"]
    assert 0.01 <= line["first_token_s"] <= line["duration_s"] < 5
    assert "hello" not in json.dumps(line)


def test_a_stream_is_logged_at_its_end(client: RawClient, engine: FakeEngine, log: Log) -> None:
    engine.script = Script(steps=one_token_a_step([72, 73, 74], every_s=0.02))
    client.send("POST", CHAT, {**HELLO, "stream": True, "max_tokens": 2})
    client.receive_head()
    assert log() == []
    client.receive_body()
    line = one_line(log)
    assert (line["stream"], line["outcome"], line["completion_tokens"]) == (True, "length", 2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_went_away_is_logged_as_such(
    server: ServerThread, engine: FakeEngine, log: Log, stream: bool
) -> None:
    engine.script = Script(steps=one_token_a_step([72] * 1000, every_s=0.01))
    with RawClient(server.address) as client:
        client.send("POST", CHAT, {**HELLO, "stream": stream})
        wait_until(lambda: engine.num_running == 1 and engine.streams[0].num_tokens_taken > 2)
    line = one_line(log)
    assert line["outcome"] == "cancelled"
    assert line["completion_tokens"] >= 2


def test_an_error_is_logged_by_its_code(client: RawClient, engine: FakeEngine, log: Log) -> None:
    ask(client, CHAT, {**HELLO, "temperature": 9})
    line = one_line(log)
    assert (line["status"], line["outcome"]) == (400, "invalid_value")
    assert "model" not in line


def test_an_error_in_mid_stream_is_logged_by_its_code(
    client: RawClient, engine: FakeEngine, log: Log
) -> None:
    error = Step(error=EngineUnavailable(), after_s=0.05)
    engine.script = Script(steps=[Step(token_ids=[72]), error])
    ask(client, CHAT, {**HELLO, "stream": True})
    line = one_line(log)
    assert (line["status"], line["outcome"]) == (200, "engine_unavailable")


def test_a_batch_is_one_line_with_its_tokens_added_up(
    client: RawClient, engine: FakeEngine, log: Log
) -> None:
    engine.script = Script(steps=one_token_a_step([72, 73]))
    ask(client, "/api/v1/batch/generate", {"requests": [{"prompt": "a"}, {"prompt": "b"}]})
    assert one_line(log)["completion_tokens"] == 4


def test_polled_paths_are_quiet_while_all_is_well(
    client: RawClient, engine: FakeEngine, log: Log
) -> None:
    ask(client, "/health")
    ask(client, "/v1/models")
    engine.is_up = False
    ask(client, "/health")
    wait_until(lambda: len(log()) == 3)
    assert [line["level"] for line in log()] == ["debug", "info", "info"]


# ---- streams and the description


@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES if r.events and r.surface is Surface.OPENAI and r.body],
    ids=lambda route: route.name,
)
def test_a_quiet_stream_is_kept_alive_by_comments(
    tiny_settings: Settings, engine: FakeEngine, route: Route
) -> None:
    engine.script = Script(steps=[Step(token_ids=[72], after_s=0.5)])
    assert route.example is not None
    with serving(replace(tiny_settings, keep_alive_interval_s=0.1), engine) as client:
        answer = ask(client, route.path, {**route.example, "stream": True})
    blocks = answer.body.decode().split("\n\n")
    assert blocks[:3] == [": keep-alive"] * 3
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert parse_events(answer.body)


def fitting(shapes: tuple[type[msgspec.Struct], ...], event: Any) -> bool:
    """Whether an event is of exactly one of the types."""
    found = 0
    for shape in shapes:
        try:
            msgspec.convert(event, shape)
        except msgspec.ValidationError:
            continue
        found += 1
    return found == 1


def named(client: RawClient, engine: FakeEngine, route: Route) -> str:
    """What stands for the variable in the route's path: something that is there."""
    if "<key_id>" in route.path:
        return str(ask(client, "/api/v1/keys", {"name": "made before"}).json["id"])
    if "<response_id>" not in route.path:
        return "tiny"
    engine.script = Script(steps=one_token_a_step([72, 73], every_s=0.1))
    body = {"input": "Hello", "background": True, "stream": True}
    events = parse_events(ask(client, "/v1/responses", body).body)
    if not route.path.endswith("/cancel"):
        return str(events[0]["response"]["id"])
    return str(ask(client, "/v1/responses", {"input": "Hello", "background": True}).json["id"])


@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES if r.answers.get(200) and "<response_id>" not in r.path],
    ids=lambda route: route.name,
)
def test_answers_are_of_the_types_that_describe_them(
    client: RawClient, engine: FakeEngine, route: Route
) -> None:
    """Types that allow no other fields: nothing that is answered is missing in the description."""
    engine.script = Script(steps=one_token_a_step([72, 73]))
    engine.models["tiny"] = replace(
        engine.models["tiny"], embedding_size=4 if "embeddings" in route.path else None
    )
    path = re.sub("<.*>", named(client, engine, route), route.path)
    example = None if route.example is None else dict(route.example)
    if example is not None and "model" in example:
        example["model"] = "tiny"
    answer = ask(client, path, example, method=route.method)
    assert answer.status == 200, answer.body
    msgspec.json.decode(answer.body, type=route.answers[200])


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.events and r.body], ids=lambda route: route.name
)
def test_events_are_of_the_types_that_describe_them(
    client: RawClient, engine: FakeEngine, route: Route
) -> None:
    engine.script = Script(steps=one_token_a_step([72, 73], every_s=0.02))
    if route.body is None:
        path = re.sub("<.*>", named(client, engine, route), route.path)
        answer = ask(client, f"{path}?stream=true")
    else:
        answer = ask(client, route.path, {**(route.example or {}), "stream": True})
    events = parse_events(answer.body)
    if route.ends_with_done:
        assert events.pop() == "[DONE]"
    assert events
    assert all(fitting(route.events, event) for event in events)
