"""Every documented field of /v1/responses works or is refused by its name."""

from __future__ import annotations

import inspect
import json
import typing
from typing import Any

import pytest
from openai.types.responses import response_create_params
from openai.types.responses.response_includable import ResponseIncludable

from frontend.errors import InvalidRequest
from frontend.protocol.chat_messages import ChatMessage
from frontend.protocol.parse import parse_body
from frontend.protocol.response_queries import ItemsQuery, RetrieveQuery
from frontend.protocol.response_request import ResponseRequest, own_name

TOOL = {
    "type": "function",
    "name": "look",
    "description": "Look.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": True,
}
OTHER_TOOL = {"type": "function", "name": "wait", "parameters": None, "strict": False}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

# A value of each field that works, and what must come of it: in the chat request, in the echo.
WORKING: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "model": ("m", {"model": "m"}, {}),
    "input": ("hi", {}, {}),
    "instructions": ("Be brief.", {}, {"instructions": "Be brief."}),
    "previous_response_id": ("resp_0", {}, {"previous_response_id": "resp_0"}),
    "stream": (True, {}, {}),
    "stream_options": ({"include_obfuscation": False}, {}, {}),
    "background": (True, {}, {"background": True}),
    "store": (False, {}, {"store": False}),
    "include": (["message.output_text.logprobs"], {"logprobs": True, "top_logprobs": 0}, {}),
    "max_output_tokens": (9, {"max_completion_tokens": 9}, {"max_output_tokens": 9}),
    "temperature": (0.5, {"temperature": 0.5}, {"temperature": 0.5}),
    "top_p": (0.5, {"top_p": 0.5}, {"top_p": 0.5}),
    "top_logprobs": (3, {"logprobs": True, "top_logprobs": 3}, {"top_logprobs": 3}),
    "text": (
        {"verbosity": "low"},
        {"verbosity": "low"},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
    ),
    "reasoning": (
        {"effort": "high", "summary": "auto"},
        {"reasoning_effort": "high"},
        {"reasoning": {"effort": "high", "summary": "auto"}},
    ),
    "truncation": ("auto", {}, {"truncation": "auto"}),
    "tools": ([TOOL], {}, {"tools": [TOOL]}),
    "tool_choice": ("none", {"tool_choice": "none"}, {"tool_choice": "none"}),
    "parallel_tool_calls": (
        False,
        {"parallel_tool_calls": False},
        {"parallel_tool_calls": False},
    ),
    "max_tool_calls": (2, {}, {"max_tool_calls": 2}),
    "metadata": ({"k": "v"}, {}, {"metadata": {"k": "v"}}),
    "user": ("u", {}, {"user": "u"}),
    "safety_identifier": ("s", {}, {"safety_identifier": "s"}),
    "prompt_cache_key": ("k", {}, {"prompt_cache_key": "k"}),
    "prompt_cache_retention": ("in_memory", {}, {}),
    "service_tier": ("auto", {}, {"service_tier": "default"}),
}
NEEDS: dict[str, dict[str, Any]] = {"stream_options": {"stream": True}}
REFUSED = (
    *("access_programs", "background_options", "context_management", "conversation", "image"),
    *("moderation", "prompt", "prompt_cache_options"),
)


def documented_fields() -> set[str]:
    shapes = [
        shape
        for name, shape in inspect.getmembers(response_create_params)
        if name in ("ResponseCreateParamsBase", "ResponseCreateParamsStreaming")
    ]
    return {field for shape in shapes for field in typing.get_type_hints(shape)}


def parse(**fields: Any) -> ResponseRequest:
    body = parse_body(json.dumps({"input": "hi", **fields}).encode(), ResponseRequest)
    body.check()
    return body


def refused_param(**fields: Any) -> str | None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(**fields).chat_request([]).tool_use()
    assert refusal.value.status == 400
    return own_name(refusal.value.param or "")


def test_every_documented_field_works_or_is_refused() -> None:
    assert WORKING.keys() | set(REFUSED) == documented_fields()
    assert not WORKING.keys() & set(REFUSED)


@pytest.mark.parametrize("field", WORKING)
def test_a_field_does_what_it_says(field: str) -> None:
    value, in_chat, in_echo = WORKING[field]
    body = parse(**{field: value, **NEEDS.get(field, {})})
    chat = body.chat_request([ChatMessage(role="user", content="hi")])
    assert {name: getattr(chat, name) for name in in_chat} == in_chat
    echo = body.echo()
    assert {name: echo[name] for name in in_echo} == in_echo


@pytest.mark.parametrize("field", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(field: str) -> None:
    assert refused_param(**{field: {"id": "x"}}) == field
    parse(**{field: None})


def test_instructions_come_first() -> None:
    chat = parse(instructions="Be brief.").chat_request([ChatMessage(role="user", content="hi")])
    assert [(message.role, message.content) for message in chat.messages] == [
        ("system", "Be brief."),
        ("user", "hi"),
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"n": 2}, "n"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"truncation": "always"}, "truncation"),
        ({"background": True, "store": False}, "background"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream_options": {"include_usage": 1}, "stream": True}, "stream_options.include_usage"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
        ({"service_tier": "ultrafast"}, "service_tier"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": SCHEMA}}}, "text.format.name"),
        ({"text": {"format": {"type": "text", "schema": SCHEMA}}}, "text.format.schema"),
        ({"reasoning": {"effort": "some"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "concise"}}, "reasoning.summary"),
        ({"reasoning": {"generate_summary": "concise"}}, "reasoning.generate_summary"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "mcp", "server_label": "x"}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"name": "look"}]}, "tools[0].type"),
        ({"tools": [{**TOOL, "nmae": "look"}]}, "tools[0].nmae"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "output_schema": {}}]}, "tools[0].output_schema"),
        ({"tools": [{**TOOL, "parameters": {"maximum": 2**64}}]}, "tools[0].parameters"),
        (
            {"tools": [{**TOOL, "allowed_callers": ["programmatic"]}]},
            "tools[0].allowed_callers",
        ),
        ({"tool_choice": {"type": "function", "name": "look"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto"}},
            "tool_choice.tools",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": [TOOL]}},
            "tool_choice.tools[0].description",
        ),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "jump"}],
                },
            },
            "tool_choice.tools[0].name",
        ),
    ],
)
def test_bad_values_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused_param(**fields) == param


@pytest.mark.parametrize(
    "value", [v for v in typing.get_args(ResponseIncludable) if "logprobs" not in v]
)
def test_what_cannot_be_included_is_refused(value: str) -> None:
    assert refused_param(include=[value]) == "include[0]"


def test_a_schema_is_the_chats_one() -> None:
    given = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
    body = parse(text={"format": given})
    chat = body.chat_request([])
    assert chat.response_format is not None
    assert chat.response_format.json_schema is not None
    assert chat.response_format.json_schema.schema == SCHEMA
    assert body.echo()["text"]["format"] == given


def test_a_json_object_is_the_chats_one() -> None:
    chat = parse(text={"format": {"type": "json_object"}}).chat_request([])
    assert chat.response_format is not None
    assert chat.response_format.type == "json_object"


def test_a_named_function_is_forced() -> None:
    choice = {"type": "function", "name": "look"}
    body = parse(tools=[TOOL, OTHER_TOOL], tool_choice=choice)
    chat = body.chat_request([])
    use = chat.tool_use()
    assert (use.choice, use.name) == ("named", "look")
    assert body.echo()["tool_choice"] == choice


def test_only_allowed_tools_are_told_to_the_model() -> None:
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "wait"}],
    }
    body = parse(tools=[TOOL, OTHER_TOOL], tool_choice=choice)
    chat = body.chat_request([])
    use = chat.tool_use()
    assert ([tool.name for tool in use.tools], use.choice) == (["wait"], "required")
    assert body.echo()["tool_choice"] == choice
    assert [tool["name"] for tool in body.echo()["tools"]] == ["look", "wait"]


@pytest.mark.parametrize(
    ("chat_param", "param"),
    [
        ("messages", "input"),
        ("messages[3].content", "input"),
        ("response_format", "text.format"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("tool_choice", "tool_choice"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("tool_choice.allowed_tools.tools[0].function.name", "tool_choice.tools[0].name"),
        ("tools[0].name", "tools[0].name"),
        ("reasoning_effort", "reasoning.effort"),
        ("verbosity", "text.verbosity"),
        ("logprobs", "include"),
        ("top_logprobs", "top_logprobs"),
        ("max_completion_tokens", "max_output_tokens"),
        ("temperature", "temperature"),
    ],
)
def test_errors_of_the_chat_name_our_fields(chat_param: str, param: str) -> None:
    assert own_name(chat_param) == param


def test_queries_are_read() -> None:
    assert RetrieveQuery.read({}) == RetrieveQuery(stream=False, starting_after=-1)
    query = RetrieveQuery.read({"stream": ["true"], "starting_after": ["7"]})
    assert (query.stream, query.starting_after) == (True, 7)
    assert RetrieveQuery.read({"include[]": ["message.output_text.logprobs"]}) == RetrieveQuery()


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"stream": ["yes"]}, "stream"),
        ({"stream": ["true"], "starting_after": ["x"]}, "starting_after"),
        ({"starting_after": ["3"]}, "starting_after"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
    ],
)
def test_bad_queries_are_refused(arguments: dict[str, list[str]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        RetrieveQuery.read(arguments)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"limit": ["0"]}, "limit"),
        ({"limit": ["101"]}, "limit"),
        ({"limit": ["x"]}, "limit"),
        ({"order": ["up"]}, "order"),
        ({"include": ["x"]}, "include[0]"),
        ({"after": ["nobody"]}, "after"),
    ],
)
def test_bad_pages_are_refused(arguments: dict[str, list[str]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        ItemsQuery.read(arguments).page([{"id": "a"}])
    assert refusal.value.param == param


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_each_other(order: str) -> None:
    items = [{"id": str(i)} for i in range(5)]
    found: list[str] = []
    after: dict[str, list[str]] = {}
    while True:
        page = ItemsQuery.read({"limit": ["2"], "order": [order], **after}).page(items)
        found += [item["id"] for item in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], found[-1])
        if not page["has_more"]:
            break
        after = {"after": [page["last_id"]]}
    ids = [item["id"] for item in items]
    assert found == (ids if order == "asc" else ids[::-1])


def test_an_empty_page_has_no_ids() -> None:
    page = ItemsQuery().page([])
    assert page == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
