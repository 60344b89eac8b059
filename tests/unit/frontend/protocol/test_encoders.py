"""What the encoders write, byte for byte where clients in the field depend on it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from frontend.errors import InvalidParameter
from frontend.protocol.chat_answer import ChatAnswerOptions, ChatEncoder
from frontend.protocol.native import (
    KEEP_ALIVE_EVENT,
    BatchGenerateRequest,
    GenerateEncoder,
    GenerateRequest,
    LoadRequest,
)
from frontend.types import FinishReason, TextChunk

TEXTS = ["人", '"quoted"\n', "", "👩\u200d👧\u2028</script>", "能"]


async def chunks_of(*texts: str, sequence_index: int = 0) -> AsyncIterator[TextChunk]:
    for i, text in enumerate(texts):
        reason = FinishReason.STOP if i == len(texts) - 1 else None
        yield TextChunk(
            text=text, num_tokens=2, finish_reason=reason, sequence_index=sequence_index
        )


async def two_sequences() -> AsyncIterator[TextChunk]:
    yield TextChunk(text="a", num_tokens=1, sequence_index=1)
    yield TextChunk(text="b", num_tokens=1, sequence_index=0)
    yield TextChunk(text="c", num_tokens=1, sequence_index=1, finish_reason=FinishReason.LENGTH)
    yield TextChunk(text="", num_tokens=0, sequence_index=0, finish_reason=FinishReason.STOP)


class Letters:
    """Token 97 is "a", and so on."""

    def token_bytes(self, token_id: int) -> bytes:
        return bytes((token_id,))


def chat_encoder(options: ChatAnswerOptions | None = None) -> ChatEncoder:
    return ChatEncoder(
        request_id="chatcmpl-123",
        model="m",
        created=17,
        prompt_token_ids=[1, 2, 3, 4, 5],
        fingerprint="fp_1",
        tokens=Letters(),
        options=options or ChatAnswerOptions(),
    )


async def chat_stream(chunks: AsyncIterator[TextChunk], *, usage: bool = False) -> list[bytes]:
    encoder = chat_encoder(ChatAnswerOptions(includes_usage=usage))
    return [event async for event in encoder.encode_stream(chunks)]


async def native_stream(chunks: AsyncIterator[TextChunk]) -> list[bytes]:
    return [e async for e in GenerateEncoder(num_prompt_tokens=5).encode_stream(chunks)]


def usage_of(num_prompt_tokens: int, num_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


async def test_native_events_are_the_golden_ones() -> None:
    *events, last = await native_stream(chunks_of("人", "工", "能"))
    assert events == [
        'data: {"token":"人","finished":false}\n\n'.encode(),
        'data: {"token":"工","finished":false}\n\n'.encode(),
    ]
    assert (
        re.sub(rb'"latency":[\d.]+', b'"latency":0.5', last)
        == (
            'data: {"token":"能","finished":true,'
            '"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11},'
            '"latency":0.5,"finish_reason":"stop"}\n\n'
        ).encode()
    )


async def test_native_events_are_one_json_object_behind_data() -> None:
    for event in await native_stream(chunks_of(*TEXTS)):
        payload = event.decode().replace("data: ", "")
        assert payload.endswith("\n\n")
        assert "\n" not in payload[:-2]
        assert isinstance(json.loads(payload), dict)


async def test_native_events_have_all_the_text_and_no_empty_token_but_the_last() -> None:
    events = [json.loads(event[6:]) for event in await native_stream(chunks_of(*TEXTS, ""))]
    assert "".join(event["token"] for event in events) == "".join(TEXTS)
    assert all(event["token"] for event in events[:-1])
    assert events[-1]["token"] == ""
    assert events[-1]["usage"]["completion_tokens"] == 12


async def test_the_native_keep_alive_is_an_event_like_the_others() -> None:
    assert json.loads(KEEP_ALIVE_EVENT[6:]) == {"token": "", "finished": False}
    assert KEEP_ALIVE_EVENT.startswith(b"data: ")
    assert KEEP_ALIVE_EVENT.endswith(b"\n\n")


async def test_the_native_body_is_the_folded_stream() -> None:
    body = await GenerateEncoder(num_prompt_tokens=5).encode(chunks_of(*TEXTS))
    assert body["text"] == "".join(TEXTS)
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
    assert body["finish_reason"] == "stop"
    assert body["latency"] >= 0


async def test_chat_events_are_the_golden_ones() -> None:
    head = (
        '{"id":"chatcmpl-123","created":17,"model":"m","system_fingerprint":"fp_1",'
        '"object":"chat.completion.chunk"'
    )
    tail = '"logprobs":null,"finish_reason":'
    assert b"".join(await chat_stream(chunks_of("人", "工", "能"))).decode() == (
        f'data: {head},"choices":[{{"index":0,"delta":{{"role":"assistant","content":"人"}},'
        f"{tail}null}}]}}\n\n"
        f'data: {head},"choices":[{{"index":0,"delta":{{"content":"工"}},{tail}null}}]}}\n\n'
        f'data: {head},"choices":[{{"index":0,"delta":{{"content":"能"}},{tail}null}}]}}\n\n'
        f'data: {head},"choices":[{{"index":0,"delta":{{}},{tail}"stop"}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def chat_events(raw: list[bytes]) -> list[dict[str, Any]]:
    blocks = b"".join(raw).decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


async def test_chat_events_have_all_the_text() -> None:
    events = chat_events(await chat_stream(chunks_of(*TEXTS)))
    texts = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(texts) == "".join(TEXTS)
    assert all("usage" not in event for event in events)


async def test_chat_usage_comes_last_and_is_null_before() -> None:
    *events, last = chat_events(await chat_stream(chunks_of("a", "b"), usage=True))
    assert [event["usage"] for event in events] == [None] * len(events)
    assert last["choices"] == []
    assert last["usage"] == usage_of(5, 4)


async def test_each_chat_choice_has_its_role_text_and_reason() -> None:
    found: dict[int, list[tuple[dict[str, str], str | None]]] = {0: [], 1: []}
    for event in chat_events(await chat_stream(two_sequences())):
        choice = event["choices"][0]
        found[choice["index"]].append((choice["delta"], choice["finish_reason"]))
    assert found[0] == [({"role": "assistant", "content": "b"}, None), ({}, "stop")]
    assert found[1] == [
        ({"role": "assistant", "content": "a"}, None),
        ({"content": "c"}, None),
        ({}, "length"),
    ]


async def test_the_chat_body_is_the_folded_stream() -> None:
    body = await chat_encoder().encode(two_sequences())
    assert body["choices"] == [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": reason,
        }
        for index, text, reason in ((0, "b", "stop"), (1, "ac", "length"))
    ]
    assert body["usage"] == usage_of(5, 3)
    assert (body["id"], body["object"], body["created"], body["model"]) == (
        "chatcmpl-123", "chat.completion", 17, "m",
    )  # fmt: skip


def test_a_batch_is_neither_empty_nor_endless() -> None:
    for requests, key in (([], "empty"), ([msgspec.Raw(b"{}")] * 257, "too_many")):
        with pytest.raises(InvalidParameter) as caught:
            BatchGenerateRequest(requests=requests).check()
        assert (caught.value.param, caught.value.key) == ("requests", key)
    BatchGenerateRequest(requests=[msgspec.Raw(b"{}")] * 256).check()


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="'prompt' must not be empty"):
        GenerateRequest(prompt="").check()


def test_a_load_request_needs_nothing() -> None:
    assert LoadRequest() == LoadRequest(quantization=None, prefer_gpu=None)
