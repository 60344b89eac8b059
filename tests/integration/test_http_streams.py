"""What streams do on the wire: writes, silence, errors, slow and vanishing clients, numbers."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from frontend.api.sse import KeepAlive
from frontend.errors import EngineUnavailable, GenerationFailed
from frontend.settings import Settings
from tests.fakes.engine import (
    Ending,
    FakeEngine,
    FakeRepository,
    Script,
    Step,
    one_token_a_step,
)
from tests.fakes.server import RawClient, ServerThread, parse_events, request_bytes, wait_until
from tests.fakes.tokenizers import byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
NATIVE, CHAT = "/api/v1/generate/stream", "/v1/chat/completions"
PLAIN_NATIVE = "/api/v1/generate"
BODIES: dict[str, dict[str, Any]] = {
    NATIVE: {"prompt": "hi"},
    PLAIN_NATIVE: {"prompt": "hi"},
    CHAT: {"messages": [{"role": "user", "content": "hi"}], "stream": True},
}
# A request has left the engine's batch within this time after its client has gone.
CANCEL_S = 0.1


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


def events_of(read: bytes) -> int:
    return read.count(b"data: ")


def text_of(events: list[Any]) -> str:
    parts = []
    for event in events:
        if "token" in event:
            parts.append(event["token"])
        elif event != "[DONE]":
            parts += [choice["delta"].get("content", "") for choice in event["choices"]]
    return "".join(parts)


@pytest.fixture
def quick_keep_alive(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> Any:
    settings = replace(tiny_settings, keep_alive_interval_s=0.05)
    with ServerThread(settings, engine, repository) as server, RawClient(server.address) as client:
        yield client


def test_each_event_is_one_write_that_the_browsers_loop_can_parse(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("hello, 你好!"), every_s=0.01))
    client.send("POST", NATIVE, BODIES[NATIVE])
    assert client.receive_head().status == 200
    reads = client.reads()
    events = [json.loads(read.decode().replace("data: ", "")) for read in reads]
    assert "".join(event["token"] for event in events) == "hello, 你好!"
    assert [event["finished"] for event in events] == [False] * (len(events) - 1) + [True]


def test_tokens_that_are_ready_at_once_are_one_event(client: RawClient, engine: FakeEngine) -> None:
    steps = [
        *one_token_a_step(ids_of("hello")),
        Step(token_ids=ids_of(" "), after_s=0.05),
        *one_token_a_step(ids_of("world")),
        Step(after_s=0.05),
    ]
    engine.script = Script(steps=steps)
    client.send("POST", NATIVE, BODIES[NATIVE])
    client.receive_head()
    reads = client.reads()
    tokens = [json.loads(read.removeprefix(b"data: "))["token"] for read in reads]
    assert tokens == ["hello", " world", ""]


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_an_event_is_sent_at_once_not_with_the_next(
    client: RawClient, engine: FakeEngine, path: str
) -> None:
    engine.script = Script(steps=[Step(token_ids=ids_of("a")), Step(after_s=5)])
    started = time.monotonic()
    client.send("POST", path, BODIES[path])
    client.receive_head()
    client.wait_for_body()
    assert time.monotonic() - started < 3


def test_the_chat_streams_events_are_one_write_each_but_for_the_end(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("hello"), every_s=0.01))
    client.send("POST", CHAT, BODIES[CHAT])
    client.receive_head()
    reads = client.reads()
    assert [events_of(read) for read in reads[:4]] == [1] * 4
    assert b"".join(reads[4:]).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_a_later_error_is_the_last_event(client: RawClient, engine: FakeEngine, path: str) -> None:
    steps = [*one_token_a_step(ids_of("half"), every_s=0.005), Step(error=EngineUnavailable())]
    engine.script = Script(steps=steps)
    client.send("POST", path, BODIES[path], {"Accept-Language": "zh"})
    answer = client.receive()
    assert answer.status == 200
    *events, last = parse_events(answer.body)
    assert text_of(events) == "half"
    assert b'finished":true' not in answer.body
    assert b'"finish_reason":"stop"' not in answer.body
    assert b"[DONE]" not in answer.body
    assert last["error"]["code"].lower() == "engine_unavailable"
    assert last["error"]["message"] == "推理引擎暂不可用"


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_an_engine_that_ends_without_a_reason_is_an_error_not_a_stop(
    client: RawClient, engine: FakeEngine, path: str
) -> None:
    steps = one_token_a_step(ids_of("half"), every_s=0.005)
    engine.script = Script(steps=steps, finish_reason=None)
    client.send("POST", path, BODIES[path])
    *_, last = parse_events(client.receive().body)
    assert last["error"]["code"].lower() == "generation_failed"


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_a_later_unexpected_exception_is_a_fixed_text(
    client: RawClient, engine: FakeEngine, path: str
) -> None:
    steps = [*one_token_a_step(ids_of("half"), every_s=0.005), Step(error=RuntimeError("secret"))]
    engine.script = Script(steps=steps)
    client.send("POST", path, BODIES[path])
    answer = client.receive()
    assert b"secret" not in answer.body
    *_, last = parse_events(answer.body)
    assert last["error"]["code"].lower() == "internal_error"


def test_a_quiet_chat_stream_has_comments(quick_keep_alive: RawClient, engine: FakeEngine) -> None:
    steps = [Step(token_ids=ids_of("a"), after_s=0.3), Step(token_ids=ids_of("b"), after_s=0.3)]
    engine.script = Script(steps=steps)
    quick_keep_alive.send("POST", CHAT, BODIES[CHAT])
    answer = quick_keep_alive.receive()
    before, _, after = answer.body.partition(b'"content":"a"')
    assert before.count(b": keep-alive\n\n") >= 2
    assert after.partition(b'"content":"b"')[0].count(b": keep-alive\n\n") >= 2
    assert text_of(parse_events(answer.body)) == "ab"


def test_a_quiet_native_stream_has_empty_tokens(
    quick_keep_alive: RawClient, engine: FakeEngine
) -> None:
    steps = [Step(token_ids=ids_of("a"), after_s=0.3), Step(token_ids=ids_of("b"), after_s=0.3)]
    engine.script = Script(steps=steps)
    quick_keep_alive.send("POST", NATIVE, BODIES[NATIVE])
    quick_keep_alive.receive_head()
    events = [json.loads(read.decode().replace("data: ", "")) for read in quick_keep_alive.reads()]
    tokens = [event["token"] for event in events]
    assert tokens.index("a") >= 2
    assert tokens.index("b") - tokens.index("a") > 2
    assert all(event == {"token": "", "finished": False} for event in events if not event["token"])


class Writes:
    """A request, and the answer to it, that keeps when it was written to."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def respond(self, **_head: object) -> Writes:
        return self

    async def send(self, _event: bytes) -> None:
        self.times.append(time.monotonic())

    async def eof(self) -> None: ...


async def test_an_empty_token_and_an_event_are_as_far_apart_as_two_events() -> None:
    writes: Any = Writes()
    async with KeepAlive(writes, 60, b"empty", gap_s=0.05) as out:
        await asyncio.gather(out.send_keep_alive(), out.send(b"event"), out.send_keep_alive())
    first, second, third = writes.times
    assert min(second - first, third - second) >= 0.049


def test_a_busy_stream_has_no_comments(quick_keep_alive: RawClient, engine: FakeEngine) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("a" * 30), every_s=0.01))
    quick_keep_alive.send("POST", CHAT, BODIES[CHAT])
    assert b"keep-alive" not in quick_keep_alive.receive().body


@pytest.mark.parametrize("path", [NATIVE, CHAT])
def test_an_error_behind_a_comment_is_the_last_event(
    quick_keep_alive: RawClient, engine: FakeEngine, path: str
) -> None:
    engine.script = Script(steps=[Step(error=GenerationFailed(reason="late"), after_s=0.2)])
    quick_keep_alive.send("POST", path, BODIES[path])
    answer = quick_keep_alive.receive()
    assert answer.status == 200
    assert "late" in parse_events(answer.body)[-1]["error"]["message"]


def test_a_stream_leaves_the_connection_reusable(client: RawClient, engine: FakeEngine) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("ab"), every_s=0.001))
    for path in (NATIVE, CHAT, PLAIN_NATIVE) * 3:
        client.send("POST", path, BODIES[path])
        answer = client.receive()
        assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")


def test_pipelined_requests_are_answered_in_order(client: RawClient, engine: FakeEngine) -> None:
    engine.script = lambda request: Script(
        steps=one_token_a_step(ids_of(f"answer {request.max_new_tokens}"), every_s=0.001)
    )
    requests = [
        request_bytes("POST", NATIVE if i % 2 else PLAIN_NATIVE, {"prompt": "x", "max_tokens": i})
        for i in range(20, 30)
    ]
    client.sock.sendall(b"".join(requests))
    for i in range(20, 30):
        answer = client.receive()
        text = text_of(parse_events(answer.body)) if i % 2 else answer.json["text"]
        assert text == f"answer {i}"


@pytest.mark.parametrize("path", [NATIVE, CHAT, PLAIN_NATIVE])
@pytest.mark.parametrize("is_reset", [False, True], ids=["fin", "rst"])
def test_a_client_that_goes_away_cancels_its_request(
    server: ServerThread, engine: FakeEngine, path: str, is_reset: bool
) -> None:
    engine.script = Script(steps=[*one_token_a_step(ids_of("abc")), Step(after_s=3600)])
    with RawClient(server.address) as client:
        client.send("POST", path, BODIES[path])
        if path != PLAIN_NATIVE:
            client.receive_head()
        wait_until(lambda: engine.num_running == 1)
        if is_reset:
            client.reset()
        else:
            client.sock.close()
        assert wait_until(lambda: engine.num_running == 0) < CANCEL_S
    assert engine.streams[0].ending is Ending.CANCELLED


def test_a_client_that_goes_away_in_a_batch_cancels_all_of_it(
    server: ServerThread, engine: FakeEngine
) -> None:
    engine.script = Script(steps=[Step(after_s=3600)])
    with RawClient(server.address) as client:
        client.send("POST", "/api/v1/batch/generate", {"requests": [{"prompt": "x"}] * 10})
        wait_until(lambda: engine.num_running == 10)
    assert wait_until(lambda: engine.num_running == 0) < CANCEL_S


@pytest.mark.parametrize("path", [NATIVE, PLAIN_NATIVE])
def test_a_client_with_a_large_body_that_goes_away_cancels_its_request(
    server: ServerThread, engine: FakeEngine, path: str
) -> None:
    engine.load("tiny", max_seq_len=10**6)
    engine.script = Script(steps=[Step(after_s=3600)])
    for size in (70_000, 200_000, 900_000):
        with RawClient(server.address) as client:
            client.send("POST", path, {"prompt": "x" * size})
            wait_until(lambda: engine.num_running == 1)
            time.sleep(0.05)
        assert wait_until(lambda: engine.num_running == 0) < CANCEL_S


def test_nothing_is_left_behind_by_clients_that_go_away(
    server: ServerThread, client: RawClient, engine: FakeEngine
) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("x" * 1000), every_s=0.01))
    client.send("GET", "/health")
    client.receive()
    num_tasks = server.num_tasks()
    for i in range(60):
        with RawClient(server.address) as leaving:
            path = (NATIVE, CHAT, PLAIN_NATIVE)[i % 3]
            leaving.send("POST", path, BODIES[path])
            time.sleep(0.001 * (i % 7))
    wait_until(lambda: engine.num_running == 0 and server.num_tasks() <= num_tasks)
    client.send("GET", "/health")
    assert client.receive().json["active_connections"] == 0


def test_a_slow_client_holds_up_only_itself_and_little_is_kept_for_it(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    # 2 kB a step, 40 MB in all: far more than all buffers on the way together
    engine.load("tiny", max_seq_len=10**9)
    big = Script(steps=[Step(token_ids=[65] * 2000, is_alone=True) for _ in range(20_000)])
    small = Script(steps=one_token_a_step(ids_of("quick"), every_s=0.001))
    engine.script = lambda request: big if request.sampling.top_k == 7 else small
    with (
        ServerThread(tiny_settings, engine, repository, send_buffer_bytes=2**14) as server,
        RawClient(server.address) as client,
        RawClient(server.address, receive_buffer_bytes=2**12) as slow,
    ):
        slow.send("POST", CHAT, BODIES[CHAT] | {"top_k": 7})  # the native surface leaves gaps
        slow.receive_head()
        wait_until(lambda: engine.streams[0].num_tokens_taken > 0)
        time.sleep(1)
        taken = engine.streams[0].num_tokens_taken
        time.sleep(0.5)
        assert engine.streams[0].num_tokens_taken == taken, "it waits for the client"
        assert taken < 300_000
        client.send("POST", NATIVE, BODIES[NATIVE])
        assert text_of(parse_events(client.receive().body)) == "quick"
        slow.sock.close()
        assert wait_until(lambda: engine.streams[0].ending is Ending.CANCELLED) < 1


async def test_200_streams_at_once_get_each_its_own_text(
    server: ServerThread, engine: FakeEngine
) -> None:
    engine.script = lambda request: Script(
        steps=one_token_a_step(ids_of(f"text of {request.max_new_tokens} 你好"), every_s=0.02)
    )

    async def ask(client: httpx.AsyncClient, number: int) -> str:
        path = (NATIVE, CHAT)[number % 2]
        body = {**BODIES[path], "max_tokens": number}
        async with client.stream("POST", server.url + path, json=body) as response:
            assert response.status_code == 200
            return text_of(parse_events(await response.aread()))

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
        texts = await asyncio.gather(*(ask(client, 100 + i) for i in range(200)))
    assert texts == [f"text of {100 + i} 你好" for i in range(200)]
    assert engine.num_running == 0


def test_a_large_body_that_fits_is_taken(client: RawClient, engine: FakeEngine) -> None:
    engine.load("tiny", max_seq_len=10**6)
    prompt = "你" * 100_000
    client.send("POST", PLAIN_NATIVE, {"prompt": prompt, "apply_chat_template": False})
    assert client.receive().status == 200
    assert TOKENIZER.decode(engine.streams[0].request.prompt_token_ids) == prompt


def test_a_long_prompt_does_not_hold_up_the_other_streams(
    server: ServerThread, client: RawClient, engine: FakeEngine
) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("x" * 60), every_s=0.01))
    with RawClient(server.address) as other:
        client.send("POST", NATIVE, BODIES[NATIVE])
        client.receive_head()
        other.send("POST", PLAIN_NATIVE, {"prompt": "word " * 150_000})
        gaps, last = [], time.monotonic()
        for _ in client.iter_reads():
            now = time.monotonic()
            gaps.append(now - last)
            last = now
        assert max(gaps) < 0.25
        assert other.receive().status == 400
