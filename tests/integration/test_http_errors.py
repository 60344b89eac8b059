"""What bad input and bad luck get: each surface's own error shape, in English or Chinese."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from typing import Any

import pytest

from frontend.errors import (
    EngineUnavailable,
    GenerationFailed,
    InvalidParameter,
    ServerOverloaded,
)
from frontend.messages import MESSAGES
from frontend.settings import Settings
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step
from tests.fakes.server import Answer, RawClient, ServerThread, request_bytes

NATIVE, CHAT = "/api/v1/generate", "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
ZH = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}
CHINESE = re.compile("[\u4e00-\u9fff]")

GOOD: dict[str, dict[str, Any]] = {NATIVE: {"prompt": "hi"}, CHAT: {"messages": [USER]}}


def check_shape(path: str, answer: Answer) -> dict[str, Any]:
    """Each surface's own shape and nothing of the server's inside; return the error."""
    assert answer.headers["content-type"] == "application/json"
    text = answer.body.decode()
    assert "<html" not in text.lower()
    assert "Traceback" not in text
    assert 'File "' not in text
    error: dict[str, Any] = answer.json["error"]
    if path.startswith("/v1/"):
        assert error.keys() == {"message", "type", "param", "code"}
    else:
        assert {"code", "message", "details"} <= error.keys() <= {
            "code", "message", "details", "param",
        }  # fmt: skip
        assert re.fullmatch("[A-Z_]+", error["code"])
    assert error["message"]
    return error


def ask(
    client: RawClient, method: str, path: str, body: object, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], Answer]:
    client.send(method, path, body, headers)
    answer = client.receive()
    return answer.status, check_shape(path, answer), answer


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("headers", [{}, ZH], ids=["en", "zh"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"model": }', b"\xff\xfe", b'{"model": "\xff"}', b"NaN", b"[1"],
)
def test_malformed_json(client: RawClient, path: str, headers: dict[str, str], body: bytes) -> None:
    status, error, _ = ask(client, "POST", path, body, headers)
    assert status == 400
    assert error["code"] in ("invalid_request", "INVALID_REQUEST")
    assert bool(CHINESE.search(error["message"])) is bool(headers)


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("body", [[], 1, "text", None])
def test_a_body_that_is_no_object(client: RawClient, path: str, body: object) -> None:
    content = b"null" if body is None else body
    status, error, _ = ask(client, "POST", path, content)
    assert status == 400
    assert error["message"] == MESSAGES["body_not_object"][0]


DEEP = b'{"messages":[{"role":"user","content":"x"}],"tools":' + b"[" * 20000 + b"]" * 20000 + b"}"


def test_a_schema_that_is_nested_too_deeply_to_work_with(client: RawClient) -> None:
    schema = b'{"properties":{"a":' * 450 + b"1" + b"}}" * 450
    tool = b'{"type":"function","function":{"name":"f","parameters":%b}}' % schema
    body = b'{"messages":[{"role":"user","content":"hi"}],"tools":[%b],"tool_choice":"required"}'
    status, error, _ = ask(client, "POST", CHAT, body % tool)
    # Python 3.12 goes deeper than 3.11: there the guide's compiler is the one that refuses.
    assert status == 400
    assert error["code"] in ("invalid_request", "invalid_value")


def test_json_that_is_nested_too_deeply(client: RawClient) -> None:
    status, _, _ = ask(client, "POST", CHAT, DEEP)
    assert status == 400
    batch = b'{"requests":[' + b"[" * 20000 + b"]" * 20000 + b"]}"
    status, _, _ = ask(client, "POST", "/api/v1/batch/generate", batch)
    assert status == 400


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (NATIVE, {"prompt": 1}, "prompt"),
        (NATIVE, {"prompt": ""}, "prompt"),
        (NATIVE, {"max_tokens": "5"}, "max_tokens"),
        (NATIVE, {"max_tokens": 0}, "max_tokens"),
        (NATIVE, {"max_tokens": 1.5}, "max_tokens"),
        (NATIVE, {"temperature": 2.5}, "temperature"),
        (NATIVE, {"temperature": -0.1}, "temperature"),
        (NATIVE, {"top_p": 1.1}, "top_p"),
        (NATIVE, {"stop": ["a", ""]}, "stop[1]"),
        (NATIVE, {"stop": [1]}, "stop[0]"),
        (NATIVE, {"stop": ["a"] * 5}, "stop"),
        (NATIVE, {"seed": 2**64}, "seed"),
        (NATIVE, {"stream": "yes"}, "stream"),
        (NATIVE, {"logit_bias": {"x": 1}}, "logit_bias.x"),
        (NATIVE, {"logit_bias": {"1000": 1}}, "logit_bias.1000"),
        (NATIVE, {"logit_bias": {"1": 101}}, "logit_bias.1"),
        (NATIVE, {"colour": "red"}, "colour"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "hi"}, "messages"),
        (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        (CHAT, {"messages": [USER, {"role": "user"}]}, "messages[1].content"),
        (CHAT, {"messages": [USER, {"content": "x"}]}, "messages[1].role"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (CHAT, {"n": 0}, "n"),
        (CHAT, {"n": 129}, "n"),
        (CHAT, {"max_completion_tokens": 0}, "max_completion_tokens"),
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools[0].function"),
        (CHAT, {"top_logprobs": 3}, "top_logprobs"),
        (CHAT, {"response_format": {"type": "xml"}}, "response_format.type"),
        (CHAT, {"no_such_field": 1}, "no_such_field"),
    ],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_bad_parameter_is_400_and_names_it(
    client: RawClient, engine: FakeEngine, path: str, fields: dict[str, Any], param: str,
    language: str,
) -> None:  # fmt: skip
    body = {**GOOD[path], **fields}
    status, error, _ = ask(client, "POST", path, body, {"Accept-Language": language})
    assert status == 400
    assert error["param"] == param
    assert param in error["message"]
    assert bool(CHINESE.search(error["message"])) is (language == "zh")
    assert not engine.streams


@pytest.mark.parametrize(
    ("tensor", "fields", "param"),
    [
        ("min_p", {"min_p": 0.5}, "min_p"),
        ("cache_salt", {"cache_salt": "x"}, "cache_salt"),
        ("priority", {"priority": 1}, "priority"),
        ("num_return_sequences", {"n": 2}, "n"),
        ("return_log_probs", {"logprobs": True}, "logprobs"),
        ("num_top_log_probs", {"logprobs": True, "top_logprobs": 2}, "top_logprobs"),
        ("bad_words_list", {"bad_words": ["x"]}, "bad_words"),
        ("embedding_bias", {"logit_bias": {"1": 1}}, "logit_bias"),
        ("stop_words_list", {"stop_token_ids": [1]}, "stop_token_ids"),
        ("min_tokens", {"min_tokens": 1}, "min_tokens"),
        (
            "guided_decoding_guide",
            {"response_format": {"type": "json_object"}},
            "response_format",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_models_engine_cannot_do_is_400_and_named(
    client: RawClient, engine: FakeEngine, tensor: str, fields: dict[str, Any], param: str,
    stream: bool,
) -> None:  # fmt: skip
    model = engine.models["tiny"]
    engine.models["tiny"] = replace(model, inputs=model.inputs - {tensor})
    status, error, _ = ask(client, "POST", CHAT, {**GOOD[CHAT], **fields, "stream": stream})
    assert (status, error["param"], error["code"]) == (400, param, "invalid_value")


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_a_missing_field_is_named(client: RawClient, path: str) -> None:
    status, error, _ = ask(client, "POST", path, {})
    required = {NATIVE: "prompt", CHAT: "messages"}[path]
    assert (status, error["param"]) == (400, required)
    assert error["message"] == f"'{required}' is required."


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_an_unknown_model_is_404_and_named(client: RawClient, path: str) -> None:
    status, error, _ = ask(client, "POST", path, {**GOOD[path], "model": "gpt-9"})
    assert (status, error["code"].lower()) == (404, "model_not_found")
    assert "'gpt-9'" in error["message"]


@pytest.mark.parametrize("path", ["/v1/models/gpt-9", "/v1/models/..", "/v1/models/%2e%2e%2fx"])
def test_an_unknown_model_of_the_openai_list_is_404(client: RawClient, path: str) -> None:
    status, error, _ = ask(client, "GET", path, None)
    assert status == 404
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("action", ["load", "unload"])
@pytest.mark.parametrize("name", ["nowhere", "..", "%2e%2e%2f%2e%2e%2fetc", "a%00b", "%E4%BD%A0"])
def test_loading_what_does_not_exist_is_404(client: RawClient, name: str, action: str) -> None:
    status, error, _ = ask(client, "POST", f"/api/v1/models/{name}/{action}", None)
    assert status == 404
    assert error["code"] in ("MODEL_NOT_FOUND", "NOT_FOUND")


def test_a_model_that_is_not_loaded_is_503_in_the_promised_words(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.models.clear()
    status, error, answer = ask(client, "POST", NATIVE, GOOD[NATIVE], {"Accept-Language": "zh"})
    assert status == 503
    assert error == {
        "code": "MODEL_NOT_LOADED",
        "message": "请求的模型未加载",
        "details": "请先调用加载接口",
    }
    assert int(answer.headers["retry-after"]) > 0
    status, error, _ = ask(client, "POST", CHAT, GOOD[CHAT])
    assert (status, error["code"]) == (503, "model_not_loaded")


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("headers", [{}, ZH], ids=["en", "zh"])
def test_a_prompt_longer_than_the_context_names_both_numbers(
    client: RawClient, engine: FakeEngine, path: str, headers: dict[str, str]
) -> None:
    long = "x" * 3000
    body = {"prompt": long} if path == NATIVE else {"messages": [{**USER, "content": long}]}
    status, error, _ = ask(client, "POST", path, body, headers)
    assert status == 400
    assert error["code"].lower() == "context_length_exceeded"
    assert re.search(r"\b30\d\d\b", error["message"])
    assert "2047" in error["message"]
    assert not engine.streams


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_a_body_over_the_limit_is_413(client: RawClient, path: str) -> None:
    body = b'{"prompt": "' + b"x" * (2**20) + b'"}'
    status, error, _ = ask(client, "POST", path, body)
    assert (status, error["code"].lower()) == (413, "request_too_large")
    assert str(2**20) in error["message"]


def test_a_chunked_body_over_the_limit_is_413(client: RawClient) -> None:
    client.sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    client.sock.sendall(b"180000\r\n" + b"x" * 0x180000)
    answer = client.receive()
    assert answer.status == 413
    check_shape(CHAT, answer)


@pytest.mark.parametrize("path", [NATIVE, CHAT, "/api/v1/batch/generate"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_415(client: RawClient, path: str, content_type: str) -> None:
    status, error, _ = ask(client, "POST", path, b"{}", {"Content-Type": content_type})
    assert (status, error["code"].lower()) == (415, "unsupported_media_type")
    assert content_type in error["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "APPLICATION/JSON"},
        {"Content-Type": "application/vnd.api+json"},
        {"Content-Type": ""},
    ],
)
def test_json_by_its_other_names_is_taken(client: RawClient, headers: dict[str, str]) -> None:
    client.send("POST", NATIVE, GOOD[NATIVE], headers)
    assert client.receive().status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", NATIVE, "OPTIONS, POST"),
        ("GET", CHAT, "OPTIONS, POST"),
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("PUT", "/health", "GET, HEAD, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
        ("GET", "/api/v1/models/tiny/load", "OPTIONS, POST"),
    ],
)
def test_a_wrong_method_is_405_with_those_allowed(
    client: RawClient, method: str, path: str, allowed: str
) -> None:
    status, error, answer = ask(client, method, path, None)
    assert (status, error["code"].lower()) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed
    assert method in error["message"]
    assert allowed in error["message"]


@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/api/v1/nothing", "/<script>", "/v1/%00"])
@pytest.mark.parametrize("headers", [{}, ZH], ids=["en", "zh"])
def test_an_unknown_path_is_404(client: RawClient, path: str, headers: dict[str, str]) -> None:
    status, error, _ = ask(client, "GET", path, None, headers)
    assert (status, error["code"].lower()) == (404, "not_found")


@pytest.mark.parametrize("path", [NATIVE, CHAT, "/api/v1/generate/stream"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ServerOverloaded(), 503),
        (EngineUnavailable(), 503),
        (GenerationFailed(reason="out of luck"), 500),
        (InvalidParameter("top_k", "engine_refused", reason="too much"), 400),
    ],
)
def test_an_error_before_the_first_event_keeps_its_status(
    client: RawClient, engine: FakeEngine, path: str, error: Exception, status: int
) -> None:
    engine.script = Script(steps=[Step(error=error)])
    body = {**GOOD.get(path, GOOD[NATIVE]), **({"stream": True} if path == CHAT else {})}
    found, _, answer = ask(client, "POST", path, body)
    assert found == status
    assert ("retry-after" in answer.headers) is (status == 503)


def test_overload_says_when_to_come_back(client: RawClient, engine: FakeEngine) -> None:
    engine.script = Script(steps=[Step(error=ServerOverloaded())])
    status, error, answer = ask(client, "POST", NATIVE, GOOD[NATIVE])
    assert (status, error["code"], answer.headers["retry-after"]) == (503, "OVERLOADED", "1")


def test_the_engine_being_away_is_503(client: RawClient, engine: FakeEngine) -> None:
    engine.is_up = False
    for path in (NATIVE, CHAT):
        status, error, answer = ask(client, "POST", path, GOOD[path])
        assert (status, error["code"].lower()) == (503, "engine_unavailable")
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", [NATIVE, CHAT])
@pytest.mark.parametrize("is_streaming", [False, True])
def test_an_unexpected_exception_is_500_with_a_fixed_text_and_its_trace_in_the_log(
    client: RawClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture, path: str,
    is_streaming: bool,
) -> None:  # fmt: skip
    engine.unexpected = RuntimeError("secret detail")
    with caplog.at_level(logging.ERROR):
        body = {**GOOD[path], "stream": is_streaming}
        status, error, answer = ask(client, "POST", path, body)
    assert status == 500
    assert error["message"] == MESSAGES["internal_error"][0]
    assert b"secret" not in answer.body
    traces = [record.exc_text or str(record.exc_info) for record in caplog.records]
    assert any("secret detail" in trace for trace in traces)
    engine.unexpected = None
    client.send("POST", path, GOOD[path])
    assert client.receive().status == 200, "the connection and the server live on"


def test_an_unexpected_exception_of_the_other_routes_is_500_too(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.unexpected = RuntimeError("secret detail")
    for method, path in (("GET", "/health"), ("GET", "/api/v1/models")):
        status, _, answer = ask(client, method, path, None)
        assert status == 500
        assert b"secret" not in answer.body


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nbroken header line\r\n\r\n",
        b"GET /v1/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
    ],
)
def test_broken_http_is_a_json_error_and_the_connection_ends(
    client: RawClient, server: ServerThread, raw: bytes
) -> None:
    client.sock.sendall(raw)
    answer = client.receive()
    assert 400 <= answer.status < 500
    assert "error" in answer.json
    assert b"Traceback" not in answer.body
    assert client.is_closed_by_server()
    with RawClient(server.address) as other:
        other.send("GET", "/health")
        assert other.receive().status == 200


def test_an_upload_that_stops_half_way_is_cut_off(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    with (
        ServerThread(tiny_settings, engine, repository) as server,
        RawClient(server.address) as client,
    ):
        client.sock.sendall(request_bytes("POST", NATIVE, GOOD[NATIVE])[:-3])
        client.sock.close()
        with RawClient(server.address) as other:
            other.send("GET", "/health")
            assert other.receive().json["active_connections"] == 0


def test_a_response_that_takes_too_long_is_503(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    engine.script = Script(steps=[Step(token_ids=[65], after_s=60)])
    settings = replace(tiny_settings, request_timeout_s=1)
    with ServerThread(settings, engine, repository) as server, RawClient(server.address) as client:
        status, _, _ = ask(client, "POST", NATIVE, GOOD[NATIVE])
        assert status == 503
        assert engine.num_running == 0
