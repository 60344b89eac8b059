"""The messages of a chat request, and what chat templates get for them.

Source: OpenAI's API description 2.3.0, ChatCompletionRequestMessage.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.limits import check_limits, one_of
from frontend.protocol.tools import FunctionCall, ToolCall

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
OTHER_PARTS = ("image_url", "input_image", "input_audio", "file", "video_url", "audio_url")


class ContentPart(msgspec.Struct, kw_only=True):
    """A part of a message; those that are no text are refused by name."""

    type: Annotated[str, one_of(*TEXT_PARTS)]
    text: str | None = None
    refusal: str | None = None


class ChatMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    role: Annotated[str, one_of(*ROLES)]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    # What the SDKs send back when an answer is put into the history as it came.
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: Any = None
    parsed: Any = None  # openai's own, of `parse` and `stream`
    provider_specific_fields: Any = None  # litellm's own


def check_message(path: str, message: ChatMessage) -> None:
    """
    Raises:
        InvalidParameter: names the field; `path` is the message's own.
    """
    check_limits(message, f"{path}.")
    has_calls = bool(message.tool_calls or message.function_call)
    # The SDKs send an answer back as it came: one of calls, or a refusal, has no content.
    says_more = has_calls or message.refusal is not None or _thoughts(message) is not None
    if message.content is None and not (message.role == "assistant" and says_more):
        raise InvalidParameter(f"{path}.content", "missing")
    if has_calls and message.role != "assistant":
        field = "tool_calls" if message.tool_calls else "function_call"
        raise InvalidParameter(f"{path}.{field}", "only_in_role", role="assistant")
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidParameter(f"{path}.tool_call_id", "missing")
    if isinstance(message.content, list):
        for i, part in enumerate(message.content):
            _check_part(f"{path}.content[{i}]", part)
    for i, call in enumerate(message.tool_calls or ()):
        check_limits(call, f"{path}.tool_calls[{i}].")
        read_arguments(f"{path}.tool_calls[{i}].function.arguments", call.function.arguments)
    if message.function_call is not None:
        read_arguments(f"{path}.function_call.arguments", message.function_call.arguments)


def _check_part(path: str, part: ContentPart) -> None:
    if part.type in OTHER_PARTS:
        raise InvalidParameter(f"{path}.type", "not_a_text_part", value=part.type)
    check_limits(part, f"{path}.")
    if part.text is None and part.refusal is None:
        raise InvalidParameter(f"{path}.text", "missing")


def template_message(message: ChatMessage) -> dict[str, Any]:
    """The message as chat templates take it: text content, `developer` as `system`."""
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    text = text_of(message.content) or message.refusal or ""
    fields: dict[str, Any] = {"role": role, "content": text}
    for name in ("name", "tool_call_id"):
        if value := getattr(message, name):
            fields[name] = value
    if thoughts := _thoughts(message):
        fields["reasoning_content"] = thoughts
    if calls := _calls(message):
        fields["tool_calls"] = calls
    return fields


def _thoughts(message: ChatMessage) -> str | None:
    return message.reasoning_content or message.reasoning


def _calls(message: ChatMessage) -> list[dict[str, Any]]:
    """The calls with their arguments as objects: templates write them in their own way."""
    calls = [(call.id, call.function) for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls.append(("call_0", message.function_call))
    return [
        {
            "id": call_id,
            "type": "function",
            "function": {
                "name": function.name,
                "arguments": read_arguments("messages", function.arguments),
            },
        }
        for call_id, function in calls
    ]


def read_arguments(param: str, text: str) -> dict[str, Any]:
    """The arguments of a call, "" for none.

    Raises:
        InvalidParameter: they are no JSON object; it names `param`.
    """
    try:
        return msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as exc:
        raise InvalidParameter(param, "wrong_type", reason=str(exc)) from exc


def text_of(content: str | list[ContentPart] | None) -> str:
    """The text of all parts, as one."""
    if isinstance(content, list):
        return "".join(part.text or part.refusal or "" for part in content)
    return content or ""


def text_length(message: ChatMessage) -> int:
    """Characters of all that the message says and calls."""
    arguments = sum(len(call.function.arguments) for call in message.tool_calls or ())
    return len(text_of(message.content)) + len(_thoughts(message) or "") + arguments
