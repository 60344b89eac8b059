from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from frontend.access.identity import ANYBODY, Identity, current_identity
from frontend.charge import Charge
from frontend.errors import (
    EngineUnavailable,
    ModelChanged,
    QuotaExceeded,
    RateLimited,
    RequestOverLimit,
    ServingError,
)
from frontend.limits.buckets import LimitSet
from frontend.limits.policy import Budget, Policy
from frontend.messages import Language
from frontend.meter import Meter
from frontend.prepare import PreparedRequest
from frontend.protocol.response_answer import ResponseEncoder
from frontend.responses.background import BackgroundRuns
from frontend.store.responses import ResponseStore, StoredResponse
from frontend.telemetry.requests import RequestRecord, current_request
from frontend.types import FinishReason, GenerationRequest, LoraAdapter, TextChunk
from frontend.usage.record import UsageRow
from tests.fakes.meter import MeterWorld
from tests.fakes.tokenizers import byte_level_tokenizer, text_tokenizer
from tests.fakes.usage import record

LIMITS = LimitSet(requests_per_minute=10, tokens_per_minute=1000, concurrent_requests=5)
WHOLE = {"requests/min": 10, "tokens/min": 1000, "concurrent": 5}
KEY = Identity(tenant="acme", key_id="key_1", limits=LIMITS)
REQUEST = GenerationRequest(
    request_id="gen-1", model="m", prompt_token_ids=[1, 2, 3], max_new_tokens=10
)
FIRST = TextChunk(text="", reasoning="a", num_tokens=2, num_reasoning_tokens=2, num_cached_tokens=1)
MIDDLE = TextChunk(text="b", num_tokens=3, num_cached_tokens=2)
END = TextChunk(text="c", num_tokens=1, finish_reason=FinishReason.LENGTH)


@pytest.fixture
def world() -> MeterWorld:
    return MeterWorld(Policy())


@pytest.fixture
def meter(world: MeterWorld) -> Meter:
    return world.meter()


@pytest.fixture(autouse=True)
def asked_by_key() -> Iterator[RequestRecord]:
    asked = RequestRecord(request_id="r-1", method="POST", path="/")
    tokens = current_identity.set(KEY), current_request.set(asked)
    yield asked
    current_identity.reset(tokens[0])
    current_request.reset(tokens[1])


async def left(world: MeterWorld) -> dict[str, int]:
    return await world.remaining(world.policy.rules(KEY, ""))


async def chunks_of(
    *chunks: TextChunk, error: Exception | None = None
) -> AsyncGenerator[TextChunk, None]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


async def hanging(*chunks: TextChunk) -> AsyncGenerator[TextChunk, None]:
    for chunk in chunks:
        yield chunk
    await asyncio.Event().wait()


async def consume(stream: AsyncGenerator[TextChunk, None]) -> list[TextChunk]:
    async with aclosing(stream):
        return [chunk async for chunk in stream]


async def answer(charge: Charge, stream: AsyncGenerator[TextChunk, None]) -> list[TextChunk]:
    return await consume(charge.observe(REQUEST, stream))


def requests_by(world: MeterWorld, outcome: str) -> float | None:
    labels = {"model": "m", "outcome": outcome}
    return world.metrics._registry.get_sample_value("inflight_requests_total", labels)


async def test_what_is_used_takes_the_place_of_what_was_reserved(
    world: MeterWorld, meter: Meter, asked_by_key: RequestRecord
) -> None:
    async with meter.charge([REQUEST]) as charge:
        assert await left(world) == {"requests/min": 9, "tokens/min": 987, "concurrent": 4}
        assert await answer(charge, chunks_of(FIRST, MIDDLE, END)) == [FIRST, MIDDLE, END]
        # before the block's end: a client that has seen all of a stream may ask again
        assert await left(world) == {"requests/min": 9, "tokens/min": 991, "concurrent": 5}
    assert await left(world) == {"requests/min": 9, "tokens/min": 991, "concurrent": 5}
    [used] = world.usage.records
    assert replace(used, at=0.0) == replace(
        record(
            request_id="gen-1",
            tenant="acme",
            principal="key_1",
            model="m",
            prompt_tokens=3,
            cached_tokens=2,
            completion_tokens=6,
            reasoning_tokens=2,
            outcome="length",
        ),
        at=0.0,
    )
    assert requests_by(world, "length") == 1
    assert (asked_by_key.num_prompt_tokens, asked_by_key.num_tokens) == (3, 6)
    assert (asked_by_key.outcome, asked_by_key.generation_id) == ("length", "gen-1")


@pytest.mark.parametrize(
    ("chunks", "error", "outcome", "prompt", "completion"),
    [
        ((), EngineUnavailable(), "engine_unavailable", 0, 0),
        ((FIRST,), EngineUnavailable(), "engine_unavailable", 3, 2),
        ((FIRST, MIDDLE), RuntimeError(), "internal_error", 3, 5),
    ],
)
async def test_a_failure_costs_what_was_given_out_before_it(
    world: MeterWorld,
    meter: Meter,
    chunks: tuple[TextChunk, ...],
    error: Exception,
    outcome: str,
    prompt: int,
    completion: int,
) -> None:
    with pytest.raises(type(error)):
        async with meter.charge([REQUEST]) as charge:
            await answer(charge, chunks_of(*chunks, error=error))
    assert await left(world) == WHOLE | {
        "requests/min": 9,
        "tokens/min": 1000 - prompt - completion,
    }
    [used] = world.usage.records
    assert (used.outcome, used.prompt_tokens, used.completion_tokens) == (
        outcome,
        prompt,
        completion,
    )
    assert requests_by(world, outcome) == 1


@pytest.mark.parametrize(("chunks", "completion"), [((), 0), ((FIRST,), 2), ((FIRST, MIDDLE), 5)])
async def test_a_client_that_leaves_pays_for_the_prompt_and_what_it_got(
    world: MeterWorld, meter: Meter, chunks: tuple[TextChunk, ...], completion: int
) -> None:
    async def ask() -> None:
        async with meter.charge([REQUEST]) as charge:
            await answer(charge, hanging(*chunks))

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert await left(world) == WHOLE | {"requests/min": 9, "tokens/min": 997 - completion}
    [used] = world.usage.records
    assert (used.outcome, used.prompt_tokens, used.completion_tokens) == (
        "cancelled",
        3,
        completion,
    )


async def test_no_more_of_a_prompt_is_cached_than_there_is(world: MeterWorld, meter: Meter) -> None:
    """The engine may be asked again for a part of an answer, with what it has said as a prompt."""
    async with meter.charge([REQUEST]) as charge:
        await answer(charge, chunks_of(FIRST, replace(END, num_cached_tokens=5)))
    assert [used.cached_tokens for used in world.usage.records] == [3]


async def test_leaving_at_the_last_chunk_is_no_cancellation(
    world: MeterWorld, meter: Meter
) -> None:
    async with (
        meter.charge([REQUEST]) as charge,
        aclosing(charge.observe(REQUEST, chunks_of(FIRST, END, MIDDLE))) as stream,
    ):
        await anext(stream)
        await anext(stream)
    assert world.usage.records[0].outcome == "length"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "cancelled"),
        (EngineUnavailable(), "engine_unavailable"),
        (KeyError(), "internal_error"),
    ],
)
async def test_what_was_never_begun_costs_no_tokens(
    world: MeterWorld, meter: Meter, error: Exception | None, outcome: str
) -> None:
    async def ask() -> None:
        async with meter.charge([REQUEST]) as charge:
            charge.observe(REQUEST, chunks_of(END))
            if error is not None:
                raise error

    await asyncio.gather(ask(), return_exceptions=True)
    assert await left(world) == WHOLE | {"requests/min": 9}
    assert [used.outcome for used in world.usage.records] == [outcome]


async def test_a_request_that_is_prepared_again_was_none(world: MeterWorld, meter: Meter) -> None:
    with pytest.raises(ModelChanged):
        async with meter.charge([REQUEST]) as charge:
            await answer(charge, chunks_of(error=ModelChanged(model="m")))
    assert await left(world) == WHOLE
    assert world.usage.records == []
    assert requests_by(world, "model_changed") is None


async def test_one_whose_answer_had_begun_is_paid_for(world: MeterWorld, meter: Meter) -> None:
    async with meter.charge([REQUEST, REQUEST]) as charge:
        await answer(charge, chunks_of(FIRST, END))
        with pytest.raises(ModelChanged):  # told to the client in its stream
            await answer(charge, chunks_of(error=ModelChanged(model="m")))
    assert await left(world) == WHOLE | {"requests/min": 9, "tokens/min": 994}
    assert [used.outcome for used in world.usage.records] == ["model_changed"]


async def test_all_prompts_of_a_request_are_one_request(world: MeterWorld, meter: Meter) -> None:
    twins = replace(REQUEST, num_sequences=2)
    async with meter.charge([twins, REQUEST]) as charge:
        assert await left(world) == {"requests/min": 9, "tokens/min": 964, "concurrent": 4}
        await answer(charge, chunks_of(FIRST, END))
        assert (await left(world))["concurrent"] == 4  # the other one is to come
        await answer(charge, chunks_of(END))
        assert (await left(world))["concurrent"] == 5
    assert await left(world) == {"requests/min": 9, "tokens/min": 990, "concurrent": 5}
    [used] = world.usage.records
    assert (used.prompt_tokens, used.completion_tokens, used.cached_tokens) == (6, 4, 1)
    assert requests_by(world, "length") == 2


async def test_the_outcome_of_many_is_that_of_the_one_that_failed(
    world: MeterWorld, meter: Meter
) -> None:
    async with meter.charge([REQUEST, REQUEST]) as charge:
        await answer(charge, chunks_of(END))
        with pytest.raises(EngineUnavailable):
            await answer(charge, chunks_of(error=EngineUnavailable()))
    assert [used.outcome for used in world.usage.records] == ["engine_unavailable"]


async def test_an_answer_without_tokens_costs_its_prompts(world: MeterWorld, meter: Meter) -> None:
    async def vectors(error: Exception | None = None) -> str:
        if error is not None:
            raise error
        return "vectors"

    async with meter.charge_prompts("embd-1", "m", 30) as charge:
        assert await charge.whole("m", 30, vectors()) == "vectors"
    with pytest.raises(EngineUnavailable):
        async with meter.charge_prompts("embd-2", "m", 30) as charge:
            await charge.whole("m", 30, vectors(EngineUnavailable()))
    assert await left(world) == WHOLE | {"requests/min": 8, "tokens/min": 970}
    assert [(used.prompt_tokens, used.outcome) for used in world.usage.records] == [
        (30, "stop"),
        (0, "engine_unavailable"),
    ]


async def test_what_uses_no_tokens_is_a_request_all_the_same(
    world: MeterWorld, meter: Meter
) -> None:
    async with meter.charge_request():
        assert await left(world) == WHOLE | {"requests/min": 9, "concurrent": 4}
    assert await left(world) == WHOLE | {"requests/min": 9}
    assert world.usage.records == []


@pytest.mark.parametrize(
    ("limits", "times", "error"),
    [
        ({"requests_per_minute": 2}, 3, RateLimited),
        ({"concurrent_requests": 2}, 3, RateLimited),
        ({"tokens_per_minute": 38}, 3, RateLimited),
        ({"tokens_per_day": 38}, 3, QuotaExceeded),
        ({"tokens_per_minute": 12}, 1, RequestOverLimit),
    ],
)
async def test_a_refused_one_takes_nothing_and_says_so(
    world: MeterWorld,
    meter: Meter,
    asked_by_key: RequestRecord,
    limits: dict[str, Any],
    times: int,
    error: type[ServingError],
) -> None:
    current_identity.set(replace(KEY, limits=LimitSet(**limits)))
    for _ in range(times - 1):
        await meter.charge([REQUEST]).__aenter__()
    with pytest.raises(error) as refused:
        await meter.charge([REQUEST]).__aenter__()
    assert type(refused.value) is error
    assert world.usage.records == []
    headers = await meter.headers(asked_by_key)
    assert "X-RateLimit-Limit" in headers


async def test_the_head_tells_of_the_decision_and_of_the_buckets_where_there_was_none(
    meter: Meter, asked_by_key: RequestRecord
) -> None:
    asked_by_key.identity = KEY
    before = await meter.headers(asked_by_key)
    assert (before["X-RateLimit-Limit"], before["X-RateLimit-Remaining"]) == ("10", "10")
    async with meter.charge([REQUEST]):
        decided = await meter.headers(asked_by_key)
    assert decided["X-RateLimit-Remaining"] == "9"
    assert decided["x-ratelimit-remaining-tokens"] == "987"
    assert int(decided["X-RateLimit-Reset"]) >= asked_by_key.decided_at
    assert await meter.headers(asked_by_key) == decided


async def test_of_several_requests_in_one_the_head_tells_of_the_last_that_was_let_in(
    meter: Meter, asked_by_key: RequestRecord
) -> None:
    current_identity.set(replace(KEY, limits=LimitSet(requests_per_minute=2)))
    for _ in range(2):
        async with meter.charge([REQUEST]):
            pass
    with pytest.raises(RateLimited):
        await meter.charge([REQUEST]).__aenter__()
    headers = await meter.headers(asked_by_key)
    assert headers["X-RateLimit-Remaining"] == "0"
    assert "Retry-After" not in headers


async def test_the_head_tells_of_the_refusal_of_one_that_was_let_in_and_prepared_again(
    world: MeterWorld, meter: Meter, asked_by_key: RequestRecord
) -> None:
    current_identity.set(replace(KEY, limits=LimitSet(requests_per_minute=1)))
    with pytest.raises(ModelChanged):
        async with meter.charge([REQUEST]) as charge:
            await answer(charge, chunks_of(error=ModelChanged(model="m")))
    await world.store.acquire(world.policy.rules(current_identity.get(), ""), 0)  # by another
    with pytest.raises(RateLimited):
        await meter.charge([REQUEST]).__aenter__()
    assert "Retry-After" in await meter.headers(asked_by_key)


async def test_an_adapter_is_a_model_of_its_own_to_the_limits() -> None:
    world = MeterWorld(Policy(models={"m": LimitSet(requests_per_minute=1)}))
    meter = world.meter()
    adapter = LoraAdapter(name="sql", task_id=1, directory="")
    async with meter.charge([REQUEST]):
        pass
    async with meter.charge([replace(REQUEST, adapter=adapter)]):
        pass
    with pytest.raises(RateLimited):
        await meter.charge([REQUEST]).__aenter__()
    assert [used.model for used in world.usage.records] == ["m", "m:sql"]


async def test_addresses_have_buckets_of_their_own(asked_by_key: RequestRecord) -> None:
    world = MeterWorld(Policy(addresses=LimitSet(requests_per_minute=1)))
    meter = world.meter()
    current_identity.set(ANYBODY)
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        asked_by_key.address = address
        async with meter.charge_request():
            pass
    asked_by_key.address = "2001:db8::2"  # the same customer's
    with pytest.raises(RateLimited):
        await meter.charge([REQUEST]).__aenter__()


async def test_a_used_up_budget_lets_nothing_in_that_uses_tokens() -> None:
    world = MeterWorld(Policy(budgets={"acme": Budget(tokens=10)}))
    meter = world.meter()
    world.budgets.add(UsageRow(id="1", record=record(tenant="acme", prompt_tokens=10), cost=0))
    with pytest.raises(QuotaExceeded):
        await meter.charge([REQUEST]).__aenter__()
    assert await left(world) == WHOLE
    async with meter.charge_request():
        pass


@pytest.mark.parametrize(
    ("tokens_per_minute", "num_sequences", "max_new_tokens"),
    [(10**6, 1, 500), (1003, 1, 500), (203, 1, 100), (203, 4, 25), (4, 1, 1), (2, 1, 1)],
)
async def test_an_answer_of_open_length_fits_into_half_of_the_bucket(
    meter: Meter, tokens_per_minute: int, num_sequences: int, max_new_tokens: int
) -> None:
    current_identity.set(replace(KEY, limits=LimitSet(tokens_per_minute=tokens_per_minute)))
    tokenizer = text_tokenizer(byte_level_tokenizer())
    asked = replace(REQUEST, max_new_tokens=500, num_sequences=num_sequences)
    for is_open, expected in ((True, max_new_tokens), (False, 500)):
        prepared = PreparedRequest(
            generation=replace(asked, is_length_open=is_open),
            tokenizer=tokenizer,
            decoder=tokenizer,
            fingerprint="",
        )
        assert meter.within_limits(prepared).generation.max_new_tokens == expected


async def test_closing_waits_for_what_is_being_settled(world: MeterWorld, meter: Meter) -> None:
    begun = asyncio.Event()

    async def ask() -> None:
        async with meter.charge([REQUEST]) as charge:
            begun.set()
            try:
                await answer(charge, hanging(FIRST))
            finally:
                await asyncio.sleep(0.01)

    task = asyncio.create_task(ask())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    await meter.close()
    assert [used.completion_tokens for used in world.usage.records] == [2]


async def test_closing_does_not_wait_for_ever_and_says_what_is_lost(
    meter: Meter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("frontend.meter.CLOSE_TIMEOUT_S", 0.01)
    await meter.charge([REQUEST]).__aenter__()
    await meter.close()
    assert [record.message for record in caplog.records] == ["usage lost: requests do not end"]


async def test_what_cannot_be_counted_keeps_no_place(
    world: MeterWorld, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no room for the files of metrics")

    monkeypatch.setattr(world.metrics, "count", fail)
    with pytest.raises(OSError, match="no room"):
        async with meter.charge([REQUEST]) as charge:
            await answer(charge, chunks_of(FIRST, MIDDLE, END))
    assert await left(world) == {"requests/min": 9, "tokens/min": 991, "concurrent": 5}


async def test_what_was_handed_over_is_settled_by_its_new_owner(
    world: MeterWorld, meter: Meter
) -> None:
    async with meter.charge([REQUEST]) as charge:
        charge.hand_over()
    assert (await left(world))["concurrent"] == 4
    charge.release()
    charge.release()
    await meter.close()
    assert await left(world) == WHOLE | {"requests/min": 9}
    assert len(world.usage.records) == 1


class NoStore:
    async def add(self, response: StoredResponse, *, lease_until: float) -> None:
        pass


async def test_a_background_run_that_never_begins_gives_back_what_it_held(
    world: MeterWorld, meter: Meter
) -> None:
    runs = BackgroundRuns(cast("ResponseStore", NoStore()))
    response = StoredResponse(
        id="resp_1", tenant="acme", model="m", created_at=0.0, status="queued", body={}
    )
    encoder = ResponseEncoder(
        {"id": "resp_1"},
        num_prompt_tokens=3,
        tokens=text_tokenizer(),
        has_summary=False,
        is_background=True,
    )
    async with meter.charge([REQUEST]) as charge:
        chunks = charge.observe(REQUEST, chunks_of(END))
        await runs.start(response, encoder, chunks, Language.EN, charge)
        runs.stop("resp_1")  # before the loop has come to it
    await runs.close()
    await meter.close()
    assert await left(world) == WHOLE | {"requests/min": 9}
    assert [used.outcome for used in world.usage.records] == ["cancelled"]
