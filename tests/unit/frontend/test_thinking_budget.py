"""Thoughts end at their budget, however the engine cuts its output, and the answer follows."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest

from frontend.generate import generate
from frontend.prepare import PreparedRequest
from frontend.text.output_parser import OutputParser
from frontend.text.reasoning import reasoning_parser
from frontend.thinking_budget import BudgetedThinking
from frontend.types import FinishReason, GenerationRequest, SamplingParams, TextChunk
from tests.fakes.engine import Ending, FakeEngine, Script, Step
from tests.fakes.tokenizers import text_tokenizer

TOKENIZER = text_tokenizer()
END = "\n</think>\n\n"
STARTED, UNSAID = "<think>\n", "assistant\n"
BUDGET = 10  # the tokenizer has a token for each byte


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def script(text: str, size: int, *, num_cached_tokens: int) -> Script:
    ids = ids_of(text)
    pieces = [ids[i : i + size] for i in range(0, len(ids), size)]
    return Script(
        steps=[
            Step(token_ids=piece, is_alone=True, num_cached_tokens=num_cached_tokens)
            for piece in pieces
        ]
    )


def engine_saying(thought: str, answer: str, *, size: int = 1) -> FakeEngine:
    """Says the thought to the first request, and the answer to the second."""

    def say(request: GenerationRequest) -> Script:
        if request.request_id == "r":
            return script(thought, size, num_cached_tokens=3)
        return script(answer, size, num_cached_tokens=50)

    engine = FakeEngine(say)
    engine.load("m")
    return engine


def prepared(prompt: str = STARTED, *, max_new_tokens: int = 1000) -> PreparedRequest:
    return PreparedRequest(
        generation=GenerationRequest(
            request_id="r",
            model="m",
            prompt_token_ids=ids_of(prompt),
            max_new_tokens=max_new_tokens,
        ),
        tokenizer=TOKENIZER,
        decoder=TOKENIZER,
        fingerprint="f",
        new_parser=lambda: OutputParser(reasoning_parser("qwen3", prompt), None),
        prompt_text=prompt,
    )


async def answer_of(engine: FakeEngine, request: PreparedRequest) -> list[TextChunk]:
    source = BudgetedThinking(engine, TOKENIZER, budget=BUDGET)
    return [chunk async for chunk in generate(request, source)]


def texts(chunks: list[TextChunk]) -> tuple[str, str]:
    return "".join(c.reasoning for c in chunks), "".join(c.text for c in chunks)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 11, 100])
@pytest.mark.parametrize(("prompt", "begin"), [(STARTED, ""), (UNSAID, "<think>")])
async def test_a_thought_ends_at_its_budget(size: int, prompt: str, begin: str) -> None:
    engine = engine_saying(f"{begin}abcdefghijklmnopq", "Yes.", size=size)
    chunks = await answer_of(engine, prepared(prompt))
    assert texts(chunks) == ("abcdefghijklmnopq"[: BUDGET - len(begin)], "Yes.")
    assert chunks[-1].finish_reason is FinishReason.STOP
    num_tokens = BUDGET + len(ids_of(END)) + len("Yes.")
    assert sum(chunk.num_tokens for chunk in chunks) == num_tokens
    assert [c.num_cached_tokens for c in chunks if c.num_cached_tokens is not None][-1] == 3


async def test_the_request_in_work_is_left_and_the_second_has_its_room() -> None:
    engine = engine_saying("abcdefghijklmnopq", "Yes.")
    request = prepared(max_new_tokens=50)
    least = replace(request.generation, sampling=SamplingParams(min_tokens=30))
    await answer_of(engine, replace(request, generation=least))
    first, second = engine.streams
    assert first.ending is Ending.CANCELLED
    assert second.request.prompt_token_ids == ids_of(f"{STARTED}abcdefghij{END}")
    assert second.request.max_new_tokens == 50 - BUDGET - len(ids_of(END))
    assert second.request.sampling.min_tokens == 30 - BUDGET - len(ids_of(END))
    assert second.request.request_id != first.request.request_id


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize(
    ("prompt", "output", "expected"),
    [
        (STARTED, "a</think>bcdefghijk", ("a", "bcdefghijk")),
        (UNSAID, "no thought, but a long answer", ("", "no thought, but a long answer")),
        ("<think>\n\n</think>\n\n", "an answer at once", ("", "an answer at once")),
        (STARTED, "short", ("short", "")),
        (STARTED, "0123456789", ("0123456789", "")),
    ],
)
async def test_an_answer_within_the_budget_is_left_alone(
    prompt: str, output: str, expected: tuple[str, str], size: int
) -> None:
    engine = engine_saying(output, "Never.", size=100 if output == "0123456789" else size)
    assert texts(await answer_of(engine, prepared(prompt))) == expected
    assert len(engine.streams) == 1


async def test_without_room_for_an_answer_the_length_is_the_reason() -> None:
    engine = engine_saying("abcdefghijklmnopq", "Yes.")
    chunks = await answer_of(engine, prepared(max_new_tokens=BUDGET + 2))
    assert chunks[-1].finish_reason is FinishReason.LENGTH
    assert texts(chunks) == ("abcdefghij", "")


async def test_leaving_early_cancels_the_request_in_work() -> None:
    engine = engine_saying("abcdefghijklmnopq", "A long answer.")
    request = prepared()
    source = BudgetedThinking(engine, TOKENIZER, budget=BUDGET)
    async with aclosing(generate(request, source)) as chunks:
        async for chunk in chunks:
            if chunk.text:
                break
    assert [stream.ending for stream in engine.streams] == [Ending.CANCELLED] * 2
