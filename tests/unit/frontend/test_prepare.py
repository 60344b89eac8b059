from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontend import prepare
from frontend.catalog import Catalog
from frontend.errors import (
    ContextLengthExceeded,
    InvalidParameter,
    ModelNotFound,
    ModelNotLoaded,
)
from frontend.prepare import PreparedRequest, prepare_chat
from frontend.prepare_generate import prepare_generate
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.native import GenerateRequest
from frontend.protocol.parse import parse_body
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine
from tests.fakes.tokenizers import END_OF_TURN, byte_level_tokenizer, id_of

TOKENIZER = byte_level_tokenizer()
MAX_SEQ_LEN = 100  # so 99 of them may be the prompt's


class Stack:
    """A catalog with a chat model, `tiny`, and one without a template, `bare`."""

    def __init__(self, home: Path) -> None:
        publish_model(home, "tiny", other_eos_ids=(300, 301))
        publish_model(home, "bare", chat_template=None)
        publish_model(home, "strict", chat_template="{{ raise_exception('not today') }}")
        self.catalog = Catalog(home, default_model="tiny")
        self.engine = FakeEngine()
        for name in ("tiny", "bare", "strict"):
            self.engine.load(name, max_seq_len=MAX_SEQ_LEN)

    async def generate(self, prompt: str, **fields: Any) -> PreparedRequest:
        body = GenerateRequest(prompt=prompt, **fields)
        return await prepare_generate(body, catalog=self.catalog, engine=self.engine)

    async def bare(self, prompt: str, **fields: Any) -> PreparedRequest:
        return await self.generate(prompt, apply_chat_template=False, **fields)

    async def chat(self, messages: bytes = b'[{"role":"user","content":"hi"}]', rest: bytes = b""):  # type: ignore[no-untyped-def]
        body = parse_body(b'{"messages":' + messages + rest + b"}", ChatRequest)
        return await prepare_chat(body, catalog=self.catalog, engine=self.engine)


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def text_of(prepared: PreparedRequest) -> str:
    token_ids = prepared.generation.prompt_token_ids
    return prepared.tokenizer.decode(token_ids, skip_special_tokens=False)


async def test_a_prompt_is_one_message_of_the_user(stack: Stack) -> None:
    prepared = await stack.generate("你好")
    assert text_of(prepared) == "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"


async def test_a_bare_text_stays_so(stack: Stack) -> None:
    assert text_of(await stack.bare("你好")) == "你好"
    assert text_of(await stack.generate("你好", model="bare")) == "你好"


async def test_messages_go_through_the_template(stack: Stack) -> None:
    messages = (
        b'[{"role":"developer","content":"short"},'
        b'{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},'
        b'{"role":"assistant","content":"c"},{"role":"user","content":"d"}]'
    )
    assert text_of(await stack.chat(messages)) == (
        "<|im_start|>system\nshort<|im_end|>\n<|im_start|>user\nab<|im_end|>\n"
        "<|im_start|>assistant\nc<|im_end|>\n<|im_start|>user\nd<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


async def test_a_model_without_a_template_cannot_chat(stack: Stack) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await stack.chat(rest=b',"model":"bare"')
    assert (caught.value.param, caught.value.key) == ("messages", "no_chat_template")


async def test_what_the_template_refuses_is_the_clients_mistake(stack: Stack) -> None:
    with pytest.raises(InvalidParameter, match="not today") as caught:
        await stack.chat(rest=b',"model":"strict"')
    assert (caught.value.param, caught.value.key) == ("messages", "chat_template_failed")


@pytest.mark.parametrize(("num_tokens", "room"), [(1, 99), (50, 50), (99, 1)])
async def test_without_max_tokens_the_answer_has_all_the_room(
    stack: Stack, num_tokens: int, room: int
) -> None:
    prepared = await stack.bare("x" * num_tokens)
    assert prepared.generation.max_new_tokens == room


@pytest.mark.parametrize(
    ("max_tokens", "kept"), [(1, 1), (50, 50), (90, 90), (91, 90), (10**9, 90)]
)
async def test_max_tokens_is_cut_to_the_room(stack: Stack, max_tokens: int, kept: int) -> None:
    prepared = await stack.bare("x" * 10, max_tokens=max_tokens)
    assert prepared.generation.max_new_tokens == kept


@pytest.mark.parametrize("num_tokens", [100, 101, 5000])
async def test_a_prompt_without_room_for_an_answer_names_both_numbers(
    stack: Stack, num_tokens: int
) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        await stack.bare("x" * num_tokens)
    assert caught.value.param == "prompt"
    assert str(num_tokens) in str(caught.value)
    assert "99" in str(caught.value)


@pytest.mark.parametrize(("max_input_len", "max_tokens"), [(40, 40), (100, 99), (5000, 99)])
async def test_the_engines_input_limit_and_room_for_one_token_count_too(
    stack: Stack, max_input_len: int, max_tokens: int
) -> None:
    model = stack.engine.models["tiny"]
    limits = replace(model.limits, max_input_len=max_input_len)
    stack.engine.models["tiny"] = replace(model, limits=limits)
    await stack.bare("x" * max_tokens)
    with pytest.raises(ContextLengthExceeded, match=f"at most {max_tokens}"):
        await stack.bare("x" * (max_tokens + 1))


async def test_a_long_prompt_is_tokenized_off_the_loop_with_the_same_result(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_loop = (await stack.generate("hello")).generation.prompt_token_ids
    monkeypatch.setattr(prepare, "OFF_LOOP_CHARS", 3)
    assert (await stack.generate("hello")).generation.prompt_token_ids == on_loop


async def test_a_prompt_of_no_tokens_is_empty(tmp_path: Path) -> None:
    publish_model(tmp_path, "tiny", chat_template="{{ '' }}")
    engine = FakeEngine()
    engine.load("tiny")
    catalog = Catalog(tmp_path, default_model="tiny")
    with pytest.raises(InvalidParameter) as caught:
        await prepare_generate(GenerateRequest(prompt="x"), catalog=catalog, engine=engine)
    assert (caught.value.param, caught.value.key) == ("prompt", "empty")


async def test_the_models_end_tokens_end_the_answer(stack: Stack) -> None:
    generation = (await stack.generate("x")).generation
    assert generation.end_id == id_of(TOKENIZER, END_OF_TURN)
    assert generation.stop_token_ids == (300, 301)
    generation = (await stack.generate("x", ignore_eos=True)).generation
    assert (generation.end_id, generation.stop_token_ids) == (None, ())


async def test_request_ids_are_unique_and_say_their_kind(stack: Stack) -> None:
    ids = {(await stack.generate("x")).generation.request_id for _ in range(50)}
    assert len(ids) == 50
    assert all(one.startswith("gen-") for one in ids)
    assert (await stack.chat()).generation.request_id.startswith("chatcmpl-")


async def test_the_fields_reach_the_request(stack: Stack) -> None:
    rest = b',"n":3,"stop":"x","seed":5,"max_tokens":7,"model":"default"'
    generation = (await stack.chat(rest=rest)).generation
    assert (generation.model, generation.num_sequences) == ("tiny", 3)
    assert (generation.stop, generation.sampling.seed) == (("x",), 5)
    assert generation.max_new_tokens == 7


async def test_what_cannot_be_served_is_told(stack: Stack) -> None:
    with pytest.raises(ModelNotFound):
        await stack.generate("x", model="nowhere")
    stack.engine.models.clear()
    with pytest.raises(ModelNotLoaded):
        await stack.generate("x")


async def test_bad_fields_are_told_before_the_engine_is_asked(stack: Stack) -> None:
    stack.engine.unexpected = AssertionError("not to be asked")
    with pytest.raises(InvalidParameter, match="temperature"):
        await stack.generate("x", temperature=9)
    with pytest.raises(InvalidParameter, match="prompt"):
        await stack.generate("")


async def test_a_bias_beyond_the_vocabulary_is_told(stack: Stack) -> None:
    with pytest.raises(InvalidParameter, match=r"logit_bias\.1000"):
        await stack.generate("x", logit_bias={"1000": 1.0})
