"""Anthropic's messages and their content blocks -> the messages of chat completions.

Source: the `anthropic` SDK 2.12.0, MessageParam and ContentBlockParam.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.chat_messages import ChatMessage
from frontend.protocol.limits import check_limits, one_of
from frontend.protocol.tools import FunctionCall, ToolCall

ROLES = ("user", "assistant", "system")
# block type -> the fields it must have, and the roles it may stand in
BLOCKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text": (("text",), ROLES),
    "thinking": (("thinking",), ("assistant",)),
    "redacted_thinking": (("data",), ("assistant",)),
    "tool_use": (("id", "name", "input"), ("assistant",)),
    "tool_result": (("tool_use_id",), ("user",)),
}
ERROR_PREFIX = "Error: "  # chat templates have no other way to say that a tool failed


class CacheControl(msgspec.Struct, kw_only=True):
    """A hint that is not needed: every prompt's beginning is cached."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Caller(msgspec.Struct, kw_only=True):
    type: str


class Block(msgspec.Struct, kw_only=True):
    """A content block of any type; those that a text model cannot read are refused by name."""

    type: Annotated[str, one_of(*BLOCKS)]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None  # opaque; ours says nothing
    data: str | None = None  # of redacted thinking: nobody but its maker can read it
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | dict[str, Any] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    citations: Any = None
    caller: Caller | None = None
    toolset_name: str | None = None

    def check(self, path: str, role: str) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        if self.type not in BLOCKS:
            raise InvalidParameter(f"{path}.type", "not_a_text_part", value=self.type)
        required, roles = BLOCKS[self.type]
        if role not in roles:
            raise InvalidParameter(f"{path}.type", "only_in_role", role=roles[0])
        for field in required:
            if getattr(self, field) is None:
                raise InvalidParameter(f"{path}.{field}", "missing")
        if self.citations:
            raise InvalidParameter(f"{path}.citations", "not_supported")
        if self.caller is not None and self.caller.type != "direct":
            raise InvalidParameter(f"{path}.caller", "not_supported")
        if self.toolset_name is not None:
            raise InvalidParameter(f"{path}.toolset_name", "not_supported")
        if self.type == "tool_result":
            self._check_result(f"{path}.content")

    def _check_result(self, path: str) -> None:
        if isinstance(self.content, dict):
            reason = "Expected `str | array`, got `object`"
            raise InvalidParameter(path, "wrong_type", reason=reason)
        for i, part in enumerate(blocks_of(self.content)):
            if part.type != "text":
                raise InvalidParameter(f"{path}[{i}].type", "not_a_text_part", value=part.type)
            part.check(f"{path}[{i}]", "user")


class Message(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    role: Annotated[str, one_of(*ROLES)]
    content: str | list[Block]


def blocks_of(content: str | list[Block] | dict[str, Any] | None) -> list[Block]:
    """A text is short for one text block."""
    if isinstance(content, list):
        return content
    return [Block(type="text", text=content)] if isinstance(content, str) else []


def check_system(system: str | list[Block] | None) -> None:
    for i, block in enumerate(blocks_of(system)):
        block.check(f"system[{i}]", "system")


def check_messages(messages: Sequence[Message]) -> None:
    """
    Raises:
        InvalidParameter: names the field.
    """
    call_ids: set[str | None] = set()
    for i, message in enumerate(messages):
        check_limits(message, f"messages[{i}].")
        for j, block in enumerate(blocks_of(message.content)):
            path = f"messages[{i}].content[{j}]"
            block.check(path, message.role)
            if block.type == "tool_use":
                call_ids.add(block.id)
            elif block.type == "tool_result" and block.tool_use_id not in call_ids:
                raise InvalidParameter(
                    f"{path}.tool_use_id", "unknown_tool_use", value=block.tool_use_id
                )
    last = blocks_of(messages[-1].content)
    if messages[-1].role == "assistant" and (not last or last[-1].type != "text"):
        raise InvalidParameter(f"messages[{len(messages) - 1}].content", "not_continued")


def chat_messages(
    system: str | list[Block] | None, messages: Sequence[Message]
) -> list[ChatMessage]:
    """Translate what was checked; consecutive messages of one role become one turn."""
    translated = []
    if system:
        translated.append(ChatMessage(role="system", content=_lines(blocks_of(system))))
    names: dict[str | None, str | None] = {}  # of the tools, by the ids of their calls
    for role, group in groupby(messages, key=lambda message: message.role):
        blocks = [block for message in group for block in blocks_of(message.content)]
        names |= {block.id: block.name for block in blocks if block.type == "tool_use"}
        if role == "assistant":
            translated.append(_assistant_message(blocks))
        else:
            translated += _turn(role, blocks, names)
    return translated


def _turn(
    role: str, blocks: list[Block], names: dict[str | None, str | None]
) -> Iterator[ChatMessage]:
    """Each tool result is a message of its own, with what was said before and after it."""
    for is_result, run in groupby(blocks, key=lambda block: block.type == "tool_result"):
        if not is_result:
            yield ChatMessage(role=role, content=_lines(list(run)))
            continue
        for block in run:
            prefix = ERROR_PREFIX if block.is_error else ""
            yield ChatMessage(
                role="tool",
                tool_call_id=block.tool_use_id,
                name=names.get(block.tool_use_id),
                content=prefix + _lines(blocks_of(block.content)),
            )


def _assistant_message(blocks: list[Block]) -> ChatMessage:
    calls = [
        ToolCall(
            id=block.id or "",
            function=FunctionCall(name=block.name or "", arguments=json.dumps(block.input)),
        )
        for block in blocks
        if block.type == "tool_use"
    ]
    thoughts = [block.thinking or "" for block in blocks if block.type == "thinking"]
    return ChatMessage(
        role="assistant",
        # one text, which tool calls or citations have cut into pieces
        content="".join(block.text or "" for block in blocks if block.type == "text"),
        tool_calls=calls or None,
        reasoning_content="\n".join(thoughts) or None,
    )


def _lines(blocks: list[Block]) -> str:
    """Blocks are texts of their own (a document, a question), so a line end stands between."""
    return "\n".join(block.text or "" for block in blocks)
