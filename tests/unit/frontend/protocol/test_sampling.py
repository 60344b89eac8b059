from __future__ import annotations

from typing import Any

import pytest

from frontend.errors import InvalidParameter
from frontend.protocol.sampling import SamplingFields
from frontend.types import SamplingParams

VOCAB_SIZE = 100
INT32_MAX = 2**31 - 1


def sampled(**fields: Any) -> SamplingParams:
    request = SamplingFields(**fields)
    request.check()
    return request.sampling_params(VOCAB_SIZE)


def test_nothing_given_is_neutral() -> None:
    assert sampled() == SamplingParams()


def test_everything_given_reaches_the_engine() -> None:
    assert sampled(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.1,
        presence_penalty=0.2, frequency_penalty=-0.3, logit_bias={"7": -100.0}, seed=42,
        min_tokens=3,
    ) == SamplingParams(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.1,
        presence_penalty=0.2, frequency_penalty=-0.3, logit_bias={7: -100.0}, seed=42,
        min_tokens=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        ({"temperature": 0}, "temperature", 0),
        ({"top_p": 0}, "top_k", 1),
        ({"top_p": 0, "top_k": 50}, "top_k", 1),
        ({"top_p": 0}, "top_p", 1.0),
        ({"top_k": -1}, "top_k", 0),
        ({"top_k": 0}, "top_k", 0),
        ({"seed": 0}, "seed", 0),
        ({"seed": -1}, "seed", 2**64 - 1),
        ({"seed": 2**64 - 1}, "seed", 2**64 - 1),
    ],
)
def test_special_values(fields: dict[str, Any], attribute: str, value: object) -> None:
    assert getattr(sampled(**fields), attribute) == value


@pytest.mark.parametrize(
    ("name", "minimum", "maximum"),
    [
        ("max_tokens", 1, INT32_MAX),
        ("temperature", 0, 2),
        ("top_p", 0, 1),
        ("top_k", -1, INT32_MAX),
        ("min_p", 0, 1),
        ("repetition_penalty", 0.01, 10),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
        ("min_tokens", 0, INT32_MAX),
        ("seed", -(2**63), 2**64 - 1),
    ],
)
def test_ranges_include_their_ends_and_nothing_beyond(
    name: str, minimum: float, maximum: float
) -> None:
    sampled(**{name: minimum})
    sampled(**{name: maximum})
    for value in (minimum - 1, maximum + 1):
        with pytest.raises(InvalidParameter) as caught:
            sampled(**{name: value})
        assert (caught.value.param, caught.value.key) == (name, "out_of_range")


@pytest.mark.parametrize(
    ("bias", "param", "key"),
    [
        ({"x": 1.0}, "logit_bias.x", "wrong_type"),
        ({"-1": 1.0}, "logit_bias.-1", "wrong_type"),
        ({"1.5": 1.0}, "logit_bias.1.5", "wrong_type"),
        ({"": 1.0}, "logit_bias.", "wrong_type"),
        ({"100": 1.0}, "logit_bias.100", "out_of_range"),
        ({"1": 100.5}, "logit_bias.1", "out_of_range"),
        ({"9" * 5000: 1.0}, "logit_bias." + "9" * 5000, "wrong_type"),
    ],
)
def test_a_bad_bias_is_named(bias: dict[str, float], param: str, key: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        sampled(logit_bias=bias)
    assert (caught.value.param, caught.value.key) == (param, key)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (None, ()),
        ("a", ("a",)),
        ([], ()),
        (["a", "你"], ("a", "你")),
        (list("abcd"), tuple("abcd")),
    ],
)
def test_stop_strings(stop: Any, expected: tuple[str, ...]) -> None:
    fields = SamplingFields(stop=stop)
    fields.check()
    assert fields.stop_strings() == expected


@pytest.mark.parametrize(
    ("stop", "param", "key"),
    [("", "stop", "empty"), (["a", ""], "stop[1]", "empty"), (["a"] * 5, "stop", "too_many")],
)
def test_bad_stop_strings_are_refused(stop: Any, param: str, key: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        SamplingFields(stop=stop).check()
    assert (caught.value.param, caught.value.key) == (param, key)
