"""What /v1/completions answers, from chunks made by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from frontend.protocol.completion_answer import (
    CompletionAnswerOptions,
    CompletionEncoder,
    CompletionPrompt,
)
from frontend.types import FinishReason, TextChunk, TokenLogProb
from tests.fakes.tokenizers import END_OF_TURN, byte_level_tokenizer, id_of, text_tokenizer

TOKENIZER = byte_level_tokenizer()
TOKENS = text_tokenizer()
END_ID = id_of(TOKENIZER, END_OF_TURN)

Chunks = Sequence[tuple[int, TextChunk]]


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


def prompt_of(text: str) -> CompletionPrompt:
    encoded = TOKENIZER.encode(text)
    offsets = [start for start, _ in encoded.offsets]
    return CompletionPrompt(token_ids=encoded.ids, text=text, offsets=offsets)


def encoder(*prompts: CompletionPrompt, **options: Any) -> CompletionEncoder:
    return CompletionEncoder(
        request_id="cmpl-123",
        model="m",
        created=17,
        fingerprint="fp_1",
        prompts=list(prompts) or [prompt_of("abc")],
        tokens=TOKENS,
        options=CompletionAnswerOptions(**options),
    )


async def stream_of(chunks: Chunks) -> AsyncIterator[tuple[int, TextChunk]]:
    for item in chunks:
        yield item


async def fold(chunks: Chunks, *prompts: CompletionPrompt, **options: Any) -> dict[str, Any]:
    return await encoder(*prompts, **options).encode(stream_of(chunks))


async def events(
    chunks: Chunks, *prompts: CompletionPrompt, **options: Any
) -> list[dict[str, Any]]:
    raw = [one async for one in encoder(*prompts, **options).encode_stream(stream_of(chunks))]
    assert raw.pop() == b"data: [DONE]\n\n"
    return [json.loads(one.removeprefix(b"data: ")) for one in raw]


def chunk(
    text: str,
    log_probs: list[float] | None = None,
    tops: list[list[tuple[str, float]]] | None = None,
    *,
    ends: bool = False,
    **fields: Any,
) -> TextChunk:
    token_ids = fields.pop("token_ids", ids_of(text))
    return TextChunk(
        text=text,
        num_tokens=len(token_ids),
        token_ids=token_ids,
        log_probs=log_probs,
        top_log_probs=None if tops is None else [top_of(one) for one in tops],
        finish_reason=FinishReason.STOP if ends else None,
        **fields,
    )


def top_of(words: list[tuple[str, float]]) -> list[TokenLogProb]:
    return [TokenLogProb(token_id=ids_of(word)[0], log_prob=value) for word, value in words]


async def test_the_plain_body_has_openais_shape() -> None:
    body = await fold([(0, chunk("de")), (0, chunk("f", ends=True))])
    assert body == {
        "id": "cmpl-123",
        "object": "text_completion",
        "created": 17,
        "model": "m",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "text": "def", "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_each_prompts_choices_stand_together() -> None:
    chunks = [
        (prompt, chunk(f"{prompt}{sequence}", ends=True, sequence_index=sequence))
        for prompt, sequence in ((1, 1), (0, 0), (1, 0), (0, 1))
    ]
    prompts = (prompt_of("a"), prompt_of("bcd"))
    body = await fold(chunks, *prompts, num_choices=2, num_candidates=2)
    assert [(one["index"], one["text"]) for one in body["choices"]] == [
        (0, "00"), (1, "01"), (2, "10"), (3, "11"),
    ]  # fmt: skip
    assert body["usage"]["prompt_tokens"] == 4
    assert body["usage"]["completion_tokens"] == 8
    streamed = await events(chunks, *prompts, num_choices=2, num_candidates=2)
    assert [(one["choices"][0]["index"], one["choices"][0]["text"]) for one in streamed] == [
        (3, "11"), (0, "00"), (2, "10"), (1, "01"),
    ]  # fmt: skip


async def test_log_probs_have_four_lists_and_the_chosen_token_among_the_best() -> None:
    tops = [[("d", -0.5), ("x", -1.5)], [("y", -0.25), ("z", -3.0)]]
    chunks = [(0, chunk("d", [-0.5], tops[:1])), (0, chunk("e", [-4.0], tops[1:], ends=True))]
    body = await fold(chunks, includes_log_probs=True)
    assert body["choices"][0]["logprobs"] == {
        "tokens": ["d", "e"],
        "token_logprobs": [-0.5, -4.0],
        "top_logprobs": [{"d": -0.5, "x": -1.5}, {"y": -0.25, "z": -3.0, "e": -4.0}],
        "text_offset": [0, 1],
    }


async def test_log_probs_of_nought_alternatives_are_those_of_the_chosen() -> None:
    body = await fold([(0, chunk("d", [-0.5], ends=True))], includes_log_probs=True)
    assert body["choices"][0]["logprobs"]["top_logprobs"] == [{"d": -0.5}]


async def test_an_impossible_token_has_a_number_that_json_has() -> None:
    body = await fold([(0, chunk("d", [float("-inf")], ends=True))], includes_log_probs=True)
    assert body["choices"][0]["logprobs"]["token_logprobs"] == [-9999.0]


ECHO = {"echoes": True, "includes_log_probs": True}


def scored(first: TextChunk) -> TextChunk:
    """For the prompt "abc"."""
    tops = [top_of([("b", -0.5), ("q", -2.0)]), top_of([("r", -0.5), ("s", -1.0)])]
    return replace(first, prompt_log_probs=[0.0, -0.5, -3.0], prompt_top_log_probs=tops)


async def test_an_echoed_prompt_is_scored_from_its_second_token_on() -> None:
    chunks = [(0, scored(chunk("d", [-1.0], [[("d", -1.0)]], ends=True)))]
    choice = (await fold(chunks, **ECHO))["choices"][0]
    assert choice["text"] == "abcd"
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "c", "d"],
        "token_logprobs": [None, -0.5, -3.0, -1.0],
        "top_logprobs": [
            None,
            {"b": -0.5, "q": -2.0},
            {"r": -0.5, "s": -1.0, "c": -3.0},
            {"d": -1.0},
        ],
        "text_offset": [0, 1, 2, 3],
    }


async def test_a_prompt_alone_is_scored_without_new_tokens() -> None:
    choice = (await fold([(0, scored(chunk("", [], ends=True)))], **ECHO))["choices"][0]
    assert choice["text"] == "abc"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -3.0]


async def test_the_token_that_ends_a_text_has_a_log_prob_and_no_text() -> None:
    ids = [*ids_of("d"), END_ID]
    chunks = [(0, scored(chunk("d", [-1.0, -0.125], token_ids=ids, ends=True)))]
    choice = (await fold(chunks, **ECHO))["choices"][0]
    assert choice["text"] == "abcd"
    assert choice["logprobs"]["tokens"][3:] == ["d", END_OF_TURN]
    assert choice["logprobs"]["token_logprobs"][3:] == [-1.0, -0.125]
    assert choice["logprobs"]["text_offset"][3:] == [3, 4]


async def test_every_choice_echoes_the_prompt_that_was_scored_once() -> None:
    chunks = [
        (0, scored(chunk("d", [-1.0]))),
        (0, chunk("e", [-1.0], sequence_index=1)),
        (0, chunk("f", [-1.0], sequence_index=1, ends=True)),
        (0, chunk("g", [-1.0], ends=True)),
    ]
    body = await fold(chunks, **ECHO, num_choices=2, num_candidates=2)
    assert [one["text"] for one in body["choices"]] == ["abcdg", "abcef"]
    first, second = (one["logprobs"] for one in body["choices"])
    assert first["top_logprobs"][:3] == second["top_logprobs"][:3]
    assert second["text_offset"] == [0, 1, 2, 3, 4]


async def test_the_bytes_of_one_character_are_told_apart_and_stand_at_one_place() -> None:
    pieces = [chunk("", [-1.0], token_ids=[one]) for one in ids_of("你")]
    pieces[2] = replace(pieces[2], text="你")
    chunks = [(0, one) for one in (*pieces, chunk("d", [-1.0], ends=True))]
    choice = (await fold(chunks, includes_log_probs=True))["choices"][0]
    assert choice["text"] == "你d"
    assert choice["logprobs"]["tokens"] == [
        "bytes:\\xe4", "bytes:\\xbd", "bytes:\\xa0", "d",
    ]  # fmt: skip
    assert choice["logprobs"]["text_offset"] == [0, 0, 0, 1]


@pytest.mark.parametrize("options", [{}, ECHO, {"includes_token_ids": True}])
async def test_the_streams_pieces_are_the_body(options: dict[str, Any]) -> None:
    chunks = [
        (0, scored(chunk("de", [-1.0, -2.0]))),
        (0, chunk("你", [-1.0] * 3)),
        (0, chunk("f", [-1.0], ends=True)),
    ]
    choice = (await fold(chunks, **options))["choices"][0]
    pieces = [one["choices"][0] for one in await events(chunks, **options)]
    assert "".join(piece["text"] for piece in pieces) == choice["text"]
    assert [piece["finish_reason"] for piece in pieces] == [None, None, "stop"]
    assert all(piece.keys() <= choice.keys() for piece in pieces)
    if choice["logprobs"] is not None:
        for key, values in choice["logprobs"].items():
            assert [value for piece in pieces for value in piece["logprobs"][key]] == values
    if "token_ids" in choice:
        assert [one for piece in pieces for one in piece["token_ids"]] == choice["token_ids"]
        assert pieces[0]["prompt_token_ids"] == choice["prompt_token_ids"] == ids_of("abc")
        assert "prompt_token_ids" not in pieces[1]


async def test_the_usage_is_the_streams_last_chunk() -> None:
    chunks = [
        (0, chunk("d", ends=True, num_cached_tokens=2)),
        (1, chunk("d", ends=True, num_cached_tokens=1)),
    ]
    *others, last = await events(chunks, prompt_of("a"), prompt_of("b"), includes_usage=True)
    assert [one["usage"] for one in others] == [None, None]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 4
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}


async def test_the_best_candidates_are_the_likeliest_a_token() -> None:
    log_probs = {"a": [-3.0], "bb": [-1.0, -1.5], "ccc": [-0.5, -0.5, -4.0], "": []}
    chunks = [
        (0, chunk(text, values, ends=True, sequence_index=i))
        for i, (text, values) in enumerate(log_probs.items())
    ]
    body = await fold(chunks, num_choices=2, num_candidates=4)
    assert [(one["index"], one["text"]) for one in body["choices"]] == [(0, "bb"), (1, "ccc")]
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"]["completion_tokens"] == 6


async def test_a_chunk_without_anything_new_is_no_event() -> None:
    chunks = [
        (0, TextChunk(text="", num_tokens=0, num_cached_tokens=1)),
        (0, chunk("d", ends=True)),
    ]
    assert len(await events(chunks)) == 1
