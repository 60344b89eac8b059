"""The event streams of /v1/completions, byte for byte (tests/golden/README.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from frontend.errors import EngineUnavailable
from frontend.types import FinishReason, GenerationRequest, TokenLogProb
from tests.fakes.engine import FakeEngine, Script, Step
from tests.fakes.server import RawClient
from tests.fakes.tokenizers import END_OF_TURN, byte_level_tokenizer
from tests.golden_files import Golden

TOKENIZER = byte_level_tokenizer()


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


def steps(*pieces: str, every_s: float = 0.0) -> list[Step]:
    """The engine delivers each piece as a chunk of its own."""
    return [Step(token_ids=ids_of(piece), after_s=every_s, is_alone=True) for piece in pieces]


def step_with_log_probs(text: str, *top: tuple[str, float]) -> Step:
    best = [TokenLogProb(token_id=ids_of(one)[0], log_prob=value) for one, value in top]
    token_ids = ids_of(text)
    return Step(
        token_ids=token_ids,
        log_probs=[-0.25] * len(token_ids),
        top_log_probs=[best] * len(token_ids),
        is_alone=True,
    )


@dataclass(frozen=True)
class Transcript:
    name: str
    steps: list[Step]
    request: dict[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason | None = FinishReason.STOP


TRANSCRIPTS = [
    Transcript("plain", steps("Hello", ", ", "你好", "!")),
    Transcript("length", steps("Hello"), {"max_tokens": 3}),
    Transcript("stop", steps("Hel", "lo st", "op here"), {"stop": "stop"}),
    Transcript("n_2", steps("Hello", "!"), {"n": 2}),
    Transcript("echo", steps("Hello"), {"echo": True}),
    Transcript(
        "logprobs",
        [
            step_with_log_probs("H", ("H", -0.25), ("J", -1.5)),
            step_with_log_probs("é", ("x", -0.5), ("é", -20000.0)),
            step_with_log_probs(END_OF_TURN, (END_OF_TURN, -0.25), ("é", -2.0)),
        ],
        {"logprobs": 2},
    ),
    Transcript("scored_prompt", [], {"echo": True, "logprobs": 1, "max_tokens": 0}),
    Transcript("usage", steps("Hello", "!"), {"stream_options": {"include_usage": True}}),
    Transcript("token_ids", steps("He", "你"), {"return_token_ids": True}),
    Transcript("error_in_mid_stream", [*steps("Hello"), Step(error=EngineUnavailable())]),
    Transcript("end_without_a_finish_reason", steps("Hello"), finish_reason=None),
]


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda one: one.name)
def test_the_stream_is_the_golden_one(
    client: RawClient, engine: FakeEngine, golden: Golden, transcript: Transcript
) -> None:
    engine.script = Script(steps=transcript.steps, finish_reason=transcript.finish_reason)
    golden.check(f"completions/{transcript.name}.sse", stream(client, "hi", transcript.request))


def test_the_stream_of_two_prompts_is_the_golden_one(
    client: RawClient, engine: FakeEngine, golden: Golden
) -> None:
    def script(request: GenerationRequest) -> Script:
        is_first = request.prompt_token_ids == ids_of("a")
        first, *others = steps("1", "2", every_s=0.2) if is_first else steps("3", "4", every_s=0.2)
        late = Step(token_ids=first.token_ids, after_s=0.0 if is_first else 0.1, is_alone=True)
        return Script(steps=[late, *others])

    engine.script = script
    golden.check("completions/two_prompts.sse", stream(client, ["a", "b"], {}))


def stream(client: RawClient, prompt: str | list[str], fields: dict[str, Any]) -> bytes:
    client.send("POST", "/v1/completions", {"prompt": prompt, "stream": True, **fields})
    answer = client.receive()
    assert answer.status == 200, answer.body
    return answer.body
