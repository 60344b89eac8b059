from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontend import prepare
from frontend.catalog import Catalog
from frontend.errors import ContextLengthExceeded, InvalidParameter, ModelNotFound, ServingError
from frontend.prepare_completion import PreparedCompletion, prepare_completion
from frontend.protocol.completion_request import CompletionRequest
from frontend.text.tokenizer import TextTokenizer
from frontend.types import GuideType
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine
from tests.fakes.tokenizers import BOS, END_OF_TURN, START_OF_TURN, byte_level_tokenizer, id_of

TOKENIZER = byte_level_tokenizer()
END_ID, OTHER_END_ID, BOS_ID = id_of(TOKENIZER, END_OF_TURN), 300, id_of(TOKENIZER, BOS)
MAX_SEQ_LEN = 100


def ids_of(text: str) -> list[int]:
    token_ids: list[int] = TOKENIZER.encode(text).ids
    return token_ids


class Stack:
    """A catalog with two models: `tiny`, and `coder`, which begins documents and fills gaps."""

    def __init__(self, home: Path) -> None:
        publish_model(home, "tiny", other_eos_ids=(OTHER_END_ID,))
        form = "<s>{prefix}<|im_start|>{suffix}<|im_end|>"
        publish_model(home, "coder", bos_id=BOS_ID, fill_in_middle=form)
        self.catalog = Catalog(home, default_model="tiny")
        self.engine = FakeEngine()
        for name in ("tiny", "coder"):
            self.engine.load(name, max_seq_len=MAX_SEQ_LEN)

    async def prepare(self, prompt: Any = "x", **fields: Any) -> PreparedCompletion:
        body = CompletionRequest(prompt=prompt, **fields)
        return await prepare_completion(body, catalog=self.catalog, engine=self.engine)

    async def token_ids(self, prompt: Any, **fields: Any) -> list[list[int]]:
        prepared = await self.prepare(prompt, **fields)
        return [one.generation.prompt_token_ids for one in prepared.requests]


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


async def test_a_text_stays_as_it_is_without_the_chat_template(stack: Stack) -> None:
    assert await stack.token_ids("你好") == [ids_of("你好")]
    assert await stack.token_ids(["a", "bc"]) == [ids_of("a"), ids_of("bc")]


async def test_token_ids_are_taken_as_they_are(stack: Stack) -> None:
    assert await stack.token_ids([5, 6]) == [[5, 6]]
    assert await stack.token_ids([[5, 6], [7]]) == [[5, 6], [7]]


@pytest.mark.parametrize("prompt", [None, ""])
async def test_without_a_prompt_a_document_begins(stack: Stack, prompt: str | None) -> None:
    prepared = await stack.prepare(prompt, model="coder", echo=True)
    assert prepared.first.generation.prompt_token_ids == [BOS_ID]
    assert (prepared.prompts[0].text, prepared.prompts[0].offsets) == ("", [0])
    with pytest.raises(InvalidParameter) as caught:
        await stack.prepare(prompt)
    assert (caught.value.param, caught.value.key) == (
        "prompt",
        "empty" if prompt == "" else "missing",
    )


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([5, 1000], "prompt"),
        ([5, -1], "prompt[1]"),
        ([[5], [1000]], "prompt[1]"),
        (["a", "x" * 100], "prompt[1]"),
        ("x" * 100, "prompt"),
    ],
)
async def test_the_prompt_that_is_wrong_is_named(stack: Stack, prompt: Any, param: str) -> None:
    with pytest.raises(ServingError) as caught:
        await stack.prepare(prompt)
    assert caught.value.param == param
    assert caught.value.status == 400


async def test_an_unknown_model_is_told(stack: Stack) -> None:
    with pytest.raises(ModelNotFound):
        await stack.prepare(model="nowhere")


async def test_a_prompt_that_fills_the_context_can_be_scored(stack: Stack) -> None:
    prepared = await stack.prepare("x" * 99, max_tokens=0, echo=True, logprobs=1)
    assert prepared.first.generation.max_new_tokens == 0
    with pytest.raises(ContextLengthExceeded):
        await stack.prepare("x" * 100, max_tokens=0, echo=True, logprobs=1)


async def test_the_fields_reach_every_prompts_request(stack: Stack) -> None:
    prepared = await stack.prepare(
        ["a", "b"], n=2, best_of=3, max_tokens=7, seed=5, stop="x", guided_regex="a+", priority=4
    )
    requests = [one.generation for one in prepared.requests]
    assert len({request.request_id for request in requests}) == 2
    assert all(request.request_id.startswith("cmpl-") for request in requests)
    for request in requests:
        assert (request.num_sequences, request.max_new_tokens, request.priority) == (3, 7, 4)
        assert (request.sampling.seed, request.stop) == (5, ("x",))
        assert request.sampling.num_log_probs == 0
        assert request.sampling.guide is not None
        assert request.sampling.guide.type is GuideType.REGEX


async def test_a_completion_has_16_tokens_unless_more_are_asked_for(stack: Stack) -> None:
    assert (await stack.prepare()).first.generation.max_new_tokens == 16
    assert (await stack.prepare("x" * 95)).first.generation.max_new_tokens == 5


async def test_an_end_without_log_probs_is_the_engines(stack: Stack) -> None:
    generation = (await stack.prepare()).first.generation
    assert (generation.end_id, generation.stop_token_ids) == (END_ID, (OTHER_END_ID,))
    assert generation.shows_stop_token is False


async def test_with_log_probs_the_end_is_a_token_that_is_told(stack: Stack) -> None:
    generation = (await stack.prepare(logprobs=0, stop_token_ids=[7])).first.generation
    assert (generation.end_id, generation.stop_token_ids) == (None, (END_ID, OTHER_END_ID, 7))
    assert generation.shows_stop_token is True


@pytest.mark.parametrize("fields", [{"min_tokens": 2}, {"guided_regex": "a"}])
async def test_an_end_that_means_more_to_the_engine_stays_its_own(
    stack: Stack, fields: dict[str, Any]
) -> None:
    generation = (await stack.prepare(logprobs=0, **fields)).first.generation
    assert (generation.end_id, generation.shows_stop_token) == (END_ID, False)


async def test_an_end_that_is_ignored_stays_so(stack: Stack) -> None:
    generation = (await stack.prepare(logprobs=0, ignore_eos=True)).first.generation
    assert (generation.end_id, generation.stop_token_ids) == (None, ())


@pytest.mark.parametrize("as_ids", [False, True])
async def test_an_echoed_prompt_tells_where_its_tokens_begin(stack: Stack, as_ids: bool) -> None:
    text = "a你b<|im_start|>c"
    prepared = await stack.prepare(ids_of(text) if as_ids else text, echo=True, logprobs=1)
    (prompt,) = prepared.prompts
    assert prompt.text == text
    assert prompt.offsets == [0, 1, 1, 1, 2, 3, 3 + len(START_OF_TURN)]
    assert prepared.first.generation.returns_prompt_log_probs is True


async def test_a_gap_is_filled_in_the_models_own_form(stack: Stack) -> None:
    token_ids = await stack.token_ids("a{b", suffix="c}d", model="coder")
    assert token_ids == [ids_of("<s>a{b<|im_start|>c}d<|im_end|>")]
    token_ids = await stack.token_ids(["a", "b"], suffix="c", model="coder")
    assert token_ids[1] == ids_of("<s>b<|im_start|>c<|im_end|>")


async def test_a_model_that_fills_no_gaps_says_so(stack: Stack) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await stack.prepare(suffix="b")
    assert (caught.value.param, caught.value.key) == ("suffix", "no_fill_in_middle")


async def test_a_long_prompt_is_tokenized_off_the_loop_with_the_same_result(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop = await stack.token_ids(["hello", "you"])
    monkeypatch.setattr(prepare, "OFF_LOOP_CHARS", 3)
    assert await stack.token_ids(["hello", "you"]) == on_loop


async def test_tokens_that_are_echoed_become_text_off_the_loop(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    decode = TextTokenizer.decode

    def noting_decode(*args: Any, **options: Any) -> str:
        threads.add(threading.current_thread())
        return decode(*args, **options)

    monkeypatch.setattr(TextTokenizer, "decode", noting_decode)
    monkeypatch.setattr(prepare, "OFF_LOOP_CHARS", 100)
    await stack.prepare([[5, 6]] * 3, echo=True)
    assert threads
    assert threading.current_thread() not in threads


async def test_what_all_prompts_share_is_made_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = []
    word_ids = TextTokenizer.word_ids

    def noting_word_ids(self: TextTokenizer, word: str) -> list[tuple[int, ...]]:
        words.append(word)
        return word_ids(self, word)

    monkeypatch.setattr(TextTokenizer, "word_ids", noting_word_ids)
    prepared = await stack.prepare(["a", "b", "c"], bad_words=["x"])
    assert words == ["x"]
    assert prepared.requests[2].generation.sampling.bad_words == (
        tuple(ids_of("x")),
        tuple(ids_of(" x")),
    )


async def test_bad_fields_are_told_before_the_engine_is_asked(stack: Stack) -> None:
    stack.engine.unexpected = AssertionError("not to be asked")
    with pytest.raises(InvalidParameter, match="best_of"):
        await stack.prepare(n=2, best_of=1)
    with pytest.raises(InvalidParameter, match="guided_json"):
        await stack.prepare(guided_json="{")


async def test_a_guide_that_no_engine_could_follow_is_named(stack: Stack) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await stack.prepare(guided_regex="(")
    assert (caught.value.param, caught.value.key) == ("guided_regex", "invalid_guide")


async def test_the_engines_input_limit_counts(stack: Stack) -> None:
    model = stack.engine.models["tiny"]
    limits = replace(model.limits, max_input_len=4)
    stack.engine.models["tiny"] = replace(model, limits=limits)
    await stack.prepare("x" * 4)
    with pytest.raises(ContextLengthExceeded):
        await stack.prepare("x" * 5)
