"""Whatever is sent: the surface's own error shape, in the client's language; no HTML, no trace."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.e2e.stack import MODEL, Stack

CHAT, GENERATE = "/v1/chat/completions", "/api/v1/generate"
STREAM, BATCH = "/api/v1/generate/stream", "/api/v1/batch/generate"
MESSAGES = [{"role": "user", "content": "Hello"}]
CJK = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Case:
    """A request that is wrong, and its answer. `code` is the OpenAI surface's, in lower case."""

    name: str
    path: str
    status: int
    code: str
    json: Any = None
    content: bytes | None = None
    method: str = "POST"
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def chat(name: str, status: int, code: str, *, param: str | None = None, **changes: Any) -> Case:
    body = {"model": MODEL, "messages": MESSAGES, **changes}
    return Case(f"chat {name}", CHAT, status, code, json=body, param=param)


def native(
    name: str,
    status: int,
    code: str,
    *,
    param: str | None = None,
    path: str = GENERATE,
    **change: Any,
) -> Case:
    return Case(
        f"native {name}", path, status, code, json={"prompt": "Hello", **change}, param=param
    )


def raw(name: str, path: str, content: bytes, status: int, code: str, **more: Any) -> Case:
    headers = {"Content-Type": "application/json", **more.pop("headers", {})}
    return Case(f"{name} at {path}", path, status, code, content=content, headers=headers, **more)


WRONG_VALUES: tuple[tuple[str, Any], ...] = (
    ("max_tokens", "many"),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 1.5),
    ("max_tokens", 2**40),
    ("temperature", "hot"),
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("top_p", -1),
    ("top_p", 1.1),
    ("top_k", -2),
    ("presence_penalty", 2.5),
    ("frequency_penalty", -2.5),
    ("seed", "x"),
    ("stop", 7),
    ("stop", ["a", "b", "c", "d", "e"]),
    ("stop", ""),
    ("stream", "yes"),
)

CASES = [
    *(chat(f"{p}={v!r}", 400, "invalid_value", param=p, **{p: v}) for p, v in WRONG_VALUES),
    *(native(f"{p}={v!r}", 400, "invalid_value", param=p, **{p: v}) for p, v in WRONG_VALUES),
    chat("without messages", 400, "invalid_value", param="messages", messages=[]),
    chat("messages of a wrong type", 400, "invalid_value", param="messages", messages="Hello"),
    chat(
        "unknown role",
        400,
        "invalid_value",
        param="messages[0].role",
        messages=[{"role": "wizard", "content": "Hello"}],
    ),
    chat("unknown field", 400, "invalid_value", param="no_such_field", no_such_field=1),
    chat("n of 0", 400, "invalid_value", param="n", n=0),
    chat(
        "stream_options without stream",
        400,
        "invalid_value",
        param="stream_options",
        stream_options={"include_usage": True},
    ),
    chat("unknown model", 404, "model_not_found", param="model", model="no-such-model"),
    chat(
        "prompt longer than the context",
        400,
        "context_length_exceeded",
        param="messages",
        messages=[{"role": "user", "content": "word " * 9000}],
    ),
    native("empty prompt", 400, "invalid_parameter", param="prompt", prompt=""),
    native("prompt of a wrong type", 400, "invalid_parameter", param="prompt", prompt=["Hello"]),
    native("unknown model", 404, "model_not_found", param="model", model="no-such-model"),
    native(
        "empty prompt, stream", 400, "invalid_parameter", param="prompt", path=STREAM, prompt=""
    ),
    native(
        "prompt longer than the context",
        400,
        "context_length_exceeded",
        param="prompt",
        path=STREAM,
        prompt="word " * 9000,
    ),
    raw("broken JSON", CHAT, b'{"messages": ', 400, "invalid_request"),
    raw("broken JSON", GENERATE, b'{"prompt": ', 400, "invalid_request"),
    *(raw("no JSON object", path, b"[1]", 400, "invalid_request") for path in (CHAT, GENERATE)),
    *(raw("no body", path, b"", 400, "invalid_request") for path in (CHAT, GENERATE, BATCH)),
    raw("no UTF-8", CHAT, b'{"model": "\xff\xfe"}', 400, "invalid_request"),
    raw("no UTF-8", GENERATE, b'{"prompt": "\xff\xfe"}', 400, "invalid_request"),
    *(
        raw(
            "text",
            path,
            b"Hello",
            415,
            "unsupported_media_type",
            headers={"Content-Type": "text/plain"},
        )
        for path in (CHAT, GENERATE, STREAM)
    ),
    *(
        Case(f"GET {path}", path, 405, "method_not_allowed", method="GET")
        for path in (CHAT, GENERATE, STREAM, BATCH)
    ),
    *(
        Case(f"POST {path}", path, 405, "method_not_allowed", json={})
        for path in ("/v1/models", "/api/v1/models")
    ),
    *(
        Case(f"GET {path}", path, 404, "not_found", method="GET")
        for path in ("/v1/nothing", "/api/v1/nothing", "/nothing", "/")
    ),
    Case(
        "one model", "/v1/models/no-such-model", 404, "model_not_found", method="GET", param="model"
    ),
    Case(
        "load", "/api/v1/models/no-such-model/load", 404, "model_not_found", json={}, param="model"
    ),
    Case("unload", "/api/v1/models/nothing/unload", 404, "model_not_found", json={}, param="model"),
    Case("batch", BATCH, 400, "invalid_parameter", json={"requests": []}, param="requests"),
]


def check_error(answer: httpx.Response, case: Case, *, is_chinese: bool) -> None:
    assert answer.status_code == case.status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert "Traceback" not in answer.text
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    if case.path.startswith("/v1/"):
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert error["param"] == case.param
        assert error["code"] == case.code
    else:
        assert error.keys() - {"param"} == {"code", "message", "details"}
        assert error.get("param") == case.param
        code = case.code.upper().replace("INVALID_VALUE", "INVALID_PARAMETER")
        assert error["code"] == code
    assert error["message"]
    assert bool(CJK.search(error["message"])) is is_chinese


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_gets_the_surfaces_error(http: httpx.Client, case: Case) -> None:
    for language, is_chinese in (("en", False), ("zh-CN,zh;q=0.9,en;q=0.8", True)):
        answer = http.request(
            case.method,
            case.path,
            json=case.json,
            content=case.content,
            headers={**case.headers, "Accept-Language": language},
        )
        check_error(answer, case, is_chinese=is_chinese)


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(http: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 9000}]}
    message = http.post(CHAT, json=body).json()["error"]["message"]
    num_tokens, max_tokens = map(int, re.findall(r"\d+", message))
    assert num_tokens > 9000
    assert max_tokens == 8191


def test_405_names_the_methods_that_are_allowed(http: httpx.Client) -> None:
    assert "POST" in http.get(CHAT).headers["allow"]


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_a_body_over_the_limit_is_refused_before_it_is_sent(stack: Stack, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: 99999999\r\n\r\n{{".encode())
        received = b""
        while b'"error"' not in received and (piece := connection.recv(65536)):
            received += piece
    assert received.startswith(b"HTTP/1.1 413 "), received
    assert b"application/json" in received
    assert (b'"code":"request_too_large"' in received) is (path == CHAT)


def test_one_wrong_request_of_a_batch_fails_alone(http: httpx.Client) -> None:
    good = {"prompt": "Hello", "max_tokens": 2}
    requests = [good, {"prompt": 1}, {**good, "model": "nothing"}, good]
    results = http.post(BATCH, json={"requests": requests}).json()["results"]
    assert [result.get("error", {}).get("code") for result in results] == [
        None,
        "INVALID_PARAMETER",
        "MODEL_NOT_FOUND",
        None,
    ]
