"""The items that /v1/responses takes, as they are stored and shown, and as chat messages.

Source: the types of the openai SDK 3.54, ResponseInputItemParam and ResponseItem.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from frontend.access.names import MAX_LENGTH, is_name
from frontend.errors import InvalidParameter
from frontend.protocol.chat_messages import ChatMessage, read_arguments
from frontend.protocol.parse import check_choice, convert
from frontend.protocol.tools import FunctionCall, ToolCall

Item = dict[str, Any]

TEXT_PARTS = ("input_text", "output_text", "text", "refusal")
OTHER_PARTS = ("input_image", "input_file", "input_audio")
ROLES = ("user", "assistant", "system", "developer")
STATUSES = ("in_progress", "completed", "incomplete")


class TextPart(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    refusal: str | None = None
    # What the SDKs send back when an answer is put into the next input.
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None


class Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    role: str
    content: str | list[dict[str, Any]]
    type: str = "message"
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def check(self, param: str) -> None:
        check_choice(f"{param}.role", self.role, ROLES)
        _refuse(param, phase=self.phase)

    def item(self, param: str) -> Item:
        self.check(param)
        kind = "output_text" if self.role == "assistant" else "input_text"
        content: str | list[Any] = self.content
        if isinstance(content, str):
            content = [{"type": kind, "text": content}]
        return {
            "id": self.id or new_id("msg"),
            "type": "message",
            "role": self.role,
            "content": _parts(f"{param}.content", content, kind),
            "status": self.status or "completed",
        }


class Call(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename={"is_async": "async"}):
    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    namespace: str | None = None
    caller: dict[str, Any] | None = None
    is_async: bool | None = None

    def item(self, param: str) -> Item:
        _refuse(param, namespace=self.namespace, caller=self.caller)
        if self.is_async:
            raise InvalidParameter(f"{param}.async", "not_supported")
        read_arguments(f"{param}.arguments", self.arguments)
        return {
            "id": self.id or new_id("fc"),
            "type": "function_call",
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
            "status": self.status or "completed",
        }


class CallOutput(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    call_id: str
    output: str | list[dict[str, Any]]
    id: str | None = None
    status: str | None = None
    name: str | None = None  # the call's; its id tells already which call it was
    namespace: str | None = None
    caller: dict[str, Any] | None = None

    def item(self, param: str) -> Item:
        _refuse(param, namespace=self.namespace, caller=self.caller)
        output: str | list[Any] = self.output
        if isinstance(output, list):
            output = _parts(f"{param}.output", output, "input_text")
        return {
            "id": self.id or new_id("fc"),
            "type": "function_call_output",
            "call_id": self.call_id,
            "output": output,
            "status": self.status or "completed",
        }


class ReasoningText(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    text: str


class Reasoning(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    id: str | None = None
    summary: list[ReasoningText] = []
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: str | None = None

    def item(self, param: str) -> Item:
        _refuse(param, encrypted_content=self.encrypted_content)
        return {
            "id": self.id or new_id("rs"),
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": part.text} for part in self.summary],
            "content": [
                {"type": "reasoning_text", "text": part.text} for part in self.content or ()
            ],
            "status": self.status or "completed",
        }


class Reference(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    id: str
    type: str | None = None


SHAPES: dict[str, type[Message | Call | CallOutput | Reasoning]] = {
    "message": Message,
    "function_call": Call,
    "function_call_output": CallOutput,
    "reasoning": Reasoning,
}


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def input_items(given: str | list[dict[str, Any]]) -> list[Item | Reference]:
    """The input, its items complete and with ids; references are left to who has the store.

    Raises:
        InvalidParameter: names the field, like `input[2].content[0].type`.
    """
    if isinstance(given, str):
        return [Message(role="user", content=given).item("input")]
    return [_input_item(f"input[{i}]", raw) for i, raw in enumerate(given)]


def _input_item(param: str, raw: dict[str, Any]) -> Item | Reference:
    kind = raw.get("type") or ("message" if "role" in raw else "item_reference")
    if kind == "item_reference":
        return convert(raw, Reference, param)
    if not isinstance(kind, str) or kind not in SHAPES:
        choices = ", ".join((*SHAPES, "item_reference"))
        raise InvalidParameter(f"{param}.type", "not_one_of", choices=choices, value=repr(kind))
    shape = convert({**raw, "type": kind}, SHAPES[kind], param)
    if shape.id and not is_name(shape.id):
        raise InvalidParameter(f"{param}.id", "not_a_name", maximum=MAX_LENGTH)
    if shape.status is not None:
        check_choice(f"{param}.status", shape.status, STATUSES)
    return shape.item(param)


def check_call_outputs(items: Iterable[Item]) -> None:
    """Every output belongs to a call before it.

    Raises:
        InvalidParameter: there is one without.
    """
    known = set()
    for item in items:
        if item["type"] == "function_call":
            known.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in known:
            raise InvalidParameter("input", "no_call_for_output", call_id=item["call_id"])


def chat_messages(items: Iterable[Item]) -> list[ChatMessage]:
    """The same conversation as chat messages: what the model said in one go is one message."""
    messages: list[ChatMessage] = []
    for item in items:
        match item["type"]:
            case "message" if item["role"] == "assistant":
                _open_answer(messages, can_have_text=False).content = _text(item["content"])
            case "message":
                messages.append(ChatMessage(role=item["role"], content=_text(item["content"])))
            case "function_call":
                answer = _open_answer(messages, can_have_text=True)
                function = FunctionCall(name=item["name"], arguments=item["arguments"])
                call = ToolCall(id=item["call_id"], function=function)
                answer.tool_calls = [*(answer.tool_calls or ()), call]
            case "function_call_output":
                output = item["output"]
                text = output if isinstance(output, str) else _text(output)
                messages.append(
                    ChatMessage(role="tool", tool_call_id=item["call_id"], content=text)
                )
            case "reasoning":
                text = _text(item.get("content") or item["summary"])
                messages.append(ChatMessage(role="assistant", reasoning_content=text))
    return [message for message in messages if not _is_bare_reasoning(message)]


def _open_answer(messages: list[ChatMessage], *, can_have_text: bool) -> ChatMessage:
    """The assistant's message that the next item is a part of; a new one if there is none."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or (not can_have_text and not _is_new(last)):
        messages.append(ChatMessage(role="assistant"))
    return messages[-1]


def _is_new(answer: ChatMessage) -> bool:
    return answer.content is None and not answer.tool_calls


def _is_bare_reasoning(message: ChatMessage) -> bool:
    """Nothing came of it: the answer was cut off."""
    return message.role == "assistant" and _is_new(message)


def _text(parts: list[dict[str, Any]]) -> str:
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)


def _parts(param: str, parts: list[Any], kind: str) -> list[dict[str, Any]]:
    """Content parts in full; a text part is of the kind that its message has."""
    found = []
    for i, raw in enumerate(parts):
        part_type = raw.get("type") if isinstance(raw, dict) else None
        if part_type in OTHER_PARTS:
            raise InvalidParameter(f"{param}[{i}].type", "not_a_text_part", value=part_type)
        part = convert(raw, TextPart, f"{param}[{i}]")
        check_choice(f"{param}[{i}].type", part.type, TEXT_PARTS)
        field = "refusal" if part.type == "refusal" else "text"
        text = getattr(part, field)
        if text is None:
            raise InvalidParameter(f"{param}[{i}].{field}", "missing")
        if field == "refusal":
            found.append({"type": "refusal", "refusal": text})
        elif kind == "output_text":
            found.append(output_text(text, part.logprobs or [], part.annotations or []))
        else:
            found.append({"type": kind, "text": text})
    return found


def output_text(
    text: str, log_probs: list[Any] | None = None, annotations: list[Any] | None = None
) -> dict[str, Any]:
    return {
        "type": "output_text",
        "text": text,
        "annotations": annotations or [],
        "logprobs": log_probs or [],
    }


def _refuse(param: str, **fields: object) -> None:
    for name, value in fields.items():
        if value is not None:
            raise InvalidParameter(f"{param}.{name}", "not_supported")
