"""Bodies of /v1/embeddings, and its answers."""

from __future__ import annotations

import base64
import json
import math
import struct
from array import array

import pytest

from frontend.errors import InvalidRequest
from frontend.protocol.embeddings import (
    EmbeddingRequest,
    encode_embeddings,
    shorten,
)
from frontend.protocol.inputs import Input
from frontend.protocol.parse import parse_body


def parsed(**fields: object) -> EmbeddingRequest:
    body = parse_body(json.dumps({"input": "x", **fields}).encode(), EmbeddingRequest)
    body.check()
    return body


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a text", ["a text"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([0], [[0]]),
    ],
)
def test_inputs_are_texts_and_token_lists(given: object, inputs: list[Input]) -> None:
    assert parsed(input=given).inputs() == inputs


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": None}, "input"),
        ({"input": [1.5]}, "input[]"),
        ({"input": {"a": 1}}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": "all"}, "dimensions"),
        ({"model": 3}, "model"),
        ({"truncate": True}, "truncate"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parsed(**fields)
    assert (caught.value.param or "").replace("[...]", "[]").startswith(param.removesuffix("[]"))
    assert caught.value.status == 400


def test_as_many_inputs_as_are_allowed_are_taken() -> None:
    assert len(parsed(input=["a"] * 2048).inputs()) == 2048


VECTORS = [array("f", [0.6, 0.8, 0.0]), array("f", [0.0, 0.6, 0.8])]


def test_floats_are_a_list() -> None:
    answer = encode_embeddings(VECTORS, model="m", num_tokens=5, request=parsed())
    assert answer["object"] == "list"
    assert answer["model"] == "m"
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert [(one["object"], one["index"]) for one in answer["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    assert answer["data"][0]["embedding"] == pytest.approx([0.6, 0.8, 0.0])


def test_base64_is_little_endian_float32() -> None:
    request = parsed(encoding_format="base64")
    answer = encode_embeddings(VECTORS, model="m", num_tokens=5, request=request)
    raw = base64.b64decode(answer["data"][1]["embedding"], validate=True)
    assert struct.unpack("<3f", raw) == pytest.approx((0.0, 0.6, 0.8))


def test_fewer_dimensions_are_of_length_one_again() -> None:
    shorter = shorten(array("f", [0.36, 0.48, 0.8]), 2)
    assert list(shorter) == pytest.approx([0.6, 0.8])
    assert math.hypot(*shorter) == pytest.approx(1)


def test_all_dimensions_are_the_vector_itself() -> None:
    assert shorten(VECTORS[0], 3) is VECTORS[0]
    assert shorten(VECTORS[0], None) is VECTORS[0]


def test_a_vector_that_begins_with_zeros_stays_zero() -> None:
    assert list(shorten(array("f", [0.0, 0.0, 1.0]), 2)) == [0.0, 0.0]
