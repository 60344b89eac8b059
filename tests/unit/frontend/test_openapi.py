from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from frontend.api.field_words import FIELD_WORDS
from frontend.api.openapi import describe
from frontend.api.route import Route
from frontend.protocol.limits import SHOWN_AS
from frontend.routes import ROUTES

DESCRIPTION = describe(ROUTES)
SCHEMAS: dict[str, Any] = DESCRIPTION["components"]["schemas"]
OPERATIONS = [one for path in DESCRIPTION["paths"].values() for one in path.values()]

# What was promised by name (OpenAI's fields, then those of users of open models).
CHAT_FIELDS = """
    model messages n stop seed temperature top_p max_tokens max_completion_tokens presence_penalty
    frequency_penalty logit_bias logprobs top_logprobs response_format tools tool_choice
    parallel_tool_calls stream stream_options user metadata store service_tier reasoning_effort
    verbosity functions function_call
    top_k min_p repetition_penalty min_tokens ignore_eos stop_token_ids bad_words guided_json
    guided_regex guided_choice guided_grammar structured_outputs chat_template chat_template_kwargs
    add_generation_prompt continue_final_message echo priority cache_salt return_token_ids
"""
NATIVE_FIELDS = (
    "prompt model max_tokens temperature stream apply_chat_template top_p top_k stop seed"
)
ANTHROPIC_FIELDS = """
    model messages system tools tool_choice thinking output_config cache_control metadata
    max_tokens stop_sequences temperature top_p top_k stream service_tier
"""
RESPONSE_FIELDS = """
    model input instructions previous_response_id stream stream_options background store include
    max_output_tokens temperature top_p top_logprobs text reasoning truncation tools tool_choice
    parallel_tool_calls max_tool_calls metadata user safety_identifier prompt_cache_key service_tier
"""
EMBEDDING_FIELDS = "model input dimensions encoding_format user"


def operation(path: str, method: str = "post") -> dict[str, Any]:
    found: dict[str, Any] = DESCRIPTION["paths"][path][method]
    return found


def body_schema(path: str) -> dict[str, Any]:
    reference = operation(path)["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    found: dict[str, Any] = SCHEMAS[reference.rpartition("/")[2]]
    return found


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in it."""
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list):
            yield from walk(one)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_route_is_described(route: Route) -> None:
    found = operation(re.sub(r"<(\w+)>", r"{\1}", route.path), route.method.lower())
    assert found["summary"].isascii()
    assert re.search("[\u4e00-\u9fff]", found["x-summary-zh"])
    assert ("requestBody" in found) == (route.body is not None)
    assert {"500"} < found["responses"].keys()
    parameters = {(one["in"], one["name"]) for one in found["parameters"]}
    in_query = route.query.__struct_fields__ if route.query else ()
    assert parameters == {
        *(("path", name) for name in re.findall(r"<(\w+)>", route.path)),
        *(("query", name) for name in in_query),
    }


def test_operations_have_ids_of_their_own() -> None:
    ids = [one["operationId"] for path in DESCRIPTION["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids)) == len(ROUTES)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", CHAT_FIELDS),
        ("/v1/messages", ANTHROPIC_FIELDS),
        ("/v1/embeddings", EMBEDDING_FIELDS),
        ("/v1/responses", RESPONSE_FIELDS),
        ("/api/v1/generate", NATIVE_FIELDS),
        ("/api/v1/generate/stream", NATIVE_FIELDS),
        ("/api/v1/batch/generate", "requests"),
        ("/api/v1/models/{model_name}/load", "quantization prefer_gpu"),
    ],
)
def test_every_promised_field_is_named(path: str, fields: str) -> None:
    assert set(fields.split()) <= body_schema(path)["properties"].keys()


@pytest.mark.parametrize("route", [r for r in ROUTES if r.body], ids=lambda route: route.name)
def test_every_field_of_a_request_says_what_it_does(route: Route) -> None:
    for name, schema in body_schema(route.template)["properties"].items():
        assert schema.get("description"), f"FIELD_WORDS has no {name}"


@pytest.mark.parametrize("name", FIELD_WORDS)
def test_the_words_are_in_english_and_in_chinese(name: str) -> None:
    english, chinese = FIELD_WORDS[name]
    assert english.isascii()
    assert re.search("[\u4e00-\u9fff]", chinese)


def test_limits_are_in_the_description() -> None:
    properties = body_schema("/v1/chat/completions")["properties"]
    number = {"type": "number", "minimum": 0, "maximum": 2}
    assert properties["temperature"]["anyOf"] == [number, {"type": "null"}]
    assert properties["messages"]["minItems"] == 1
    assert properties["verbosity"]["anyOf"][0]["enum"] == ["low", "medium", "high"]


def test_unknown_fields_are_refused_in_the_description_as_they_are_in_fact() -> None:
    for route in ROUTES:
        if route.body is not None:
            assert body_schema(route.template)["additionalProperties"] is False


def test_every_reference_leads_somewhere_and_no_type_is_left_over() -> None:
    references = {one["$ref"] for one in walk(DESCRIPTION) if "$ref" in one}
    known = {f"#/components/{kind}/{name}" for kind, named in DESCRIPTION["components"].items()
             for name in named}  # fmt: skip
    schemes = {name for operation in OPERATIONS for one in operation["security"] for name in one}
    assert references | {f"#/components/securitySchemes/{name}" for name in schemes} == known
    assert not [one for one in walk(DESCRIPTION) if SHOWN_AS in one]


def test_a_field_that_may_be_anything_is_none_of_an_answer() -> None:
    """Answers are described whole: no object without named fields, no value without a type."""
    shapes = {shape for route in ROUTES for shape in (*route.answers.values(), *route.events)}
    for shape in shapes - {msgspec.Struct}:
        if shape.__name__ == "OpenAPI":
            continue
        schema = SCHEMAS[shape.__name__]
        assert schema["additionalProperties"] is False
        for name, field in schema["properties"].items():
            assert field.keys() & {"type", "anyOf", "enum", "const", "$ref"}, (shape, name)


def test_what_the_errors_say_is_in_the_surface_own_shape() -> None:
    answers = operation("/v1/chat/completions")["responses"]
    statuses = {"200", "400", "401", "403", "404", "413", "415", "429", "500", "503"}
    assert statuses == answers.keys()
    for status in answers.keys() - {"200"}:
        schema = answers[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/OpenAIError"}
    native = operation("/api/v1/generate")["responses"]["400"]["content"]["application/json"]
    assert native["schema"] == {"$ref": "#/components/schemas/NativeError"}
    assert "`model_not_loaded`" in answers["503"]["description"]
    assert "`rate_limit_exceeded` or `insufficient_quota`" in answers["429"]["description"]
    assert "X-RateLimit-Remaining" in answers["429"]["headers"]


def test_only_what_is_closed_or_limited_can_be_refused_for_that() -> None:
    health = operation("/health", "get")
    assert not {"401", "429"} & health["responses"].keys()
    assert health["security"] == []
    assert "`HOST_REFUSED`" in health["responses"]["403"]["description"]
    chat = operation("/v1/chat/completions")
    assert {"bearer": ["inference"]} in chat["security"]
    assert {} in chat["security"]  # where the server asks for none
    assert "`cross_origin_refused`" in chat["responses"]["403"]["description"]
    assert (
        "CROSS_ORIGIN" not in operation("/api/v1/models", "get")["responses"]["403"]["description"]
    )
    assert "429" not in operation("/v1/models", "get")["responses"]
    assert "429" in operation("/detokenize")["responses"]


def test_anthropics_errors_have_its_shape_its_types_and_its_status() -> None:
    answers = operation("/v1/messages")["responses"]
    statuses = {"200", "400", "401", "403", "404", "413", "415", "429", "500", "503", "529"}
    assert statuses == answers.keys()
    schema = answers["529"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/AnthropicError"}
    assert "`overloaded_error`" in answers["529"]["description"]
    assert operation("/v1/messages")["tags"] == ["Anthropic surface"]


def test_streams_are_described_event_by_event() -> None:
    content = operation("/v1/chat/completions")["responses"]["200"]["content"]
    data = content["text/event-stream"]["schema"]["properties"]["data"]
    event, done = data["anyOf"]
    assert done["const"] == "[DONE]"
    assert event["contentSchema"]["anyOf"] == [
        {"$ref": "#/components/schemas/ChatCompletionChunk"},
        {"$ref": "#/components/schemas/OpenAIError"},
    ]


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.body and not r.is_body_optional], ids=lambda route: route.name
)
def test_the_examples_are_requests_that_parse(route: Route) -> None:
    assert route.body is not None
    assert route.example is not None
    msgspec.json.decode(json.dumps(route.example), type=route.body)
