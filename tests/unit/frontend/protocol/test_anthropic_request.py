"""Anthropic's requests -> chat requests; what is refused names Anthropic's field."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from frontend.errors import InvalidParameter, InvalidRequest
from frontend.protocol.anthropic_request import (
    MAX_STOP_SEQUENCES,
    CountTokensRequest,
    MessagesRequest,
)
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.parse import parse_body
from frontend.text.reasoning import detect_reasoning

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "天"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "blue"}
CALLED = [USER, {"role": "assistant", "content": [CALL]}]
QWEN = "{%- if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
ALWAYS = "{{ '<think></think>' }}"
HARMONY = "<|start|>assistant<|channel|>"


def parse(**fields: Any) -> MessagesRequest:
    body = {"model": "m", "max_tokens": 8, "messages": [USER], **fields}
    return parse_body(json.dumps(body).encode(), MessagesRequest)


def translate(**fields: Any) -> ChatRequest:
    request = parse(**fields).chat_request()
    request.check()
    return request


def translated_messages(*messages: Any, system: Any = None) -> list[dict[str, Any]]:
    """As chat templates take them."""
    return translate(messages=list(messages), system=system).template_messages()


def refusal(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields).chat_request()
    return caught.value.param, caught.value.key


def text(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **fields}


# ---- messages


def test_a_text_and_a_text_block_are_the_same() -> None:
    plain = translated_messages(USER, system="be kind")
    blocks = translated_messages(
        {"role": "user", "content": [text("hi", cache_control={"type": "ephemeral"})]},
        system=[text("be kind", cache_control={"type": "ephemeral", "ttl": "1h"})],
    )
    assert plain == blocks == [{"role": "system", "content": "be kind"}, USER]


def test_blocks_are_lines() -> None:
    system, user = translated_messages(
        {"role": "user", "content": [text("a document"), text("a question")]},
        system=[text("one"), text("two")],
    )
    assert (system["content"], user["content"]) == ("one\ntwo", "a document\na question")


def test_consecutive_messages_of_one_role_are_one_turn() -> None:
    assert translated_messages(
        USER,
        {"role": "user", "content": "there"},
        {"role": "assistant", "content": "Hel"},
        {"role": "assistant", "content": "lo"},
    ) == [{"role": "user", "content": "hi\nthere"}, {"role": "assistant", "content": "Hello"}]


def test_a_call_and_its_result_become_tool_calls_and_a_tool_message() -> None:
    _, call, result, user = translated_messages(
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "xyz"},
                text("I look."),
                CALL,
            ],
        },
        {"role": "user", "content": [RESULT, text("and?")]},
    )
    function = {"name": "look", "arguments": {"at": "天"}}
    assert call == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": function}],
    }
    assert result == {
        "role": "tool",
        "name": "look",
        "tool_call_id": "toolu_1",
        "content": "blue",
    }
    assert user == {"role": "user", "content": "and?"}


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({"content": [text("a"), text("b")]}, "a\nb"),
        ({"content": "no light", "is_error": True}, "Error: no light"),
        ({"content": None}, ""),
    ],
)
def test_a_tool_result_is_a_text(fields: dict[str, Any], content: str) -> None:
    result = {**RESULT, **fields}
    *_, message = translated_messages(*CALLED, {"role": "user", "content": [result]})
    assert message["content"] == content


def test_a_final_assistant_message_is_continued() -> None:
    assert translate(messages=[USER]).add_generation_prompt
    request = translate(messages=[USER, {"role": "assistant", "content": "Once"}])
    assert request.continue_final_message
    assert not request.add_generation_prompt


@pytest.mark.parametrize("content", [[CALL], [text("x"), CALL], []])
def test_only_a_text_can_be_continued(content: Any) -> None:
    messages = [USER, {"role": "assistant", "content": content}]
    assert refusal(messages=messages) == ("messages[1].content", "not_continued")


@pytest.mark.parametrize(
    "kind",
    [
        "image",
        "document",
        "search_result",
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "container_upload",
        "surprise",
    ],
)
def test_blocks_that_are_no_text_are_refused_by_name(kind: str) -> None:
    block = {"type": kind, "source": {"type": "url"}, "content": {"type": "x"}, "title": "t"}
    messages = [USER, {"role": "user", "content": [text("see"), block]}]
    assert refusal(messages=messages) == ("messages[1].content[1].type", "not_a_text_part")


def test_an_image_in_a_tool_result_is_refused_by_name() -> None:
    result = {**RESULT, "content": [{"type": "image", "source": {}}]}
    messages = [*CALLED, {"role": "user", "content": [result]}]
    assert refusal(messages=messages) == (
        "messages[2].content[0].content[0].type",
        "not_a_text_part",
    )


@pytest.mark.parametrize(
    ("message", "param", "key"),
    [
        ({"role": "tool", "content": "x"}, "messages[2].role", "not_one_of"),
        ({"role": "user", "content": [CALL]}, "messages[2].content[0].type", "only_in_role"),
        ({"role": "assistant", "content": [RESULT]}, "messages[2].content[0].type", "only_in_role"),
        (
            {"role": "user", "content": [{**RESULT, "tool_use_id": "toolu_2"}]},
            "messages[2].content[0].tool_use_id",
            "unknown_tool_use",
        ),
        (
            {"role": "user", "content": [{**RESULT, "content": {"type": "text"}}]},
            "messages[2].content[0].content",
            "wrong_type",
        ),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "n"}]},
            "messages[2].content[0].input",
            "missing",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[2].content[0].text", "missing"),
        (
            {"role": "user", "content": [text("x", citations=[{"type": "char_location"}])]},
            "messages[2].content[0].citations",
            "not_supported",
        ),
        (
            {
                "role": "assistant",
                "content": [{**CALL, "caller": {"type": "code_execution_20250825"}}],
            },
            "messages[2].content[0].caller",
            "not_supported",
        ),
        ({"role": "user", "content": "x", "name": "n"}, "messages[2].name", "unknown_field"),
    ],
)
def test_a_wrong_message_is_refused_by_its_place(
    message: dict[str, Any], param: str, key: str
) -> None:
    assert refusal(messages=[*CALLED, message]) == (param, key)


def test_what_an_answer_holds_may_be_sent_back() -> None:
    content = [text("x", citations=None), {**CALL, "caller": {"type": "direct"}}]
    translate(messages=[USER, {"role": "assistant", "content": content}, USER])


# ---- tools


def test_tools_and_their_choices_are_those_of_chat() -> None:
    tool = {
        **TOOL,
        "type": "custom",
        "description": "Looks.",
        "strict": True,
        "cache_control": {"type": "ephemeral"},
        "allowed_callers": ["direct"],
        "defer_loading": False,
        "eager_input_streaming": True,
    }
    uses = {
        kind: translate(tools=[tool], tool_choice={"type": kind, **more}).tool_use()
        for kind, more in {"auto": {}, "any": {}, "none": {}, "tool": {"name": "look"}}.items()
    }
    assert {kind: use.choice for kind, use in uses.items()} == {
        "auto": "auto",
        "any": "required",
        "none": "none",
        "tool": "named",
    }
    assert uses["tool"].name == "look"
    assert uses["auto"].parallel
    (function,) = uses["auto"].tools
    assert (function.name, function.description, function.strict) == ("look", "Looks.", True)
    assert function.parameters == {"type": "object"}


def test_parallel_tool_use_can_be_disabled() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert not translate(tools=[TOOL], tool_choice=choice).tool_use().parallel


@pytest.mark.parametrize(
    ("fields", "param", "key"),
    [
        (
            {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]},
            "tools[1].type",
            "custom_tools_only",
        ),
        ({"tools": [{"name": "look"}]}, "tools[0].input_schema", "missing"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "missing"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading", "not_supported"),
        ({"tools": [{**TOOL, "input_examples": [{}]}]}, "tools[0].input_examples", "not_supported"),
        (
            {"tools": [{**TOOL, "allowed_callers": ["code_execution_20250825"]}]},
            "tools[0].allowed_callers",
            "not_supported",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "x"}}, "tool_choice.type", "not_one_of"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name", "missing"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
            "tool_choice.name",
            "not_one_of",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "auto", "name": "look"}},
            "tool_choice.name",
            "only_with",
        ),
    ],
)
def test_wrong_tools_are_refused_by_name(fields: dict[str, Any], param: str, key: str) -> None:
    assert refusal(**fields) == (param, key)


# ---- the other fields


def test_sampling_fields_are_taken_over() -> None:
    request = translate(
        max_tokens=9, temperature=0.5, top_p=0.9, top_k=3, stop_sequences=["a", "b"], stream=True
    )
    assert request.max_new_tokens == 9
    assert (request.temperature, request.top_p, request.top_k) == (0.5, 0.9, 3)
    assert request.stop_strings() == ("a", "b")
    assert request.stream


def test_more_stop_sequences_than_openai_has_are_taken() -> None:
    stops = tuple(f"stop {i}" for i in range(MAX_STOP_SEQUENCES))
    assert translate(stop_sequences=list(stops)).stop_strings() == stops
    assert refusal(stop_sequences=[*stops, "x"]) == ("stop_sequences", "too_many")


def test_effort_and_output_format_are_those_of_chat() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    output = {"effort": "max", "format": {"type": "json_schema", "schema": schema}}
    request = translate(output_config=output)
    assert request.reasoning_effort == "xhigh"
    guided = request.guided(request.tool_use())
    assert guided is not None
    assert json.loads(guided[1].text) == schema


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"user_id": "u"}},
        {"service_tier": "auto"},
        {"service_tier": "standard_only"},
        {"speed": "standard"},
        {"cache_control": {"type": "ephemeral"}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"container": None, "diagnostics": None, "inference_geo": None},
    ],
)
def test_fields_that_change_nothing_here_are_accepted(fields: dict[str, Any]) -> None:
    assert translate(**fields).template_messages() == translate().template_messages()


@pytest.mark.parametrize(
    ("fields", "param", "key"),
    [
        ({"max_tokens": 0}, "max_tokens", "out_of_range"),
        ({"temperature": 1.5}, "temperature", "out_of_range"),
        ({"top_p": -0.1}, "top_p", "out_of_range"),
        ({"top_k": -1}, "top_k", "out_of_range"),
        ({"stop_sequences": [""]}, "stop_sequences[0]", "empty"),
        ({"stop_sequences": "x"}, "stop_sequences", "wrong_type"),
        ({"messages": []}, "messages", "empty"),
        ({"system": [{"type": "image"}]}, "system[0].type", "not_a_text_part"),
        ({"service_tier": "priority"}, "service_tier", "not_one_of"),
        ({"speed": "fast"}, "speed", "not_supported"),
        ({"container": "c"}, "container", "not_supported"),
        ({"diagnostics": {}}, "diagnostics", "not_supported"),
        ({"inference_geo": "us"}, "inference_geo", "not_supported"),
        ({"user_profile_id": "u"}, "user_profile_id", "not_supported"),
        ({"workspace_id": "w"}, "workspace_id", "not_supported"),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits[0].type",
            "not_supported",
        ),
        (
            {"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
            "context_management.edits[0].keep",
            "not_supported",
        ),
        ({"mcp_servers": []}, "mcp_servers", "unknown_field"),
        ({"cache_control": {"type": "x"}}, "cache_control.type", "wrong_type"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type", "not_one_of"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", "missing"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1000}, "max_tokens": 9000},
            "thinking.budget_tokens",
            "out_of_range",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 2000},
            "thinking.budget_tokens",
            "out_of_range",
        ),
        (
            {"thinking": {"type": "adaptive", "budget_tokens": 2000}},
            "thinking.budget_tokens",
            "only_with",
        ),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}},
            "thinking.display",
            "not_supported",
        ),
        ({"output_config": {"effort": "none"}}, "output_config.effort", "not_one_of"),
        (
            {"output_config": {"format": {"type": "text", "schema": {}}}},
            "output_config.format.type",
            "not_one_of",
        ),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(fields: dict[str, Any], param: str, key: str) -> None:
    assert refusal(**fields) == (param, key)


@pytest.mark.parametrize("field", ["model", "messages", "max_tokens"])
def test_required_fields_are_required(field: str) -> None:
    body = {"model": "m", "max_tokens": 8, "messages": [USER]}
    del body[field]
    with pytest.raises(InvalidParameter) as caught:
        parse_body(json.dumps(body).encode(), MessagesRequest)
    assert (caught.value.param, caught.value.key) == (field, "missing")


# ---- thinking


@pytest.mark.parametrize(
    ("thinking", "is_on"),
    [
        (None, False),
        ({"type": "disabled"}, False),
        ({"type": "adaptive"}, True),
        ({"type": "enabled", "budget_tokens": 2000, "display": "summarized"}, True),
    ],
)
def test_thinking_turns_the_templates_switch(thinking: Any, is_on: bool) -> None:
    request = translate(thinking=thinking, max_tokens=4000)
    variables = request.template_variables(QWEN, reasons=True)
    assert variables["enable_thinking"] is variables["thinking"] is is_on


@pytest.mark.parametrize(
    ("fields", "template", "refused"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, QWEN, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, ALWAYS, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "", "thinking.type"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            HARMONY,
            "thinking.budget_tokens",
        ),
        ({"thinking": {"type": "adaptive"}}, HARMONY, None),
        ({"thinking": {"type": "disabled"}}, QWEN, None),
        ({"thinking": {"type": "disabled"}}, ALWAYS, "thinking.type"),
        ({"thinking": {"type": "disabled"}}, "", None),
        ({"thinking": {"type": "adaptive"}}, "", None),
        ({}, ALWAYS, None),
        ({"output_config": {"effort": "low"}}, QWEN, "output_config.effort"),
        ({"output_config": {"effort": "low"}}, "{{ reasoning_effort }}", None),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(
    fields: dict[str, Any], template: str, refused: str | None
) -> None:
    request = parse(max_tokens=4000, **fields)
    request.chat_request()
    if refused is None:
        request.check_model(template, reasoning_parser=detect_reasoning(template))
        return
    with pytest.raises(InvalidParameter) as caught:
        request.check_model(template, reasoning_parser=detect_reasoning(template))
    assert caught.value.param == refused


# ---- count_tokens


def test_what_is_counted_is_the_prompt_of_the_message() -> None:
    prompt = {
        "model": "m",
        "messages": [USER],
        "system": "s",
        "tools": [TOOL],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "adaptive"},
    }
    counted = parse_body(json.dumps(prompt).encode(), CountTokensRequest).chat_request()
    answered = parse(**prompt).chat_request()
    of_the_answer = {"max_completion_tokens": None}
    assert counted == msgspec.structs.replace(answered, **of_the_answer)


def test_counting_takes_no_fields_of_the_answer() -> None:
    body = {"model": "m", "messages": [USER], "max_tokens": 8}
    with pytest.raises(InvalidParameter) as caught:
        parse_body(json.dumps(body).encode(), CountTokensRequest)
    assert (caught.value.param, caught.value.key) == ("max_tokens", "unknown_field")
