"""The OpenAPI 3.1 description, made of the table of routes and of the types that parse and answer.

Source: https://spec.openapis.org/oas/v3.1.1. The schema of a stream is that of each of its events,
with the fields that Server-Sent Events have: version 3.2 writes them so, and 3.1 has no word of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from frontend import __version__
from frontend.api.field_words import FIELD_WORDS
from frontend.api.route import Route, Shape
from frontend.api.surfaces import Surface
from frontend.errors import (
    AuthenticationFailed,
    BodyTooLarge,
    CrossOriginRefused,
    HostRefused,
    InvalidRequest,
    LimitsUnavailable,
    PermissionDenied,
    RateLimited,
    ServingError,
    UnsupportedMediaType,
)
from frontend.protocol.limits import SHOWN_AS

ANSWER = "The answer."
REF = "#/components/schemas/{name}"
BODY_ERRORS = (InvalidRequest, BodyTooLarge, UnsupportedMediaType)
ACCESS_ERRORS = (AuthenticationFailed, PermissionDenied)
BROWSER_ERRORS = (HostRefused, CrossOriginRefused)
LIMIT_ERRORS = (RateLimited, LimitsUnavailable)

Json = dict[str, Any]


def describe(routes: Sequence[Route]) -> Json:
    """The description of all routes, as one JSON object."""
    shapes = list(dict.fromkeys(shape for route in routes for shape in _shapes(route)))
    refs, components = msgspec.json.schema_components(shapes, ref_template=REF)
    ref_of = dict(zip(shapes, refs, strict=True))
    for name, schema in components.items():
        components[name] = _finished(schema, components)
    for shape in {route.body for route in routes if route.body is not None}:
        _add_words(components[ref_of[shape]["$ref"].rpartition("/")[2]])
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, ref_of)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Inflight",
            "version": __version__,
            "summary": "LLM serving, with OpenAI's and Anthropic's surfaces and one of its own.",
            "description": INFO,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": surface.value} for surface in Surface],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": HEADERS,
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _shapes(route: Route) -> Iterable[Shape]:
    yield from (route.body,) if route.body else ()
    yield from route.answers.values()
    yield from route.events
    yield route.error_shape


def _operation(route: Route, ref_of: dict[Shape, Json]) -> Json:
    english, chinese = route.summary
    operation: Json = {
        "operationId": route.name,
        "tags": [route.surface.value],
        "summary": english,
        "x-summary-zh": chinese,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.parameters
        ]
        + _query(route),
        "security": _security(route),
        "responses": {**_answers(route, ref_of), **_errors(route, ref_of)},
    }
    if route.body is not None:
        media: Json = {"schema": ref_of[route.body]}
        if route.example is not None:
            media["example"] = route.example
        operation["requestBody"] = {
            "required": not route.is_body_optional,
            "content": {"application/json": media},
        }
    return operation


def _query(route: Route) -> list[Json]:
    if route.query is None:
        return []
    schema = msgspec.json.schema_components([route.query])[1][route.query.__name__]
    return [
        {"name": name, "in": "query", "required": False, "schema": one}
        for name, one in schema["properties"].items()
    ]


def _security(route: Route) -> list[Json]:
    """What may prove who asks, each with the scope that is wanted; nothing, where servers ask none.

    Of several scopes one is enough.
    """
    if route.scope is None:
        return []
    scopes = (route.scope, *route.other_scopes)
    return [*({name: [scope]} for scope in scopes for name in SECURITY_SCHEMES), {}]


def _answers(route: Route, ref_of: dict[Shape, Json]) -> Json:
    found = {
        str(status): _response(ANSWER, route, {"application/json": {"schema": ref_of[shape]}})
        for status, shape in route.answers.items()
    }
    if route.events or route.media:
        done = found.setdefault("200", _response(ANSWER, route, {}))
        if route.events:
            done["content"]["text/event-stream"] = {"schema": _stream_schema(route, ref_of)}
        if route.media:
            done["content"][route.media] = {"schema": {"type": "string"}}
    return found


def _stream_schema(route: Route, ref_of: dict[Shape, Json]) -> Json:
    shapes = [ref_of[shape] for shape in (*route.events, route.error_shape)]
    data: Json = {"contentMediaType": "application/json", "contentSchema": {"anyOf": shapes}}
    if route.ends_with_done:
        data = {"anyOf": [data, {"const": "[DONE]", "description": "After the last event."}]}
    return {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": {"type": "string", **data}},
        "required": ["data"],
    }


def _errors(route: Route, ref_of: dict[Shape, Json]) -> Json:
    """One entry a status; errors of one status differ by their `code`."""
    kinds = (
        *(BODY_ERRORS if route.body else ()),
        *(ACCESS_ERRORS if route.scope else ()),
        *(BROWSER_ERRORS if route.method != "GET" else (HostRefused,)),
        *(LIMIT_ERRORS if route.is_limited else ()),
        *route.errors,
        ServingError,
    )
    codes: dict[int, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        of_status = codes.setdefault(route.status_of(kind), [])
        if (code := f"`{route.code_of(kind)}`") not in of_status:
            of_status.append(code)
    content = {"application/json": {"schema": ref_of[route.error_shape]}}
    return {
        str(status): {
            **_response(f"An error; its code is {' or '.join(found)}.", route, content),
            "x-description-zh": f"错误，其代码为 {' 或 '.join(found)}。",
        }
        for status, found in sorted(codes.items())
        if status not in route.answers
    }


def _response(description: str, route: Route, content: Json) -> Json:
    is_openai = route.surface is Surface.OPENAI
    names = [*EVERYWHERE, *(("OpenAI-Processing-Ms", "OpenAI-Version") * is_openai)]
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"description": description, "headers": headers, "content": dict(content)}


def _finished(schema: Any, components: Json) -> Any:
    """A schema with what `shown_as` stands for in its place."""
    if isinstance(schema, list):
        return [_finished(one, components) for one in schema]
    if not isinstance(schema, dict):
        return schema
    finished = {key: _finished(value, components) for key, value in schema.items()}
    if SHOWN_AS in finished:
        names = finished.pop(SHOWN_AS)
        missing = set(names) - components.keys()
        assert not missing, f"no route names {missing}"
        refs = [{"$ref": REF.format(name=name)} for name in names]
        finished |= {"anyOf": refs} if len(refs) > 1 else refs[0]
    return finished


def _add_words(schema: Json) -> None:
    """Say what each field of a request does, unless its type says so already."""
    for name, field_schema in schema["properties"].items():
        is_refused = field_schema.get("type") == "null"
        if (name in FIELD_WORDS or is_refused) and "description" not in field_schema:
            english, chinese = REFUSED_WORDS if is_refused else FIELD_WORDS[name]
            field_schema |= {"description": english, "x-description-zh": chinese}


REFUSED_WORDS = ("Not supported: null only.", "不支持：只能为 null。")
INFO = """\
All surfaces are served on one port. Request bodies are JSON in UTF-8, also with
`Content-Encoding: gzip` or `br`. Every answer has an `X-Request-Id`: the one that the request
had, or a new one. Error messages are in English or Chinese, by `Accept-Language`.

Every answer also has OpenAI's six `x-ratelimit-*-requests` and `x-ratelimit-*-tokens`; one of
status 429 has `Retry-After` and `retry-after-ms`, and `x-should-retry: false` where a quota is
used up."""

SECURITY_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a JWT of an issuer that the server trusts.",
    },
    "api_key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same, where clients send it so.",
    },
}

EVERYWHERE = ("X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")

HEADERS: Json = {
    "X-Request-Id": {
        "description": "The request's own id if it had one, else a new one.",
        "schema": {"type": "string"},
    },
    "X-RateLimit-Limit": {
        "description": "Requests that the tightest limit of who asks lets in.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "X-RateLimit-Remaining": {
        "description": "Requests that it would let in now.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "X-RateLimit-Reset": {
        "description": "Unix seconds when all of them are there again.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "OpenAI-Processing-Ms": {
        "description": "Milliseconds from the request to the head of its answer.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "OpenAI-Version": {"schema": {"const": "2020-10-01"}},
}
