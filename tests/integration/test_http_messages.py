"""Anthropic's surface on the wire: answers, events, pings and errors of every kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from frontend.errors import EngineUnavailable, GenerationFailed, ServerOverloaded
from frontend.messages import Language
from frontend.settings import Settings
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step, one_token_a_step
from tests.fakes.server import Answer, RawClient, ServerThread
from tests.fakes.tokenizers import byte_level_tokenizer
from tests.golden_files import Golden

TOKENIZER = byte_level_tokenizer()
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
BODY: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hi"}],
}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
FULL: dict[str, Any] = {
    **BODY,
    "messages": [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "t", "name": "look", "input": {"at": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "text", "text": "blue"}],
                    "is_error": True,
                },
                {"type": "text", "text": "and?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    "system": [{"type": "text", "text": "be kind"}],
    "tools": [
        {
            "name": "look",
            "description": "Looks.",
            "input_schema": {"type": "object", "properties": {"at": {"type": "integer"}}},
        }
    ],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": []},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 1,
    "service_tier": "auto",
    "stream": False,
}
ODD: list[Any] = [None, True, -1, 10**30, 1e308, "", "x", "\ud800", "\0", "tool_use", [], [[]], {},
                  {"a": 10**30}, {"type": "x"}, {"type": 5}, {"\ud800": 1},
                  {"type": "object", "properties": None}]  # fmt: skip
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "天"}}\n</tool_call>'


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


def saying(text: str, **step: Any) -> Script:
    return Script(steps=[Step(token_ids=ids_of(text), **step)])


def ask(client: RawClient, body: object = None, path: str = MESSAGES, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    client.send("POST", path, BODY if body is None else body, names)
    return client.receive()


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of each value within a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def with_value(whole: Any, path: tuple[str | int, ...], value: object) -> Any:
    if not path:
        return value
    copy = whole.copy()
    copy[path[0]] = with_value(whole[path[0]], path[1:], value)
    return copy


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events; each has the name that its data says."""
    events = []
    for block in body.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


@pytest.fixture
def quick_pings(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> Iterator[RawClient]:
    settings = replace(tiny_settings, keep_alive_interval_s=0.05)
    with ServerThread(settings, engine, repository) as server, RawClient(server.address) as client:
        yield client


# ---- answers


def test_a_message_is_answered(client: RawClient, engine: FakeEngine) -> None:
    engine.script = saying("你好", num_cached_tokens=4)
    answer = ask(client, anthropic_version="2023-06-01", anthropic_beta="x-1", x_api_key="any-key")
    body = answer.json
    (stream,) = engine.streams
    assert answer.status == 200
    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{"type": "text", "text": "你好"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(stream.request.prompt_token_ids) - 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": len(ids_of("你好")),
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }
    assert answer.headers["request-id"] == answer.headers["x-request-id"]


def test_the_beta_query_of_the_sdk_changes_nothing(client: RawClient, engine: FakeEngine) -> None:
    engine.script = saying("ok")
    assert ask(client, path=f"{MESSAGES}?beta=true").json["content"][0]["text"] == "ok"


def test_a_stream_is_the_same_message(client: RawClient, engine: FakeEngine) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("hello"), is_alone=True))
    answer = ask(client, {**BODY, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.body)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == "hello"
    assert len(deltas) == 5
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 5


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_stop_sequence_that_was_met_is_named(
    client: RawClient, engine: FakeEngine, is_stream: bool
) -> None:
    engine.script = saying("one, two, three")
    stops = ["six", "five", "four", "three", "two", "2"]
    answer = ask(client, {**BODY, "stop_sequences": stops, "stream": is_stream})
    end = events_of(answer.body)[-2]["delta"] if is_stream else answer.json
    assert (end["stop_reason"], end["stop_sequence"]) == ("stop_sequence", "two")


@pytest.mark.parametrize("has_tools", [False, True])
def test_a_stop_sequence_is_named_also_where_tools_are_looked_for(
    client: RawClient, engine: FakeEngine, has_tools: bool
) -> None:
    engine.script = saying("one, two, three")
    tools = {"tools": [TOOL]} if has_tools else {}
    body = ask(client, {**BODY, "stop_sequences": ["two"], **tools}).json
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "two")
    assert body["content"] == [{"type": "text", "text": "one, "}]


@pytest.mark.parametrize(
    ("max_tokens", "reason"), [(3, "max_tokens"), (4000, "model_context_window_exceeded")]
)
def test_the_limit_that_was_met_is_told(
    client: RawClient, engine: FakeEngine, max_tokens: int, reason: str
) -> None:
    engine.script = saying("x" * 3000)
    assert ask(client, {**BODY, "max_tokens": max_tokens}).json["stop_reason"] == reason


def test_a_tool_call_is_a_block_with_its_input(client: RawClient, engine: FakeEngine) -> None:
    engine.script = saying(f"I look. {CALL}")
    body = ask(client, {**BODY, "tools": [TOOL], "max_tokens": 200}).json
    text, call = body["content"]
    assert text == {"type": "text", "text": "I look."}
    assert call.pop("id")
    assert call == {"type": "tool_use", "name": "look", "input": {"at": "天"}}
    assert body["stop_reason"] == "tool_use"


def test_a_tool_call_is_streamed_in_pieces(client: RawClient, engine: FakeEngine) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of(CALL), is_alone=True))
    answer = ask(client, {**BODY, "tools": [TOOL], "max_tokens": 200, "stream": True})
    events = events_of(answer.body)
    (start,) = [event for event in events if event["type"] == "content_block_start"]
    assert start["content_block"]["name"] == "look"
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    pieces = [delta["partial_json"] for delta in deltas]
    assert len(pieces) > 2
    assert json.loads("".join(pieces)) == {"at": "天"}
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_begun_answer_is_continued(client: RawClient, engine: FakeEngine) -> None:
    engine.script = saying(" upon")
    messages = [*BODY["messages"], {"role": "assistant", "content": "Once"}]
    assert ask(client, {**BODY, "messages": messages}).json["content"][0]["text"] == " upon"
    prompt = TOKENIZER.decode(engine.streams[0].request.prompt_token_ids, skip_special_tokens=False)
    assert prompt.endswith("assistant\nOnce")


@pytest.mark.parametrize(
    "prompt",
    [
        {"messages": [{"role": "user", "content": "你好"}], "system": "be kind"},
        {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]},
    ],
)
def test_the_count_is_that_of_the_prompt_which_the_engine_gets(
    client: RawClient, engine: FakeEngine, prompt: dict[str, Any]
) -> None:
    engine.script = saying("ok")
    count = ask(client, {"model": "tiny", **prompt}, COUNT)
    usage = ask(client, {**BODY, **prompt}).json["usage"]
    assert count.json == {"input_tokens": usage["input_tokens"]}
    assert count.json["input_tokens"] == len(engine.streams[0].request.prompt_token_ids)
    assert len(engine.streams) == 1, "counting generates nothing"


def test_a_prompt_that_does_not_fit_is_counted(client: RawClient) -> None:
    messages = [{"role": "user", "content": "x" * 5000}]
    assert ask(client, {**BODY, "messages": messages}).status == 400
    counted = ask(client, {"model": "tiny", "messages": messages}, COUNT).json
    assert counted["input_tokens"] > 5000


# ---- silence and errors


def test_pings_keep_a_quiet_stream_alive(quick_pings: RawClient, engine: FakeEngine) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("ab"), every_s=0.2))
    kinds = [event["type"] for event in events_of(ask(quick_pings, {**BODY, "stream": True}).body)]
    assert kinds[0] == "ping"
    assert "ping" in kinds[kinds.index("message_start") : -1]


def test_an_error_in_mid_stream_is_its_last_event(
    client: RawClient, engine: FakeEngine, golden: Golden
) -> None:
    steps = one_token_a_step(ids_of("ab"))
    engine.script = Script(steps=[*steps, Step(error=ServerOverloaded(), after_s=0.05)])
    answer = ask(client, {**BODY, "stream": True}, accept_language="zh", x_request_id="req_1")
    golden.check("anthropic/error_in_mid_stream.sse", answer.body)
    *_, delta, error = events_of(answer.body)
    assert delta["delta"] == {"type": "text_delta", "text": "ab"}
    assert error == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": ServerOverloaded().message(Language.ZH)},
        "request_id": answer.headers["request-id"],
    }


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (ServerOverloaded(), 529, "overloaded_error"),
        (EngineUnavailable(), 503, "api_error"),
        (GenerationFailed(reason="x"), 500, "api_error"),
        (RuntimeError("secret"), 500, "api_error"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_engines_failure_keeps_its_status(
    client: RawClient,
    engine: FakeEngine,
    failure: Exception,
    status: int,
    kind: str,
    is_stream: bool,
) -> None:
    engine.script = Script(steps=[Step(error=failure)])
    answer = ask(client, {**BODY, "stream": is_stream})
    assert (answer.status, answer.json["error"]["type"]) == (status, kind)
    assert b"secret" not in answer.body


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tool_choice": {"type": "any"}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    ],
)
def test_no_odd_value_in_any_place_breaks_the_server(
    client: RawClient, engine: FakeEngine, change: dict[str, Any]
) -> None:
    engine.script = saying("{}")
    body = {**FULL, **change}
    assert ask(client, body).status == 200
    for path in places(body):
        for value in ODD:
            answer = ask(client, json.dumps(with_value(body, path, value)).encode())
            assert answer.status < 500, (path, value, answer.body)


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
@pytest.mark.parametrize(
    ("body", "headers", "status", "kind"),
    [
        (b"{", {}, 400, "invalid_request_error"),
        (b"[]", {}, 400, "invalid_request_error"),
        ({"model": "tiny"}, {}, 400, "invalid_request_error"),
        (b"x", {"Content-Type": "text/plain"}, 415, "invalid_request_error"),
        (b'"' + b"x" * 2**21 + b'"', {}, 413, "request_too_large"),
    ],
)
def test_a_bad_body_is_refused_in_anthropics_shape(
    client: RawClient, path: str, body: object, headers: dict[str, str], status: int, kind: str
) -> None:
    client.send("POST", path, body, headers)
    answer = client.receive()
    assert answer.status == status
    assert answer.json["type"] == "error"
    assert answer.json["error"].keys() == {"type", "message"}
    assert answer.json["error"]["type"] == kind
    assert answer.json["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", MESSAGES, 405, "invalid_request_error"),
        ("PUT", COUNT, 405, "invalid_request_error"),
        ("POST", f"{MESSAGES}/batches", 404, "not_found_error"),
        ("GET", f"{MESSAGES}/msg_1", 404, "not_found_error"),
    ],
)
def test_what_is_not_there_is_refused_in_anthropics_shape(
    client: RawClient, method: str, path: str, status: int, kind: str
) -> None:
    client.send(method, path, BODY)
    answer = client.receive()
    assert (answer.status, answer.json["error"]["type"]) == (status, kind)


@pytest.mark.parametrize(
    ("language", "words"), [("en", "does not exist"), ("zh-CN,zh;q=0.9", "不存在")]
)
def test_an_unknown_model_is_a_404_in_the_clients_language(
    client: RawClient, language: str, words: str
) -> None:
    answer = ask(client, {**BODY, "model": "claude"}, accept_language=language)
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")
    assert words in answer.json["error"]["message"]


def test_thinking_that_the_model_cannot_do_is_refused(client: RawClient) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = ask(client, {**BODY, "max_tokens": 1500, "thinking": thinking})
    assert answer.status == 400
    assert "thinking.type" in answer.json["error"]["message"]


def test_the_other_surfaces_keep_their_errors(client: RawClient) -> None:
    client.send("POST", "/v1/messages-of-mine", {})
    assert client.receive().json["error"].keys() == {"message", "type", "param", "code"}
