"""What is generated: equal on all ways, whole characters, stop strings, seeds, batches."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import httpx
import pytest

from tests.e2e.answers import CHAT, GENERATE, chat_body, events, plain_chat, stream_chat

QUESTIONS = [
    *("What is the capital of France?", "Name three colours.", "What is two plus two?"),
    *("Who wrote Hamlet?", "What is water made of?", "Tell me about the moon."),
    *("How do birds fly?", "What is a prime number?", "Describe the sea.", "What is rice?"),
    *("Why is the sky blue?", "What is a violin?", "Explain gravity.", "What do bees do?"),
    *("Tell me about Rome.", "What is a novel?"),
]


def test_a_streamed_answer_equals_the_plain_one(http: httpx.Client) -> None:
    body = chat_body("Tell me about the moon.", max_tokens=48)
    plain, stream = plain_chat(http, body), stream_chat(http, body)
    assert stream["text"] == plain["text"]
    assert stream["finish_reason"] == plain["finish_reason"]
    for usage in (stream["usage"], plain["usage"]):
        del usage["prompt_tokens_details"]  # the second one finds the prompt in the cache
    assert stream["usage"] == plain["usage"]


# Patterns that the model goes on with; each of their characters takes several tokens.
@pytest.mark.parametrize(
    "pattern",
    ["你好，世界。", "我爱北京天安门！", "😀", "你好😀，", "e\u0301a\u0308n\u0303 ", "ไทย "],
)
def test_streaming_never_splits_a_character(http: httpx.Client, pattern: str) -> None:
    body = {
        "prompt": pattern * 12,
        "apply_chat_template": False,
        "max_tokens": 48,
        "temperature": 0,
        "ignore_eos": True,
    }
    plain = http.post(GENERATE, json=body).json()["text"]
    with http.stream("POST", GENERATE, json={**body, "stream": True}) as answer:
        text = "".join(json.loads(event)["token"] for event in events(answer))
    assert text == plain
    assert any(ord(character) > 127 for character in text), "the model goes on with the pattern"
    assert "\ufffd" not in text.rstrip("\ufffd")  # a limit of tokens may cut the very last one


def test_a_stop_string_across_chunks_is_never_shown(http: httpx.Client) -> None:
    body = chat_body("Tell me about the moon.", max_tokens=48)
    pieces = [piece for piece in stream_chat(http, body)["pieces"] if piece]
    text = "".join(pieces)
    start = len("".join(pieces[:10])) - 2  # the last two characters of one piece and what follows
    stop = text[start : start + 6]
    cut = text[: text.index(stop)]
    for answer in (
        stream_chat(http, {**body, "stop": stop}),
        plain_chat(http, {**body, "stop": ["never in it", stop]}),
    ):
        assert answer["text"] == cut
        assert answer["finish_reason"] == "stop"


def test_finish_reasons(http: httpx.Client) -> None:
    body = chat_body("Hello")
    short = plain_chat(http, {**body, "max_tokens": 3})
    assert short["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] == 3
    ended = plain_chat(http, {**body, "max_tokens": 512})
    assert ended["finish_reason"] == "stop"
    assert "<|im_end|>" not in ended["text"]


def test_the_same_seed_gives_the_same_text(http: httpx.Client) -> None:
    body = chat_body("Tell me a story.", max_tokens=32, temperature=1.0)
    with ThreadPoolExecutor(8) as pool:
        same = list(pool.map(lambda _: plain_chat(http, {**body, "seed": 42})["text"], range(4)))
        drawn = list(pool.map(lambda _: plain_chat(http, body)["text"], range(4)))
    assert len(set(same)) == 1
    assert len(set(drawn)) > 1


def test_greedy_output_of_16_at_once_equals_each_alone(http: httpx.Client) -> None:
    bodies = [chat_body(question, max_tokens=32) for question in QUESTIONS]
    alone = [plain_chat(http, body)["text"] for body in bodies]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda body: stream_chat(http, body)["text"], bodies))
    assert together == alone


def test_several_choices_are_numbered(http: httpx.Client) -> None:
    body = chat_body("Name a colour.", max_tokens=8, temperature=1.0, n=3)
    choices = http.post(CHAT, json=body).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]


def test_a_repeated_long_prompt_begins_to_answer_5_times_sooner(http: httpx.Client) -> None:
    ratios = []
    for i in range(5):
        body = chat_body(f"Number {i}: " + "time people world house river " * 78, max_tokens=2)
        first, repeated = (_time_to_answer(http, body) for _ in range(2))
        ratios.append(first / repeated)
    assert sorted(ratios)[2] >= 5, ratios


def _time_to_answer(http: httpx.Client, body: dict[str, object]) -> float:
    started = perf_counter()
    with http.stream("POST", CHAT, json={**body, "stream": True}) as answer:
        stream = events(answer)
        next(stream)
        elapsed = perf_counter() - started
        assert list(stream)[-1] == "[DONE]"
    return elapsed
