"""The loop between a draft model and its target, with fake models: what is asked, what is given."""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import AsyncGeneratorType
from typing import Any, cast

import pytest

from frontend.errors import (
    GenerationFailed,
    ModelChanged,
    ModelNotLoaded,
    ServerOverloaded,
    ServingError,
)
from frontend.triton import drafting
from frontend.triton.drafting import DraftingEngine, can_be_drafted
from frontend.types import (
    Drafting,
    FinishReason,
    GenerationRequest,
    Guide,
    GuideType,
    LoadedModel,
    LoraAdapter,
    ModelLimits,
    SamplingParams,
    ServedVersion,
    TokenChunk,
)

END_ID, STOP_ID = 90, 91
TEXT = [*range(1, 13), STOP_ID, *range(13, 24), END_ID]  # what the target says behind any prompt
PROMPT = [50, 51]
LIMITS = ModelLimits(max_seq_len=100, max_input_len=99, vocab_size=100)
TARGET = LoadedModel(
    name="target",
    variant="fp16",
    limits=LIMITS,
    inputs=frozenset(),
    outputs=frozenset(),
    drafting=Drafting(model="small", max_tokens=4),
    vocabulary="v",
)
SMALL = replace(TARGET, name="small", drafting=None)
PLAIN = replace(TARGET, name="plain", drafting=None)
REQUEST = GenerationRequest(
    request_id="r",
    model="target",
    prompt_token_ids=PROMPT,
    max_new_tokens=40,
    end_id=END_ID,
    sampling=SamplingParams(temperature=0),
)
Failing = Callable[[GenerationRequest], ServingError | None]


class Models:
    """A target that says TEXT, and a draft model that says it too, but every third token."""

    def __init__(self, *models: LoadedModel, fail: Failing = lambda request: None) -> None:
        self.models = {model.name: model for model in models or (TARGET, SMALL, PLAIN)}
        self.fail = fail
        self.asked: list[GenerationRequest] = []
        self.running: list[GenerationRequest] = []
        self.has_parted: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def loaded_model(self, name: str, *, is_asked_anew: bool = False) -> LoadedModel:
        if name not in self.models:
            raise ModelNotLoaded(model=name)
        return self.models[name]

    async def embed(
        self,
        model: str,
        rows: Sequence[Sequence[int]],
        *,
        prepared_for: ServedVersion | None = None,
    ) -> list[array[float]]:
        return [array("f", [1.0])]

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        self.models.clear()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[TokenChunk, None]:
        self.asked.append(request)
        self.running.append(request)
        if len(request.prompt_token_ids) > len(PROMPT):
            self.has_parted[request.model].set()
        try:
            await asyncio.sleep(0)
            if (error := self.fail(request)) is not None:
                raise error
            for chunk in self.answer(request):
                yield chunk
                await asyncio.sleep(0)
        finally:
            self.running.remove(request)

    def answer(self, request: GenerationRequest) -> list[TokenChunk]:
        start = len(request.prompt_token_ids) - len(PROMPT)
        rest = TEXT[start:]
        if request.model == "small":
            slips = [
                77 if place % 3 == 1 else token_id for place, token_id in enumerate(rest, start)
            ]
            return [TokenChunk(token_ids=slips[: request.max_new_tokens])]
        token_ids: list[int] = []
        for guess in [*request.draft_token_ids, None]:
            if rest[0] == END_ID:
                break
            token_ids.append(rest.pop(0))
            if token_ids[-1] != guess:
                break
        if not request.draft_token_ids:  # it goes on to the end
            while len(token_ids) < request.max_new_tokens and rest[0] != END_ID:
                token_ids.append(rest.pop(0))
        is_full = len(token_ids) >= request.max_new_tokens
        reason = FinishReason.LENGTH if is_full else FinishReason.STOP
        return [TokenChunk(token_ids=token_ids, finish_reason=reason)]

    def asked_of(self, name: str) -> list[GenerationRequest]:
        return [request for request in self.asked if request.model == name]


async def ask(models: Models, **changes: Any) -> tuple[list[int], FinishReason | None]:
    request = replace(REQUEST, **changes)
    engine = DraftingEngine(models)
    await engine.loaded_model(request.model)
    async with aclosing(engine.stream(request)) as stream:
        chunks = [chunk async for chunk in stream]
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    token_ids = [token_id for chunk in chunks for token_id in chunk.token_ids]
    return token_ids, chunks[-1].finish_reason


async def test_the_answer_is_the_targets_in_fewer_steps() -> None:
    models = Models()
    assert await ask(models) == (TEXT[:-1], FinishReason.STOP)
    assert len(models.asked_of("target")) == 9  # for 24 tokens and their end
    ids = [request.request_id for request in models.asked]
    assert len(set(ids)) == len(ids)
    assert {request.may_move for request in models.asked_of("target")[1:]} == {True}


@pytest.mark.parametrize("num_tokens", range(2, 30))
async def test_every_length_ends_where_the_target_alone_ends(num_tokens: int) -> None:
    wanted = TEXT[:-1][:num_tokens]
    reason = FinishReason.LENGTH if num_tokens <= len(TEXT) - 1 else FinishReason.STOP
    models = Models()
    assert await ask(models, max_new_tokens=num_tokens) == (wanted, reason)
    assert all(
        len(request.draft_token_ids) < request.max_new_tokens
        for request in models.asked_of("target")
    )


async def test_a_stop_token_ends_the_answer_and_nothing_behind_it_is_given() -> None:
    wanted = TEXT[: TEXT.index(STOP_ID) + 1]
    assert await ask(Models(), stop_token_ids=(STOP_ID,)) == (wanted, FinishReason.STOP)


async def test_an_end_is_no_guess() -> None:
    models = Models()
    await ask(models)
    guesses = [one for request in models.asked for one in request.draft_token_ids]
    assert END_ID not in guesses
    small_vocabulary = replace(TARGET, limits=replace(LIMITS, vocab_size=77))
    models = Models(small_vocabulary, SMALL)
    await ask(models)
    assert 77 not in [one for request in models.asked for one in request.draft_token_ids]


async def test_where_the_context_ends_the_target_goes_on_alone() -> None:
    for limits in (replace(LIMITS, max_input_len=12), replace(LIMITS, max_seq_len=12)):
        for models in (Models(replace(TARGET, limits=limits), SMALL),
                       Models(TARGET, replace(SMALL, limits=limits))):  # fmt: skip
            assert await ask(models) == (TEXT[:-1], FinishReason.STOP)
            longest = max(len(request.prompt_token_ids) for request in models.asked_of("target"))
            assert longest <= LIMITS.max_input_len
    assert models.asked_of("target")[-1].draft_token_ids == ()


@pytest.mark.parametrize(
    "models",
    [
        Models(TARGET),  # not loaded
        Models(TARGET, replace(SMALL, vocabulary="other")),
        Models(replace(TARGET, vocabulary=""), replace(SMALL, vocabulary="")),
        Models(fail=lambda one: GenerationFailed(reason="x") if one.model == "small" else None),
        Models(fail=lambda one: ServerOverloaded() if one.model == "small" else None),
        Models(fail=lambda one: GenerationFailed(reason="x") if one.draft_token_ids else None),
    ],
    ids=["missing", "other vocabulary", "no vocabulary", "failing", "busy", "refused guesses"],
)
async def test_whatever_is_wrong_with_the_draft_model_the_target_answers_alone(
    models: Models, caplog: pytest.LogCaptureFixture
) -> None:
    assert await ask(models) == (TEXT[:-1], FinishReason.STOP)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert models.asked_of("target")[-1] == REQUEST


async def test_trouble_is_said_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    models = Models(TARGET)
    engine = DraftingEngine(models)
    await engine.loaded_model("target")

    async def one() -> None:
        async with aclosing(engine.stream(REQUEST)) as stream:
            assert [chunk async for chunk in stream]

    for _ in range(3):
        await one()
    assert len(caplog.records) == 1
    models.models["small"] = SMALL
    await one()
    del models.models["small"]
    await one()
    assert len(caplog.records) == 2


async def test_a_draft_model_that_fails_in_the_middle_leaves_no_gap() -> None:
    def fail(request: GenerationRequest) -> ServingError | None:
        is_late = len(request.prompt_token_ids) > 8
        return GenerationFailed(reason="gone") if is_late and request.model == "small" else None

    models = Models(fail=fail)
    assert await ask(models) == (TEXT[:-1], FinishReason.STOP)
    last = models.asked_of("target")[-1]
    assert (last.draft_token_ids, last.may_move) == ((), True)
    assert last.max_new_tokens == 40 - (len(last.prompt_token_ids) - len(PROMPT))


async def test_an_answer_that_has_begun_waits_for_a_place_in_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drafting, "PAUSE_S", 0)
    refusals = [ServerOverloaded() for _ in range(5)]

    def fail(request: GenerationRequest) -> ServingError | None:
        has_begun = len(request.prompt_token_ids) > 8 and request.model == "target"
        return refusals.pop() if has_begun and refusals else None

    assert await ask(Models(fail=fail)) == (TEXT[:-1], FinishReason.STOP)
    assert not refusals


@pytest.mark.parametrize("error", [ServerOverloaded(), ModelChanged(model="target")])
async def test_what_the_target_itself_refuses_is_the_clients_to_hear(error: ServingError) -> None:
    models = Models(fail=lambda one: error if one.model == "target" else None)
    with pytest.raises(type(error)):
        await ask(models)


@pytest.mark.parametrize("name", ["small", "target"])
async def test_leaving_ends_what_is_being_asked(name: str) -> None:
    models = Models()
    engine = DraftingEngine(models)
    await engine.loaded_model("target")

    async def read() -> None:
        async with aclosing(engine.stream(REQUEST)) as stream:
            async for _ in stream:
                pass

    reading = asyncio.create_task(read())
    await models.has_parted[name].wait()  # the answer has begun, and it is asked for more
    assert [one.model for one in models.running] == [name]
    reading.cancel()
    await asyncio.wait((reading,))
    assert models.running == []
    assert len(models.asked_of("target")) < 9


def test_only_what_guessing_cannot_change_is_guessed() -> None:
    assert can_be_drafted(REQUEST)
    assert can_be_drafted(replace(REQUEST, stop_token_ids=(1,), stop=("a",), end_id=None))
    for greedy in ({"temperature": 0.0, "top_p": 0.5}, {"top_k": 1, "seed": 3}, {"top_p": 0.0}):
        assert can_be_drafted(replace(REQUEST, sampling=SamplingParams(**greedy)))
    others: list[dict[str, Any]] = [
        {"temperature": 1.0},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"min_tokens": 2},
        {"logit_bias": {1: 1.0}},
        {"bad_words": ((1,),)},
        {"num_log_probs": 0},
        {"guide": Guide(type=GuideType.JSON)},
    ]
    for other in others:
        sampling = SamplingParams(**{"temperature": 0, **other})
        assert not can_be_drafted(replace(REQUEST, sampling=sampling)), other
    adapter = LoraAdapter(name="a", task_id=1, directory="/a")
    wholes: list[dict[str, Any]] = [
        {"num_sequences": 2},
        {"returns_prompt_log_probs": True},
        {"adapter": adapter},
        {"max_new_tokens": 1},
    ]
    for whole in wholes:
        assert not can_be_drafted(replace(REQUEST, **whole)), whole


def is_own(stream: AsyncGenerator[TokenChunk, None]) -> bool:
    """Whether it is the engine's, with nothing between."""
    return cast(AsyncGeneratorType[Any, Any], stream).ag_code is Models.stream.__code__


async def test_other_requests_get_the_engines_own_stream() -> None:
    models = Models()
    engine = DraftingEngine(models)
    await engine.loaded_model("plain")
    await engine.loaded_model("target")
    for request in (replace(REQUEST, model="plain"), replace(REQUEST, num_sequences=2)):
        async with aclosing(engine.stream(request)) as stream:
            assert is_own(stream)
    models.models["target"] = replace(TARGET, drafting=None)
    await engine.loaded_model("target")
    async with aclosing(engine.stream(REQUEST)) as stream:
        assert is_own(stream)
    assert await engine.ready()
    assert await engine.embed("plain", [[1]]) == [array("f", [1.0])]
    await engine.close()
    assert not models.models


async def test_a_target_that_takes_no_guesses_any_more_goes_on_alone() -> None:
    models = Models()

    def fail(request: GenerationRequest) -> ServingError | None:
        models.models["target"] = replace(TARGET, drafting=None)
        return None

    models.fail = fail
    assert await ask(models) == (TEXT[:-1], FinishReason.STOP)
    assert len(models.asked_of("small")) == 1
