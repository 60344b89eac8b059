"""What users put between themselves and the API, unchanged: agents, wrappers, SDKs for Node."""

from __future__ import annotations

from tests.e2e.answers import check_answers, token_counts
from tests.e2e.conftest import ClientPython, RunClient
from tests.e2e.stack import Stack

THOUGHTS = ["Let me see.", "It is Paris."]  # of the thinking model, and its answer


def test_langchain_works(
    stack: Stack, scripted_model: str, run_client: RunClient, client_python: ClientPython
) -> None:
    url, python = f"{stack.url}/v1", client_python("agents")
    found = run_client("agents/langchain_client.py", url, scripted_model, python=python)
    check_answers(found["plain"], found["stream"])
    (usage,) = found["stream"]["usage"]
    assert token_counts(usage) == token_counts(found["usage"])
    assert found["batch"] == [found["plain"]["text"]] * 2
    assert found["async_text"] == found["plain"]["text"]
    city = {"type": "City", "error": "None"}
    assert found["structured"] == {"json_schema": city, "function_calling": city}
    assert found["agent"] == {
        "results": ["sunny in Paris"],
        "finish_reason": "tool_calls",
        "text": "It is sunny in Paris.",
    }
    assert found["refused"] == "top_p"
    completed = found["completed"]
    assert len(set(completed["texts"])) == 2
    assert completed["streamed"] == completed["texts"]
    assert completed["usage"]["completion_tokens"] == 24


def test_pydantic_ai_works(
    stack: Stack,
    scripted_model: str,
    thinking_model: str,
    run_client: RunClient,
    client_python: ClientPython,
) -> None:
    names, python = (scripted_model, thinking_model), client_python("agents")
    found = run_client("agents/pydantic_ai_client.py", f"{stack.url}/v1", *names, python=python)
    streamed = found.pop("streamed")
    assert streamed["is_whole"]
    assert streamed["num_pieces"] > 2
    assert streamed["num_output_tokens"][0] == streamed["num_output_tokens"][1] > 2
    assert found == {
        "structured": {"NativeOutput": "City", "ToolOutput": "City"},
        "agent": {"text": "It is sunny in Paris.", "num_requests": 2},
        "report": {"city": "Oslo", "is_sunny": True},
        "thoughts": [["thinking: Let me see.", "text: It is Paris."]] * 2,
        "refused": {"status": 400, "param": "top_p"},
    }


def test_instructor_works(stack: Stack, run_client: RunClient, client_python: ClientPython) -> None:
    python = client_python("wrappers")
    found = run_client("wrappers/instructor_client.py", f"{stack.url}/v1", python=python)
    assert found["whole"] == {
        "tool_call": {"type": "Person", "finish_reason": "tool_calls"},
        "tools_strict": {"type": "Person", "finish_reason": "tool_calls"},
        "json_schema_mode": {"type": "Person", "finish_reason": "stop"},
    }
    assert [person.keys() for person in found["pieces"]] == [{"city", "age"}] * 2
    assert found["asynchronous"] == "Person"


def test_litellm_works(
    stack: Stack,
    scripted_model: str,
    thinking_model: str,
    embedding_model: str,
    run_client: RunClient,
    client_python: ClientPython,
) -> None:
    names, python = (scripted_model, thinking_model, embedding_model), client_python("wrappers")
    found = run_client("wrappers/litellm_client.py", f"{stack.url}/v1", *names, python=python)
    check_answers(found["plain"], found["stream"])
    assert found["async_text"] == found["plain"]["text"]
    assert found["agent"] == {
        "name": "get_weather",
        "arguments": {"city": "Paris"},
        "finish_reasons": ["tool_calls", "stop"],
        "text": "It is sunny in Paris.",
    }
    assert found["thoughts"] == [THOUGHTS, THOUGHTS]
    assert found["embedding_sizes"] == [384, 384]
    assert found["refused"] == {"bad": "BadRequestError", "unknown": "NotFoundError"}


def test_the_openai_sdk_for_node_works(
    stack: Stack, scripted_model: str, run_client: RunClient, client_python: ClientPython
) -> None:
    url, python = f"{stack.url}/v1", client_python("node")
    found = run_client("node/openai_client.mjs", url, scripted_model, python=python)
    check_answers(found["plain"], found["stream"])
    assert found["stream"]["usage"]["total_tokens"] == found["plain"]["usage"]["total_tokens"]
    assert found["is_city"]
    agent = {"text": "It is sunny in Paris.", "results": ["sunny in Paris"]}
    assert found["agents"] == [agent, agent]
    assert found["broken"] == {"text": "one two", "is": True}
    assert found["refused"] == {"is": True, "param": "top_p"}


def test_the_vercel_ai_sdk_works(
    stack: Stack,
    scripted_model: str,
    thinking_model: str,
    embedding_model: str,
    run_client: RunClient,
    client_python: ClientPython,
) -> None:
    names, python = (scripted_model, thinking_model, embedding_model), client_python("node")
    found = run_client("node/ai_sdk_client.mjs", f"{stack.url}/v1", *names, python=python)
    assert found["embedding_size"] == 384
    assert found["thoughts"] == [THOUGHTS, THOUGHTS]
    for provider in ("compatible", "chat", "responses"):
        text = found[provider].pop("text")
        assert text["is_whole"]
        assert text["num_pieces"] > 2
        assert text["finish_reasons"][0] == text["finish_reasons"][1]
        assert text["num_output_tokens"][0] == text["num_output_tokens"][1] > 2
        assert found[provider] == {
            "structured": [True, True],
            "forced": ["get_weather"],
            "agent": {
                "results": ["sunny in Paris"],
                "finish_reasons": ["tool-calls", "stop"],
                "text": "It is sunny in Paris.",
            },
            "broken": {"text": "one two", "num_errors": 1},
            "refused": {"is": True, "status": 400},
        }
