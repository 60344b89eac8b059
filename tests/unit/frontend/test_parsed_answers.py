"""Answers with thoughts, tool calls and guides, from the engine's tokens to what is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from frontend.chat_prompt import LateGuide, NewParser
from frontend.errors import GenerationFailed
from frontend.generate import generate
from frontend.prepare import PreparedRequest
from frontend.text.detokenizer import MarkupDecoder
from frontend.text.output_parser import OutputParser
from frontend.text.reasoning import reasoning_parser
from frontend.text.tool_parsers.forced import RequiredToolParser
from frontend.text.tool_parsers.registry import tool_parser
from frontend.types import (
    FinishReason,
    GenerationRequest,
    Guide,
    GuideType,
    TextChunk,
    TokenLogProb,
)
from tests.fakes.engine import Ending, FakeEngine, Script, Step
from tests.fakes.tokenizers import (
    END_OF_TURN,
    START_OF_TURN,
    byte_level_tokenizer,
    id_of,
    text_tokenizer,
)

TOKENIZER = text_tokenizer()
END_ID = id_of(TOKENIZER._backend, END_OF_TURN)
START_ID = id_of(TOKENIZER._backend, START_OF_TURN)
TOOLS = {"f": {"type": "object"}}
CALL = '<tool_call>\n{"name": "f", "arguments": {"x": "你"}}\n</tool_call>'
GUIDE = Guide(type=GuideType.JSON)


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def pieces_of(text: str, size: int) -> list[Step]:
    ids = ids_of(text)
    return [
        Step(token_ids=ids[at : at + size], is_alone=True, num_cached_tokens=None if at else 1)
        for at in range(0, len(ids), size)
    ]


def parser(*, tools: bool = True, thinks: bool = True, max_calls: int | None = None) -> NewParser:
    def make() -> OutputParser:
        reasoning = reasoning_parser("qwen3", "<think>\n") if thinks else None
        calls = tool_parser("hermes", TOOLS) if tools else None
        return OutputParser(reasoning, calls, max_calls=max_calls)

    return make


def prepared(
    new_parser: NewParser | None,
    *,
    max_new_tokens: int = 500,
    num_sequences: int = 1,
    stop: tuple[str, ...] = (),
) -> PreparedRequest:
    request = GenerationRequest(
        request_id="r",
        model="m",
        prompt_token_ids=[1],
        max_new_tokens=max_new_tokens,
        num_sequences=num_sequences,
        stop=stop,
        end_id=END_ID,
    )
    return PreparedRequest(
        generation=request,
        tokenizer=TOKENIZER,
        decoder=TOKENIZER,
        fingerprint="fp",
        new_parser=new_parser,
    )


def with_sampling(request: PreparedRequest, **fields: Any) -> PreparedRequest:
    sampling = replace(request.generation.sampling, **fields)
    return replace(request, generation=replace(request.generation, sampling=sampling))


def engine_of(script: Script | Callable[[GenerationRequest], Script]) -> FakeEngine:
    engine = FakeEngine(script)
    engine.load("m")
    return engine


async def ask(request: PreparedRequest, engine: FakeEngine) -> list[TextChunk]:
    return [chunk async for chunk in generate(request, engine)]


def answer_of(chunks: Iterable[TextChunk]) -> tuple[str, str, list[str], FinishReason | None]:
    """Reasoning, text, calls' names and arguments, and the finish reason."""
    reasoning = text = ""
    calls: list[str] = []
    reason = None
    for chunk in chunks:
        reasoning += chunk.reasoning
        text += chunk.text
        for delta in chunk.tool_calls:
            if delta.name is not None:
                calls.append(delta.name)
            calls[delta.index] += delta.arguments
        reason = chunk.finish_reason or reason
    return reasoning, text, calls, reason


THOUGHT = "Hm, 你好.\n</think>"
STOP, LENGTH, CALLS = FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_thoughts_words_and_calls_come_apart_however_tokens_arrive(size: int) -> None:
    text = f"{THOUGHT}\n\nWait.\n{CALL}\n{CALL}"
    engine = engine_of(Script(steps=pieces_of(text, size)))
    chunks = await ask(prepared(parser()), engine)
    call = 'f{"x": "你"}'
    assert answer_of(chunks) == ("Hm, 你好.", "Wait.", [call, call], CALLS)
    assert sum(chunk.num_tokens for chunk in chunks) == len(ids_of(text))
    assert sum(chunk.num_reasoning_tokens for chunk in chunks) == len(ids_of(THOUGHT))
    assert [i for chunk in chunks for i in chunk.token_ids] == ids_of(text)
    for chunk in chunks:
        indexes = [delta.index for delta in chunk.tool_calls]
        assert len(indexes) == len(set(indexes)), "one delta a call in each chunk"


async def test_an_answer_without_calls_just_stops() -> None:
    engine = engine_of(Script(steps=pieces_of(f"{THOUGHT}Yes", 4)))
    assert answer_of(await ask(prepared(parser()), engine)) == ("Hm, 你好.", "Yes", [], STOP)


async def test_a_call_that_is_cut_says_length() -> None:
    engine = engine_of(Script(steps=pieces_of(f"</think>{CALL}", 4)))
    chunks = await ask(prepared(parser(), max_new_tokens=60), engine)
    *_, calls, reason = answer_of(chunks)
    assert (len(calls), reason) == (1, LENGTH)


async def test_a_stop_string_behind_a_call_is_a_stop() -> None:
    engine = engine_of(Script(steps=[*pieces_of(f"</think>{CALL} END", 4), Step(after_s=3600)]))
    chunks = await ask(prepared(parser(), stop=("END",)), engine)
    assert answer_of(chunks)[2:] == (['f{"x": "你"}'], STOP)


@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_a_call_too_many_ends_the_answer_and_the_engines_work(size: int) -> None:
    steps = [*pieces_of(f"</think>{CALL}{CALL}", size), Step(after_s=3600)]
    engine = engine_of(Script(steps=steps))
    chunks = await ask(prepared(parser(max_calls=1)), engine)
    assert answer_of(chunks) == ("", "", ['f{"x": "你"}'], CALLS)
    assert engine.streams[0].ending is Ending.CANCELLED


async def test_every_sequence_has_its_own_parser() -> None:
    engine = engine_of(Script(steps=pieces_of(f"{THOUGHT}{CALL}", 3)))
    chunks = await ask(prepared(parser(), num_sequences=2), engine)
    for index in range(2):
        own = [chunk for chunk in chunks if chunk.sequence_index == index]
        assert answer_of(own) == ("Hm, 你好.", "", ['f{"x": "你"}'], CALLS)


async def test_log_probs_stay_with_their_tokens() -> None:
    ids = ids_of("a</think>b")
    tops = [[TokenLogProb(token_id=one, log_prob=-0.5)] for one in ids]
    steps = [Step(token_ids=ids, log_probs=[float(-i) for i in ids], top_log_probs=tops)]
    request = prepared(parser(tools=False))
    request = with_sampling(request, num_log_probs=1)
    (chunk,) = await ask(request, engine_of(Script(steps=steps)))
    assert (chunk.reasoning, chunk.text, chunk.token_ids) == ("a", "b", ids)
    assert (chunk.log_probs, chunk.top_log_probs) == ([float(-i) for i in ids], tops)


async def test_special_tokens_reach_a_parser_that_reads_them_but_not_the_end() -> None:
    ids = [id_of(TOKENIZER._backend, START_OF_TURN), *ids_of("x"), END_ID]
    request = replace(
        prepared(lambda: OutputParser(None, tool_parser("mistral", TOOLS))),
        decoder=MarkupDecoder(TOKENIZER, [END_ID]),
    )
    chunks = await ask(request, engine_of(Script(steps=[Step(token_ids=ids)])))
    assert answer_of(chunks)[1] == f"{START_OF_TURN}x"


# What is guided where the answer begins.


def late(
    new_parser: NewParser | None = None, *, opening: str = "\n\n", first_opening: str = ""
) -> LateGuide:
    return LateGuide(
        guide=GUIDE,
        new_parser=new_parser,
        opening_ids=ids_of(opening),
        end_of_thoughts_ids=ids_of("\n</think>"),
        first_opening_ids=ids_of(first_opening),
    )


def first_then_guided(free: str, guided: str, *, size: int = 1) -> FakeEngine:
    """Says one text freely, and never stops by itself before its end; another when guided."""

    def script(request: GenerationRequest) -> Script:
        text = free if request.sampling.guide is None else guided
        return Script(steps=pieces_of(text, size))

    return engine_of(script)


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_model_thinks_freely_and_answers_by_the_guide(size: int) -> None:
    engine = first_then_guided(f"{THOUGHT}\n\nSure: {{", '{"a": 1}', size=size)
    request = replace(prepared(parser(tools=False)), late_guide=late())
    chunks = await ask(request, engine)
    assert answer_of(chunks) == ("Hm, 你好.", '{"a": 1}', [], STOP)
    first, second = (stream.request for stream in engine.streams)
    thought = ids_of(THOUGHT)
    assert (first.sampling.guide, second.sampling.guide) == (None, GUIDE)
    assert second.prompt_token_ids == [1, *thought, *ids_of("\n\n")]
    assert second.max_new_tokens == 500 - len(thought) - 2
    assert engine.streams[0].ending is Ending.CANCELLED or size == 1000
    assert sum(c.num_reasoning_tokens for c in chunks) == len(thought)
    assert sum(c.num_tokens for c in chunks) == len(thought) + len('{"a": 1}')
    assert [i for c in chunks for i in c.token_ids] == [*thought, *ids_of('{"a": 1}')]


async def test_a_call_needs_no_guide() -> None:
    engine = first_then_guided(CALL, "never")
    request = replace(prepared(parser(thinks=False)), late_guide=late())
    assert answer_of(await ask(request, engine)) == ("", "", ['f{"x": "你"}'], CALLS)
    assert len(engine.streams) == 1


@pytest.mark.parametrize("free", ["Hello", "", "<tool_call>\nno call", "  \n Hi"])
async def test_what_is_no_call_is_said_again_by_the_guide(free: str) -> None:
    engine = first_then_guided(free, '{"a": 1}')
    request = replace(prepared(parser(thinks=False)), late_guide=late(first_opening="!"))
    chunks = await ask(request, engine)
    assert answer_of(chunks) == ("", '{"a": 1}', [], STOP)
    assert sum(chunk.num_tokens for chunk in chunks) == len('{"a": 1}')
    assert engine.streams[1].request.prompt_token_ids == [1, *ids_of("!")]


@pytest.mark.parametrize(
    ("free", "thinks"), [("Hello", False), ("  \n Hi", False), (f"{THOUGHT}\n\nHello", True)]
)
async def test_the_first_request_says_what_was_cached(free: str, thinks: bool) -> None:
    request = replace(prepared(parser(thinks=thinks)), late_guide=late())
    chunks = await ask(request, first_then_guided(free, "{}"))
    assert [c.num_cached_tokens for c in chunks if c.num_cached_tokens is not None] == [1]


async def test_a_token_that_ends_the_thoughts_and_begins_the_answer_is_a_thought() -> None:
    backend = byte_level_tokenizer()
    backend.add_tokens(["m</think>{"])
    tokenizer = text_tokenizer(backend)
    token_ids = [*ids_of("H"), id_of(backend, "m</think>{")]
    step = Step(token_ids=token_ids, log_probs=[-1.0, -2.0])
    engine = engine_of(lambda r: Script(steps=[step if r.sampling.guide is None else Step()]))
    request = with_sampling(prepared(parser(tools=False)), num_log_probs=0)
    request = replace(request, tokenizer=tokenizer, decoder=tokenizer, late_guide=late())
    chunks = await ask(request, engine)
    assert answer_of(chunks) == ("Hm", "", [], STOP)
    assert [i for c in chunks for i in c.token_ids] == token_ids
    assert [p for c in chunks for p in c.log_probs or ()] == [-1.0, -2.0]
    assert sum(c.num_reasoning_tokens for c in chunks) == 2


async def test_the_thoughts_count_among_the_least_tokens_of_an_answer() -> None:
    engine = first_then_guided(f"{THOUGHT}Hello", "{}")
    request = with_sampling(prepared(parser(tools=False)), min_tokens=30)
    await ask(replace(request, late_guide=late()), engine)
    num_before = len(ids_of(THOUGHT)) + len(ids_of("\n\n"))
    assert engine.streams[1].request.sampling.min_tokens == 30 - num_before


async def test_a_stop_token_within_the_thoughts_is_none_of_them() -> None:
    engine = engine_of(
        lambda r: Script(steps=[Step(token_ids=[*ids_of("Hm"), START_ID, *ids_of("x")])])
    )
    request = prepared(parser(tools=False))
    generation = replace(request.generation, stop_token_ids=(START_ID,))
    chunks = await ask(replace(request, generation=generation, late_guide=late()), engine)
    assert engine.streams[1].request.prompt_token_ids == [1, *ids_of("Hm\n</think>\n\n")]
    assert sum(c.num_reasoning_tokens for c in chunks) == 2


async def test_a_forced_call_may_be_thought_about() -> None:
    engine = first_then_guided(f"{THOUGHT}{CALL}", '[{"name":"f","parameters":{"x":1}}]')
    forced = late(lambda: OutputParser(None, RequiredToolParser(TOOLS)))
    request = replace(prepared(parser(tools=False)), late_guide=forced)
    chunks = await ask(request, engine)
    assert answer_of(chunks) == ("Hm, 你好.", "", ['f{"x":1}'], CALLS)


async def test_thoughts_that_do_not_end_are_length() -> None:
    engine = first_then_guided("Hm, " * 50, "never")
    request = replace(prepared(parser(tools=False), max_new_tokens=20), late_guide=late())
    chunks = await ask(request, engine)
    assert answer_of(chunks)[3] is LENGTH
    assert sum(chunk.num_tokens for chunk in chunks) == 20


async def test_no_room_behind_the_thoughts_is_length() -> None:
    room = len(ids_of(f"{THOUGHT}x"))
    engine = first_then_guided(f"{THOUGHT}xyz", "never")
    request = replace(prepared(parser(tools=False), max_new_tokens=room + 1), late_guide=late())
    assert answer_of(await ask(request, engine)) == ("Hm, 你好.", "", [], LENGTH)


async def test_a_stop_string_in_the_thoughts_ends_the_answer() -> None:
    engine = first_then_guided(f"{THOUGHT}x", "never")
    request = replace(prepared(parser(tools=False), stop=("你",)), late_guide=late())
    assert answer_of(await ask(request, engine)) == ("Hm, ", "", [], STOP)


async def test_thoughts_that_break_off_are_a_failure() -> None:
    engine = engine_of(Script(steps=pieces_of("Hm", 1), finish_reason=None))
    request = replace(prepared(parser(tools=False)), late_guide=late())
    with pytest.raises(GenerationFailed, match="without a finish reason"):
        await ask(request, engine)
