"""`tools` and `tool_choice` of /v1/responses: functions; OpenAI's built-in tools are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol import tools
from frontend.protocol.parse import check_repeatable, convert
from frontend.protocol.tools import (
    AllowedTool,
    AllowedTools,
    FunctionDefinition,
    NamedFunction,
    Tool,
)


class FunctionTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    name: str
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    output_schema: dict[str, Any] | None = None

    def check(self, param: str) -> None:
        if self.allowed_callers not in (None, ["direct"]):
            raise InvalidParameter(f"{param}.allowed_callers", "not_supported")
        if self.defer_loading:
            raise InvalidParameter(f"{param}.defer_loading", "not_supported")
        if self.output_schema is not None:
            raise InvalidParameter(f"{param}.output_schema", "not_supported")
        check_repeatable(f"{param}.parameters", self.parameters)

    def chat_tool(self) -> Tool:
        function = FunctionDefinition(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            strict=self.strict,
        )
        return Tool(type="function", function=function)

    def shown(self) -> dict[str, Any]:
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict,
        }


class NamedTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    name: str | None = None


class ResponseToolChoice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`function` with a name, or `allowed_tools` with a mode and some of the tools."""

    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[NamedTool] | None = None


def read_tools(given: Sequence[dict[str, Any]] | None) -> list[FunctionTool]:
    """
    Raises:
        InvalidParameter: names the field.
    """
    return [_read_tool(f"tools[{i}]", raw) for i, raw in enumerate(given or ())]


def _read_tool(param: str, raw: dict[str, Any]) -> FunctionTool:
    if "type" in raw and raw["type"] != "function":
        value = repr(raw["type"])
        raise InvalidParameter(f"{param}.type", "not_one_of", choices="function", value=value)
    tool = convert(raw, FunctionTool, param)
    tool.check(param)
    return tool


def chat_choice(choice: str | ResponseToolChoice | None) -> str | tools.ToolChoice | None:
    """The same as chat completions have it; they check it."""
    if not isinstance(choice, ResponseToolChoice):
        return choice
    named = None if choice.name is None else NamedFunction(name=choice.name)
    allowed = None
    if choice.type == "allowed_tools":
        chosen = [
            AllowedTool(type=one.type, function=NamedFunction(name=one.name or ""))
            for one in choice.tools or ()
        ]
        allowed = AllowedTools(mode=choice.mode or "", tools=chosen)
    return tools.ToolChoice(type=choice.type, function=named, allowed_tools=allowed)
