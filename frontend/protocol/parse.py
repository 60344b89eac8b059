"""JSON bodies -> typed requests; every way of being wrong becomes an InvalidRequest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import msgspec
import orjson

from frontend.errors import InvalidParameter, InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)
ANSWER_DEPTH = 10  # how deep in an answer stands what it repeats of a request, at the most


def parse_body(body: bytes, shape: type[T]) -> T:
    """Decode a JSON object.

    Raises:
        InvalidRequest: not JSON, or not an object.
        InvalidParameter: a field is missing, unknown or of the wrong type; `param` is its path.
    """
    try:
        decoded: T = _decoder(shape).decode(body)
    except msgspec.ValidationError as exc:
        raise _translate(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest("invalid_json", reason=str(exc)) from exc
    except RecursionError as exc:
        raise InvalidRequest("invalid_json", reason="it is nested too deeply") from exc
    return decoded


def convert(value: object, shape: type[T], param: str) -> T:
    """The same for a part of a body that was decoded before.

    Raises:
        InvalidParameter: `param` and the path below it name the field.
    """
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as exc:
        raise _translate(str(exc), param) from exc


def check_repeatable(param: str, value: object) -> None:
    """Refuse what an answer could not repeat: integers beyond 64 bits, very deep nesting.

    Raises:
        InvalidParameter: names the field.
    """
    nested = value
    for _ in range(ANSWER_DEPTH):
        nested = [nested]
    try:
        orjson.dumps(nested)
    except orjson.JSONEncodeError as exc:
        raise InvalidParameter(param, "wrong_type", reason=str(exc)) from exc


@cache
def _decoder(shape: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(shape)


_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")
_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")


def _translate(message: str, param: str = "") -> InvalidRequest:
    """Read the path and the kind of mistake out of msgspec's message."""
    at = _PATH.search(message)
    path = (param + (at["path"] if at else "")).lstrip(".").replace("[...]", "")
    reason = message[: at.start()] if at else message
    for pattern, key in ((_MISSING, "missing"), (_UNKNOWN, "unknown_field")):
        if match := pattern.match(reason):
            return InvalidParameter(f"{path}.{match['field']}".lstrip("."), key)
    if not path:
        return InvalidRequest("body_not_object")
    return InvalidParameter(path, "wrong_type", reason=reason)


def check_range(param: str, value: float | None, minimum: float, maximum: float) -> None:
    """Refuse a number outside [minimum, maximum]; None is a field that was not given."""
    if value is not None and not minimum <= value <= maximum:
        raise InvalidParameter(param, "out_of_range", minimum=minimum, maximum=maximum, value=value)


def check_choice(param: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidParameter(param, "not_one_of", choices=", ".join(choices), value=repr(value))
