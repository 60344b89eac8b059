"""What the values of a request's fields may be, written once: in the field's own annotation.

A limit is a JSON Schema keyword beside the type. The OpenAPI description shows it as it stands,
and `check_limits` refuses by it, with an error that names the field, the limit and the value.
msgspec's own constraints would name neither the value nor the other end of a range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, inspect

from frontend.errors import InvalidParameter
from frontend.protocol.parse import check_choice, check_range


def between(minimum: float, maximum: float) -> Meta:
    """Of a number; both ends are allowed."""
    return Meta(extra_json_schema={"minimum": minimum, "maximum": maximum})


def one_of(*choices: str) -> Meta:
    """Of a text."""
    return Meta(extra_json_schema={"enum": list(choices)})


def entries(minimum: int, maximum: int) -> Meta:
    """How many a list or an object has."""
    return Meta(extra_json_schema={"minItems": minimum, "maxItems": maximum})


def at_least(minimum: int) -> Meta:
    """How many entries a list has."""
    return Meta(extra_json_schema={"minItems": minimum})


def shown_as(*types: type[msgspec.Struct]) -> Meta:
    """The description shows these in place of a type that says less; nothing is checked by it."""
    return Meta(
        extra_json_schema={SHOWN_AS: [one.__name__ for one in types]}, extra={SHOWN_AS: types}
    )


SHOWN_AS = "x-shown-as"
NOT_EMPTY = Meta(extra_json_schema={"minLength": 1})  # of a text
Refused = Annotated[Any, Meta(extra_json_schema={"type": "null"})]  # unless null


def check_limits(struct: msgspec.Struct, path: str = "") -> None:
    """Refuse values outside the limits of the struct's own fields; not of structs in them.

    Args:
        path: where the struct is in its request, as "messages[0]."; "" for the request itself.

    Raises:
        InvalidParameter: names the field.
    """
    for name, encoded_name, limits in _limits_of(type(struct)):
        value = getattr(struct, name)
        if value is not None and value is not msgspec.UNSET:
            _check(path + encoded_name, value, limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """Of one type that a field may have."""

    keywords: Mapping[str, Any]
    of_entries: Mapping[type, _Limits]


_BY_TYPE = {
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
    inspect.ListType: list,
    inspect.DictType: dict,
    inspect.AnyType: object,
}


@cache
def _limits_of(struct: type[msgspec.Struct]) -> tuple[tuple[str, str, Mapping[type, _Limits]], ...]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    found = ((field.name, field.encode_name, _by_type(field.type)) for field in info.fields)
    return tuple(one for one in found if one[2])


def _by_type(declared: inspect.Type) -> dict[type, _Limits]:
    """The limits for values of each Python type; types without any are left out."""
    found: dict[type, _Limits] = {}
    for one in declared.types if isinstance(declared, inspect.UnionType) else (declared,):
        keywords: Mapping[str, Any] = {}
        while isinstance(one, inspect.Metadata):
            keywords = {**(one.extra_json_schema or {}), **keywords}
            one = one.type
        inner: dict[type, _Limits] = {}
        if isinstance(one, inspect.ListType):
            inner = _by_type(one.item_type)
        elif isinstance(one, inspect.DictType):
            inner = _by_type(one.value_type)
        if (keywords or inner) and type(one) in _BY_TYPE:
            found[_BY_TYPE[type(one)]] = _Limits(keywords=keywords, of_entries=inner)
    return found


def _check(param: str, value: Any, by_type: Mapping[type, _Limits]) -> None:
    kind = float if type(value) is int and int not in by_type else type(value)
    limits = by_type.get(kind) or by_type.get(object)
    if limits is None:
        return
    keywords = limits.keywords
    if keywords.get("type") == "null":
        raise InvalidParameter(param, "not_supported")
    if "minimum" in keywords:
        check_range(param, value, keywords["minimum"], keywords["maximum"])
    if "enum" in keywords:
        check_choice(param, value, keywords["enum"])
    if not value and (keywords.get("minLength") or keywords.get("minItems")):
        raise InvalidParameter(param, "empty")
    maximum = keywords.get("maxItems")
    if maximum is not None and len(value) > maximum:
        raise InvalidParameter(param, "too_many", count=len(value), maximum=maximum)
    if limits.of_entries:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in pairs:
            name = f"{param}.{key}" if isinstance(value, dict) else f"{param}[{key}]"
            _check(name, entry, limits.of_entries)
