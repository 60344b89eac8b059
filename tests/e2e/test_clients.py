"""The clients that users have, unchanged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from tests.e2e.stack import MODEL, Stack

RunClient = Callable[..., Any]


def check_answers(plain: dict[str, Any], stream: dict[str, Any]) -> None:
    assert plain["text"]
    assert stream["text"] == plain["text"]
    assert stream["num_events"] > 2
    usage = plain["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_openai_sdk_of_today_works(
    stack: Stack, run_client: RunClient, client_python: Callable[[str], str]
) -> None:
    found = run_client("openai/client.py", f"{stack.url}/v1", python=client_python("openai"))
    check_answers(found["plain"], found["stream"])
    assert found["stream"]["usage"] == found["plain"]["usage"]
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
    stack: Stack, run_client: RunClient, client_python: Callable[[str], str]
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


def test_langchain_works(stack: Stack, run_client: RunClient) -> None:
    found = run_client("langchain_client.py", f"{stack.url}/v1", python=sys.executable)
    check_answers(found["plain"], found["stream"])
    completed = found["completed"]
    assert len(set(completed["texts"])) == 2
    assert completed["streamed"] == completed["texts"]
    assert completed["usage"]["completion_tokens"] == 24


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
