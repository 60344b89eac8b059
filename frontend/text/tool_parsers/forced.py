"""Calls that guided decoding forces: plain JSON, without any model's markers.

For tool_choice "required" an array of call objects, for a named function its arguments alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frontend.text.tool_parsers.base import GeneratorToolParser, JsonSchema, MakeId, Tools
from frontend.text.tool_parsers.json_calls import JsonCallsParser
from frontend.text.tool_parsers.scanner import Reading

_DEFINITIONS = ("$defs", "definitions")


def required_tools_schema(tools: Tools, *, parallel: bool) -> dict[str, Any]:
    """Schema of what `RequiredToolParser` reads: one call or, if `parallel`, one or more."""
    definitions: dict[str, Any] = {}
    calls = [_call_schema(name, schema, definitions) for name, schema in tools.items()]
    array: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if not parallel:
        array["maxItems"] = 1
    return array | ({"$defs": definitions} if definitions else {})


def named_tool_schema(tools: Tools, name: str) -> dict[str, Any]:
    """Schema of what `NamedToolParser` reads: the arguments of this tool."""
    return {"type": "object", **tools[name]}


class RequiredToolParser(JsonCallsParser):
    """`[{"name": "f", "parameters": {...}}, ...]`, or one object without the array."""

    name = "required"

    def _read_opening(self) -> Reading[None]:
        yield from self._in.spaces()
        if (yield from self._in.looking_at("[")):
            yield from self._read_call_array()
        else:
            yield from self._read_call_object()


class NamedToolParser(GeneratorToolParser):
    """`{...}`: the arguments of the one function that may be called."""

    name = "named"

    def __init__(self, function: str, make_id: MakeId | None = None) -> None:
        self._function = function
        super().__init__({function: {}}, make_id)

    def _read_opening(self) -> Reading[None]:
        yield from self._in.spaces()
        yield from self._read_arguments(self._function)


def _call_schema(name: str, schema: JsonSchema, definitions: dict[str, Any]) -> dict[str, Any]:
    """Schema of one call; what the tool's schema defines goes to `definitions`.

    References are relative to a schema's root, which the tool's own no longer is: they are turned
    to `definitions`, where each definition carries the tool's name.
    """
    parameters = {"type": "object", **schema}
    for keyword in _DEFINITIONS:
        if not isinstance(parameters.get(keyword), Mapping):
            continue  # nothing can refer to it
        for key, definition in parameters.pop(keyword).items():
            definitions[f"{name}.{key}"] = _turn_references(definition, name)
    return {
        "type": "object",
        "properties": {
            "name": {"const": name},
            "parameters": _turn_references(parameters, name),
        },
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _turn_references(schema: Any, name: str) -> Any:
    if isinstance(schema, Mapping):
        turned = {key: _turn_references(value, name) for key, value in schema.items()}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            for keyword in _DEFINITIONS:
                prefix = f"#/{keyword}/"
                if reference.startswith(prefix):
                    turned["$ref"] = f"#/$defs/{name}.{reference.removeprefix(prefix)}"
        return turned
    if isinstance(schema, list):
        return [_turn_references(item, name) for item in schema]
    return schema
