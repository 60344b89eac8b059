"""Text chunks -> the typed events of /v1/responses; the streams stand in tests/golden/responses."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from frontend.errors import EngineUnavailable, GenerationFailed, InvalidRequest, RateLimited
from frontend.messages import Language
from frontend.protocol.answers import responses
from frontend.protocol.response_answer import (
    ResponseEncoder,
    encode_error,
    ending_event,
    error_event,
    sse_typed_event,
)
from frontend.types import FinishReason, TextChunk, TokenLogProb
from tests.fakes.text_chunks import PLAIN, THOUGHTS, TOOL_CALLS
from tests.golden_files import Golden

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
FIELDS = {
    "id": "resp_1",
    "created_at": 17,
    "model": "m",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
STREAMS: dict[str, list[TextChunk]] = {
    "text": PLAIN,
    "tool_calls": TOOL_CALLS,
    "reasoning": THOUGHTS,
    "log_probs": [
        # the first token is a thought, the second one half a character
        TextChunk(
            text="",
            reasoning="t",
            num_tokens=2,
            num_reasoning_tokens=1,
            token_ids=[1, 2],
            log_probs=[-0.5, -0.25],
            top_log_probs=[[], [TokenLogProb(token_id=2, log_prob=-0.25)]],
        ),
        TextChunk(
            text="人",
            num_tokens=1,
            token_ids=[3],
            log_probs=[-1.0],
            top_log_probs=[[]],
            finish_reason=FinishReason.STOP,
        ),
    ],
    "cut_off": [TextChunk(text="On", num_tokens=1, finish_reason=FinishReason.LENGTH)],
    "nothing": [TextChunk(text="", num_tokens=0, finish_reason=FinishReason.STOP)],
}
BYTES = {1: b"t", 2: "人".encode()[:1], 3: "人".encode()[1:]}


class Tokens:
    def token_bytes(self, token_id: int) -> bytes:
        return BYTES[token_id]


async def chunks_of(chunks: list[TextChunk]) -> AsyncIterator[TextChunk]:
    for chunk in chunks:
        yield chunk


def encoder(*, has_summary: bool = False, is_background: bool = False) -> ResponseEncoder:
    return ResponseEncoder(
        dict(FIELDS),
        num_prompt_tokens=7,
        tokens=Tokens(),
        has_summary=has_summary,
        is_background=is_background,
    )


async def events_of(name: str, **options: bool) -> list[dict[str, Any]]:
    return [event async for event in encoder(**options).events(chunks_of(STREAMS[name]))]


def transcript(events: list[dict[str, Any]]) -> bytes:
    """What is sent, with numbers in the place of the ids that are new in every run."""
    text = b"".join(map(sse_typed_event, events)).decode()
    for i, made in enumerate(dict.fromkeys(re.findall(r"(?:msg|rs|fc)_[0-9a-f]{32}", text))):
        text = text.replace(made, f"{made.partition('_')[0]}_{i}")
    return re.sub(r'"completed_at":\d+', '"completed_at":18', text).encode()


@pytest.mark.parametrize("name", STREAMS)
async def test_streams_are_the_golden_ones(name: str, golden: Golden) -> None:
    golden.check(f"responses/{name}.sse", transcript(await events_of(name)))


async def test_a_golden_summary_has_events_of_its_own(golden: Golden) -> None:
    events = await events_of("reasoning", has_summary=True)
    golden.check("responses/reasoning_summary.sse", transcript(events))


async def test_a_failure_in_mid_stream_is_the_golden_one(golden: Golden) -> None:
    async def failing() -> AsyncIterator[TextChunk]:
        yield TextChunk(text="Half", num_tokens=1)
        raise GenerationFailed(reason="out of memory")

    writer = encoder()
    stream = writer.events(failing())
    events = [await anext(stream) for _ in range(5)]
    with pytest.raises(GenerationFailed) as failure:
        await anext(stream)
    events.append(writer.failed(failure.value))
    golden.check("responses/failed.sse", transcript(events))


async def test_a_golden_background_response_is_queued_before_it_is_in_progress(
    golden: Golden,
) -> None:
    writer = encoder(is_background=True)
    events = writer.opening()
    events += [event async for event in writer.events(chunks_of(STREAMS["text"]))]
    golden.check("responses/background.sse", transcript(events))


@pytest.mark.parametrize("name", STREAMS)
async def test_every_event_is_what_the_sdk_expects(name: str) -> None:
    for event in await events_of(name):
        EVENT.validate_python(event, strict=True)


@pytest.mark.parametrize("has_summary", [False, True])
@pytest.mark.parametrize("name", STREAMS)
async def test_every_event_is_what_the_description_says(name: str, has_summary: bool) -> None:
    named = {
        event_type: shape
        for shape in responses.EVENTS
        for event_type in typing.get_args(typing.get_type_hints(shape)["type"])
    }
    for event in await events_of(name, has_summary=has_summary):
        # what the request fixes is not in this test's responses; those over HTTP have it
        if "response" not in event:
            msgspec.convert(event, named[event["type"]])
    error = error_event(EngineUnavailable(), Language.EN)
    msgspec.convert(error, named["error"])


@pytest.mark.parametrize("name", STREAMS)
async def test_sequence_numbers_count_from_zero(name: str) -> None:
    events = await events_of(name)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("has_summary", [False, True])
@pytest.mark.parametrize("name", STREAMS)
async def test_the_events_fold_into_the_last_ones_response(name: str, has_summary: bool) -> None:
    output: list[dict[str, Any]] = []
    open_items = 0
    events = await events_of(name, has_summary=has_summary)
    for event in events:
        match event:
            case {"type": "response.output_item.added", "item": item, "output_index": index}:
                assert index == len(output)
                output.append(item)
                open_items += 1
            case {"type": "response.output_item.done", "item": item, "output_index": index}:
                assert output[index]["id"] == item["id"]
                output[index] = item
                open_items -= 1
            case {"output_index": index}:
                assert index == len(output) - 1, "the open item is the last one"
        assert open_items in (0, 1)
    response = events[-1]["response"]
    assert response["output"] == output
    deltas = [event.get("delta", "") for event in events]
    parts = [
        part.get("text", "")
        for item in output
        for part in (*item.get("content", ()), *item.get("summary", ()))
    ]
    arguments = [item.get("arguments", "") for item in output]
    assert "".join(deltas) == "".join([*parts, *arguments])
    Response.model_validate(response, strict=True)


async def test_usage_counts_what_the_engine_did() -> None:
    events = await events_of("reasoning")
    assert events[-1]["response"]["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 14,
    }


async def test_log_probs_are_those_of_the_answers_tokens() -> None:
    events = await events_of("log_probs")
    _, message = events[-1]["response"]["output"]
    tokens = message["content"][0]["logprobs"]
    first, *rest = "人".encode()
    assert [token["bytes"] for token in tokens] == [[first], rest]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest(), "invalid_prompt"),
        (RateLimited(), "rate_limit_exceeded"),
        (EngineUnavailable(), "server_error"),
    ],
)
def test_errors_have_codes_that_the_sdk_knows(error: Any, code: str) -> None:
    assert encode_error(error, Language.EN)["code"] == code
    assert encode_error(error, Language.ZH)["message"] == error.message(Language.ZH)


def test_an_error_without_a_response_is_an_event_too() -> None:
    event = error_event(EngineUnavailable(), Language.EN)
    EVENT.validate_python(event, strict=True)
    assert json.loads(sse_typed_event(event).split(b"data: ")[1]) == event


@pytest.mark.parametrize(
    ("status", "name"),
    [
        ("completed", "response.completed"),
        ("incomplete", "response.incomplete"),
        ("failed", "response.failed"),
        ("cancelled", "response.incomplete"),
    ],
)
def test_every_status_has_its_last_event(status: str, name: str) -> None:
    response = {**FIELDS, "object": "response", "status": status, "output": []}
    event = ending_event(response, 5)
    assert (event["type"], event["sequence_number"]) == (name, 5)
    EVENT.validate_python(event, strict=True)
