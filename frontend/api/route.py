"""One entry of the table of routes: what serves it, and what the description says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sanic import HTTPResponse

from frontend.access.identity import Scope
from frontend.api.surfaces import Surface, surface_of
from frontend.errors import ServingError
from frontend.protocol.answers.anthropic import AnthropicError
from frontend.protocol.answers.errors import NativeError, OpenAIError
from frontend.protocol.anthropic_answer import anthropic_error_type, anthropic_status

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]
Shape = type[msgspec.Struct]

ERROR_SHAPES: dict[Surface, Shape] = {
    Surface.OPENAI: OpenAIError,
    Surface.ANTHROPIC: AnthropicError,
    Surface.NATIVE: NativeError,
}


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str  # as Sanic has it: /v1/models/<model_name>
    scope: Scope | None  # what who asks must have; None: open to everybody
    handler: Handler
    summary: tuple[str, str]  # English, Chinese
    query: Shape | None = None  # its fields are the query's parameters
    body: Shape | None = None
    is_body_optional: bool = False
    example: Mapping[str, Any] | None = None  # a body that works with any model of the right kind
    answers: Mapping[int, Shape] = field(default_factory=dict)  # JSON, by status
    events: tuple[Shape, ...] = ()  # of the stream that it can answer with
    ends_with_done: bool = False  # after the last event there is `data: [DONE]`
    media: str | None = None  # of an answer that is neither, or need not be: its content type
    errors: tuple[type[ServingError], ...] = ()  # beyond those of any body, and 500
    other_scopes: tuple[Scope, ...] = ()  # each is as good
    is_work: bool = False  # counts as an active connection while it runs
    is_limited: bool = False  # is a request to the limits, though it generates nothing

    @property
    def surface(self) -> Surface:
        return surface_of(self.path)

    @property
    def error_shape(self) -> Shape:
        return ERROR_SHAPES[self.surface]

    def status_of(self, error: type[ServingError]) -> int:
        return anthropic_status(error) if self.surface is Surface.ANTHROPIC else error.status

    def code_of(self, error: type[ServingError]) -> str:
        """What the surface's answer calls the error."""
        if self.surface is Surface.ANTHROPIC:
            return anthropic_error_type(error)
        return error.code if self.surface is Surface.OPENAI else error.native_code

    @property
    def parameters(self) -> list[str]:
        """Names in the path."""
        return re.findall(r"<(\w+)[^>]*>", self.path)

    @property
    def template(self) -> str:
        """The path as OpenAPI has it."""
        return re.sub(r"<(\w+)[^>]*>", r"{\1}", self.path)

    @property
    def name(self) -> str:
        """Unique, and fit for identifiers."""
        return re.sub(r"\W+", "_", f"{self.method.lower()}{self.path}").strip("_")
