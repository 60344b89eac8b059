"""The clients that users have, unchanged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.answers import check_answers, token_counts
from tests.e2e.conftest import ClientPython, RunClient
from tests.e2e.stack import MODEL, Stack


def test_the_openai_sdk_of_today_works(
    stack: Stack, run_client: RunClient, client_python: ClientPython
) -> None:
    found = run_client("openai/client.py", f"{stack.url}/v1", python=client_python("openai"))
    check_answers(found["plain"], found["stream"])
    assert token_counts(found["stream"]["usage"]) == token_counts(found["plain"]["usage"])
    assert found["async_text"] == found["plain"]["text"]
    assert MODEL in found["models"]
    assert found["model"] == MODEL
    assert found["errors"] == {
        "bad_request": {
            "param": "temperature",
            "code": "invalid_value",
            "type": "invalid_request_error",
        },
        "not_found": {
            "param": "model",
            "code": "model_not_found",
            "type": "invalid_request_error",
        },
    }


def test_the_openai_sdk_before_version_1_works(
    stack: Stack, run_client: RunClient, client_python: ClientPython
) -> None:
    python = client_python("openai_028")
    found = run_client("openai_028/client.py", f"{stack.url}/v1", python=python)
    assert found["version"] == "0.28.1"
    check_answers(found["plain"], found["stream"])
    assert found["error"] == {"status": 400, "param": "messages"}
    assert MODEL in found["models"]
    completed = found["completed"]
    assert completed["text"] == "The capital of France is" + completed["streamed"]
    assert completed["first_log_prob"] is None


def test_the_helpers_of_the_openai_sdk_work(
    stack: Stack, scripted_model: str, run_client: RunClient, client_python: ClientPython
) -> None:
    url, python = f"{stack.url}/v1", client_python("openai")
    found = run_client("openai/helpers.py", url, scripted_model, python=python)
    in_stream, counted = found["streamed"].pop("num_tokens")
    assert in_stream == counted > 0
    with_log_probs, counted = found["log_probs"].pop("num_tokens")
    assert with_log_probs == counted == 8
    assert found["agent"].pop("num_pieces") > 1
    choices = found.pop("choices")
    assert choices["streamed"] == choices["plain"]
    assert len(set(choices["plain"])) == 2
    assert found == {
        "parsed": {"city": "City", "cut_off": "length"},
        "streamed": {
            "events": [
                "chunk",
                "content.delta",
                "content.done",
                "logprobs.content.delta",
                "logprobs.content.done",
            ],
            "is_whole": True,
            "city": "City",
            "finish_reason": "stop",
        },
        "forced_call": {"content": None, "arguments": "GetWeather", "finish_reason": "tool_calls"},
        "agent": {
            "name": "get_weather",
            "city": "Paris",
            "is_whole": True,
            "finish_reasons": ["tool_calls", "stop"],
            "text": "It is sunny in Paris.",
        },
        "broken": {"text": "one two", "error": "APIError", "type": "server_error"},
        "log_probs": {"is_whole": True, "num_top": [3], "is_greedy": True},
        "errors": {
            "image": "messages[0].content[0].type",
            "schema": "response_format",
            "tool_choice": "tool_choice",
            "top_logprobs": "top_logprobs",
            "unknown": "no_such_field",
        },
    }


@pytest.mark.parametrize(
    ("name", "suffix", "program"),
    [
        ("openai", ".py", "import socket\nsocket.create_connection(('192.0.2.1', 9))"),
        ("openai", ".py", "import socket\nsocket.getaddrinfo('example.com', 80)"),
        ("node", ".mjs", "await fetch('http://192.0.2.1').catch(() => 0)"),
    ],
)
def test_a_client_that_wants_to_reach_another_machine_is_ended(
    name: str,
    suffix: str,
    program: str,
    tmp_path: Path,
    run_client: RunClient,
    client_python: ClientPython,
) -> None:
    path = (tmp_path / "program").with_suffix(suffix)
    path.write_text(program)
    with pytest.raises(AssertionError, match="the client wants to reach"):
        run_client(str(path), python=client_python(name))


def test_requests_work_on_the_native_surface(stack: Stack, run_client: RunClient) -> None:
    found = run_client("requests_client.py", stack.url, python=sys.executable)["native"]
    plain, stream, batch = found["plain"], found["stream"], found["batch"]["results"]
    assert plain["latency"] > 0
    assert "".join(event["token"] for event in stream) == plain["text"]
    assert [event["finished"] for event in stream[:-1]] == [False] * (len(stream) - 1)
    assert stream[-1]["finished"] is True
    assert stream[-1]["usage"] == plain["usage"]
    assert stream[-1]["finish_reason"] == plain["finish_reason"]
    assert batch[0]["text"] == plain["text"]
    assert batch[1]["error"]["code"] == "INVALID_PARAMETER"
    assert batch[2]["usage"]["completion_tokens"] == 4
    (model,) = (model for model in found["models"]["models"] if model["name"] == MODEL)
    assert model["loaded"] is True
    assert {"name", "format", "size", "loaded", "memory_usage"} <= model.keys()
    assert found["health"]["status"] == "healthy"
    assert found["health"]["model_loaded"] is True
    for family in ("model_inference_seconds histogram", "active_connections gauge"):
        assert f"# TYPE {family}\n" in found["metrics"]
    assert "nv_trt_llm_kv_cache_block_metrics" in found["metrics"]


def test_requests_work_on_the_openai_surface(stack: Stack, run_client: RunClient) -> None:
    found = run_client("requests_client.py", stack.url, python=sys.executable)["chat"]
    *events, done = found["stream"]
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"]["role"] == "assistant"
    plain = found["plain"]["choices"][0]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == plain["message"]["content"]
    assert choices[-1]["finish_reason"] == plain["finish_reason"]
    assert found["plain"]["object"] == "chat.completion"
    assert found["plain"]["model"] == MODEL
