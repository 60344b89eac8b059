"""The items of /v1/responses: what is taken, how it is shown, what the model is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types.responses import response_input_param
from openai.types.responses.response_item_list import ResponseItemList

from frontend.errors import InvalidParameter
from frontend.protocol.response_items import (
    Item,
    Reference,
    chat_messages,
    check_call_outputs,
    input_items,
)

CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"天"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "a cloud"}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}


def read(*given: dict[str, Any]) -> list[Item]:
    items = []
    for item in input_items(list(given)):
        assert not isinstance(item, Reference)
        items.append(item)
    return items


def told(*given: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = given_only(msgspec.to_builtins(chat_messages(read(*given))))
    return found


def given_only(value: Any) -> Any:
    """The same without the fields that were not given."""
    if isinstance(value, dict):
        return {name: given_only(one) for name, one in value.items() if one is not None}
    return [given_only(one) for one in value] if isinstance(value, list) else value


def test_a_text_is_a_message_of_the_user() -> None:
    (item,) = input_items("你好")
    assert isinstance(item, dict)
    assert item.pop("id").startswith("msg_")
    assert item == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "你好"}],
        "status": "completed",
    }


def test_items_keep_their_ids_and_are_shown_in_full() -> None:
    given: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Look!"}], "id": "msg_7"},
        REASONING,
        {"role": "assistant", "content": "I look."},
        {**CALL, "id": "fc_1", "status": "completed"},
        OUTPUT,
        {**OUTPUT, "output": [{"type": "input_text", "text": "rain"}]},
    ]
    items = read(*given)
    assert [item["id"] for item in items if item["id"] in ("msg_7", "rs_1", "fc_1")] == [
        "msg_7",
        "rs_1",
        "fc_1",
    ]
    page = {"object": "list", "data": items, "first_id": "", "last_id": "", "has_more": False}
    ResponseItemList.model_validate(page, strict=True)


def test_what_the_model_said_in_one_go_is_one_message() -> None:
    messages = told(
        {"role": "user", "content": "Look!"},
        REASONING,
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        CALL,
        {**CALL, "call_id": "c2"},
        OUTPUT,
        {**OUTPUT, "call_id": "c2"},
        {"role": "assistant", "content": "A cloud."},
    )
    function = {"name": "look", "arguments": '{"at":"天"}'}
    assert messages == [
        {"role": "user", "content": "Look!"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a cloud"},
        {"role": "tool", "tool_call_id": "c2", "content": "a cloud"},
        {"role": "assistant", "content": "A cloud."},
    ]


def test_two_answers_stay_two_messages() -> None:
    messages = told({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"})
    assert [message["content"] for message in messages] == ["a", "b"]


def test_a_summary_is_told_where_there_is_no_content() -> None:
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    (message,) = told(summary, {"role": "assistant", "content": "Yes."})
    assert message["reasoning_content"] == "Hm."


def test_reasoning_that_led_to_nothing_is_not_told() -> None:
    assert told(REASONING, {"role": "user", "content": "Well?"}) == [
        {"role": "user", "content": "Well?"}
    ]


def test_a_refusal_is_told_as_text() -> None:
    part = {"type": "refusal", "refusal": "No."}
    (message,) = told({"role": "assistant", "content": [part]})
    assert message["content"] == "No."


def test_references_are_left_to_the_store() -> None:
    items = input_items([{"type": "item_reference", "id": "a"}, {"id": "b"}])
    assert items == [Reference(id="a", type="item_reference"), Reference(id="b")]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "robot", "content": "x"}, "input[0].role"),
        ({"role": "user", "content": "x", "status": "sent"}, "input[0].status"),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "", "annotations": [1]}]},
            "input[0].content[0].annotations[0]",
        ),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": "x", "name": "y"}, "input[0].name"),
        ({"role": "assistant", "content": "x", "phase": "commentary"}, "input[0].phase"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"role": "user", "content": [{"type": "poem"}]}, "input[0].content[0].type"),
        ({"role": "user", "content": ["x"]}, "input[0].content[0]"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            "input[0].content[0].type",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "x"}]},
            "input[0].content[0].type",
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "x", "prompt_cache_breakpoint": {"mode": "x"}}
                ],
            },
            "input[0].content[0].prompt_cache_breakpoint",
        ),
        ({**CALL, "arguments": "{"}, "input[0].arguments"),
        ({**CALL, "arguments": "[]"}, "input[0].arguments"),
        ({**CALL, "arguments": '{"a": "\\ud800"}'}, "input[0].arguments"),
        ({**CALL, "namespace": "x"}, "input[0].namespace"),
        ({**CALL, "caller": {"type": "direct"}}, "input[0].caller"),
        ({**CALL, "async": True}, "input[0].async"),
        ({"type": "function_call"}, "input[0].call_id"),
        ({**CALL, "id": "a\0"}, "input[0].id"),
        ({**CALL, "id": "x" * 257}, "input[0].id"),
        (
            {**OUTPUT, "output": [{"type": "input_image", "image_url": "x"}]},
            "input[0].output[0].type",
        ),
        ({**REASONING, "encrypted_content": "x"}, "input[0].encrypted_content"),
        ({"type": 3}, "input[0].type"),
        ({}, "input[0].id"),
    ],
)
def test_bad_items_are_refused_by_name(item: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        input_items([item])
    assert refusal.value.param == param


def other_item_types() -> set[str]:
    """The types of items that OpenAI documents and this server has no use for."""
    found = set()
    for shape in vars(response_input_param).values():
        hints = getattr(shape, "__annotations__", {})
        if "type" in hints:
            found |= {
                part
                for part in str(hints["type"]).replace('"', "'").split("'")
                if part.endswith(("_call", "_output", "_tools", "_trigger", "_response"))
            }
    return found - {"function_call", "function_call_output"}


def test_items_of_built_in_tools_are_refused() -> None:
    kinds = other_item_types()
    assert {"computer_call_output", "local_shell_call", "mcp_call"} <= kinds
    for kind in kinds:
        with pytest.raises(InvalidParameter) as refusal:
            input_items([{"type": kind, "id": "x"}])
        assert refusal.value.param == "input[0].type"


def test_an_output_without_its_call_is_refused() -> None:
    check_call_outputs(read(CALL, OUTPUT))
    with pytest.raises(InvalidParameter, match="c1"):
        check_call_outputs(read(OUTPUT, CALL))
