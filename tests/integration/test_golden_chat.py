"""The event streams of /v1/chat/completions, byte for byte (tests/golden/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from frontend.errors import EngineUnavailable
from frontend.settings import Settings
from frontend.types import FinishReason, TokenLogProb
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine, FakeRepository, Script, Step
from tests.fakes.server import RawClient, ServerThread
from tests.fakes.tokenizers import CHAT_TEMPLATE, byte_level_tokenizer
from tests.golden_files import Golden

TOKENIZER = byte_level_tokenizer()
THINKING_TEMPLATE = CHAT_TEMPLATE + "{# <think></think> #}"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = ("I'll look.\n<tool", '_call>\n{"name": "get_weather", "arguments": {"ci', 'ty": "', "巴黎")
CALL_END = ('"}}\n</tool', "_call>")


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


def steps(*pieces: str) -> list[Step]:
    """The engine delivers each piece as a chunk of its own."""
    return [Step(token_ids=ids_of(piece), is_alone=True) for piece in pieces]


def step_with_log_probs(letter: str, *top: tuple[str, float]) -> Step:
    best = [TokenLogProb(token_id=ids_of(one)[0], log_prob=value) for one, value in top]
    count = len(ids_of(letter))
    return Step(
        token_ids=ids_of(letter),
        log_probs=[-0.25] * count,
        top_log_probs=[best] * count,
        is_alone=True,
    )


@dataclass(frozen=True)
class Transcript:
    name: str
    steps: list[Step]
    request: dict[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason | None = FinishReason.STOP
    model: str = "tiny"


TRANSCRIPTS = [
    Transcript("plain", steps("Hello", ", ", "你好", "!")),
    Transcript("length", steps("Hello"), {"max_completion_tokens": 3}),
    Transcript("n_2", steps("Hello", "!"), {"n": 2}),
    Transcript(
        "logprobs",
        [
            step_with_log_probs("H", ("H", -0.25), ("J", -1.5)),
            step_with_log_probs("é", ("x", -0.5), ("é", -20000.0)),
        ],
        {"logprobs": True, "top_logprobs": 2},
    ),
    Transcript("tool_call", steps(*CALL, *CALL_END), {"tools": [WEATHER]}),
    Transcript("two_tool_calls", steps(*CALL, *CALL_END, *CALL, *CALL_END), {"tools": [WEATHER]}),
    Transcript(
        "one_tool_call_at_the_most",
        steps(*CALL, *CALL_END, *CALL, *CALL_END),
        {"tools": [WEATHER], "parallel_tool_calls": False},
    ),
    Transcript(
        "required_tool_call",
        steps('[{"name":"get_weather",', '"parameters":{"city":', '"巴黎"}}', "]"),
        {"tools": [WEATHER], "tool_choice": "required"},
    ),
    Transcript(
        "function_call",
        steps('{"city":', '"巴黎"}'),
        {"functions": [WEATHER["function"]], "function_call": {"name": "get_weather"}},
    ),
    Transcript(
        "reasoning",
        steps("<think>\nHm", "m.\n</th", "ink>\n\nIt is", " sunny."),
        {"stream_options": {"include_usage": True}},
        model="thinker",
    ),
    Transcript("usage", steps("Hello", "!"), {"stream_options": {"include_usage": True}}),
    Transcript("token_ids", steps("He", "你"), {"return_token_ids": True}),
    Transcript("service_tier", steps("Hi"), {"service_tier": "auto"}),
    Transcript("error_in_mid_stream", [*steps("Hello"), Step(error=EngineUnavailable())]),
    Transcript("end_without_a_finish_reason", steps("Hello"), finish_reason=None),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("golden-home")
    publish_model(home, "tiny")
    publish_model(home, "thinker", chat_template=THINKING_TEMPLATE)
    return home


@pytest.fixture
def client(tiny_settings: Settings, home: Path, engine: FakeEngine) -> Iterator[RawClient]:
    engine.load("thinker")
    settings = replace(tiny_settings, home=home)
    with (
        ServerThread(settings, engine, FakeRepository(engine)) as server,
        RawClient(server.address) as client,
    ):
        yield client


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)
def test_the_stream_is_the_golden_one(
    client: RawClient, engine: FakeEngine, golden: Golden, transcript: Transcript
) -> None:
    first, *others = transcript.steps
    cached = replace(first, num_cached_tokens=4)
    engine.script = Script(steps=[cached, *others], finish_reason=transcript.finish_reason)
    body = {
        "model": transcript.model,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        **transcript.request,
    }
    client.send("POST", "/v1/chat/completions", body)
    answer = client.receive()
    assert answer.status == 200, answer.body
    golden.check(f"chat/{transcript.name}.sse", answer.body)
