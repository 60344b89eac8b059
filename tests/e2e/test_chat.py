"""Chat completions with the real model: what is enforced holds, whatever the model's wit."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.e2e.answers import CHAT, chat_body, events

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def ask(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post(
        CHAT, json=chat_body("The weather in Paris?", **{"max_tokens": 200, **fields})
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_forced_call_has_arguments_that_fit(
    http: httpx.Client, choice: object, temperature: float
) -> None:
    body = ask(
        http,
        tools=[WEATHER],
        tool_choice=choice,
        parallel_tool_calls=False,
        temperature=temperature,
        seed=3,
    )
    (choice,) = body["choices"]
    assert isinstance(choice, dict)
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    arguments = json.loads(call["function"]["arguments"])
    assert arguments.keys() == {"city", "unit"}
    assert arguments["unit"] in ("C", "F")
    assert choice["message"]["content"] is None


def test_a_forced_call_streams_its_arguments(http: httpx.Client) -> None:
    body = chat_body("The weather in Paris?", max_tokens=200, tools=[WEATHER], tool_choice=NAMED)
    with http.stream("POST", CHAT, json={**body, "stream": True}) as answer:
        chunks = [json.loads(event) for event in events(answer) if event != "[DONE]"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    pieces = [call["function"]["arguments"] for d in deltas for call in d.get("tool_calls", ())]
    assert json.loads("".join(pieces)).keys() == {"city", "unit"}
    assert len(pieces) > 1


@pytest.mark.parametrize("tools", [{}, {"tools": [WEATHER]}])
def test_an_answer_fits_its_schema(http: httpx.Client, tools: dict[str, Any]) -> None:
    schema = {"name": "person", "strict": True, "schema": PERSON}
    response = {"type": "json_schema", "json_schema": schema}
    (choice,) = ask(http, response_format=response, **tools)["choices"]
    answer = json.loads(choice["message"]["content"])
    assert (type(answer["name"]), type(answer["age"])) == (str, int)
    assert choice["finish_reason"] == "stop"


def test_guides_of_all_kinds_hold(http: httpx.Client) -> None:
    regex = r"(Sun|Rain)\. [0-9]{2} degrees"
    for fields, pattern in (
        ({"guided_regex": regex}, regex),
        ({"guided_choice": ["sunny (very)", "rain"]}, r"sunny \(very\)|rain"),
        ({"guided_grammar": 'root ::= "It is " ("hot" | "cold")'}, "It is (hot|cold)"),
        ({"structured_outputs": {"regex": regex}}, regex),
    ):
        (choice,) = ask(http, **fields)["choices"]
        assert re.fullmatch(pattern, choice["message"]["content"])
        assert choice["finish_reason"] == "stop"


def test_the_bytes_of_the_tokens_are_the_text(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "Repeat: 你好😀 你好😀 你好😀"}]
    body = ask(http, messages=messages, logprobs=True, top_logprobs=3)
    (choice,) = body["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == body["usage"]["completion_tokens"]
    text = b"".join(bytes(entry["bytes"]) for entry in content)
    assert text.decode(errors="ignore") == choice["message"]["content"].rstrip("\ufffd")
    assert all(len(entry["top_logprobs"]) == 3 and entry["logprob"] <= 0 for entry in content)


def test_bad_words_and_stop_tokens_are_kept_to(http: httpx.Client) -> None:
    plain = ask(http, temperature=0, return_token_ids=True, max_tokens=20)["choices"][0]
    word = plain["message"]["content"].split()[1].strip(".,")
    banned = ask(http, temperature=0, bad_words=[word], max_tokens=20)["choices"][0]
    assert word not in banned["message"]["content"].split()
    end = plain["token_ids"][5]
    stopped = ask(http, temperature=0, stop_token_ids=[end], max_tokens=20)["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert plain["message"]["content"].startswith(stopped["message"]["content"])
    assert len(stopped["message"]["content"]) < len(plain["message"]["content"])


def test_the_final_message_is_continued_and_echoed(http: httpx.Client) -> None:
    messages = [
        {"role": "user", "content": "The capital of France?"},
        {"role": "assistant", "content": "The capital of France is"},
    ]
    fields: dict[str, Any] = {"continue_final_message": True, "temperature": 0, "max_tokens": 5}
    continued = ask(http, messages=messages, **fields)["choices"][0]["message"]["content"]
    assert continued.startswith(" Paris")
    echoed = ask(http, messages=messages, echo=True, **fields)["choices"][0]["message"]["content"]
    assert echoed == f"The capital of France is{continued}"
