"""Responses that outlive their connection: read, cancelled, left by workers that stop or die."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import openai
import psutil
import pytest

from frontend.errors import ServerOverloaded
from frontend.responses import background
from frontend.settings import Settings
from frontend.store.responses import ResponseStore
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step, one_token_a_step
from tests.fakes.server import RawClient, ServerThread, wait_until
from tests.integration.responses.asking import (
    SLOW,
    TOKENIZER,
    prompt_of,
    sdk_of,
    turns,
    wait_for_end,
)


def test_a_background_response_outlives_its_connection(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    engine.script = Script(steps=one_token_a_step(TOKENIZER.encode("late").ids, every_s=0.05))
    found = sdk.responses.create(model="tiny", input="hi", background=True)
    assert (found.status, found.output, found.background) == ("queued", [], True)
    wait_until(lambda: sdk.responses.retrieve(found.id).status == "in_progress")
    ended = wait_for_end(sdk, found.id)
    assert (ended.status, ended.output_text) == ("completed", "late")
    assert ended.usage.output_tokens == 4
    more = sdk.responses.create(model="tiny", input="more", previous_response_id=found.id)
    assert more.status == "completed"
    assert prompt_of(engine) == turns("hi", "late", "more")


def test_responses_of_all_kinds_leave_nothing_behind(server: ServerThread) -> None:
    def ask(number: int) -> None:
        body: dict[str, Any] = {"input": "hi", "background": number % 3 == 0}
        body["stream"] = number % 2 == 0
        with RawClient(server.address) as client:
            client.send("POST", "/v1/responses", body)
            if number % 5:
                assert client.receive().status == 200
            # the others leave before there is an answer

    def is_idle() -> bool:
        return server.engine.num_running == 0 and server.num_tasks() <= num_tasks

    process = psutil.Process()
    num_tasks = server.num_tasks()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(60)))  # what is opened once is open now
        wait_until(is_idle)
        num_fds, num_threads = process.num_fds(), process.num_threads()
        list(pool.map(ask, range(240)))
    wait_until(is_idle)
    # the database's pool may have grown; a leak would be one for each request
    assert process.num_fds() <= num_fds + 45
    assert process.num_threads() <= num_threads + 15


def test_what_is_not_finished_cannot_be_continued(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = SLOW
    found = sdk.responses.create(model="tiny", input="hi", background=True)
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.responses.create(model="tiny", input="more", previous_response_id=found.id)
    assert refusal.value.param == "previous_response_id"


def test_a_background_response_that_fails_says_why(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = Script(steps=[Step(error=ServerOverloaded())])
    found = sdk.responses.create(model="tiny", input="hi", background=True)
    ended = wait_for_end(sdk, found.id)
    assert ended.status == "failed"
    assert "queue" in ended.error.message


def test_an_unexpected_failure_keeps_its_text_to_the_log(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    engine.script = Script(steps=[Step(error=ValueError("a secret"))])
    ended = wait_for_end(sdk, sdk.responses.create(model="tiny", input="x", background=True).id)
    assert ended.status == "failed"
    assert "secret" not in ended.error.message


def test_a_background_stream_can_be_read_again_from_anywhere(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    engine.script = Script(steps=one_token_a_step(TOKENIZER.encode("abcdef").ids, every_s=0.05))
    with sdk.responses.create(model="tiny", input="hi", background=True, stream=True) as stream:
        begun: list[Any] = [next(stream) for _ in range(5)]
    assert [event.type for event in begun[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    response_id = begun[0].response.id
    rest: list[Any] = list(sdk.responses.retrieve(response_id, stream=True, starting_after=4))
    numbers = [event.sequence_number for event in [*begun, *rest]]
    assert numbers == list(range(len(numbers)))
    text = "".join(getattr(event, "delta", "") for event in [*begun, *rest])
    assert text == "abcdef"
    assert rest[-1].type == "response.completed"
    assert rest[-1].response == sdk.responses.retrieve(response_id)
    again: list[Any] = list(sdk.responses.retrieve(response_id, stream=True))
    assert [event.sequence_number for event in again] == numbers
    last = sdk.responses.retrieve(response_id, stream=True, starting_after=numbers[-1])
    assert list(last) == again[-1:]


def test_only_a_background_stream_can_be_read_again(sdk: openai.OpenAI) -> None:
    found = sdk.responses.create(model="tiny", input="hi")
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.responses.retrieve(found.id, stream=True)
    assert refusal.value.param == "stream"


def test_cancelling_ends_the_work_and_the_stream(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = SLOW
    stream = sdk.responses.create(model="tiny", input="hi", background=True, stream=True)
    first: Any = next(stream)
    found = sdk.responses.cancel(first.response.id)
    assert found.status == "cancelled"
    assert sdk.responses.cancel(first.response.id) == found
    wait_until(lambda: engine.num_running == 0)
    rest: list[Any] = list(stream)
    assert (rest[-1].type, rest[-1].response.status) == ("response.incomplete", "cancelled")


def test_only_what_runs_in_the_background_can_be_cancelled(sdk: openai.OpenAI) -> None:
    found = sdk.responses.create(model="tiny", input="hi")
    with pytest.raises(openai.BadRequestError, match="background"):
        sdk.responses.cancel(found.id)
    ended = wait_for_end(sdk, sdk.responses.create(model="tiny", input="x", background=True).id)
    with pytest.raises(openai.BadRequestError, match="completed"):
        sdk.responses.cancel(ended.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.cancel("resp_nobody")


def test_deleting_ends_the_work(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = SLOW
    found = sdk.responses.create(model="tiny", input="hi", background=True)
    sdk.responses.delete(found.id)
    wait_until(lambda: engine.num_running == 0)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(found.id)


@pytest.fixture
def fast_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEARTBEAT_S", "SWEEP_S"):
        monkeypatch.setattr(background, name, 0.05)
    monkeypatch.setattr(background, "LEASE_S", 0.5)


@pytest.mark.usefixtures("fast_upkeep")
def test_workers_share_what_they_store(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    engine.script = SLOW
    with (
        ServerThread(tiny_settings, engine, repository) as one,
        ServerThread(tiny_settings, FakeEngine(), repository) as two,
        sdk_of(one) as at_one,
        sdk_of(two) as at_two,
    ):
        found = at_one.responses.create(model="tiny", input="hi", background=True, stream=True)
        first: Any = next(found)
        seen: list[Any] = []
        for event in at_two.responses.retrieve(first.response.id, stream=True):
            seen.append(event)
            if event.type == "response.output_text.delta":
                assert at_two.responses.cancel(first.response.id).status == "cancelled"
        assert seen[-1].response.status == "cancelled"
        wait_until(lambda: engine.num_running == 0)


@pytest.mark.usefixtures("fast_upkeep")
def test_what_a_dead_worker_had_in_work_is_failed_by_another(
    tiny_settings: Settings,
    engine: FakeEngine,
    repository: FakeRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.script = SLOW
    with ServerThread(tiny_settings, engine, repository) as server, sdk_of(server) as sdk:
        found = sdk.responses.create(model="tiny", input="hi", background=True)

        async def never(*_arguments: object) -> set[str]:
            return {found.id}

        # as if the worker had died: nobody renews the lease
        monkeypatch.setattr(ResponseStore, "renew", never)
        ended = wait_for_end(sdk, found.id)
    assert ended.status == "failed"
    assert "stopped" in ended.error.message


@pytest.mark.usefixtures("fast_upkeep")
def test_a_database_that_fails_for_a_while_ends_nothing(
    tiny_settings: Settings,
    engine: FakeEngine,
    repository: FakeRepository,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine.script = SLOW
    renew, failures = ResponseStore.renew, iter(range(3))

    async def failing(*arguments: Any) -> set[str]:
        if next(failures, None) is not None:
            raise OSError("disk full")
        return await renew(*arguments)

    monkeypatch.setattr(ResponseStore, "renew", failing)
    with ServerThread(tiny_settings, engine, repository) as server, sdk_of(server) as sdk:
        found = sdk.responses.create(model="tiny", input="hi", background=True)
        assert wait_for_end(sdk, found.id).output_text == "slowly"
    assert "disk full" in caplog.text


def test_a_stream_of_what_is_deleted_ends_with_an_error(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    engine.script = SLOW
    stream = sdk.responses.create(model="tiny", input="hi", background=True, stream=True)
    first: Any = next(stream)
    sdk.responses.delete(first.response.id)
    rest: list[Any] = list(stream)
    assert (rest[-1].type, rest[-1].code) == ("error", "response_not_found")


def test_a_server_that_stops_lets_background_work_end(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    engine.script = SLOW
    settings = replace(tiny_settings, drain_timeout_s=10)
    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        found = sdk.responses.create(model="tiny", input="hi", background=True)
    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        assert sdk.responses.retrieve(found.id).output_text == "slowly"


def test_a_server_that_must_stop_fails_what_is_not_finished(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    engine.script = SLOW
    settings = replace(tiny_settings, drain_timeout_s=0)
    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        found = sdk.responses.create(model="tiny", input="hi", background=True)
        wait_until(lambda: sdk.responses.retrieve(found.id).status == "in_progress")
    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        ended = sdk.responses.retrieve(found.id)
    assert ended.status == "failed"
    assert engine.num_running == 0


def test_a_stop_in_the_middle_of_a_commit_leaves_nothing_running(
    tiny_settings: Settings,
    engine: FakeEngine,
    repository: FakeRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.script = SLOW
    settings = replace(tiny_settings, drain_timeout_s=0)
    add_events = ResponseStore.add_events
    has_committed = threading.Event()

    async def committing(*arguments: Any) -> None:
        await add_events(*arguments)
        has_committed.set()
        await asyncio.sleep(60)

    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        stream = sdk.responses.create(model="tiny", input="hi", background=True, stream=True)
        first: Any = next(stream)
        monkeypatch.setattr(ResponseStore, "add_events", committing)
        assert has_committed.wait(10)
    monkeypatch.undo()
    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        events = list(sdk.responses.retrieve(first.response.id, stream=True))
    assert events[-1].type == "response.failed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
