from __future__ import annotations

import msgspec
import pytest

from frontend.errors import InvalidParameter, InvalidRequest
from frontend.protocol.parse import check_choice, check_range, parse_body


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    y: list[int] = []


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    a: int
    b: str | None = None
    inner: Inner | None = None
    many: list[Inner] = []
    table: dict[str, float] = {}


def failure(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_body(body, Shape)
    return caught.value


def test_a_good_body_becomes_its_shape() -> None:
    shape = parse_body('{"a": 1, "b": "你", "inner": {"x": 2}}'.encode(), Shape)
    assert shape == Shape(a=1, b="你", inner=Inner(x=2))


@pytest.mark.parametrize(
    ("body", "param", "key"),
    [
        (b"{}", "a", "missing"),
        (b'{"a": "1"}', "a", "wrong_type"),
        (b'{"a": true}', "a", "wrong_type"),
        (b'{"a": null}', "a", "wrong_type"),
        (b'{"a": 1.5}', "a", "wrong_type"),
        (b'{"a": 1, "c": 2}', "c", "unknown_field"),
        (b'{"a": 1, "": 2}', "", "unknown_field"),
        (b'{"a": 1, "inner": {}}', "inner.x", "missing"),
        (b'{"a": 1, "inner": {"x": 1, "z": 1}}', "inner.z", "unknown_field"),
        (b'{"a": 1, "inner": {"x": []}}', "inner.x", "wrong_type"),
        (b'{"a": 1, "inner": 5}', "inner", "wrong_type"),
        (b'{"a": 1, "many": [{"x": 1}, {}]}', "many[1].x", "missing"),
        (b'{"a": 1, "many": [{"x": 1}, {"x": 1, "y": [1, "2"]}]}', "many[1].y[1]", "wrong_type"),
        (b'{"a": 1, "many": [{"x": 1, "q": 1}]}', "many[0].q", "unknown_field"),
        (b'{"a": 1, "table": {"k": "v"}}', "table", "wrong_type"),
    ],
)
def test_what_is_wrong_with_a_field_is_told_with_its_path(
    body: bytes, param: str, key: str
) -> None:
    error = failure(body)
    assert isinstance(error, InvalidParameter)
    assert (error.param, error.key) == (param, key)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true", b"[{}]"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    error = failure(body)
    assert (error.key, error.param) == ("body_not_object", None)


@pytest.mark.parametrize(
    "body",
    [b"", b"   ", b"{", b"{'a': 1}", b'{"a": 01}', b'{"a": 1} x', b'{"a": 1,}', b"\xff",
     b'{"b": "\xc3"}', b'{"b": "\\ud800"}', b'{"a": NaN}', b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert failure(body).key == "invalid_json"


def test_deep_nesting_is_no_crash() -> None:
    class Anything(msgspec.Struct):
        value: msgspec.Raw

    body = b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidRequest) as caught:
        parse_body(body, Anything)
    assert caught.value.key == "invalid_json"


@pytest.mark.parametrize("value", [0, 0.5, 1, None])
def test_values_in_range_pass(value: float | None) -> None:
    check_range("p", value, 0, 1)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), 10**30])
def test_values_out_of_range_are_refused_with_both_ends(value: float) -> None:
    with pytest.raises(InvalidParameter, match=r"'p' must be between 0 and 1, got") as caught:
        check_range("p", value, 0, 1)
    assert caught.value.param == "p"


def test_choices() -> None:
    check_choice("p", "a", ("a", "b"))
    with pytest.raises(InvalidParameter, match=r"'p' must be one of a, b, got 'c'"):
        check_choice("p", "c", ("a", "b"))
