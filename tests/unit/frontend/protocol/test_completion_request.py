"""What /v1/completions takes, and what it refuses by name."""

from __future__ import annotations

import json
import typing

import pytest
from openai.types.completion_create_params import (
    CompletionCreateParamsBase,
    CompletionCreateParamsStreaming,
)

from frontend.errors import InvalidParameter
from frontend.protocol.completion_request import CompletionRequest
from frontend.protocol.inputs import Input
from frontend.protocol.parse import parse_body
from frontend.types import Guide, GuideType


def parsed(**fields: object) -> CompletionRequest:
    body = parse_body(json.dumps({"prompt": "x", **fields}).encode(), CompletionRequest)
    body.check()
    return body


# Each documented field with a value that is not its default.
DOCUMENTED: dict[str, object] = {
    "model": "tiny",
    "prompt": [[1, 2], [3]],
    "best_of": 3,
    "echo": True,
    "frequency_penalty": 0.5,
    "logit_bias": {"5": -100},
    "logprobs": 5,
    "max_tokens": 7,
    "n": 2,
    "presence_penalty": -0.5,
    "seed": 11,
    "stop": ["a", "b"],
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "suffix": "end",
    "temperature": 0.3,
    "top_p": 0.9,
    "user": "me",
}
NEEDED_WITH = {"stream_options": {"stream": True}, "prompt": {}}


def documented_fields() -> set[str]:
    bases = (CompletionCreateParamsBase, CompletionCreateParamsStreaming)
    return {name for base in bases for name in typing.get_type_hints(base)}


def test_the_table_has_every_field_that_the_sdk_documents() -> None:
    assert DOCUMENTED.keys() == documented_fields()


@pytest.mark.parametrize("field", DOCUMENTED)
def test_every_documented_field_is_read(field: str) -> None:
    body = parsed(**{field: DOCUMENTED[field], **NEEDED_WITH.get(field, {})})
    assert json.loads(json.dumps(getattr(body, field), default=vars_of)) == DOCUMENTED[field]


@pytest.mark.parametrize("field", sorted(documented_fields() - {"prompt"}))
def test_null_is_a_field_that_was_not_given(field: str) -> None:
    assert getattr(parsed(**{field: None}), field) is None


def vars_of(struct: object) -> dict[str, object]:
    return {name: getattr(struct, name) for name in type(struct).__struct_fields__}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a text", ["a text"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ("", []),
        (None, []),
    ],
)
def test_a_prompt_is_texts_or_token_ids(given: object, inputs: list[Input]) -> None:
    assert parsed(prompt=given).inputs() == inputs


@pytest.mark.parametrize(
    ("fields", "param", "key"),
    [
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": [""]}, "prompt", "empty"),
        ({"prompt": ["a", ""]}, "prompt[1]", "empty"),
        ({"prompt": [[1], []]}, "prompt[1]", "empty"),
        ({"prompt": ["a", 1]}, "prompt", "wrong_type"),
        ({"prompt": [[1], "a"]}, "prompt", "wrong_type"),
        ({"prompt": {"a": 1}}, "prompt", "wrong_type"),
        ({"prompt": [1.5]}, "prompt[0]", "wrong_type"),
        ({"prompt": ["a"] * 257}, "prompt", "too_many"),
        ({"prompt": ["a"] * 33, "n": 32}, "prompt", "too_many"),
        ({"prompt": ["a"] * 9, "n": 1, "best_of": 128}, "prompt", "too_many"),
        ({"n": 0}, "n", "out_of_range"),
        ({"n": 129}, "n", "out_of_range"),
        ({"best_of": 0}, "best_of", "out_of_range"),
        ({"n": 3, "best_of": 2}, "best_of", "out_of_range"),
        ({"best_of": 2, "stream": True}, "best_of", "conflict"),
        ({"logprobs": -1}, "logprobs", "out_of_range"),
        ({"logprobs": 21}, "logprobs", "out_of_range"),
        ({"logprobs": True}, "logprobs", "wrong_type"),
        ({"max_tokens": -1}, "max_tokens", "out_of_range"),
        ({"max_tokens": 0}, "max_tokens", "only_with"),
        ({"max_tokens": 0, "echo": False}, "max_tokens", "only_with"),
        ({"stream_options": {}}, "stream_options", "only_with_stream"),
        ({"suffix": "b", "echo": True}, "suffix", "conflict"),
        ({"suffix": "b", "prompt": [1, 2]}, "suffix", "only_with_texts"),
        ({"suffix": "b", "prompt": [[1], [2]]}, "suffix", "only_with_texts"),
        ({"stop": ["a"] * 17}, "stop", "too_many"),
        ({"stop": ""}, "stop", "empty"),
        ({"temperature": 2.5}, "temperature", "out_of_range"),
        ({"guided_json": "{"}, "guided_json", "wrong_type"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "conflict"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "not_one_of"),
        ({"messages": []}, "messages", "unknown_field"),
        ({"use_beam_search": True}, "use_beam_search", "unknown_field"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, object], param: str, key: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parsed(**fields).guided()
    assert (caught.value.param, caught.value.key) == (param, key)


def test_what_was_not_given_has_openais_defaults() -> None:
    body = parsed()
    assert (body.max_new_tokens, body.num_choices, body.num_candidates) == (16, 1, 1)
    assert (body.num_log_probs, body.needs_prompt_log_probs) == (None, False)
    assert body.guided() is None


def test_candidates_are_chosen_by_their_log_probs() -> None:
    body = parsed(n=2, best_of=5)
    assert (body.num_choices, body.num_candidates, body.num_log_probs) == (2, 5, 0)
    assert parsed(n=2, best_of=5, logprobs=3).num_log_probs == 3
    assert parsed(n=2, best_of=2).num_log_probs is None


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"echo": True}, False),
        ({"logprobs": 1}, False),
        ({"echo": True, "logprobs": 0}, True),
        ({"echo": True, "max_tokens": 0}, True),
        ({"echo": True, "best_of": 2}, False),
    ],
)
def test_a_prompt_is_scored_only_for_those_who_read_it(
    fields: dict[str, object], needs: bool
) -> None:
    assert parsed(**fields).needs_prompt_log_probs is needs


def test_evaluation_harnesses_may_send_more_stop_strings_than_openai_allows() -> None:
    assert len(parsed(stop=[str(i) for i in range(16)]).stop_strings()) == 16


def test_a_guide_may_come_in_every_spelling() -> None:
    schema = '{"type":"object"}'
    for fields in (
        {"guided_json": {"type": "object"}},
        {"structured_outputs": {"json": {"type": "object"}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "object"}},
            }
        },
    ):
        guided = parsed(**fields).guided()
        assert guided is not None
        assert guided[1] == Guide(type=GuideType.JSON_SCHEMA, text=schema)
