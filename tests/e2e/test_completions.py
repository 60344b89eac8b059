"""Completions by the real engine: what prompts are scored with, and the tokenizer's routes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.e2e.scores import Scorer
from tests.e2e.stack import MODEL

TEXT = "The capital of France is Paris, and the river there is the Seine."


@pytest.fixture
def scorer(http: httpx.Client) -> Scorer:
    return Scorer(http)


def complete(http: httpx.Client, **fields: Any) -> Any:
    answer = http.post("/v1/completions", json={"model": MODEL, "temperature": 0, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_scored_prompt_has_the_log_probs_that_its_tokens_are_generated_with(
    http: httpx.Client, scorer: Scorer
) -> None:
    (choice,) = complete(http, prompt=TEXT, echo=True, logprobs=3, max_tokens=0)["choices"]
    found = choice["logprobs"]
    token_ids = scorer.tokenize(TEXT)
    assert choice["text"] == TEXT == "".join(found["tokens"])
    assert choice["finish_reason"] == "length"
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    assert found["token_logprobs"][1:] == pytest.approx(
        [scorer.log_prob(token_ids[:i], token_ids[i]) for i in range(1, len(token_ids))], abs=0.02
    )
    for offset, token, log_prob, top in zip(
        *(found[key][1:] for key in ("text_offset", "tokens", "token_logprobs", "top_logprobs")),
        strict=True,
    ):
        assert TEXT[offset:].startswith(token)
        assert top[token] == log_prob
        assert 3 <= len(top) <= 4


def test_texts_token_ids_and_batches_are_scored_alike(http: httpx.Client, scorer: Scorer) -> None:
    texts = [TEXT, "Once upon a time", TEXT[:30]]
    token_ids = [scorer.tokenize(text) for text in texts]
    fields = {"echo": True, "logprobs": 1, "max_tokens": 1}
    together = complete(http, prompt=token_ids, **fields)["choices"]
    assert [one["index"] for one in together] == [0, 1, 2]
    for text, choice in zip(texts, together, strict=True):
        (alone,) = complete(http, prompt=text, **fields)["choices"]
        assert choice["text"] == alone["text"]
        assert choice["logprobs"]["tokens"] == alone["logprobs"]["tokens"]
        for key in ("token_logprobs",):
            assert choice["logprobs"][key][1:] == pytest.approx(alone["logprobs"][key][1:], abs=0.1)


def test_a_text_that_ends_at_once_has_the_log_prob_of_its_end(http: httpx.Client) -> None:
    fields = {"prompt": "Hello", "logit_bias": {"2": 100}, "logprobs": 1, "max_tokens": 1}
    body = complete(http, **fields)
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert choice["logprobs"]["tokens"] == ["<|im_end|>"]
    assert choice["logprobs"]["token_logprobs"][0] < 0
    assert body["usage"]["completion_tokens"] == 0
    (echoed,) = complete(http, **fields, echo=True)["choices"]
    assert echoed["logprobs"]["tokens"] == ["Hello", "<|im_end|>"]


def test_the_best_candidate_is_the_likeliest_of_all(http: httpx.Client) -> None:
    fields = {"prompt": "My name is", "temperature": 1.2, "seed": 3, "max_tokens": 8, "logprobs": 0}
    drawn = complete(http, **fields, n=6)["choices"]
    (best,) = complete(http, **fields, best_of=6)["choices"]

    def mean(choice: Any) -> float:
        values: list[float] = choice["logprobs"]["token_logprobs"]
        return sum(values) / len(values)

    assert len({one["text"] for one in drawn}) > 1
    assert best["text"] == max(drawn, key=mean)["text"]


def test_a_streamed_completion_is_the_plain_one(http: httpx.Client) -> None:
    plain = complete(http, prompt=["One, two,", "Red, green,"], max_tokens=12, n=2, seed=1)
    texts = {choice["index"]: "" for choice in plain["choices"]}
    body = {"model": MODEL, "prompt": ["One, two,", "Red, green,"], "max_tokens": 12, "n": 2}
    with httpx.stream(
        "POST",
        f"{http.base_url}/v1/completions",
        json={**body, "temperature": 0, "seed": 1, "stream": True},
        timeout=60,
    ) as answer:
        *lines, done = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert done == "data: [DONE]"
    for line in lines:
        (choice,) = httpx.Response(200, content=line[6:]).json()["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == {choice["index"]: choice["text"] for choice in plain["choices"]}


def test_a_rendered_chat_is_what_the_engine_gets(http: httpx.Client, scorer: Scorer) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    rendered = http.post("/v1/chat/completions/render", json={"messages": messages}).json()
    assert rendered["prompt"].endswith("<|im_start|>assistant\n")
    assert rendered["token_ids"] == scorer.tokenize(rendered["prompt"])
    fields = {"model": MODEL, "temperature": 0, "max_tokens": 12}
    chat = http.post("/v1/chat/completions", json={"messages": messages, **fields}).json()
    assert chat["usage"]["prompt_tokens"] == rendered["count"]
    (choice,) = complete(http, prompt=rendered["token_ids"], max_tokens=12)["choices"]
    assert choice["text"] == chat["choices"][0]["message"]["content"]


@pytest.mark.parametrize("logprobs", [None, 1])
def test_a_guided_completion_matches_its_guide(http: httpx.Client, logprobs: int | None) -> None:
    choices = ["a violin", "a drum"]
    body = complete(http, prompt="She plays ", guided_choice=choices, logprobs=logprobs)
    assert [one["text"] in choices for one in body["choices"]] == [True]
    assert body["choices"][0]["finish_reason"] == "stop"
