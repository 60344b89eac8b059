"""Which objects are closed for properties that nobody named, and which stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

from triton_models.closed_schema import close_objects

A: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED_A = A | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (A, CLOSED_A),
        (A | {"required": ["a"]}, CLOSED_A | {"required": ["a"]}),
        ({"properties": {}}, {"properties": {}, "additionalProperties": False}),
        ({"type": "array", "items": A}, {"type": "array", "items": CLOSED_A}),
        ({"prefixItems": [A, A]}, {"prefixItems": [CLOSED_A, CLOSED_A]}),
        ({"anyOf": [A, {"type": "null"}]}, {"anyOf": [CLOSED_A, {"type": "null"}]}),
        ({"additionalProperties": A}, {"additionalProperties": CLOSED_A}),
        (
            {"properties": {"b": A}},
            {"properties": {"b": CLOSED_A}, "additionalProperties": False},
        ),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": A}},
            {"$ref": "#/$defs/A", "$defs": {"A": CLOSED_A}},
        ),
    ],
)
def test_an_object_that_names_its_properties_is_closed(
    schema: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert close_objects(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "string"},
        True,
        A | {"additionalProperties": True},
        A | {"additionalProperties": {"type": "integer"}},
        A | {"patternProperties": {"^x": {"type": "integer"}}},
        A | {"required": ["a", "b"]},
        A | {"minProperties": 2},
        A | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"allOf": [A, {"properties": {"b": {}}}]},
        {"oneOf": [A, {"properties": {"b": {}}}]},
        {"properties": {"deep": {"allOf": [A, A]}}},
        {"$ref": "#/$defs/A", "properties": {"b": {}}, "$defs": {"A": A}},
        {"const": A},
        {"enum": [A]},
        {"default": A},
    ],
)
def test_what_needs_room_for_more_or_is_no_schema_stays_as_it_is(schema: Any) -> None:
    assert close_objects(schema) == schema


def test_names_of_properties_are_no_keywords() -> None:
    schema = {"properties": {"allOf": {"type": "string"}, "not": A}}
    assert close_objects(schema) == {
        "properties": {"allOf": {"type": "string"}, "not": CLOSED_A},
        "additionalProperties": False,
    }
