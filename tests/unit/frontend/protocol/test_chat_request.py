"""What a chat request may say: every field works, or is refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import completion_create_params

from frontend.errors import InvalidParameter
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.parse import parse_body
from frontend.types import Guide, GuideType

UNSUPPORTED = (
    "audio", "moderation", "prediction", "prompt_cache_options", "prompt_cache_retention",
    "web_search_options",
)  # fmt: skip
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OTHER_TOOL = {"type": "function", "function": {"name": "g"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
FUNCTION = {"name": "f", "parameters": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def parsed(**fields: Any) -> ChatRequest:
    body = parse_body(json.dumps({"messages": [USER], **fields}).encode(), ChatRequest)
    body.check()
    return body


def guide_of(**fields: Any) -> tuple[str, Guide] | None:
    body = parsed(**fields)
    return body.guided(body.tool_use())


def refusal_of(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidParameter) as caught:
        guide_of(**fields)
    return caught.value.param, caught.value.key


# Each of OpenAI's own fields (the SDK's types name them): a value that works.
ACCEPTED: dict[str, Any] = {
    "messages": [USER],
    "model": "m",
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [FUNCTION],
    "logit_bias": {"5": -100},
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_tokens": 5,
    "metadata": {"run": "1"},
    "modalities": ["text"],
    "n": 128,
    "parallel_tool_calls": False,
    "presence_penalty": 0.5,
    "prompt_cache_key": "k",
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "safety_identifier": "someone",
    "seed": 7,
    "service_tier": "flex",
    "stop": ["a", "b", "c", "d"],
    "store": False,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": True},
    "temperature": 0,
    "tool_choice": "auto",
    "tools": [TOOL],
    "top_logprobs": 20,
    "top_p": 0.5,
    "user": "someone",
    "verbosity": "low",
}
NEEDS: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
    "function_call": {"functions": [FUNCTION]},
    "tool_choice": {"tools": [TOOL]},
}
EXTRAS: dict[str, Any] = {
    "top_k": 40,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "min_tokens": 3,
    "ignore_eos": True,
    "stop_token_ids": [5],
    "bad_words": ["x"],
    "guided_json": SCHEMA,
    "guided_regex": "a+",
    "guided_choice": ["yes", "no"],
    "guided_grammar": 'root ::= "a"',
    "structured_outputs": {"regex": "a+"},
    "chat_template": "{{ messages }}",
    "chat_template_kwargs": {"enable_thinking": False},
    "add_generation_prompt": False,
    "continue_final_message": True,
    "echo": True,
    "priority": -5,
    "cache_salt": "s",
    "return_token_ids": True,
}
DOCUMENTED = set(completion_create_params.CompletionCreateParamsBase.__annotations__) | {"stream"}


def test_every_field_of_openais_is_known() -> None:
    assert ACCEPTED.keys() | set(UNSUPPORTED) == DOCUMENTED


@pytest.mark.parametrize("name", [*ACCEPTED, *EXTRAS])
def test_a_field_that_works_is_taken_and_may_be_null(name: str) -> None:
    value = {**ACCEPTED, **EXTRAS}[name]
    needed: dict[str, Any] = NEEDS.get(name, {})
    guide_of(**{**needed, name: value})
    if name != "messages":
        assert getattr(parsed(**{name: None}), name) is None


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_field_that_does_not_work_is_refused_by_its_name_and_may_be_null(name: str) -> None:
    assert refusal_of(**{name: {}}) == (name, "not_supported")
    parsed(**{name: None})


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER, fields]}


def response(**fields: Any) -> dict[str, Any]:
    return {"response_format": fields}


def tools(*names: str, **fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": n}} for n in names], **fields}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str, mode: str = "required") -> dict[str, Any]:
    choice = {"mode": mode, "tools": [named(name) for name in names]}
    return {"type": "allowed_tools", "allowed_tools": choice}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"max_completion_tokens": 0}, "max_completion_tokens", "out_of_range"),
    ({"n": 0}, "n", "out_of_range"),
    ({"n": 129}, "n", "out_of_range"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "out_of_range"),
    ({"top_logprobs": 1}, "top_logprobs", "only_with"),
    ({"top_logprobs": 1, "logprobs": False}, "top_logprobs", "only_with"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "only_with_stream"),
    ({"store": True}, "store", "not_supported"),
    ({"modalities": ["text", "audio"]}, "modalities[1]", "not_one_of"),
    ({"reasoning_effort": "huge"}, "reasoning_effort", "not_one_of"),
    ({"verbosity": "huge"}, "verbosity", "not_one_of"),
    ({"service_tier": "huge"}, "service_tier", "not_one_of"),
    ({"stop_token_ids": [1] * 65}, "stop_token_ids", "too_many"),
    ({"bad_words": ["x"] * 257}, "bad_words", "too_many"),
    ({"bad_words": ["x", ""]}, "bad_words[1]", "empty"),
    ({"cache_salt": ""}, "cache_salt", "empty"),
    ({"priority": 2**31}, "priority", "out_of_range"),
    ({"priority": -(2**31) - 1}, "priority", "out_of_range"),
    ({"no_such_field": 1}, "no_such_field", "unknown_field"),
    ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools", "not_supported"),
    ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs.self", "not_supported"),
    (
        {"continue_final_message": True, "add_generation_prompt": True},
        "continue_final_message",
        "conflict",
    ),
    # messages
    ({"messages": []}, "messages", "empty"),
    (message(role="wizard", content="x"), "messages[1].role", "not_one_of"),
    (message(role="user"), "messages[1].content", "missing"),
    (message(role="assistant"), "messages[1].content", "missing"),
    (message(role="tool", content="x"), "messages[1].tool_call_id", "missing"),
    (
        message(role="user", content="x", tool_calls=[CALL]),
        "messages[1].tool_calls",
        "only_in_role",
    ),
    (
        message(role="user", content="x", function_call=CALL["function"]),
        "messages[1].function_call",
        "only_in_role",
    ),
    (message(role="user", content=[IMAGE]), "messages[1].content[0].type", "not_a_text_part"),
    (message(role="user", content=[{"type": "x"}]), "messages[1].content[0].type", "not_one_of"),
    (message(role="user", content=[{"type": "text"}]), "messages[1].content[0].text", "missing"),
    (message(role="user", content="x", colour="red"), "messages[1].colour", "unknown_field"),
    (
        message(role="assistant", tool_calls=[{**CALL, "type": "custom"}]),
        "messages[1].tool_calls[0].type",
        "not_one_of",
    ),
    *(
        (
            message(
                role="assistant", tool_calls=[{**CALL, "function": {"name": "f", "arguments": a}}]
            ),
            "messages[1].tool_calls[0].function.arguments",
            "wrong_type",
        )
        for a in ("{", "[1]", '"x"')
    ),
    (
        message(role="assistant", function_call={"name": "f", "arguments": "{"}),
        "messages[1].function_call.arguments",
        "wrong_type",
    ),
    # tools
    ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools[0].type", "not_one_of"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing"),
    (tools("f", "g", "f"), "tools[2].function.name", "duplicate"),
    (tools("f", ""), "tools[1].function.name", "empty"),
    (tools(*(f"f{i}" for i in range(129))), "tools", "too_many"),
    ({"tool_choice": "required"}, "tool_choice", "only_with_tools"),
    ({"tool_choice": named("f"), "tools": []}, "tool_choice", "only_with_tools"),
    (tools("f", tool_choice="any"), "tool_choice", "not_one_of"),
    (tools("f", tool_choice={"type": "custom"}), "tool_choice.type", "not_one_of"),
    (tools("f", tool_choice={"type": "function"}), "tool_choice.function", "missing"),
    (tools("f", tool_choice=named("g")), "tool_choice.function.name", "not_one_of"),
    (tools("f", tool_choice={"type": "allowed_tools"}), "tool_choice.allowed_tools", "missing"),
    (
        tools("f", tool_choice=allowed("f", mode="none")),
        "tool_choice.allowed_tools.mode",
        "not_one_of",
    ),
    (tools("f", tool_choice=allowed()), "tool_choice.allowed_tools.tools", "empty"),
    (
        tools("f", tool_choice=allowed("f", "g")),
        "tool_choice.allowed_tools.tools[1].function.name",
        "not_one_of",
    ),
    ({**tools("f"), "functions": [FUNCTION]}, "functions", "conflict"),
    ({"functions": [FUNCTION, FUNCTION]}, "functions[1].name", "duplicate"),
    ({"functions": [FUNCTION], "function_call": "any"}, "function_call", "not_one_of"),
    ({"functions": [FUNCTION], "function_call": {"name": "g"}}, "function_call.name", "not_one_of"),
    # guides
    (response(type="xml"), "response_format.type", "not_one_of"),
    (response(type="json_schema"), "response_format.json_schema", "missing"),
    ({"guided_choice": []}, "guided_choice", "empty"),
    ({"guided_choice": ["x"] * 1025}, "guided_choice", "too_many"),
    ({"guided_json": "{"}, "guided_json", "wrong_type"),
    ({"guided_json": "[]"}, "guided_json", "wrong_type"),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "conflict"),
    ({"guided_regex": "a", **response(type="json_object")}, "guided_regex", "conflict"),
    (
        {"structured_outputs": {"regex": "a", "choice": ["b"]}},
        "structured_outputs.choice",
        "conflict",
    ),
    (tools("f", tool_choice="required", guided_regex="a"), "guided_regex", "conflict"),
]


@pytest.mark.parametrize(("fields", "param", "key"), REFUSED)
def test_what_is_refused_is_named(fields: dict[str, Any], param: str, key: str) -> None:
    assert refusal_of(**fields) == (param, key)


@pytest.mark.parametrize(
    ("fields", "guide"),
    [
        ({}, None),
        (response(type="text"), None),
        (response(type="json_object"), ("response_format", GuideType.JSON)),
        (
            response(type="json_schema", json_schema={"name": "s", "schema": SCHEMA}),
            ("response_format", GuideType.JSON_SCHEMA),
        ),
        ({"guided_json": SCHEMA}, ("guided_json", GuideType.JSON_SCHEMA)),
        ({"guided_json": json.dumps(SCHEMA)}, ("guided_json", GuideType.JSON_SCHEMA)),
        ({"guided_regex": "a+"}, ("guided_regex", GuideType.REGEX)),
        ({"guided_grammar": "x"}, ("guided_grammar", GuideType.EBNF_GRAMMAR)),
        (
            {"structured_outputs": {"json_object": True}},
            ("structured_outputs.json_object", GuideType.JSON),
        ),
        (tools("f", tool_choice="required"), ("tool_choice", GuideType.JSON_SCHEMA)),
        (tools("f", tool_choice=named("f")), ("tool_choice", GuideType.JSON_SCHEMA)),
        (
            {"functions": [FUNCTION], "function_call": {"name": "f"}},
            ("function_call", GuideType.JSON_SCHEMA),
        ),
        (
            tools("f", tool_choice="required", **response(type="json_object")),
            ("tool_choice", GuideType.JSON_SCHEMA),
        ),
    ],
)
def test_what_the_answer_must_match(
    fields: dict[str, Any], guide: tuple[str, GuideType] | None
) -> None:
    found = guide_of(**fields)
    assert (found and (found[0], found[1].type)) == guide


def test_choices_are_matched_letter_by_letter() -> None:
    found = guide_of(guided_choice=["a.b", "c|d", "(e)\n"])
    assert found is not None
    assert found[1].text == r"a\.b|c\|d|\(e\)\n"


@pytest.mark.parametrize(
    ("fields", "choice", "names"),
    [
        ({}, "none", []),
        ({"tool_choice": "auto"}, "none", []),
        ({"tools": [], "tool_choice": "none"}, "none", []),
        (tools("f", "g"), "auto", ["f", "g"]),
        (tools("f", "g", tool_choice="none"), "none", ["f", "g"]),
        (tools("f", "g", tool_choice="required"), "required", ["f", "g"]),
        (tools("f", "g", tool_choice=named("g")), "named", ["f", "g"]),
        (tools("f", "g", tool_choice=allowed("g")), "required", ["g"]),
        (tools("f", "g", tool_choice=allowed("g", mode="auto")), "auto", ["g"]),
        ({"functions": [FUNCTION]}, "auto", ["f"]),
        ({"functions": [FUNCTION], "function_call": "none"}, "none", ["f"]),
        ({"functions": [FUNCTION], "function_call": {"name": "f"}}, "named", ["f"]),
    ],
)
def test_how_tools_may_be_used(fields: dict[str, Any], choice: str, names: list[str]) -> None:
    use = parsed(**fields).tool_use()
    assert (use.choice, [tool.name for tool in use.tools]) == (choice, names)


@pytest.mark.parametrize("call", ["auto", "none"])
def test_without_functions_none_may_be_called(call: str) -> None:
    assert parsed(function_call=call).tool_use().choice == "none"


@pytest.mark.parametrize("arguments", ["[" * 100_000, '{"a": "\\ud800"}', '{"a": NaN}'])
def test_arguments_that_no_template_could_show_are_refused(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    assert refusal_of(**message(role="assistant", tool_calls=[call])) == (
        "messages[1].tool_calls[0].function.arguments",
        "wrong_type",
    )


def test_one_call_at_the_most_is_kept_also_where_it_is_forced() -> None:
    found = guide_of(**tools("f", tool_choice="required", parallel_tool_calls=False))
    assert found is not None
    assert json.loads(found[1].text)["maxItems"] == 1
    assert not parsed(functions=[FUNCTION]).tool_use().parallel


def test_tools_that_may_not_be_called_are_not_shown() -> None:
    assert parsed(**tools("f", tool_choice="none")).tool_use().template_tools() is None
    shown = parsed(tools=[TOOL, OTHER_TOOL]).tool_use().template_tools()
    assert shown == [TOOL, OTHER_TOOL]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (USER, USER),
        ({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "user", "content": "ab"},
        ),
        (
            {"role": "user", "content": "x", "name": "Ann"},
            {"role": "user", "content": "x", "name": "Ann"},
        ),
        (
            {"role": "tool", "content": "x", "tool_call_id": "1"},
            {"role": "tool", "content": "x", "tool_call_id": "1"},
        ),
        (
            {"role": "function", "content": "x", "name": "f"},
            {"role": "tool", "content": "x", "name": "f"},
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"x": 1}}}],
            },
        ),
        (
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "", "parsed_arguments": {}},
            },
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": {}}}
                ],
            },
        ),
        (
            {
                "role": "assistant",
                "content": "x",
                "reasoning": "y",
                "audio": None,
                "annotations": [],
                "parsed": {"x": 1},
                "provider_specific_fields": None,
            },
            {"role": "assistant", "content": "x", "reasoning_content": "y"},
        ),
        (
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "assistant", "content": "No."},
        ),
    ],
)
def test_what_the_template_gets(given: dict[str, Any], shown: dict[str, Any]) -> None:
    assert parsed(messages=[given]).template_messages() == [shown]


@pytest.mark.parametrize(
    ("fields", "template", "reasons", "variables"),
    [
        ({}, "", False, {}),
        ({"chat_template_kwargs": {"a": 1}}, "", False, {"a": 1}),
        ({"verbosity": "low"}, "{{ verbosity }}", False, {"verbosity": "low"}),
        ({"reasoning_effort": "low"}, "{{ reasoning_effort }}", True, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, "{{ enable_thinking }}", True, {"enable_thinking": False}),
        ({"reasoning_effort": "high"}, "{{ enable_thinking }}", True, {"enable_thinking": True}),
        ({"reasoning_effort": "none"}, "", False, {}),
    ],
)
def test_fields_that_the_template_follows(
    fields: dict[str, Any], template: str, reasons: bool, variables: dict[str, Any]
) -> None:
    assert parsed(**fields).template_variables(template, reasons=reasons) == variables


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"verbosity": "low"}, False),
        ({"reasoning_effort": "low"}, False),
        ({"reasoning_effort": "none"}, True),
    ],
)
def test_fields_that_the_template_cannot_follow_are_refused(
    fields: dict[str, Any], reasons: bool
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed(**fields).template_variables("{{ messages }}", reasons=reasons)
    assert (caught.value.param, caught.value.key) == (next(iter(fields)), "not_in_template")


@pytest.mark.parametrize(
    ("fields", "begins_answer"),
    [
        ({}, True),
        ({"add_generation_prompt": False}, False),
        ({"continue_final_message": True}, False),
        ({"continue_final_message": False}, True),
    ],
)
def test_whether_the_prompt_begins_the_answer(fields: dict[str, Any], begins_answer: bool) -> None:
    assert parsed(**fields).begins_answer is begins_answer


def test_echo_shows_the_assistants_last_words_only() -> None:
    answer = {"role": "assistant", "content": "Once upon"}
    assert parsed(messages=[USER, answer], echo=True).echoed_text() == "Once upon"
    assert parsed(messages=[USER, answer]).echoed_text() == ""
    assert parsed(messages=[USER], echo=True).echoed_text() == ""


def test_all_that_a_prompt_is_made_of_makes_it_long() -> None:
    long = "x" * 20_000
    call = {"id": "c", "function": {"name": "f", "arguments": json.dumps({"a": long})}}
    function = {"name": "f", "parameters": {"description": long}}
    for fields in (
        {"messages": [{"role": "user", "content": long}]},
        {"messages": [{"role": "assistant", "content": "", "reasoning_content": long}]},
        {"messages": [{"role": "assistant", "tool_calls": [call]}]},
        {"tools": [{"type": "function", "function": function}]},
        {"functions": [function]},
    ):
        assert parsed(**fields).num_chars() >= len(long)


def test_equal_salts_have_equal_numbers_of_64_bits() -> None:
    numbers = {parsed(cache_salt=salt).cache_salt_number() for salt in ("a", "b", "a")}
    assert len(numbers) == 2
    assert all(isinstance(number, int) and 0 <= number < 2**64 for number in numbers)
    assert parsed().cache_salt_number() is None
