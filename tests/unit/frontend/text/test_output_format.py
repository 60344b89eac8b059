"""Which parsers a model's template asks for, and what tells a model about tools."""

from __future__ import annotations

from typing import Any

import pytest

from frontend.text.output_format import output_format
from frontend.text.tool_parsers.registry import TOOL_PARSERS
from frontend.text.tool_prompt import CHATGLM3, GEMMA3, HERMES, as_user_words, tell_tools

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
QWEN3 = "{% if tools %}<tool_call>{% endif %}{% if enable_thinking %}<think></think>{% endif %}"
GEMMA = "<start_of_turn>{{ messages }}"
MISTRAL = "{{ tools }}[TOOL_CALLS]"
QWEN3_CODER = "{{ tools }}<tool_call><function="
GLM4 = "[gMASK]<sop>{{ messages }}"


@pytest.mark.parametrize(
    ("template", "tool_parser", "reasoning_parser", "tool_prompt"),
    [
        (CHATML, "hermes", None, HERMES),
        (QWEN3, "hermes", "qwen3", None),
        (GEMMA, "gemma3", None, GEMMA3),
        (MISTRAL, "mistral", None, None),
        (QWEN3_CODER, "hermes", None, HERMES),
        ("", "hermes", None, HERMES),
        # its answers need their own parser, whatever the template says of tools
        (GLM4, "glm4", None, CHATGLM3),
    ],
)
def test_the_template_says_the_format(
    template: str, tool_parser: str, reasoning_parser: str | None, tool_prompt: object
) -> None:
    style = output_format(template)
    assert (style.tool_parser, style.reasoning_parser) == (tool_parser, reasoning_parser)
    assert style.tool_prompt == tool_prompt


def test_what_the_artefact_says_wins() -> None:
    style = output_format(QWEN3, tool_parser="mistral", reasoning_parser="deepseek_r1")
    assert (style.tool_parser, style.reasoning_parser) == ("mistral", "deepseek_r1")


@pytest.mark.parametrize("name", TOOL_PARSERS)
def test_every_parser_can_be_the_artefacts(name: str) -> None:
    style = output_format("{{ tools }}", tool_parser=name)
    assert (style.tool_parser, style.tool_prompt) == (name, None)
    assert style.wraps_text is TOOL_PARSERS[name].wraps_text


TOOL = {"type": "function", "function": {"name": "f"}}
USER = {"role": "user", "content": "Hi"}


def call(name: str) -> dict[str, object]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": {"城": "巴黎"}}}


def test_without_tools_messages_stay_as_they_are() -> None:
    messages = [{"role": "system", "content": "x"}, USER]
    assert tell_tools(HERMES, messages, None) == messages


def test_the_system_message_tells_the_tools() -> None:
    told = tell_tools(HERMES, [USER], [TOOL])
    assert [message["role"] for message in told] == ["system", "user"]
    assert (
        '\n<tools>\n{"type": "function", "function": {"name": "f"}}\n</tools>' in told[0]["content"]
    )
    assert '{"name": <function-name>, "arguments": <args-json-object>}' in told[0]["content"]


def test_the_clients_system_message_comes_first() -> None:
    told = tell_tools(GEMMA3, [{"role": "system", "content": "Be short."}, USER], [TOOL])
    assert len(told) == 2
    assert told[0]["content"].startswith("Be short.\n\nYou have access to functions.")


def test_calls_and_results_become_words() -> None:
    history: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": "Wait.", "tool_calls": [call("f"), call("g")]},
        {"role": "tool", "content": "one {}", "tool_call_id": "1"},
        {"role": "tool", "content": "two", "tool_call_id": "2"},
        {"role": "assistant", "content": "", "tool_calls": [call("f")]},
        {"role": "tool", "content": "three", "tool_call_id": "3"},
        USER,
    ]
    told = tell_tools(HERMES, history, None)
    written = '<tool_call>\n{{"name": "{}", "arguments": {{"城": "巴黎"}}}}\n</tool_call>'
    assert told == [
        USER,
        {
            "role": "assistant",
            "content": "\n".join(["Wait.", written.format("f"), written.format("g")]),
        },
        {
            "role": "user",
            "content": "<tool_response>\none {}\n</tool_response>\n"
            "<tool_response>\ntwo\n</tool_response>",
        },
        {"role": "assistant", "content": written.format("f")},
        {"role": "user", "content": "<tool_response>\nthree\n</tool_response>"},
        USER,
    ]


def test_instructions_can_stand_in_the_users_words() -> None:
    assert as_user_words(tell_tools(GEMMA3, [USER, USER], [TOOL]))[1:] == [USER]
    first = as_user_words(tell_tools(GEMMA3, [USER], [TOOL]))[0]
    assert first["role"] == "user"
    assert first["content"].endswith("\n\nHi")
