"""Anthropic's `tools` and `tool_choice` -> those of chat completions.

Source: the `anthropic` SDK 2.12.0, ToolUnionParam and ToolChoiceParam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.anthropic_blocks import CacheControl
from frontend.protocol.limits import check_limits, one_of
from frontend.protocol.parse import check_choice
from frontend.protocol.tools import FunctionDefinition, NamedFunction, Tool, ToolChoice

CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": "named"}


class AnthropicTool(msgspec.Struct, kw_only=True):
    """A tool of the caller's; those that Anthropic's servers run are refused by name."""

    type: Annotated[str, one_of("custom")] | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None  # a call's input is always streamed as it comes
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    input_examples: list[dict[str, Any]] | None = None

    def check(self, path: str) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        if self.type not in (None, "custom"):
            raise InvalidParameter(f"{path}.type", "custom_tools_only", value=self.type)
        if not self.name:
            raise InvalidParameter(f"{path}.name", "missing")
        if self.input_schema is None:
            raise InvalidParameter(f"{path}.input_schema", "missing")
        if self.allowed_callers not in (None, ["direct"]):
            raise InvalidParameter(f"{path}.allowed_callers", "not_supported")
        if self.defer_loading:
            raise InvalidParameter(f"{path}.defer_loading", "not_supported")
        if self.input_examples:
            raise InvalidParameter(f"{path}.input_examples", "not_supported")

    def chat_tool(self) -> Tool:
        return Tool(
            type="function",
            function=FunctionDefinition(
                name=self.name or "",
                description=self.description,
                parameters=self.input_schema,
                strict=self.strict,
            ),
        )


class AnthropicToolChoice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: Annotated[str, one_of(*CHOICES)]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    def check(self, tools: Sequence[AnthropicTool]) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self, "tool_choice.")
        if self.type == "tool":
            if self.name is None:
                raise InvalidParameter("tool_choice.name", "missing")
            check_choice("tool_choice.name", self.name, [tool.name or "" for tool in tools])
        elif self.name is not None:
            raise InvalidParameter("tool_choice.name", "only_with", other="type: tool")

    def chat_choice(self) -> str | ToolChoice:
        if self.type == "tool":
            return ToolChoice(type="function", function=NamedFunction(name=self.name or ""))
        return CHOICES[self.type]
