"""What is counted of requests over HTTP, who may see it, and budgets that end."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontend.access.identity import Scope
from frontend.errors import GenerationFailed
from frontend.settings import Settings
from frontend.store.api_keys import ApiKey, ApiKeyStore
from frontend.store.database import Database
from frontend.store.usage import UsageStore
from frontend.types import GenerationRequest
from frontend.usage.record import UsageRow
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step, one_token_a_step
from tests.fakes.server import Answer, RawClient, ServerThread, wait_until
from tests.fakes.tokenizers import byte_level_tokenizer
from tests.fakes.usage import record

LETTERS = byte_level_tokenizer().encode("abcd").ids
HI = {"prompt": "hi", "apply_chat_template": False}  # two tokens
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
CHAT_TOKENS = len(
    byte_level_tokenizer().encode("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n").ids
)
LIMITS = """
[budgets.small]
tokens = 12
[budgets.poor]
money = 0.000_02
[prices."*"]
prompt = 1.0
cached = 0.5
completion = 2.0
"""


@pytest.fixture
def settings(tiny_settings: Settings, tmp_path: Path) -> Settings:
    """Of a home of its own: usage is counted in it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(tiny_settings.home / "models", target_is_directory=True)
    (home / "limits.toml").write_text(LIMITS)
    return replace(tiny_settings, home=home)


@pytest.fixture
def engine(engine: FakeEngine) -> FakeEngine:
    engine.script = Script(steps=one_token_a_step(LETTERS))
    return engine


@pytest.fixture
def server(
    settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> Iterator[ServerThread]:
    with ServerThread(settings, engine, repository) as running:
        yield running


@pytest.fixture
def closed(
    settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> Iterator[ServerThread]:
    """It wants keys."""
    with ServerThread(replace(settings, authentication="on"), engine, repository) as running:
        yield running


def within(settings: Settings, work: Callable[[Database], Any]) -> Any:
    """Work on a server's database, beside it."""

    async def run() -> Any:
        database = await Database.open(settings.database_address)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def make_key(server: ServerThread, *scopes: Scope, **fields: Any) -> tuple[str, str]:
    """Its id, and its secret."""
    key = ApiKey(id="", scopes=frozenset(scopes), **{"name": "test", **fields})
    made, secret = within(server.settings, lambda database: ApiKeyStore(database).create(key))
    return made.id, secret


def ask(
    server: ServerThread, method: str, path: str, body: object = None, **headers: str
) -> Answer:
    with RawClient(server.address) as client:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        client.send(method, path, body, names)
        return client.receive()


def usage_of(server: ServerThread, query: str, **headers: str) -> dict[str, Any]:
    answer = ask(server, "GET", f"/v1/usage?{query}", **headers)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def counted(server: ServerThread, query: str, num_requests: int) -> dict[str, Any]:
    """The usage once so many requests are in it; they are written a moment behind answers."""
    wait_until(lambda: usage_of(server, query)["total"]["requests"] >= num_requests)
    return usage_of(server, query)


def by_outcome(request: GenerationRequest) -> Script:
    """The number of tokens that are asked for says how it ends."""
    steps = one_token_a_step(LETTERS)
    if request.max_new_tokens == 50:
        return Script(steps=[*steps[:2], Step(error=GenerationFailed(reason="test"))])
    if request.max_new_tokens == 51:
        return Script(steps=[Step(error=GenerationFailed(reason="test"))])
    if request.max_new_tokens == 52:
        return Script(steps=one_token_a_step(LETTERS, every_s=0.2))
    return Script(steps=[replace(steps[0], num_cached_tokens=1), *steps[1:]])


def test_each_request_is_counted_once_however_it_ends(
    server: ServerThread, engine: FakeEngine
) -> None:
    engine.script = by_outcome
    assert ask(server, "POST", "/api/v1/generate", HI).status == 200
    assert ask(server, "POST", "/api/v1/generate/stream", HI).status == 200
    assert ask(server, "POST", "/api/v1/generate", {**HI, "max_tokens": 3}).status == 200
    assert ask(server, "POST", "/v1/completions", {"prompt": ["hi", "ho"]}).status == 200
    assert ask(server, "POST", "/v1/messages", {**CHAT, "max_tokens": 9}).status == 200
    assert ask(server, "POST", "/v1/chat/completions", CHAT).status == 200
    assert ask(server, "POST", "/api/v1/generate/stream", {**HI, "max_tokens": 50}).status == 200
    assert ask(server, "POST", "/api/v1/generate", {**HI, "max_tokens": 51}).status == 500
    assert ask(server, "POST", "/api/v1/generate", {**HI, "temperature": -1}).status == 400
    items = [HI, {**HI, "max_tokens": 3}, {**HI, "max_tokens": 51}, {**HI, "model": "none"}]
    assert ask(server, "POST", "/api/v1/batch/generate", {"requests": items}).status == 200
    with RawClient(server.address) as client:
        client.send("POST", "/api/v1/generate/stream", {**HI, "max_tokens": 52})
        client.receive_head()
        client.wait_for_body()
        client.reset()
    usage = counted(server, "group_by=outcome,model", 12)
    time.sleep(0.6)
    assert usage_of(server, "group_by=outcome,model") == usage, "and none comes again"
    assert {one["model"] for one in usage["data"]} == {"tiny"}
    found = {
        one["outcome"]: (one["requests"], one["prompt_tokens"], one["completion_tokens"])
        for one in usage["data"]
    }
    cancelled = found.pop("cancelled")
    assert cancelled[:2] == (1, 2)
    assert 1 <= cancelled[2] < 4
    assert found == {
        "stop": (6, 2 + 2 + 2 * 2 + 2 * CHAT_TOKENS + 2, 4 + 4 + 2 * 4 + 2 * 4 + 4),
        "length": (2, 4, 6),
        "generation_failed": (3, 2, 2),  # twice before its first token: that costs nothing
    }
    assert usage["total"]["cached_tokens"] == 9, "one of each prompt that was begun well"
    cost = sum(one["prompt_tokens"] * 1000 + one["completion_tokens"] * 2000
               for one in usage["data"]) - 9 * 500  # fmt: skip
    assert usage["total"]["cost"] == f"{cost / 1e9:.9f}".rstrip("0")


def test_a_stop_writes_what_was_used_just_before(
    settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    engine.script = Script(steps=one_token_a_step(LETTERS, every_s=0.2))
    with ServerThread(settings, engine, repository) as server, RawClient(server.address) as client:
        client.send("POST", "/api/v1/generate/stream", HI)
        client.receive_head()
        client.wait_for_body()
        engine.script = Script(steps=one_token_a_step(LETTERS))
        assert ask(server, "POST", "/api/v1/generate", HI).status == 200
    with ServerThread(settings, engine, repository) as server:
        usage = usage_of(server, "group_by=outcome")
    assert {one["outcome"]: one["requests"] for one in usage["data"]} == {"stop": 1, "cancelled": 1}


def test_an_administrator_sees_all_and_others_their_own(closed: ServerThread) -> None:
    _, admin = make_key(closed, Scope.ADMIN)
    mine_id, mine = make_key(closed, Scope.INFERENCE, tenant="a", name="mine")
    other_id, other = make_key(closed, Scope.INFERENCE, tenant="a", name="other")
    batch_id, batch = make_key(closed, Scope.BATCH, tenant="b")
    owners = ((mine_id, "a"), (other_id, "a"), (batch_id, "b"), (mine_id, "another"))
    rows = [
        UsageRow(id=str(number), record=record(principal=key, tenant=tenant), cost=1)
        for number, (key, tenant) in enumerate(owners)
    ]
    within(closed.settings, lambda database: UsageStore(database, retention_s=1e9).write(rows))

    def seen(secret: str, query: str = "") -> list[tuple[str, str, str]]:
        found = usage_of(closed, query, x_api_key=secret)["data"]
        return [(one["tenant"], one["key"], one["key_name"]) for one in found]

    assert seen(mine) == [("a", mine_id, "mine")]
    assert seen(mine, f"tenant=a&key={mine_id}") == [("a", mine_id, "mine")]
    assert seen(batch) == [("b", batch_id, "test")]
    assert len(seen(admin)) == 4
    assert sorted(seen(admin, "tenant=a")) == sorted(
        [("a", mine_id, "mine"), ("a", other_id, "other")]
    )
    assert seen(admin, f"key={other_id}") == [("a", other_id, "other")]
    for query in (f"key={other_id}", "tenant=b", "key="):
        refused = ask(closed, "GET", f"/v1/usage?{query}", x_api_key=mine)
        assert (refused.status, refused.json["error"]["code"]) == (403, "permission_denied")
        assert other not in refused.body.decode()


def test_csv_has_what_json_has(server: ServerThread) -> None:
    for _ in range(2):
        ask(server, "POST", "/api/v1/generate", HI)
    query = "group_by=day,key,model,batch"
    shown = [
        {name: str(value).lower() if value is False else str(value) for name, value in one.items()}
        for one in counted(server, query, 2)["data"]
    ]
    assert len(shown) == 1
    asked: list[tuple[str, dict[str, str]]] = [
        (f"{query}&format=csv", {}),
        (query, {"accept": "text/csv"}),
        (query, {"accept": "application/json;q=0.5, text/csv"}),
    ]
    for text, headers in asked:
        answer = ask(server, "GET", f"/v1/usage?{text}", **headers)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert list(csv.DictReader(io.StringIO(answer.body.decode()))) == shown
    for text, headers in [
        (f"{query}&format=json", {"accept": "text/csv"}),
        (query, {"accept": "*/*"}),
        (query, {"accept": "text/html"}),
    ]:
        answer = ask(server, "GET", f"/v1/usage?{text}", **headers)
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("query", "param"),
    [("modle=x", "modle"), ("month=2026-13", "month"), ("since=x", "since"), ("format=", "format"),
     ("group_by=week", "group_by")],
)  # fmt: skip
def test_a_query_that_is_wrong_is_refused(server: ServerThread, query: str, param: str) -> None:
    answer = ask(server, "GET", f"/v1/usage?{query}")
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    chinese = ask(server, "GET", f"/v1/usage?{query}", accept_language="zh")
    assert chinese.json["error"]["message"] != answer.json["error"]["message"]


def test_what_no_database_can_store_is_just_not_there(server: ServerThread) -> None:
    assert usage_of(server, "tenant=%00&model=%ED%A0%80")["data"] == []


@pytest.mark.parametrize(
    ("tenant", "parts"),
    [("small", ("small", "12", time.strftime("%Y-%m", time.gmtime()))), ("poor", ("0.00002",))],
)
def test_a_budget_that_is_used_up_stops_a_tenant(
    closed: ServerThread, tenant: str, parts: tuple[str, ...]
) -> None:
    _, secret = make_key(closed, Scope.INFERENCE, tenant=tenant)
    _, other = make_key(closed, Scope.INFERENCE, tenant="rich")
    for _ in range(2):  # six tokens and 0.00001 each
        assert ask(closed, "POST", "/api/v1/generate", HI, x_api_key=secret).status == 200
    for path in ("/v1/chat/completions", "/v1/messages"):
        body = {**CHAT, "max_tokens": 5}
        for language, error_part in (("en", "budget"), ("zh", "预算")):
            refused = ask(closed, "POST", path, body, x_api_key=secret, accept_language=language)
            message = refused.json["error"]["message"]
            assert refused.status == 429
            assert refused.headers["x-should-retry"] == "false"
            assert all(part in message for part in (tenant, error_part, *parts)), message
    assert refused.json["type"] == "error"
    batch = ask(closed, "POST", "/api/v1/batch/generate", {"requests": [HI]}, x_api_key=secret)
    assert batch.json["results"][0]["error"]["code"] == "INSUFFICIENT_QUOTA"
    assert ask(closed, "POST", "/api/v1/generate", HI, x_api_key=other).status == 200
    time.sleep(1.5)  # now all is read from the database, and still counts once
    assert ask(closed, "POST", "/api/v1/generate", HI, x_api_key=secret).status == 429
    refused = ask(closed, "POST", "/v1/chat/completions", CHAT, x_api_key=secret)
    assert refused.json["error"]["code"] == "insufficient_quota"


def test_a_worker_that_starts_knows_what_is_used_up(
    settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    used = UsageRow(id="1", record=record(tenant="small", prompt_tokens=12), cost=0)
    within(settings, lambda database: UsageStore(database, retention_s=1e9).write([used]))
    settings = replace(settings, authentication="on")
    with ServerThread(settings, engine, repository) as server:
        _, secret = make_key(server, Scope.INFERENCE, tenant="small")
        assert ask(server, "POST", "/api/v1/generate", HI, x_api_key=secret).status == 429
    assert engine.streams == []
