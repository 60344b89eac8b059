"""What the output must match, on the wire: response_format, guided_*, structured_outputs."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import msgspec
import orjson

from frontend.errors import InvalidParameter
from frontend.protocol.limits import check_limits, entries, one_of
from frontend.types import Guide, GuideType

MAX_CHOICES = 1024

Choices = Annotated[list[str], entries(1, MAX_CHOICES)]


class JsonSchemaFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None  # a schema is always enforced to the letter


class ResponseFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: Annotated[str, one_of("text", "json_object", "json_schema")]
    json_schema: JsonSchemaFormat | None = None

    def guide(self) -> Guide | None:
        """
        Raises:
            InvalidParameter: an unknown type, or a schema is missing.
        """
        check_limits(self, "response_format.")
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Guide(type=GuideType.JSON)
        if self.json_schema is None:
            raise InvalidParameter("response_format.json_schema", "missing")
        return schema_guide(self.json_schema.schema or {"type": "object"})


class StructuredOutputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`; the same four as fields of their own are `guided_*`."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def guides(self, prefix: str) -> list[tuple[str, Guide]]:
        """Each guide that is given, with its field's name."""
        check_limits(self, prefix)
        guides = []
        if self.json is not None:
            guides.append((f"{prefix}json", _json_guide(f"{prefix}json", self.json)))
        if self.regex is not None:
            guides.append((f"{prefix}regex", Guide(type=GuideType.REGEX, text=self.regex)))
        if self.choice is not None:
            guides.append((f"{prefix}choice", _choice_guide(self.choice)))
        if self.grammar is not None:
            guide = Guide(type=GuideType.EBNF_GRAMMAR, text=self.grammar)
            guides.append((f"{prefix}grammar", guide))
        if self.json_object:
            guides.append((f"{prefix}json_object", Guide(type=GuideType.JSON)))
        return guides


def schema_guide(schema: dict[str, Any]) -> Guide:
    # not by orjson: a bound of a number may have more than 64 bits
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return Guide(type=GuideType.JSON_SCHEMA, text=text)


def only_guide(guides: list[tuple[str, Guide]]) -> tuple[str, Guide] | None:
    """The one guide of a request and its field.

    Raises:
        InvalidParameter: there are two; both are named.
    """
    if len(guides) > 1:
        raise InvalidParameter(guides[1][0], "conflict", other=guides[0][0])
    return guides[0] if guides else None


def _json_guide(param: str, schema: dict[str, Any] | str) -> Guide:
    """A schema, as an object or as its text."""
    if isinstance(schema, dict):
        return schema_guide(schema)
    try:
        parsed = orjson.loads(schema)
    except orjson.JSONDecodeError as exc:
        raise InvalidParameter(param, "wrong_type", reason=str(exc)) from exc
    if not isinstance(parsed, dict):
        raise InvalidParameter(param, "wrong_type", reason="a schema is a JSON object")
    return schema_guide(parsed)


def _choice_guide(choices: list[str]) -> Guide:
    return Guide(type=GuideType.REGEX, text="|".join(_escape(choice) for choice in choices))


def _escape(text: str) -> str:
    """`re.escape` without what other regex dialects refuse: only the special characters."""
    return re.sub(r"[\\.^$*+?()\[\]{}|]", r"\\\g<0>", text).replace("\n", "\\n")
