"""Text chunks -> Anthropic's messages and events; the streams stand in tests/golden/anthropic."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson
import pytest

from frontend.errors import (
    AuthenticationFailed,
    BodyTooLarge,
    EngineUnavailable,
    GenerationFailed,
    InvalidParameter,
    MethodNotAllowed,
    ModelNotFound,
    RateLimited,
    ServerOverloaded,
    ServingError,
    UnsupportedMediaType,
)
from frontend.messages import Language
from frontend.protocol.answers.anthropic import EVENTS, AnthropicMessage
from frontend.protocol.anthropic_answer import (
    PING,
    MessageEncoder,
    anthropic_error,
    anthropic_status,
    message_event,
)
from frontend.types import FinishReason, TextChunk, ToolCallDelta
from tests.fakes.text_chunks import PLAIN, THOUGHTS, TOOL_CALLS
from tests.golden_files import Golden

STOP = FinishReason.STOP
STREAMS: dict[str, list[TextChunk]] = {
    "plain": PLAIN,
    "thinking": THOUGHTS,
    "tool_calls": TOOL_CALLS,
    "stop_sequence": [
        TextChunk(text="one", num_tokens=4, finish_reason=STOP, stop_string=", two"),
    ],
    "nothing": [TextChunk(text="", num_tokens=0, finish_reason=STOP)],
}


async def chunks_of(name: str) -> AsyncIterator[TextChunk]:
    for chunk in STREAMS[name]:
        yield chunk


def encoder(*, is_bound_by_context: bool = False) -> MessageEncoder:
    return MessageEncoder(
        request_id="msg_1", model="m", num_prompt_tokens=7, is_bound_by_context=is_bound_by_context
    )


async def events_of(name: str) -> list[bytes]:
    return [event async for event in encoder().encode_stream(chunks_of(name))]


@pytest.mark.parametrize("name", STREAMS)
async def test_streams_are_the_golden_ones(name: str, golden: Golden) -> None:
    golden.check(f"anthropic/{name}.sse", b"".join(await events_of(name)))


@pytest.mark.parametrize("name", STREAMS)
async def test_answers_are_what_the_description_says(name: str) -> None:
    msgspec.convert(await encoder().encode(chunks_of(name)), AnthropicMessage)
    event: Any = functools.reduce(operator.or_, EVENTS)
    for block in b"".join(await events_of(name)).decode().split("\n\n")[:-1]:
        msgspec.json.decode(block.partition("data: ")[2], type=event)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_folds_into_the_plain_answer(name: str) -> None:
    """As the SDK folds it."""
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for block in b"".join(await events_of(name)).decode().split("\n\n")[:-1]:
        kind, _, data = block.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        match event:
            case {"type": "message_start"}:
                message = event["message"]
            case {"type": "content_block_start"}:
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            case {"type": "content_block_delta", "delta": {"partial_json": piece}}:
                inputs[event["index"]] = inputs.get(event["index"], "") + piece
            case {"type": "content_block_delta", "index": index, "delta": {"type": _, **fields}}:
                assert index == len(message["content"]) - 1, "the open block is the last one"
                ((key, piece),) = fields.items()
                message["content"][index][key] += piece
            case {"type": "message_delta"}:
                message |= {**event["delta"], "usage": event["usage"]}
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text)
    assert message == await encoder().encode(chunks_of(name))


async def test_a_plain_answer_has_its_blocks_in_order() -> None:
    answer = await encoder().encode(chunks_of("tool_calls"))
    assert answer == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "天"}},
            {"type": "tool_use", "id": "call_2", "name": "wait", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 17,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


async def test_cached_tokens_are_not_input_tokens() -> None:
    usage = (await encoder().encode(chunks_of("plain")))["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (4, 3)


async def test_the_stop_sequence_is_named() -> None:
    answer = await encoder().encode(chunks_of("stop_sequence"))
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", ", two")


@pytest.mark.parametrize(
    ("is_bound_by_context", "reason"),
    [(False, "max_tokens"), (True, "model_context_window_exceeded")],
)
async def test_the_limit_that_was_met_is_told(is_bound_by_context: bool, reason: str) -> None:
    async def cut() -> AsyncIterator[TextChunk]:
        yield TextChunk(text="wor", num_tokens=1, finish_reason=FinishReason.LENGTH)

    answer = await encoder(is_bound_by_context=is_bound_by_context).encode(cut())
    assert answer["stop_reason"] == reason


async def test_a_call_that_was_cut_off_has_no_input() -> None:
    async def cut() -> AsyncIterator[TextChunk]:
        call = ToolCallDelta(0, "call_1", "look", '{"at": "sk')
        yield TextChunk(
            text="", num_tokens=5, tool_calls=(call,), finish_reason=FinishReason.LENGTH
        )

    answer = await encoder().encode(cut())
    assert answer["stop_reason"] == "max_tokens"
    assert answer["content"][0]["input"] == {}


async def test_what_one_chunk_gives_is_one_write() -> None:
    events = await events_of("tool_calls")
    assert len(events) == len(STREAMS["tool_calls"])


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidParameter("top_k"), 400, "invalid_request_error"),
        (AuthenticationFailed(), 401, "authentication_error"),
        (ModelNotFound(model="x"), 404, "not_found_error"),
        (MethodNotAllowed(method="PUT", allowed="POST"), 405, "invalid_request_error"),
        (BodyTooLarge(max_body_bytes=1), 413, "request_too_large"),
        (UnsupportedMediaType(content_type="x"), 415, "invalid_request_error"),
        (RateLimited(), 429, "rate_limit_error"),
        (ServingError(), 500, "api_error"),
        (GenerationFailed(reason="x"), 500, "api_error"),
        (EngineUnavailable(), 503, "api_error"),
        (ServerOverloaded(), 529, "overloaded_error"),
    ],
)
def test_errors_have_anthropics_types(error: ServingError, status: int, kind: str) -> None:
    assert anthropic_status(type(error)) == status
    body = anthropic_error(error, Language.ZH, "r1")
    assert body == {
        "type": "error",
        "error": {"type": kind, "message": error.message(Language.ZH)},
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("param", "shown"),
    [
        ("response_format", "output_config.format.schema"),
        ("tools[1].function.name", "tools[1].name"),
    ],
)
def test_errors_name_the_fields_of_this_surface(param: str, shown: str) -> None:
    error = InvalidParameter(param, "engine_refused", reason="x")
    message = anthropic_error(error, Language.EN, "r1")["error"]["message"]
    assert message.startswith(f"'{shown}' ")


def test_a_ping_is_an_event() -> None:
    assert message_event({"type": "ping"}) == PING
    assert orjson.loads(PING.partition(b"data: ")[2]) == {"type": "ping"}
