"""Answers of every kind, as one body and as the stream that folds to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from frontend.protocol.chat_answer import ChatAnswerOptions, ChatEncoder
from frontend.types import FinishReason, TextChunk, TokenLogProb, ToolCallDelta


class Letters:
    """Token 97 is "a", and so on."""

    def token_bytes(self, token_id: int) -> bytes:
        return bytes((token_id,))


def encoder(**options: Any) -> ChatEncoder:
    return ChatEncoder(
        request_id="chatcmpl-1",
        model="m",
        created=17,
        prompt_token_ids=[1, 2, 3],
        fingerprint="fp_1",
        tokens=Letters(),
        options=ChatAnswerOptions(**options),
    )


def chunk(text: str = "", **fields: Any) -> TextChunk:
    return TextChunk(text=text, num_tokens=1, **fields)


async def as_stream(chunks: list[TextChunk]) -> AsyncIterator[TextChunk]:
    for one in chunks:
        yield one


async def body_of(chunks: list[TextChunk], **options: Any) -> dict[str, Any]:
    return await encoder(**options).encode(as_stream(chunks))


async def events_of(chunks: list[TextChunk], **options: Any) -> list[dict[str, Any]]:
    raw = [event async for event in encoder(**options).encode_stream(as_stream(chunks))]
    blocks = b"".join(raw).decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def delta(index: int, arguments: str, *, name: str | None = None) -> ToolCallDelta:
    return ToolCallDelta(index, f"call_{index}" if name else None, name, arguments)


STOP, CALLS = FinishReason.STOP, FinishReason.TOOL_CALLS
TWO_CALLS = [
    chunk("Wait."),
    chunk(tool_calls=(delta(0, '{"a"', name="f"),)),
    chunk(tool_calls=(delta(0, ":1}"), delta(1, "{}", name="g"))),
    chunk(finish_reason=CALLS),
]
THOUGHTS = [
    chunk(reasoning="H", num_reasoning_tokens=1, num_cached_tokens=2),
    chunk("Y", reasoning="m", num_reasoning_tokens=1),
    chunk("es", finish_reason=STOP),
]


def call(index: int, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{index}", "type": "function", "function": function}


@pytest.mark.parametrize(
    ("chunks", "options", "message", "reason"),
    [
        ([chunk("a"), chunk("b", finish_reason=STOP)], {}, {"content": "ab"}, "stop"),
        ([chunk(finish_reason=FinishReason.LENGTH)], {}, {"content": ""}, "length"),
        (
            TWO_CALLS,
            {},
            {"content": "Wait.", "tool_calls": [call(0, "f", '{"a":1}'), call(1, "g", "{}")]},
            "tool_calls",
        ),
        (
            TWO_CALLS[1:],
            {},
            {"content": None, "tool_calls": [call(0, "f", '{"a":1}'), call(1, "g", "{}")]},
            "tool_calls",
        ),
        (
            [chunk(tool_calls=(delta(0, "{}", name="f"),), finish_reason=CALLS)],
            {"is_legacy_function": True},
            {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
            "function_call",
        ),
        (THOUGHTS, {}, {"content": "Yes", "reasoning_content": "Hm", "reasoning": "Hm"}, "stop"),
        ([chunk("b", finish_reason=STOP)], {"prefix": "a "}, {"content": "a b"}, "stop"),
    ],
)
async def test_a_body_and_its_stream_say_the_same(
    chunks: list[TextChunk], options: dict[str, Any], message: dict[str, Any], reason: str
) -> None:
    (choice,) = (await body_of(chunks, **options))["choices"]
    assert choice["message"] == {"role": "assistant", "refusal": None, **message}
    assert choice["finish_reason"] == reason
    events = [event["choices"][0] for event in await events_of(chunks, **options)]
    assert events[0]["delta"]["role"] == "assistant"
    assert all("role" not in event["delta"] for event in events[1:])
    assert [event["finish_reason"] for event in events if event["finish_reason"]] == [reason]
    assert events[-1]["finish_reason"] == reason
    assert folded(event["delta"] for event in events) == {
        key: value for key, value in message.items() if value
    }


def folded(deltas: Any) -> dict[str, Any]:
    """What a client makes of a stream's deltas."""
    message: dict[str, Any] = {}
    for one in deltas:
        for key in ("content", "reasoning_content", "reasoning"):
            if one.get(key):
                message[key] = message.get(key, "") + one[key]
        if function := one.get("function_call"):
            whole = message.setdefault("function_call", {"name": "", "arguments": ""})
            whole["name"] += function.get("name", "")
            whole["arguments"] += function["arguments"]
        for piece in one.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if "id" in piece:
                assert piece["index"] == len(calls)
                calls.append(call(piece["index"], piece["function"]["name"], ""))
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    return message


async def test_an_answer_that_begins_with_thoughts_or_calls_has_no_text_yet() -> None:
    for chunks in (THOUGHTS, TWO_CALLS[1:]):
        first = (await events_of(chunks))[0]
        assert first["choices"][0]["delta"]["content"] is None


async def test_usage_has_its_details() -> None:
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert (await body_of(THOUGHTS))["usage"] == usage
    *events, last = await events_of(THOUGHTS, includes_usage=True)
    assert (last["choices"], last["usage"]) == ([], usage)
    assert [event["usage"] for event in events] == [None] * len(events)
    assert all("usage" not in event for event in await events_of(THOUGHTS))


async def test_token_ids_are_told_where_they_are_wanted() -> None:
    chunks = [chunk("a", token_ids=[97]), chunk("b", token_ids=[98], finish_reason=STOP)]
    body = await body_of(chunks, includes_token_ids=True)
    assert (body["prompt_token_ids"], body["choices"][0]["token_ids"]) == ([1, 2, 3], [97, 98])
    events = await events_of(chunks, includes_token_ids=True)
    assert [event["choices"][0]["token_ids"] for event in events] == [[97], [98], []]
    assert [event.get("prompt_token_ids") for event in events] == [[1, 2, 3], None, None]
    plain = await body_of(chunks)
    assert "prompt_token_ids" not in plain
    assert "token_ids" not in plain["choices"][0]


async def test_log_probs_have_the_tokens_bytes_and_no_infinity() -> None:
    tops = [[TokenLogProb(token_id=0xE4, log_prob=float("-inf"))]]
    chunks = [
        chunk("a", token_ids=[97], log_probs=[-0.5], top_log_probs=tops),
        chunk(token_ids=[0xE4], log_probs=[-1.5], finish_reason=STOP),
    ]
    half = {"token": "\ufffd", "bytes": [0xE4]}
    content = [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [{**half, "logprob": -9999.0}],
        },
        {**half, "logprob": -1.5, "top_logprobs": []},
    ]
    (choice,) = (await body_of(chunks))["choices"]
    assert choice["logprobs"] == {"content": content, "refusal": None}
    events = [event["choices"][0]["logprobs"] for event in await events_of(chunks)]
    assert [entry for one in events if one for entry in one["content"]] == content
    assert events[-1] is None


async def test_the_service_tier_is_told_to_who_asked() -> None:
    chunks = [chunk("a", finish_reason=STOP)]
    assert (await body_of(chunks, names_service_tier=True))["service_tier"] == "default"
    events = await events_of(chunks, names_service_tier=True)
    assert {event["service_tier"] for event in events} == {"default"}
    assert "service_tier" not in await body_of(chunks)
