from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.errors import EngineUnavailable, GenerationFailed
from frontend.generate import generate
from frontend.prepare import PreparedRequest
from frontend.types import (
    FinishReason,
    GenerationRequest,
    SamplingParams,
    TextChunk,
    TokenChunk,
    TokenLogProb,
)
from tests.fakes.engine import (
    Ending,
    FakeEngine,
    Script,
    Step,
    log_prob_of,
    one_token_a_step,
)
from tests.fakes.tokenizers import (
    END_OF_TURN,
    byte_level_tokenizer,
    id_of,
    sentencepiece_tokenizer,
    text_tokenizer,
)

TOKENIZER = byte_level_tokenizer()
TEXT_TOKENIZER = text_tokenizer()
END_ID = id_of(TOKENIZER, END_OF_TURN)


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


def make_engine(script: Script) -> FakeEngine:
    engine = FakeEngine(script)
    engine.load("m")
    return engine


def answering(text: str, *, finish_reason: FinishReason | None = FinishReason.STOP) -> FakeEngine:
    steps = one_token_a_step(ids_of(text), is_alone=True)
    return make_engine(Script(steps=steps, finish_reason=finish_reason))


def make_request(
    *,
    stop: tuple[str, ...] = (),
    stop_token_ids: tuple[int, ...] = (),
    shows_stop_token: bool = False,
    num_log_probs: int | None = None,
    max_new_tokens: int = 1000,
    num_sequences: int = 1,
) -> GenerationRequest:
    return GenerationRequest(
        request_id="r",
        model="m",
        prompt_token_ids=[1],
        max_new_tokens=max_new_tokens,
        num_sequences=num_sequences,
        stop=stop,
        stop_token_ids=stop_token_ids,
        shows_stop_token=shows_stop_token,
        sampling=SamplingParams(num_log_probs=num_log_probs),
    )


async def run(engine: FakeEngine, request: GenerationRequest) -> list[TextChunk]:
    return [chunk async for chunk in generate(prepared(request), engine)]


def prepared(request: GenerationRequest) -> PreparedRequest:
    return PreparedRequest(
        generation=request, tokenizer=TEXT_TOKENIZER, decoder=TEXT_TOKENIZER, fingerprint="fp"
    )


def text_of(chunks: list[TextChunk], sequence_index: int = 0) -> str:
    return "".join(c.text for c in chunks if c.sequence_index == sequence_index)


async def test_text_is_given_out_token_by_token_and_ends_with_the_finish_reason() -> None:
    chunks = await run(answering("hi!"), make_request())
    assert [(c.text, c.finish_reason) for c in chunks] == [
        ("h", None),
        ("i", None),
        ("!", FinishReason.STOP),
    ]
    assert sum(c.num_tokens for c in chunks) == 3


async def test_tokens_without_text_yet_are_counted_with_the_next_text() -> None:
    chunks = await run(answering("你a"), make_request())
    assert [(c.text, c.num_tokens) for c in chunks] == [("你", 3), ("a", 1)]


async def test_half_a_character_at_the_end_is_dropped() -> None:
    steps = one_token_a_step(ids_of("ok你")[:-1], is_alone=True)
    chunks = await run(make_engine(Script(steps=steps)), make_request())
    assert text_of(chunks) == "ok"
    assert sum(c.num_tokens for c in chunks) == 4
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_reaching_max_new_tokens_is_length() -> None:
    chunks = await run(answering("hello"), make_request(max_new_tokens=3))
    assert text_of(chunks) == "hel"
    assert chunks[-1].finish_reason is FinishReason.LENGTH


async def test_an_empty_answer_is_one_chunk_with_its_reason() -> None:
    chunks = await run(make_engine(Script(steps=[])), make_request())
    assert [(c.text, c.num_tokens, c.finish_reason) for c in chunks] == [("", 0, FinishReason.STOP)]


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("one two three", (" two",), "one"),
        ("one two three", ("nothing",), "one two three"),
        ("one tw", (" two",), "one tw"),
        ("你好。再见", ("。",), "你好"),
        ("aEND", ("END",), "a"),
        ("ENDb", ("END",), ""),
    ],
)
async def test_stop_strings_are_never_shown(text: str, stop: tuple[str, ...], shown: str) -> None:
    chunks = await run(answering(text), make_request(stop=stop))
    assert text_of(chunks) == shown
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_a_stop_string_cancels_the_engines_work() -> None:
    steps = [*one_token_a_step(ids_of("aENDb"), is_alone=True), Step(after_s=3600)]
    engine = make_engine(Script(steps=steps))
    chunks = await run(engine, make_request(stop=("END",)))
    assert text_of(chunks) == "a"
    assert engine.streams[0].ending is Ending.CANCELLED
    assert engine.streams[0].num_tokens_taken == 4


async def test_a_stop_string_in_the_last_tokens_wins_over_length() -> None:
    chunks = await run(answering("aEND"), make_request(stop=("END",), max_new_tokens=4))
    assert text_of(chunks) == "a"
    assert chunks[-1].finish_reason is FinishReason.STOP


async def test_what_may_become_a_stop_string_is_held_back_until_it_cannot() -> None:
    chunks = await run(answering("aENx"), make_request(stop=("END",)))
    assert [c.text for c in chunks] == ["a", "ENx"]
    assert [c.num_tokens for c in chunks] == [1, 3]


async def test_a_stop_token_ends_the_text_and_is_neither_shown_nor_counted() -> None:
    steps = [*one_token_a_step([*ids_of("ab"), END_ID], is_alone=True), Step(after_s=3600)]
    engine = make_engine(Script(steps=steps))
    chunks = await run(engine, make_request(stop_token_ids=(END_ID,)))
    assert text_of(chunks) == "ab"
    assert sum(c.num_tokens for c in chunks) == 2
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert engine.streams[0].ending is Ending.CANCELLED


async def test_nothing_behind_a_stop_token_is_shown() -> None:
    engine = make_engine(Script(steps=[Step(token_ids=[*ids_of("ab"), END_ID, *ids_of("cd")])]))
    chunks = await run(engine, make_request(stop_token_ids=(END_ID,)))
    assert [(c.text, c.token_ids) for c in chunks] == [("ab", ids_of("ab"))]


async def test_a_stop_token_lets_out_what_was_held_for_a_stop_string() -> None:
    engine = make_engine(Script(steps=[Step(token_ids=[*ids_of("aEN"), END_ID])]))
    chunks = await run(engine, make_request(stop=("END",), stop_token_ids=(END_ID,)))
    assert text_of(chunks) == "aEN"


async def test_log_probs_are_cut_with_the_tokens_they_belong_to() -> None:
    chunk = TokenChunk(
        token_ids=[*ids_of("ab"), END_ID],
        finish_reason=FinishReason.STOP,
        log_probs=[-0.1, -0.2, -0.3],
        top_log_probs=[[TokenLogProb(token_id=i, log_prob=-0.1)] for i in range(3)],
    )
    request = make_request(stop_token_ids=(END_ID,))
    chunks = [c async for c in generate(prepared(request), _Canned([chunk]))]
    assert chunks[0].log_probs == [-0.1, -0.2]
    assert chunks[0].top_log_probs == [[TokenLogProb(token_id=i, log_prob=-0.1)] for i in range(2)]


async def test_nothing_is_told_of_tokens_behind_a_stop_string() -> None:
    steps = [Step(token_ids=[*ids_of("aENDb"), END_ID])]
    request = make_request(
        stop=("END",), stop_token_ids=(END_ID,), shows_stop_token=True, num_log_probs=1
    )
    (chunk,) = await run(make_engine(Script(steps=steps)), request)
    assert (chunk.text, chunk.stop_string, chunk.finish_reason) == ("a", "END", FinishReason.STOP)
    assert (chunk.token_ids, chunk.num_tokens) == (ids_of("aEND"), 4)
    assert chunk.log_probs == [log_prob_of(one) for one in ids_of("aEND")]
    assert chunk.top_log_probs is not None
    assert len(chunk.top_log_probs) == 4


async def test_log_probs_are_given_out_even_while_their_text_is_held() -> None:
    first, *rest = ids_of("你")
    canned = _Canned(
        [
            TokenChunk(token_ids=[first], log_probs=[-1.0]),
            TokenChunk(token_ids=rest, log_probs=[-2.0, -3.0], finish_reason=FinishReason.STOP),
        ]
    )
    chunks = [c async for c in generate(prepared(make_request()), canned)]
    assert [(c.text, c.log_probs) for c in chunks] == [("", [-1.0]), ("你", [-2.0, -3.0])]


async def test_the_number_of_cached_tokens_is_passed_on_at_once() -> None:
    first, *rest = ids_of("你")
    steps = [
        Step(token_ids=[first], num_cached_tokens=7, is_alone=True),
        Step(token_ids=rest),
    ]
    chunks = await run(make_engine(Script(steps=steps)), make_request())
    assert [(c.text, c.num_cached_tokens) for c in chunks] == [("", 7), ("你", None)]


async def test_sequences_have_texts_of_their_own() -> None:
    a, b = ids_of("你"), ids_of("hi")
    canned = _Canned(
        [
            TokenChunk(token_ids=a[:1], sequence_index=0),
            TokenChunk(token_ids=b[:1], sequence_index=1),
            TokenChunk(token_ids=a[1:], sequence_index=0, finish_reason=FinishReason.LENGTH),
            TokenChunk(token_ids=b[1:], sequence_index=1, finish_reason=FinishReason.STOP),
        ]
    )
    chunks = [c async for c in generate(prepared(make_request(num_sequences=2)), canned)]
    assert (text_of(chunks, 0), text_of(chunks, 1)) == ("你", "hi")
    reasons = {c.sequence_index: c.finish_reason for c in chunks if c.finish_reason}
    assert reasons == {0: FinishReason.LENGTH, 1: FinishReason.STOP}


async def test_a_sequence_that_met_its_stop_string_is_silent_while_others_go_on() -> None:
    canned = _Canned(
        [
            TokenChunk(token_ids=ids_of("aEND"), sequence_index=0),
            TokenChunk(token_ids=ids_of("more"), sequence_index=0),
            TokenChunk(token_ids=ids_of("b"), sequence_index=1, finish_reason=FinishReason.STOP),
        ]
    )
    request = make_request(num_sequences=2, stop=("END",))
    chunks = [c async for c in generate(prepared(request), canned)]
    assert (text_of(chunks, 0), text_of(chunks, 1)) == ("a", "b")
    assert [c.sequence_index for c in chunks] == [0, 1]


async def test_the_prompts_log_probs_are_passed_on() -> None:
    tops = [[TokenLogProb(token_id=1, log_prob=-0.5)]]
    chunk = TokenChunk(
        token_ids=[],
        finish_reason=FinishReason.LENGTH,
        prompt_log_probs=[0.0, -0.5],
        prompt_top_log_probs=tops,
    )
    request = make_request()
    (shown,) = [c async for c in generate(prepared(request), _Canned([chunk]))]
    assert (shown.prompt_log_probs, shown.prompt_top_log_probs) == ([0.0, -0.5], tops)


async def test_no_token_id_is_lost_while_its_text_is_held() -> None:
    chunks = await run(answering("a你END"), make_request(stop=("ENDE",)))
    assert [token_id for c in chunks for token_id in c.token_ids] == ids_of("a你END")


async def run_until_failure(
    engine: FakeEngine, expected: type[Exception]
) -> tuple[list[TextChunk], Exception]:
    chunks: list[TextChunk] = []
    with pytest.raises(expected) as failure:
        await _append_all(chunks, engine)
    return chunks, failure.value


async def _append_all(chunks: list[TextChunk], engine: FakeEngine) -> None:
    async for chunk in generate(prepared(make_request()), engine):
        chunks.append(chunk)


async def test_a_stream_that_ends_without_a_finish_reason_is_a_failure_not_a_stop() -> None:
    engine = answering("half an ans", finish_reason=None)
    chunks, failure = await run_until_failure(engine, GenerationFailed)
    assert text_of(chunks) == "half an ans"
    assert all(chunk.finish_reason is None for chunk in chunks)
    assert "without a finish reason" in str(failure)


async def test_a_failure_comes_after_what_was_generated_before_it() -> None:
    steps = [*one_token_a_step(ids_of("ab"), is_alone=True), Step(error=EngineUnavailable())]
    chunks, _ = await run_until_failure(make_engine(Script(steps=steps)), EngineUnavailable)
    assert text_of(chunks) == "ab"


async def test_leaving_early_cancels_the_engines_work() -> None:
    engine = make_engine(Script(steps=one_token_a_step(ids_of("abcdef"), every_s=0.01)))
    async with aclosing(generate(prepared(make_request()), engine)) as chunks:
        await anext(chunks)
    assert engine.streams[0].ending is Ending.CANCELLED


async def test_cancelling_the_task_that_waits_cancels_the_engines_work() -> None:
    engine = make_engine(Script(steps=[Step(after_s=3600)]))
    task = asyncio.create_task(run(engine, make_request()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.streams[0].ending is Ending.CANCELLED


@given(
    text=st.text(alphabet="aE你ND👍", max_size=20),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    stop=st.sampled_from([(), ("END",), ("你",), ("aE", "EN")]),
)
def test_the_answer_is_the_same_however_the_tokens_arrive(
    text: str, cuts: list[int], stop: tuple[str, ...]
) -> None:
    async def folded(pieces: list[list[int]]) -> tuple[str, FinishReason | None, list[int], int]:
        steps = [Step(token_ids=piece, is_alone=True) for piece in pieces]
        chunks = await run(make_engine(Script(steps=steps)), make_request(stop=stop))
        token_ids = [one for chunk in chunks for one in chunk.token_ids]
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        return text_of(chunks), chunks[-1].finish_reason, token_ids, num_tokens

    token_ids = ids_of(text)
    ends = sorted(cut for cut in cuts if cut < len(token_ids))
    pieces = [token_ids[a:b] for a, b in zip([0, *ends], [*ends, len(token_ids)], strict=True)]
    streamed = asyncio.run(folded([[token_id] for token_id in token_ids]))
    assert asyncio.run(folded(pieces)) == streamed
    whole = text
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            whole = text[: min(starts)]
            break
    assert streamed[:2] == (whole, FinishReason.STOP)


class _Canned(FakeEngine):
    """Yields these chunks, as they are."""

    def __init__(self, chunks: list[TokenChunk]) -> None:
        super().__init__()
        self._chunks = chunks

    async def stream(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
        for chunk in self._chunks:
            yield replace(chunk)


async def test_a_stop_token_that_is_to_be_shown_is_told_with_its_log_prob() -> None:
    request = make_request(stop_token_ids=(END_ID,), shows_stop_token=True, num_log_probs=1)
    steps = [Step(token_ids=[*ids_of("hi"), END_ID, *ids_of("more")])]
    (chunk,) = await run(make_engine(Script(steps=steps)), request)
    assert (chunk.text, chunk.finish_reason) == ("hi", FinishReason.STOP)
    assert chunk.token_ids == [*ids_of("hi"), END_ID]
    assert chunk.num_tokens == 2
    assert chunk.log_probs == [log_prob_of(one) for one in chunk.token_ids]
    assert chunk.top_log_probs is not None
    assert len(chunk.top_log_probs) == 3


async def test_the_tokens_of_text_that_was_held_back_come_with_it() -> None:
    chunks = await run(answering("a你b"), make_request())
    assert [chunk.token_ids for chunk in chunks if chunk.text] == [
        ids_of("a"), ids_of("你"), ids_of("b"),
    ]  # fmt: skip


async def test_a_bare_prompts_last_word_and_the_answers_first_keep_their_space() -> None:
    tokenizer = sentencepiece_tokenizer()
    words = [id_of(tokenizer, word) for word in ("▁hello", "▁world")]
    text_tokens = text_tokenizer(tokenizer)
    engine = make_engine(Script(steps=[Step(token_ids=words[1:])]))
    plain = PreparedRequest(
        generation=make_request(), tokenizer=text_tokens, decoder=text_tokens, fingerprint=""
    )
    for one, text in ((plain, "world"), (replace(plain, context_token_ids=(words[0],)), " world")):
        assert text_of([chunk async for chunk in generate(one, engine)]) == text
