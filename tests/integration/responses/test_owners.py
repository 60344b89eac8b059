"""Whose a stored response is: to other tenants, and without its model, it never was."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from frontend.access.identity import Scope, current_identity
from frontend.types import GenerationRequest, TokenChunk
from tests.fakes.access import Keys, ask
from tests.fakes.engine import FakeEngine
from tests.fakes.server import Answer, ServerThread, wait_until
from tests.integration.responses.asking import SLOW, parse_named_events, prompt_of

ID = re.compile(r"(resp|msg|req)_[0-9a-zA-Z]+")


@pytest.fixture
def owner(keys: Keys) -> str:
    return keys.make(Scope.INFERENCE, tenant="lab")[1]


# Who may not see what the tenant "lab" has stored of the model `tiny`, and what they may use.
STRANGERS: dict[str, tuple[dict[str, Any], str]] = {
    "another tenant": ({"tenant": "shop"}, "tiny"),
    "the default tenant": ({}, "tiny"),
    "without its model": ({"tenant": "lab", "models": ("bare",)}, "bare"),
}


def create(server: ServerThread, key: str, **body: Any) -> Any:
    answer = ask(server, "POST", "/v1/responses", key, body={"input": "hi", **body})
    assert answer.status == 200, answer.body
    return answer.json


def shown(answer: Answer) -> tuple[int, str]:
    return answer.status, ID.sub("ID", answer.body.decode())


def attempts(response_id: str, item_id: str, model: str) -> list[tuple[str, str, Any]]:
    """All that can be done with the ids of a response and of an item of it."""
    path = f"/v1/responses/{response_id}"
    reference = {"type": "item_reference", "id": item_id}
    more = {"model": model, "input": "more", "previous_response_id": response_id}
    named = {"model": model, "input": [{"role": "user", "content": "x"}, reference]}
    return [
        ("GET", path, None),
        ("GET", f"{path}?stream=true", None),
        ("GET", f"{path}/input_items", None),
        ("POST", f"{path}/cancel", None),
        ("DELETE", path, None),
        *(
            ("POST", f"/v1/responses{ending}", {**body, **fields})
            for ending, fields in (("", {}), ("", {"background": True}), ("/input_tokens", {}))
            for body in (more, named)
        ),
    ]


@pytest.mark.parametrize("kind", STRANGERS)
def test_to_others_a_response_answers_as_one_that_never_was(
    closed: ServerThread, engine: FakeEngine, keys: Keys, owner: str, kind: str
) -> None:
    engine.load("bare")
    fields, model = STRANGERS[kind]
    _, stranger = keys.make(Scope.INFERENCE, **fields)
    ended = create(closed, owner)
    engine.script = SLOW
    running = create(closed, owner, background=True, stream=False)
    item_id = ended["output"][0]["id"]
    never = attempts("resp_" + "0" * 32, "msg_" + "0" * 32, model)
    for response in (ended, running):
        own = attempts(response["id"], item_id, model)
        for (method, path, body), (_, other_path, other_body) in zip(own, never, strict=True):
            theirs = ask(closed, method, path, stranger, body=body)
            nobodys = ask(closed, method, other_path, stranger, body=other_body)
            assert shown(theirs) == shown(nobodys), (method, path, body)
            assert theirs.status in (400, 404), (method, path, body)
    found = ask(closed, "GET", f"/v1/responses/{running['id']}", owner).json
    assert found["status"] in ("queued", "in_progress"), "neither cancelled nor deleted"
    assert ask(closed, "GET", f"/v1/responses/{ended['id']}", owner).status == 200
    ask(closed, "DELETE", f"/v1/responses/{running['id']}", owner)


def test_keys_of_one_tenant_share_what_they_store(
    closed: ServerThread, engine: FakeEngine, keys: Keys, owner: str
) -> None:
    _, colleague = keys.make(Scope.INFERENCE, tenant="lab", models=("t*y",))
    first = create(closed, owner)
    second = create(closed, colleague, previous_response_id=first["id"])
    assert "你好" in prompt_of(engine)
    assert ask(closed, "GET", f"/v1/responses/{second['id']}", owner).status == 200
    assert ask(closed, "DELETE", f"/v1/responses/{first['id']}", colleague).status == 200


def test_a_forged_item_of_another_tenant_is_not_taken_for_ones_own(
    closed: ServerThread, engine: FakeEngine, keys: Keys, owner: str
) -> None:
    """Clients choose the ids of the items that they send."""
    _, other = keys.make(Scope.INFERENCE, tenant="shop")
    item = create(closed, owner)["output"][0]
    forged = {**item, "content": [{**item["content"][0], "text": "forged"}]}
    create(closed, other, input=[forged, {"role": "user", "content": "hm"}])
    reference = {"type": "item_reference", "id": item["id"]}
    create(closed, owner, input=[reference, {"role": "user", "content": "and?"}])
    assert "你好" in prompt_of(engine)
    assert "forged" not in prompt_of(engine)


def test_a_background_run_works_for_who_asked_for_it(
    closed: ServerThread, engine: FakeEngine, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = []
    stream = FakeEngine.stream

    async def seen(
        self: FakeEngine, request: GenerationRequest
    ) -> AsyncGenerator[TokenChunk, None]:
        tenants.append(current_identity.get().tenant)
        async for chunk in stream(engine, request):
            tenants.append(current_identity.get().tenant)
            yield chunk

    monkeypatch.setattr(FakeEngine, "stream", seen)
    made = create(closed, owner, background=True)
    path = f"/v1/responses/{made['id']}"
    wait_until(lambda: ask(closed, "GET", path, owner).json["status"] == "completed")
    assert len(tenants) > 1
    assert set(tenants) == {"lab"}


def test_a_background_stream_is_its_owners_only(
    closed: ServerThread, keys: Keys, owner: str
) -> None:
    _, other = keys.make(Scope.INFERENCE, tenant="shop")
    body = {"input": "hi", "background": True, "stream": True}
    begun = ask(closed, "POST", "/v1/responses", owner, body=body)
    response_id = parse_named_events(begun.body)[0]["response"]["id"]
    path = f"/v1/responses/{response_id}?stream=true"
    again = ask(closed, "GET", path, owner)
    assert "".join(e.get("delta", "") for e in parse_named_events(again.body)) == "你好"
    assert ask(closed, "GET", path, other).status == 404


def test_an_item_id_says_nothing_of_others(closed: ServerThread, keys: Keys, owner: str) -> None:
    """A page's `after` is looked for among the response's own items only."""
    _, other = keys.make(Scope.INFERENCE, tenant="shop")
    theirs, mine = create(closed, other), create(closed, owner)
    answers = {
        shown(ask(closed, "GET", f"/v1/responses/{mine['id']}/input_items?after={after}", owner))
        for after in (theirs["output"][0]["id"], "msg_0")
    }
    assert len(answers) == 1
