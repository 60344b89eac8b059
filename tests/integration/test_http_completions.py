"""/v1/completions and the tokenizer's routes over a real socket, with a fake engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

import openai
import pytest
from openai.types.completion_create_params import (
    CompletionCreateParamsBase,
    CompletionCreateParamsStreaming,
)

from frontend.errors import EngineUnavailable, ServingError
from frontend.types import FinishReason, GenerationRequest
from tests.fakes.engine import Ending, FakeEngine, Script, Step, log_prob_of, one_token_a_step
from tests.fakes.server import Answer, RawClient, ServerThread, parse_events, wait_until
from tests.fakes.tokenizers import END_OF_TURN, START_OF_TURN, byte_level_tokenizer, id_of

TOKENIZER = byte_level_tokenizer()
PATH = "/v1/completions"
END_ID = id_of(TOKENIZER, END_OF_TURN)
MESSAGES = [{"role": "user", "content": "hi"}]
PROMPT_TEXT = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

Ask = Callable[..., Any]


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


def echo_script(request: GenerationRequest) -> Script:
    """Says the prompt again, in capitals."""
    text = TOKENIZER.decode(request.prompt_token_ids).upper()
    return Script(steps=one_token_a_step(ids_of(text), every_s=0.002))


@pytest.fixture(autouse=True)
def echoing(engine: FakeEngine) -> None:
    engine.script = echo_script


@pytest.fixture
def post(client: RawClient) -> Callable[..., Answer]:
    def post(path: str, **fields: Any) -> Answer:
        client.send("POST", path, fields)
        return client.receive()

    return post


@pytest.fixture
def ask(post: Callable[..., Answer]) -> Ask:
    def ask(prompt: Any = "ab", **fields: Any) -> Any:
        answer = post(PATH, prompt=prompt, **fields)
        assert answer.status == 200, answer.body
        return parse_events(answer.body) if fields.get("stream") else answer.json

    return ask


def test_a_completion_continues_the_bare_text(ask: Ask, engine: FakeEngine) -> None:
    body = ask("你a")
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["model"] == "tiny"
    assert body["system_fingerprint"].startswith("fp_")
    assert body["choices"] == [
        {"index": 0, "text": "你A", "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"]["prompt_tokens"] == body["usage"]["completion_tokens"] == 4
    assert engine.streams[0].request.prompt_token_ids == ids_of("你a")


def test_all_prompts_run_at_once_and_answer_in_order(ask: Ask, engine: FakeEngine) -> None:
    slow = Script(steps=[Step(token_ids=ids_of("late"), after_s=0.3)])
    running: list[int] = []

    def script(request: GenerationRequest) -> Script:
        running.append(engine.num_running)
        return slow if request.prompt_token_ids == ids_of("a") else echo_script(request)

    engine.script = script
    body = ask(["a", "b", "cc"], n=2)
    texts = [(one["index"], one["text"]) for one in body["choices"]]
    assert texts == [(0, "late"), (1, "late"), (2, "B"), (3, "B"), (4, "CC"), (5, "CC")]
    assert max(running) == 3
    assert body["usage"]["prompt_tokens"] == 4
    assert body["usage"]["completion_tokens"] == 2 * (4 + 1 + 2)


def test_a_stream_interleaves_the_choices_and_ends_each_with_its_reason(ask: Ask) -> None:
    events = ask(["ab", "abc"], n=2, stream=True, stream_options={"include_usage": True})
    assert events.pop() == "[DONE]"
    usage = events.pop()
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 5
    assert usage["usage"]["completion_tokens"] == 10
    texts: dict[int, str] = {}
    reasons: dict[int, list[str]] = {}
    for event in events:
        assert event["object"] == "text_completion"
        assert event["usage"] is None
        (choice,) = event["choices"]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        if choice["finish_reason"]:
            reasons.setdefault(choice["index"], []).append(choice["finish_reason"])
    assert texts == {0: "AB", 1: "AB", 2: "ABC", 3: "ABC"}
    assert reasons == {index: ["stop"] for index in range(4)}
    assert len({event["id"] for event in events}) == 1


def test_the_length_ends_a_completion(ask: Ask) -> None:
    (choice,) = ask("abc", max_tokens=2)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("AB", "length")


def test_a_stop_string_ends_a_completion_and_is_hidden(ask: Ask) -> None:
    (choice,) = ask("abcd", stop="C")["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("AB", "stop")


def test_an_echoed_prompt_alone_is_scored(ask: Ask) -> None:
    (choice,) = ask("a你", echo=True, logprobs=2, max_tokens=0)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a你", "length")
    others = ids_of("a你")[1:]
    assert choice["logprobs"] == {
        "tokens": ["a", "bytes:\\xe4", "bytes:\\xbd", "bytes:\\xa0"],
        "token_logprobs": [None, *(log_prob_of(one) for one in others)],
        "top_logprobs": [
            None,
            *(
                {"A": -0.25, "B": -0.5, name: log_prob_of(one)}
                for one, name in zip(
                    others, ("bytes:\\xe4", "bytes:\\xbd", "bytes:\\xa0"), strict=True
                )
            ),
        ],
        "text_offset": [0, 1, 1, 1],
    }


def test_an_echo_without_tokens_or_log_probs_is_the_prompt(ask: Ask) -> None:
    body = ask(["ab", "c"], echo=True, max_tokens=0)
    assert [one["text"] for one in body["choices"]] == ["ab", "c"]
    assert body["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_harness_finds_a_log_prob_behind_the_prompts_even_if_the_model_ends_at_once(
    ask: Ask, engine: FakeEngine, stream: bool
) -> None:
    engine.script = Script(steps=[Step(token_ids=[END_ID])])
    found = ask([64, 65], echo=True, logprobs=1, max_tokens=1, stream=stream)
    choices = [one["choices"][0] for one in found[:-1]] if stream else found["choices"]
    (choice,) = choices
    assert choice["text"] == "ab"
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"] == ["a", "b", END_OF_TURN]
    assert choice["logprobs"]["token_logprobs"][2] == log_prob_of(END_ID)


def test_token_ids_come_if_they_are_wanted(ask: Ask) -> None:
    (choice,) = ask("你", return_token_ids=True)["choices"]
    assert choice["prompt_token_ids"] == choice["token_ids"] == ids_of("你")


def test_candidates_are_generated_and_the_best_are_shown(ask: Ask, engine: FakeEngine) -> None:
    body = ask(n=1, best_of=3)
    assert len(body["choices"]) == 1
    assert body["usage"]["completion_tokens"] == 6
    assert engine.streams[0].request.num_sequences == 3


def test_an_error_names_its_field_before_anything_runs(
    post: Callable[..., Answer], engine: FakeEngine
) -> None:
    answer = post(PATH, prompt=["a", "b"], logprobs=99, stream=True)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "logprobs"
    assert engine.streams == []


def failing(request: GenerationRequest) -> Script:
    if request.prompt_token_ids == ids_of("b"):
        return Script(steps=[Step(token_ids=[70]), Step(error=EngineUnavailable(), after_s=0.1)])
    return Script(steps=[*one_token_a_step(ids_of("long"), every_s=0.01), Step(after_s=60)])


# What each documented field does to an engine's request or to the answer; those that the model
# cannot do are refused.
EFFECTS: dict[str, tuple[dict[str, Any], Callable[[GenerationRequest, Any], bool] | None]] = {
    "model": ({"model": "tiny"}, lambda got, body: got.model == body["model"] == "tiny"),
    "prompt": ({}, lambda got, body: got.prompt_token_ids == ids_of("ab")),
    "best_of": ({"best_of": 3}, lambda got, body: got.num_sequences == 3),
    "echo": ({"echo": True}, lambda got, body: body["choices"][0]["text"] == "abAB"),
    "frequency_penalty": (
        {"frequency_penalty": 0.5},
        lambda got, body: got.sampling.frequency_penalty == 0.5,
    ),
    "logit_bias": (
        {"logit_bias": {"5": -9}},
        lambda got, body: got.sampling.logit_bias == {5: -9},
    ),
    "logprobs": (
        {"logprobs": 5},
        lambda got, body: len(body["choices"][0]["logprobs"]["top_logprobs"][0]) == 5,
    ),
    "max_tokens": ({"max_tokens": 1}, lambda got, body: body["choices"][0]["text"] == "A"),
    "n": ({"n": 2}, lambda got, body: len(body["choices"]) == 2),
    "presence_penalty": (
        {"presence_penalty": 0.5},
        lambda got, body: got.sampling.presence_penalty == 0.5,
    ),
    "seed": ({"seed": 11}, lambda got, body: got.sampling.seed == 11),
    "stop": ({"stop": "B"}, lambda got, body: body["choices"][0]["text"] == "A"),
    "stream": ({"stream": True}, lambda got, body: body[-1] == "[DONE]"),
    "stream_options": (
        {"stream": True, "stream_options": {"include_usage": True}},
        lambda got, body: body[-2]["usage"]["total_tokens"] == 4,
    ),
    "suffix": ({"suffix": "end"}, None),
    "temperature": ({"temperature": 0.3}, lambda got, body: got.sampling.temperature == 0.3),
    "top_p": ({"top_p": 0.9}, lambda got, body: got.sampling.top_p == 0.9),
    "user": ({"user": "me"}, lambda got, body: body["choices"][0]["text"] == "AB"),
}


def test_the_table_of_effects_has_every_documented_field() -> None:
    bases = (CompletionCreateParamsBase, CompletionCreateParamsStreaming)
    assert EFFECTS.keys() == {name for base in bases for name in get_type_hints(base)}


@pytest.mark.parametrize("field", EFFECTS)
def test_a_documented_field_works_or_is_refused_by_its_name(
    post: Callable[..., Answer], ask: Ask, engine: FakeEngine, field: str
) -> None:
    fields, has_worked = EFFECTS[field]
    if has_worked is None:
        answer = post(PATH, prompt="ab", **fields)
        assert (answer.status, answer.json["error"]["param"]) == (400, field)
        return
    body = ask(**fields)
    assert has_worked(engine.streams[0].request, body)


def test_a_failure_of_one_prompt_is_the_streams_last_event_and_ends_the_others(
    ask: Ask, engine: FakeEngine
) -> None:
    engine.script = failing
    *events, last = ask(["a", "b", "c"], stream=True)
    assert events
    assert last["error"]["code"] == "engine_unavailable"
    assert sorted(one.ending or "" for one in engine.streams) == [
        Ending.CANCELLED, Ending.CANCELLED, Ending.FAILED,
    ]  # fmt: skip


def test_a_failure_of_one_prompt_is_the_answer(
    post: Callable[..., Answer], engine: FakeEngine
) -> None:
    engine.script = failing
    assert post(PATH, prompt=["a", "b", "c"]).status == 503
    assert engine.num_running == 0


def test_a_failure_before_the_first_event_keeps_its_status(
    post: Callable[..., Answer], engine: FakeEngine
) -> None:
    engine.script = Script(steps=[Step(error=ServingError())])
    assert post(PATH, prompt=["a", "b"], stream=True).status == 500


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_cancels_all_its_prompts(
    server: ServerThread, engine: FakeEngine, stream: bool
) -> None:
    engine.script = Script(steps=one_token_a_step(ids_of("x" * 1000), every_s=0.01))
    with RawClient(server.address) as client:
        client.send("POST", PATH, {"prompt": ["a", "b", "c"], "max_tokens": 900, "stream": stream})
        wait_until(lambda: engine.num_running == 3)
        if stream:
            client.receive_head()
            client.wait_for_body()
    wait_until(lambda: engine.num_running == 0)
    assert {one.ending for one in engine.streams} == {Ending.CANCELLED}


def test_the_openai_sdk_reads_all_of_it(server: ServerThread) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any-key", max_retries=0) as client:
        plain = client.completions.create(
            model="tiny", prompt=["ab", "c"], n=2, logprobs=2, echo=True, seed=1
        )
        assert [choice.text for choice in plain.choices] == ["abAB", "abAB", "cC", "cC"]
        assert plain.choices[0].logprobs is not None
        assert plain.choices[0].logprobs.text_offset == [0, 1, 2, 3]
        streamed = client.completions.create(model="tiny", prompt="ab", stream=True)
        assert "".join(chunk.choices[0].text for chunk in streamed) == "AB"
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="tiny", prompt="a", suffix="b")
        assert caught.value.param == "suffix"


def test_a_text_is_tokenized_as_a_completion_would(post: Callable[..., Answer]) -> None:
    answer = post("/tokenize", prompt="a b", return_token_strs=True)
    assert answer.json == {
        "count": 3,
        "max_model_len": 2048,
        "tokens": ids_of("a b"),
        "token_strs": ["a", "Ġ", "b"],
    }
    assert post("/tokenize", prompt="").json["tokens"] == []


def test_tokens_become_their_text_again(post: Callable[..., Answer]) -> None:
    text = f"a{START_OF_TURN} 你"
    assert post("/detokenize", tokens=ids_of(text)).json == {"prompt": text}
    assert post("/detokenize", tokens=[]).json == {"prompt": ""}


def test_messages_are_tokenized_and_rendered_as_chat_does(
    post: Callable[..., Answer], engine: FakeEngine
) -> None:
    engine.script = Script(steps=[Step(token_ids=ids_of("x"))])
    assert post("/v1/chat/completions", messages=MESSAGES).status == 200
    sent = engine.streams[0].request.prompt_token_ids
    rendered = post("/v1/chat/completions/render", messages=MESSAGES).json
    assert rendered == {
        "object": "chat.completion.prompt",
        "model": "tiny",
        "prompt": PROMPT_TEXT,
        "token_ids": sent,
        "count": len(sent),
        "max_model_len": 2048,
    }
    assert post("/tokenize", messages=MESSAGES).json["tokens"] == sent
    answer = post("/tokenize", messages=MESSAGES, add_generation_prompt=False)
    assert TOKENIZER.decode(answer.json["tokens"], skip_special_tokens=False) == (
        "<|im_start|>user\nhi<|im_end|>\n"
    )
    assert len(engine.streams) == 1


def test_messages_longer_than_the_context_are_tokenized_and_refused_by_render(
    post: Callable[..., Answer],
) -> None:
    messages = [{"role": "user", "content": "x" * 3000}]
    assert post("/tokenize", messages=messages).json["count"] > 3000
    refused = post("/v1/chat/completions/render", messages=messages)
    assert refused.json["error"]["code"] == "context_length_exceeded"


def test_texts_are_tokenized_without_an_engine(
    post: Callable[..., Answer], engine: FakeEngine
) -> None:
    engine.is_up = False
    assert post("/tokenize", prompt="a").json["count"] == 1
    assert post("/detokenize", tokens=[64]).json["prompt"] == "a"


def test_the_tokenizer_tells_its_special_tokens(client: RawClient) -> None:
    client.send("GET", "/tokenizer_info?model=tiny")
    answer = client.receive()
    assert answer.json["eos_token"] == END_OF_TURN
    assert answer.json["pad_token"] is None
    assert "add_generation_prompt" in answer.json["chat_template"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 400, "prompt"),
        (
            "/tokenize",
            {"messages": MESSAGES, "add_special_tokens": True},
            400,
            "add_special_tokens",
        ),
        ("/tokenize", {"prompt": "a", "tools": []}, 400, "tools"),
        ("/tokenize", {"prompt": "a", "model": "nowhere"}, 404, "model"),
        ("/tokenize", {"prompt": "a", "truncate": True}, 400, "truncate"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"messages": MESSAGES, "model": "bare"}, 503, None),
        ("/detokenize", {"tokens": [1000]}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [2**70]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": "a"}, 400, "tokens"),
        ("/detokenize", {}, 400, "tokens"),
        ("/v1/chat/completions/render", {"messages": []}, 400, "messages"),
        ("/v1/chat/completions/render", {"messages": MESSAGES, "top_p": 2}, 400, "top_p"),
    ],
)
def test_what_is_wrong_is_named_in_openais_shape(
    post: Callable[..., Answer], path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = post(path, **body)
    assert answer.status == status
    assert answer.json["error"].keys() == {"message", "type", "param", "code"}
    assert answer.json["error"]["param"] == param


def test_a_finish_reason_is_never_missing(ask: Ask, engine: FakeEngine) -> None:
    engine.script = Script(steps=[Step()], finish_reason=FinishReason.STOP)
    (choice,) = ask()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
