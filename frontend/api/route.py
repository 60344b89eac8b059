"""One entry of the table of routes: what serves it, and what the description says of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sanic import HTTPResponse

from frontend.errors import ServingError
from frontend.protocol.answers.anthropic import AnthropicError
from frontend.protocol.answers.errors import NativeError, OpenAIError
from frontend.protocol.anthropic_answer import anthropic_error_type, anthropic_status

Handler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]
Shape = type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str  # as Sanic has it: /v1/models/<model_name>
    handler: Handler
    summary: tuple[str, str]  # English, Chinese
    body: Shape | None = None
    is_body_optional: bool = False
    example: Mapping[str, Any] | None = None  # a body that works with any model of the right kind
    query: tuple[str, ...] = ()  # names of optional parameters behind the path
    answers: Mapping[int, Shape] = field(default_factory=dict)  # JSON, by status
    events: tuple[Shape, ...] = ()  # of the stream that it can answer with
    ends_with_done: bool = False  # after the last event there is `data: [DONE]`
    media: str | None = None  # an answer that is neither: its content type
    errors: tuple[type[ServingError], ...] = ()  # beyond those of any body, and 500
    error_shape: Shape | None = None  # None: that of the surface
    is_work: bool = False  # counts as an active connection while it runs

    @property
    def is_openai(self) -> bool:
        return self.path.startswith("/v1/")

    @property
    def error_type(self) -> Shape:
        return self.error_shape or (OpenAIError if self.is_openai else NativeError)

    def status_of(self, error: type[ServingError]) -> int:
        return anthropic_status(error) if self.error_type is AnthropicError else error.status

    def code_of(self, error: type[ServingError]) -> str:
        """What the surface's answer calls the error."""
        if self.error_type is AnthropicError:
            return anthropic_error_type(error)
        return error.code if self.is_openai else error.native_code

    @property
    def tag(self) -> str:
        """The surface's name."""
        if self.error_type is AnthropicError:
            return "Anthropic surface"
        return "OpenAI surface" if self.is_openai else "Native surface"

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
