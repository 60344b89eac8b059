"""EleutherAI's lm-evaluation-harness against the served default model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.scores import Scorer
from tests.e2e.stack import MODEL, Stack

COMPLETIONS = ("token_ids", "token_ids_in_batches", "texts_at_once")


@pytest.fixture(scope="module")
def found(stack: Stack, run_client: Callable[..., Any], client_python: Callable[[str], str]) -> Any:
    return run_client("lm_eval/client.py", f"{stack.url}/v1", python=client_python("lm_eval"))


def samples(found: Any, run: str, task: str) -> list[Any]:
    """Each with the arguments of its requests and the answers to them."""
    listed: list[Any] = found[run]["samples"][task]
    return listed


@pytest.mark.parametrize("run", COMPLETIONS)
def test_log_likelihoods_are_those_that_the_tokens_are_generated_with(
    found: Any, http: httpx.Client, run: str
) -> None:
    scorer = Scorer(http)
    scored = samples(found, run, "capitals_choice")
    assert len(scored) == 4
    for sample in scored:
        assert len(sample["answers"]) == 3
        for (context, continuation), (log_likelihood, is_greedy) in zip(
            sample["arguments"], sample["answers"], strict=True
        ):
            expected = scorer.log_likelihood(context, continuation)
            assert log_likelihood == pytest.approx(expected, abs=0.1)
            assert is_greedy is (continuation == greedy(http, context, continuation))


def greedy(http: httpx.Client, context: str, continuation: str) -> str:
    """As many tokens as the continuation has."""
    num_tokens = len(Scorer(http).tokenize(continuation))
    body = {"model": MODEL, "prompt": context, "temperature": 0, "max_tokens": num_tokens}
    text: str = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    return text


@pytest.mark.parametrize("run", COMPLETIONS)
def test_the_right_choice_is_the_likeliest(found: Any, run: str) -> None:
    assert found[run]["results"]["capitals_choice"]["acc,none"] == 1.0


@pytest.mark.parametrize("run", COMPLETIONS)
def test_generated_text_is_the_completion_up_to_the_stop_string(
    found: Any, http: httpx.Client, run: str
) -> None:
    for sample in samples(found, run, "capitals_generate"):
        ((prompt, _),) = sample["arguments"]
        body = {"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 16}
        whole = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
        (text,) = sample["answers"]
        assert "\n" not in text
        assert whole.startswith(text)


def test_generated_text_of_the_chat_surface_is_the_chats_answer(
    found: Any, http: httpx.Client
) -> None:
    for sample in samples(found, "chat", "capitals_generate"):
        ((prompt, _),) = sample["arguments"]
        messages = httpx.Response(200, content=prompt[0]).json()
        body = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 16}
        answer = http.post("/v1/chat/completions", json={**body, "stop": ["\n", "Question:"]})
        assert sample["answers"] == [answer.json()["choices"][0]["message"]["content"]]
