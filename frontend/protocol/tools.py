"""Tools on the wire: `tools` and `tool_choice`, and the deprecated `functions`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.limits import NOT_EMPTY, at_least, check_limits, one_of
from frontend.protocol.parse import check_choice
from frontend.text.tool_parsers.forced import named_tool_schema, required_tools_schema

MAX_TOOLS = 128  # OpenAI's limit
TOOL_CHOICES = ("none", "auto", "required")

FunctionType = Annotated[str, one_of("function")]


class FunctionDefinition(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, NOT_EMPTY]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: FunctionType
    function: FunctionDefinition


class NamedFunction(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str


class AllowedTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: FunctionType
    function: NamedFunction


class AllowedTools(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    mode: Annotated[str, one_of("auto", "required")]
    tools: Annotated[list[AllowedTool], at_least(1)]


class ToolChoice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One function by its name, or (`allowed_tools`) some of `tools`."""

    type: Annotated[str, one_of("function", "allowed_tools")]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class FunctionCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A call in an assistant message that the client sends back."""

    name: str
    arguments: str
    parsed_arguments: Any = None  # the openai SDK's own: what it read out of `arguments`


class ToolCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    id: str
    index: int | None = None  # from those who put streamed deltas together; it says nothing new
    type: FunctionType = "function"
    function: FunctionCall


class ToolUse(msgspec.Struct, kw_only=True, frozen=True):
    """What a request says about tools, all spellings the same.

    `choice` is "none", "auto", "required" or "named"; `name` goes with the last.
    """

    tools: tuple[FunctionDefinition, ...] = ()
    choice: str = "none"
    name: str | None = None
    parallel: bool = True
    tools_param: str = "tools"
    choice_param: str = "tool_choice"

    def schemas(self) -> dict[str, dict[str, Any]]:
        return {tool.name: tool.parameters or {"type": "object"} for tool in self.tools}

    def forced_schema(self) -> dict[str, Any] | None:
        """What an answer that must be a call has to match; None where none is forced."""
        if self.choice == "required":
            return required_tools_schema(self.schemas(), parallel=self.parallel)
        return named_tool_schema(self.schemas(), str(self.name)) if self.choice == "named" else None

    def template_tools(self) -> list[dict[str, Any]] | None:
        """The tools as chat templates take them; none when none may be called."""
        if not self.tools or self.choice == "none":
            return None
        return [{"type": "function", "function": _without_nulls(tool)} for tool in self.tools]


def tool_use(
    tools: list[Tool] | None, choice: str | ToolChoice | None, *, parallel: bool | None
) -> ToolUse:
    """Read `tools` and `tool_choice`.

    Raises:
        InvalidParameter: names the field.
    """
    for i, tool in enumerate(tools or ()):
        check_limits(tool, f"tools[{i}].")
    functions = tuple(tool.function for tool in tools or ())
    _check_functions("tools", functions, part=".function")
    if choice not in (None, "none", "auto") and not functions:
        raise InvalidParameter("tool_choice", "only_with_tools")
    name = None
    if isinstance(choice, ToolChoice):
        functions, choice, name = _chosen(functions, choice)
    return ToolUse(
        tools=functions,
        choice=(choice or "auto") if functions else "none",
        name=name,
        parallel=parallel is not False,
    )


def _chosen(
    functions: tuple[FunctionDefinition, ...], choice: ToolChoice
) -> tuple[tuple[FunctionDefinition, ...], str, str | None]:
    """The tools that may be called, ToolUse.choice and ToolUse.name."""
    check_limits(choice, "tool_choice.")
    if choice.type == "function":
        if choice.function is None:
            raise InvalidParameter("tool_choice.function", "missing")
        _check_named("tool_choice.function.name", choice.function.name, functions)
        return functions, "named", choice.function.name
    path, allowed = "tool_choice.allowed_tools", choice.allowed_tools
    if allowed is None:
        raise InvalidParameter(path, "missing")
    check_limits(allowed, f"{path}.")
    for i, tool in enumerate(allowed.tools):
        check_limits(tool, f"{path}.tools[{i}].")
        _check_named(f"{path}.tools[{i}].function.name", tool.function.name, functions)
    names = {tool.function.name for tool in allowed.tools}
    return tuple(one for one in functions if one.name in names), allowed.mode, None


def function_use(
    functions: list[FunctionDefinition] | None, call: str | NamedFunction | None
) -> ToolUse:
    """Read the deprecated `functions` and `function_call`: one call at the most."""
    definitions = tuple(functions or ())
    _check_functions("functions", definitions)
    name = call.name if isinstance(call, NamedFunction) else None
    _check_named("function_call.name", name, definitions)
    choice = "named" if name else str(call or "auto")
    return ToolUse(
        tools=definitions,
        choice=choice if definitions else "none",
        name=name,
        parallel=False,
        tools_param="functions",
        choice_param="function_call",
    )


def _check_functions(
    param: str, functions: tuple[FunctionDefinition, ...], *, part: str = ""
) -> None:
    names = [function.name for function in functions]
    for i, name in enumerate(names):
        check_limits(functions[i], f"{param}[{i}]{part}.")
        if name in names[:i]:
            raise InvalidParameter(f"{param}[{i}]{part}.name", "duplicate", value=name)


def _check_named(param: str, name: str | None, functions: tuple[FunctionDefinition, ...]) -> None:
    if name is not None:
        check_choice(param, name, [function.name for function in functions])


def _without_nulls(function: FunctionDefinition) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(function)
    return {key: value for key, value in fields.items() if value is not None and key != "strict"}
