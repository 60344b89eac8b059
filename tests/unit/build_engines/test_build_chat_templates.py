"""Our chat templates, rendered in the frontend's sandbox, against known-good prompts."""

from __future__ import annotations

from typing import Any

import pytest

from build_engines.errors import SpecError
from build_engines.tokenizers.templates import read_template, template_names
from frontend.text.output_format import output_format
from frontend.text.tokenizer import ChatTemplateError, TextTokenizer
from tests.fakes.tokenizers import text_tokenizer
from tests.unit.build_engines.chat_prompts import (
    CALL,
    CHINESE,
    CONVERSATIONS,
    HELLO,
    HERMES_CALL,
    HI,
    PARSERS,
    QUESTIONS,
    RESULT,
    SYSTEM,
    TOOL,
    TOOL_PROMPTS,
    Message,
)


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return text_tokenizer()


def render(tokenizer: TextTokenizer, name: str, messages: list[Message], **variables: Any) -> str:
    return tokenizer.render_chat(
        messages,
        chat_template=read_template(name),
        **{"bos_token": "<s>", "eos_token": "</s>", **variables},
    )


def test_every_template_has_its_prompts_here() -> None:
    assert set(template_names()) == set(QUESTIONS) == set(PARSERS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question(tokenizer: TextTokenizer, name: str) -> None:
    assert render(tokenizer, name, [HELLO]) == QUESTIONS[name]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_system_message_and_several_turns(tokenizer: TextTokenizer, name: str) -> None:
    assert render(tokenizer, name, [SYSTEM, HELLO, HI, CHINESE]) == CONVERSATIONS[name]


@pytest.mark.parametrize("name", TOOL_PROMPTS)
def test_a_call_and_its_result(tokenizer: TextTokenizer, name: str) -> None:
    prompt = render(tokenizer, name, [CHINESE, CALL, RESULT], tools=[TOOL])
    assert prompt == TOOL_PROMPTS[name]


@pytest.mark.parametrize("name", PARSERS)
def test_the_frontend_knows_how_the_model_answers(name: str) -> None:
    style = output_format(read_template(name))
    assert (style.tool_parser, style.reasoning_parser) == PARSERS[name]
    assert (style.tool_prompt is None) == (name in TOOL_PROMPTS)


@pytest.mark.parametrize(
    ("name", "messages", "message"),
    [
        ("gemma", [SYSTEM, HELLO], "System role not supported"),
        ("gemma", [HELLO, HELLO], "must alternate"),
        ("gemma-3", [SYSTEM, HI], "must alternate"),
        ("llama-2", [HELLO, HELLO], "must alternate"),
        ("llama-2", [HELLO, RESULT], "Only user and assistant roles"),
        ("mistral", [HI], "must alternate"),
        ("mistral-tekken", [HELLO, CHINESE], "must alternate"),
        ("mistral-tekken", [HELLO, {**CALL, "tool_calls": [{**CALL["tool_calls"][0], "id": "1"}]}],
         "length 9"),
        ("llama-3.1", [HELLO, {**CALL, "tool_calls": CALL["tool_calls"] * 2}], "single tool-calls"),
        ("phi-3", [HELLO, RESULT], "Only system, user and assistant"),
        ("phi-4", [HELLO, RESULT], "Only system, user and assistant"),
        ("deepseek-v3", [HELLO, RESULT], "Only system, user and assistant"),
        ("chatglm3", [{"role": "critic", "content": "x"}], "no role critic"),
        ("glm-4", [{"role": "critic", "content": "x"}], "no role critic"),
        ("gpt-oss", [HELLO, RESULT], "behind the call"),
    ],
)  # fmt: skip
def test_what_the_family_has_not_got_is_refused(
    tokenizer: TextTokenizer, name: str, messages: list[Message], message: str
) -> None:
    with pytest.raises(ChatTemplateError, match=message):
        render(tokenizer, name, messages)


def test_qwen_3_thinks_or_not_and_forgets_earlier_thoughts(tokenizer: TextTokenizer) -> None:
    thoughtful = {**HI, "reasoning_content": "They greet."}
    prompt = render(tokenizer, "qwen-3", [HELLO, thoughtful, CHINESE], enable_thinking=False)
    assert (
        prompt
        == CONVERSATIONS["qwen-3"].removeprefix("<|im_start|>system\nBe brief.<|im_end|>\n")
        + "<think>\n\n</think>\n\n"
    )
    late = render(tokenizer, "qwen-3", [HELLO, {**CALL, "reasoning_content": "Look."}, RESULT])
    assert f"assistant\n<think>\nLook.\n</think>\n\n{HERMES_CALL}<|im_end|>" in late


def test_deepseek_r1_forgets_earlier_thoughts(tokenizer: TextTokenizer) -> None:
    answer = {**HI, "content": "<think>\nThey greet.\n</think>Hi there"}
    assert (
        render(tokenizer, "deepseek-r1", [SYSTEM, HELLO, answer, CHINESE])
        == (CONVERSATIONS["deepseek-r1"])
    )


def test_gpt_oss_tells_results_by_the_calls_they_answer(tokenizer: TextTokenizer) -> None:
    call = CALL["tool_calls"][0]
    second = {**call, "id": "2", "function": {"name": "now", "arguments": {}}}
    messages = [
        HELLO,
        {**CALL, "tool_calls": [call, second], "reasoning_content": "Two calls."},
        {"role": "tool", "content": "noon", "tool_call_id": "2"},
        RESULT,
    ]
    prompt = render(tokenizer, "gpt-oss", messages, reasoning_effort="low")
    assert "\nReasoning: low\n" in prompt
    assert "<|channel|>analysis<|message|>Two calls.<|end|>" in prompt
    assert (
        "<|start|>functions.now to=assistant<|channel|>commentary<|message|>noon<|end|>" in prompt
    )
    assert prompt.index("functions.now to=") < prompt.index("functions.get_weather to=assistant")
    answered = render(tokenizer, "gpt-oss", [*messages, HI, CHINESE])
    assert "analysis<|message|>" not in answered


def test_gpt_oss_writes_types_as_harmony_does(tokenizer: TextTokenizer) -> None:
    properties = {
        "unit": {"type": "string", "enum": ["c", "f"], "default": "c", "description": "Scale"},
        "days": {"type": ["integer", "null"]},
        "places": {"type": "array", "items": {"type": "string"}},
        "when": {"anyOf": [{"type": "string"}, {"type": "number"}]},
        "at": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
        "any": {},
    }
    tool = {"name": "f", "parameters": {"type": "object", "properties": properties}}
    prompt = render(tokenizer, "gpt-oss", [HELLO], tools=[{"type": "function", "function": tool}])
    assert (
        'type f = (_: {\n// Scale\nunit?: "c" | "f", // default: c\ndays?: number | null,\n'
        "places?: string[],\nwhen?: string | number,\nat?: {\n    x: number,\n    },\nany?: any,\n"
        "}) => any;"
    ) in prompt


def test_a_template_of_another_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(SpecError, match=r"no chat template vicuna: choose one of chatglm3, .*qwen"):
        read_template("vicuna")
