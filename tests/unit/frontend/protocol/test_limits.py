from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from frontend.errors import InvalidParameter
from frontend.protocol.limits import (
    NOT_EMPTY,
    Refused,
    at_least,
    between,
    check_limits,
    entries,
    one_of,
)


class Limited(msgspec.Struct, kw_only=True, rename={"renamed": "wire_name"}):
    number: Annotated[float, between(-1, 2)] | None = None
    word: Annotated[str, one_of("a", "b")] = "a"
    words: Annotated[list[Annotated[str, NOT_EMPTY]], entries(1, 2)] | None = None
    either: Annotated[str, NOT_EMPTY] | Annotated[list[int], at_least(1)] | None = None
    numbers: dict[str, Annotated[float, between(0, 1)]] | None = None
    rows: list[Annotated[list[Annotated[int, between(0, 9)]], at_least(1)]] | None = None
    renamed: Annotated[int, between(0, 1)] | msgspec.UnsetType = msgspec.UNSET
    free: Any = None
    refused: Refused = None


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"number": -1}, {"number": 2.0}, {"word": "b"}, {"words": ["x", "y"]},
        {"either": "x"}, {"either": [0]}, {"numbers": {}}, {"numbers": {"k": 1}},
        {"rows": [[9], [0, 1]]}, {"renamed": 1}, {"free": ["", {}]},
    ],
)  # fmt: skip
def test_what_is_within_the_limits_passes(fields: dict[str, Any]) -> None:
    check_limits(Limited(**fields))


@pytest.mark.parametrize(
    ("fields", "param", "key", "values"),
    [
        ({"number": 2.5}, "number", "out_of_range", {"minimum": -1, "maximum": 2, "value": 2.5}),
        ({"number": 3}, "number", "out_of_range", {"minimum": -1, "maximum": 2, "value": 3}),
        ({"word": "c"}, "word", "not_one_of", {"choices": "a, b", "value": "'c'"}),
        ({"words": []}, "words", "empty", {}),
        ({"words": ["x", ""]}, "words[1]", "empty", {}),
        ({"words": ["x"] * 3}, "words", "too_many", {"count": 3, "maximum": 2}),
        ({"either": ""}, "either", "empty", {}),
        ({"either": []}, "either", "empty", {}),
        ({"numbers": {"k": 2}}, "numbers.k", "out_of_range", {"maximum": 1}),
        ({"rows": [[1], []]}, "rows[1]", "empty", {}),
        ({"rows": [[1], [2, 10]]}, "rows[1][1]", "out_of_range", {"value": 10}),
        ({"refused": {}}, "refused", "not_supported", {}),
        ({"renamed": 2}, "wire_name", "out_of_range", {"value": 2}),
    ],
)
def test_what_is_outside_is_refused_by_its_name(
    fields: dict[str, Any], param: str, key: str, values: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check_limits(Limited(**fields), "outer.")
    assert (caught.value.param, caught.value.key) == (f"outer.{param}", key)
    assert values.items() <= caught.value.values.items()


def test_the_schema_says_what_is_checked() -> None:
    properties = msgspec.json.schema(Limited)["$defs"]["Limited"]["properties"]
    assert properties["number"]["anyOf"][0] == {"type": "number", "minimum": -1, "maximum": 2}
    assert properties["word"]["enum"] == ["a", "b"]
    assert properties["words"]["anyOf"][0] == {
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "minItems": 1,
        "maxItems": 2,
    }
