"""A model that changes between the preparation of a request and the engine's taking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from frontend.errors import ModelChanged
from frontend.types import GenerationRequest
from tests.fakes.engine import FakeEngine, Script, Step, one_token_a_step
from tests.fakes.server import RawClient, parse_events, wait_until
from tests.fakes.tokenizers import byte_level_tokenizer

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
SURFACES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {**CHAT, "model": "tiny", "max_tokens": 9},
    "/api/v1/generate": {"prompt": "hi"},
    "/api/v1/batch/generate": {"requests": [{"prompt": "hi"}, {"prompt": "hi"}]},
}
OK = Script(steps=one_token_a_step(byte_level_tokenizer().encode("ok").ids))
REFUSED = Script(steps=[Step(error=ModelChanged(model="tiny"))])

Refusing = Callable[[int], None]


@pytest.fixture
def refuse(engine: FakeEngine) -> Refusing:
    """Lets the engine refuse so many requests as those of another version."""

    def refuse(number: int) -> None:
        left = [number]

        def script(_: GenerationRequest) -> Script:
            left[0] -= 1
            return REFUSED if left[0] >= 0 else OK

        engine.script = script

    return refuse


def texts(content: Any) -> str:
    return str(content).replace(" ", "")


@pytest.mark.parametrize("path", SURFACES)
def test_the_request_is_prepared_again_and_nobody_sees_it(
    client: RawClient, engine: FakeEngine, refuse: Refusing, path: str
) -> None:
    refuse(2)
    client.send("POST", path, SURFACES[path])
    answer = client.receive()
    assert answer.status == 200, answer.body
    assert "'ok'" in texts(answer.json)
    assert len({stream.request.request_id for stream in engine.streams}) == len(engine.streams)


@pytest.mark.parametrize("path", [path for path in SURFACES if "batch" not in path])
def test_a_stream_begins_with_the_version_that_answers(
    client: RawClient, refuse: Refusing, path: str
) -> None:
    refuse(3)
    client.send("POST", path, {**SURFACES[path], "stream": True})
    answer = client.receive()
    assert answer.status == 200
    assert b"error" not in answer.body.replace(b'"error":null', b"")
    if path != "/v1/responses" and path != "/v1/messages":
        assert parse_events(answer.body)


def test_a_model_that_never_settles_is_unavailable(
    client: RawClient, refuse: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend.api.lifecycle.CHANGE_PAUSE_S", 0)
    refuse(1000)
    client.send("POST", "/v1/chat/completions", CHAT)
    answer = client.receive()
    assert (answer.status, answer.json["error"]["code"]) == (503, "model_changed")
    assert answer.headers["retry-after"] == "1"


def test_a_background_response_and_several_prompts_may_move(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.script = OK
    client.send("POST", "/v1/completions", {"prompt": ["a", "b"]})
    assert client.receive().status == 200
    client.send("POST", "/v1/completions", {"prompt": "a"})
    assert client.receive().status == 200
    client.send("POST", "/v1/responses", {"input": "hi", "background": True})
    assert client.receive().status == 200
    wait_until(lambda: len(engine.streams) == 4)
    moves = [stream.request.may_move for stream in engine.streams]
    assert moves == [True, True, False, True]
