"""Sends every field that the anthropic SDK documents, as its types have it; tells what came of it.

A case is a request that is the smallest one but for one field, at any depth, and one way to fill
it. Arguments: the base URL, a model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, NotRequired, Required, Union, get_args, get_origin

import httpx2
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from pydantic import BaseModel
from typing_extensions import (
    get_type_hints,
    is_typeddict,
)

Path = tuple[str | int, ...]
Case = tuple[Path, Any]
# What a type alone does not tell.
VALUES: dict[str, Any] = {"budget_tokens": 1024, "data": "AAAA", "ttl": "5m"}
MAX_DEPTH = 9


def inner(hint: Any) -> Any:
    """The type without what says nothing about the value."""
    while get_origin(hint) in (Annotated, Required, NotRequired):
        hint = get_args(hint)[0]
    return hint


def is_required(shape: Any, field: str) -> bool:
    hint = get_type_hints(shape, include_extras=True)[field]
    return get_origin(hint) is Required or (shape.__total__ and get_origin(hint) is not NotRequired)


def simplest(hint: Any, field: str = "") -> Any:
    """One value of a type, required fields only."""
    hint = inner(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if field in VALUES:
        return VALUES[field]
    if origin is Literal:
        return arguments[0]
    if origin in (Union, UnionType):
        return simplest(arguments[0], field)
    if is_typeddict(hint):
        hints = get_type_hints(hint, include_extras=True)
        return {name: simplest(of, name) for name, of in hints.items() if is_required(hint, name)}
    if origin in (list, Iterable) or "Sequence" in str(origin or hint):
        return [simplest(arguments[0])]
    if origin is dict:
        return {"type": "object"} if "schema" in field else {}
    return {str: "x", int: 1, float: 0.5, bool: True, object: "x", type(None): None}[hint]


def cases(hint: Any, path: Path) -> Iterator[Case]:
    """A type's values: each member of a union, each field of an object, one at a time."""
    hint = inner(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    field = str(path[-1]) if path else ""
    if len(path) > MAX_DEPTH or (isinstance(hint, type) and issubclass(hint, BaseModel)):
        return  # a block of an answer, sent back: the parameters' types have it, too
    if origin is Literal and field not in VALUES:
        yield from ((path, value) for value in arguments)
    elif origin in (Union, UnionType):
        for member in arguments:
            yield from cases(member, path)
    elif origin in (list, Iterable) or "Sequence" in str(origin or hint):
        for where, value in cases(arguments[0], (*path, 0)):
            yield where, [value]
    elif is_typeddict(hint):
        least = simplest(hint)
        yield path, least
        for name, of in get_type_hints(hint, include_extras=True).items():
            for where, value in cases(of, (*path, name)):
                yield where, {**least, name: value}
    else:
        yield path, simplest(hint, field)


def outcome(client: httpx2.Client, path: str, body: dict[str, Any]) -> str:
    answer = client.post(path, json=body)
    if answer.status_code == 200:
        return "works"
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error", (body, answer.status_code, error)
    return str(error["message"])


def walk(
    client: httpx2.Client, url: str, fields: dict[str, Any], base: dict[str, Any]
) -> list[Any]:
    found = []
    for name, hint in fields.items():
        for where, value in cases(hint, (name,)):
            body = completed({**base, name: value})
            found.append([".".join(map(str, where)), value, outcome(client, url, body)])
    return found


def completed(body: dict[str, Any]) -> dict[str, Any]:
    """With the neighbours that a field needs."""
    if body.get("tool_choice"):
        tool = {"name": "x", "input_schema": {"type": "object"}}
        body = {**body, "tools": [tool]}
    blocks = body["messages"][0]["content"]
    if isinstance(blocks, list) and blocks[0].get("type") == "tool_result":
        call = {"type": "tool_use", "id": "x", "name": "x", "input": {}}
        body = {**body, "messages": [{"role": "assistant", "content": [call]}, *body["messages"]]}
    if body["messages"][-1]["role"] == "assistant":  # else it would be continued
        body = {**body, "messages": [*body["messages"], {"role": "user", "content": "go on"}]}
    return body


def main(base_url: str, model: str) -> list[Any]:
    """[[the field's path, the value of the outermost one, "works" or the error's message], ...]"""
    prompt = get_type_hints(MessageCountTokensParams, include_extras=True)
    answer = get_type_hints(MessageCreateParamsStreaming, include_extras=True)
    of_answer_only = {name: hint for name, hint in answer.items() if name not in prompt}
    del prompt["model"]
    count, create = "/v1/messages/count_tokens", "/v1/messages"
    least = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    with httpx2.Client(base_url=base_url, timeout=60) as client:
        return [
            *walk(client, count, prompt, least),
            *walk(client, create, of_answer_only, {**least, "max_tokens": 1}),
        ]


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
