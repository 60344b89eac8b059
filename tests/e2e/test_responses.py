"""/v1/responses through the clients that speak it, in front of two workers and a real Triton."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from tests.e2e.stack import Stack, eventually

RunClient = Callable[..., Any]
ClientPython = Callable[[str], str]


def test_the_openai_sdks_responses_work(
    stack: Stack, scripted_model: str, run_client: RunClient, client_python: ClientPython
) -> None:
    url, python = f"{stack.url}/v1", client_python("openai")
    found = run_client("openai/responses.py", url, scripted_model, python=python)
    text, num_tokens = found.pop("text"), found.pop("num_tokens")
    assert text
    assert num_tokens
    assert found.pop("async_text") == text
    num_pieces = found["streamed"].pop("num_pieces")
    assert num_pieces > 2
    assert found["log_probs"].pop("num_tokens") == [8, 8]
    assert found == {
        "streamed": {
            "text": text,
            "is_numbered": True,
            "last": "response.completed" if num_tokens < 24 else "response.incomplete",
        },
        "parsed": {"plain": "City", "is_same": True},
        "log_probs": {"num_top": [3], "is_whole": True},
        "conversation": {
            "call": ["function_call", "get_weather", {"city": "Paris"}],
            "text": "It is sunny in Paris.",
            "items": ["message", "function_call", "function_call_output"],
            "is_kept": True,
            "is_deleted": True,
        },
        "stateless": {"is_whole": True, "text": "It is sunny in Paris."},
        "background": {
            "statuses": ["queued", "completed"],
            "text": "Hello! How can I help you?",
            "is_resumed": True,
            "cancelled": "cancelled",
        },
        "refused": {
            "temperature": "temperature",
            "tool": "tools[0].type",
            "prompt": "prompt",
            "previous": "previous_response_id",
            "schema": "text.format",
        },
    }


def test_openai_agents_works(
    stack: Stack, scripted_model: str, run_client: RunClient, client_python: ClientPython
) -> None:
    url, python = f"{stack.url}/v1", client_python("openai_agents")
    found = run_client("openai_agents/client.py", url, scripted_model, python=python)
    text = "It is sunny in Paris."
    assert found == {
        "in_one_go": {"text": text, "results": ["sunny in Paris"], "num_requests": 2},
        "streamed": {
            "text": text,
            "is_whole": True,
            "steps": ["tool_called", "tool_output", "message_output_created"],
        },
        "on_the_server": {"text": text, "goes_on": True},
        "typed": "City",
        "refused": "top_p",
    }


def test_a_background_response_of_a_killed_worker_is_failed(
    stack: Stack, http: httpx.Client, scripted_model: str
) -> None:
    body = {"model": scripted_model, "input": "Count slowly", "background": True}
    path = f"/v1/responses/{http.post('/v1/responses', json=body).json()['id']}"

    def status() -> str | None:
        try:
            found: str = http.get(path).json()["status"]
        except httpx.TransportError:
            return None  # the workers are being replaced
        return found

    eventually(lambda: status() == "in_progress")
    for worker in stack.workers():
        worker.kill()
    eventually(lambda: status() == "failed", timeout_s=60, interval_s=0.2)
