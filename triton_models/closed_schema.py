"""Keeps guides from inventing properties: JSON Schema allows any that a schema does not name.

Models fill objects with them until the answer is cut off. What is left out is allowed to be left
out, so every answer is still valid for the schema as it was sent. TensorRT-LLM's xgrammar does
the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Where schemas stand in a schema, in the words of draft 2020-12 and of those before it.
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_IN_LIST = frozenset({"anyOf", "prefixItems"})
_ALONE = frozenset({"items", "additionalProperties"})
# Several of these say something about one object: closed for one of them, it is no more open for
# what another one asks for.
_SAYING = frozenset({"properties", "anyOf", "$ref"})
# And these always do. `oneOf`: more than one of its open schemas may fit what a closed one says.
_COMBINING = frozenset(
    {"allOf", "oneOf", "not", "if", "dependentSchemas", "dependencies", "unevaluatedProperties"}
)
# What says by itself which other properties there may or must be.
_OPENING = frozenset(
    {"additionalProperties", "patternProperties", "minProperties", "dependentRequired"}
)


def close_objects(schema: Any) -> Any:
    """The schema without room for properties that it does not name.

    Unchanged where schemas are combined in ways that need the room.
    """
    if any(_combines(part) for part in _parts(schema)):
        return schema
    return _closed(schema)


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed_value(key, value) for key, value in schema.items()}
    properties = schema.get("properties")
    if (
        isinstance(properties, Mapping)
        and not _OPENING & schema.keys()
        and set(schema.get("required", ())) <= properties.keys()
    ):
        closed["additionalProperties"] = False
    return closed


def _closed_value(key: str, value: Any) -> Any:
    if key in _BY_NAME and isinstance(value, Mapping):
        return {name: _closed(part) for name, part in value.items()}
    if isinstance(value, list) and key in _IN_LIST:
        return [_closed(part) for part in value]
    return _closed(value) if key in _ALONE else value


def _combines(schema: Mapping[str, Any]) -> bool:
    return bool(_COMBINING & schema.keys()) or len(_SAYING & schema.keys()) > 1


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and all schemas in it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key, value in schema.items():
        parts: list[Any] = []
        if key in _BY_NAME and isinstance(value, Mapping):
            parts = list(value.values())
        elif key in _IN_LIST and isinstance(value, list):
            parts = value
        elif key in _ALONE:
            parts = [value]
        for part in parts:
            yield from _parts(part)
