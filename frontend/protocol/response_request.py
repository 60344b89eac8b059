"""What POST /v1/responses takes: every documented field works or is refused by its name.

Source: the types of the openai SDK 3.54, ResponseCreateParams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.chat_messages import ChatMessage
from frontend.protocol.chat_request import (
    MAX_TOP_LOG_PROBS,
    REASONING_EFFORTS,
    SERVICE_TIERS,
    ChatRequest,
)
from frontend.protocol.limits import (
    NOT_EMPTY,
    Refused,
    at_least,
    between,
    check_limits,
    entries,
    one_of,
)
from frontend.protocol.parse import check_choice, check_repeatable
from frontend.protocol.response_tools import (
    FunctionTool,
    ResponseToolChoice,
    chat_choice,
    read_tools,
)
from frontend.protocol.sampling import MAX_INT32
from frontend.protocol.structured import JsonSchemaFormat, ResponseFormat
from frontend.protocol.tools import MAX_TOOLS

LOG_PROBS = "message.output_text.logprobs"
MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512  # OpenAI's limits
# Where a field of a chat request, as an error names it, is in ours.
CHAT_FIELDS = {
    "max_completion_tokens": "max_output_tokens",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "tool_choice.allowed_tools": "tool_choice",
    "tool_choice": "tool_choice",
    "logprobs": "include",
}


class TextFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: Annotated[str, one_of("text", "json_object", "json_schema")]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None

    def check(self) -> None:
        check_limits(self, "text.format.")
        for name in ("name", "schema", "description", "strict"):
            is_given = getattr(self, name) is not None
            if self.type != "json_schema" and is_given:
                raise InvalidParameter(f"text.format.{name}", "only_with", other="json_schema")
            if self.type == "json_schema" and name in ("name", "schema") and not is_given:
                raise InvalidParameter(f"text.format.{name}", "missing")

    def chat_format(self) -> ResponseFormat:
        if self.type != "json_schema":
            return ResponseFormat(type=self.type)
        assert self.name is not None, "check() comes first"
        schema = JsonSchemaFormat(name=self.name, schema=self.schema, strict=self.strict)
        return ResponseFormat(type=self.type, json_schema=schema)


class TextConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format: TextFormat | None = None
    verbosity: Annotated[str, one_of("low", "medium", "high")] | None = None


class ReasoningConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A summary is the reasoning itself, so it cannot be a concise one."""

    effort: Annotated[str, one_of(*REASONING_EFFORTS)] | None = None
    summary: Annotated[str, one_of("auto", "detailed")] | None = None
    # deprecated name of `summary`
    generate_summary: Annotated[str, one_of("auto", "detailed")] | None = None
    context: Annotated[str, one_of("auto")] | None = None
    mode: Annotated[str, one_of("standard")] | None = None


class ResponseStreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None  # tolerated: nothing here pads its network packets


class ResponseRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`None` is a field that was not given."""

    model: str | None = None
    input: Annotated[str, NOT_EMPTY] | Annotated[list[dict[str, Any]], at_least(1)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    include: list[Annotated[str, one_of(LOG_PROBS)]] | None = None
    # How the answer is made.
    max_output_tokens: Annotated[int, between(1, MAX_INT32)] | None = None
    temperature: Annotated[float, between(0, 2)] | None = None
    top_p: Annotated[float, between(0, 1)] | None = None
    top_logprobs: Annotated[int, between(0, MAX_TOP_LOG_PROBS)] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: Annotated[str, one_of("auto", "disabled")] | None = None
    tools: Annotated[list[dict[str, Any]], entries(0, MAX_TOOLS)] | None = None
    tool_choice: str | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    # of built-in tools, of which there are none
    max_tool_calls: Annotated[int, between(1, MAX_INT32)] | None = None
    # For the caller's own records; they change nothing here.
    metadata: Annotated[dict[str, str], entries(0, MAX_METADATA)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Annotated[str, one_of("in_memory")] | None = None
    service_tier: Annotated[str, one_of(*SERVICE_TIERS)] | None = None
    access_programs: Refused = None
    background_options: Refused = None
    context_management: Refused = None
    conversation: Refused = None
    image: Refused = None
    moderation: Refused = None
    prompt: Refused = None
    prompt_cache_options: Refused = None

    def check(self) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self)
        if self.input is None:
            raise InvalidParameter("input", "missing")
        check_repeatable("input", self.input)
        self._check_parts()
        if self.stream_options is not None and not self.stream:
            raise InvalidParameter("stream_options", "only_with_stream")
        if self.background and self.store is False:
            raise InvalidParameter("background", "only_with", other="store")

    def _check_parts(self) -> None:
        for key, value in (self.metadata or {}).items():
            if len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
                raise InvalidParameter("metadata", "metadata_too_long", name=key[:MAX_METADATA_KEY])
        if self.text is not None:
            check_limits(self.text, "text.")
            if self.text.format is not None:
                self.text.format.check()
        if self.reasoning is not None:
            check_limits(self.reasoning, "reasoning.")

    @property
    def is_stored(self) -> bool:
        return self.store is not False

    @property
    def is_truncated(self) -> bool:
        return self.truncation == "auto"

    @property
    def has_log_probs(self) -> bool:
        return LOG_PROBS in (self.include or ()) or bool(self.top_logprobs)

    @property
    def has_summary(self) -> bool:
        """Whether the reasoning is shown as the item's summary, not as its content."""
        reasoning = self.reasoning or ReasoningConfig()
        return bool(reasoning.summary or reasoning.generate_summary)

    def chat_request(self, messages: Sequence[ChatMessage]) -> ChatRequest:
        """What the model is asked, in the terms of chat completions.

        Args:
            messages: the conversation without the instructions.

        Raises:
            InvalidParameter: names our field.
        """
        tools = [tool.chat_tool() for tool in read_tools(self.tools)]
        text, reasoning = self.text or TextConfig(), self.reasoning or ReasoningConfig()
        first = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        return ChatRequest(
            model=self.model,
            messages=[*first, *messages],
            max_completion_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            logprobs=self.has_log_probs or None,
            top_logprobs=(self.top_logprobs or 0) if self.has_log_probs else None,
            response_format=text.format.chat_format() if text.format else None,
            verbosity=text.verbosity,
            reasoning_effort=reasoning.effort,
            tools=tools or None,
            tool_choice=chat_choice(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
        )

    def echo(self) -> dict[str, Any]:
        """The fields that the response repeats, with their defaults."""
        text, reasoning = self.text or TextConfig(), self.reasoning or ReasoningConfig()
        tools: list[FunctionTool] = read_tools(self.tools)
        return {
            "background": bool(self.background),
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": self.is_stored,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "text": {
                "format": _given(text.format) if text.format else {"type": "text"},
                "verbosity": text.verbosity or "medium",
            },
            "tool_choice": (
                _given(self.tool_choice)
                if isinstance(self.tool_choice, ResponseToolChoice)
                else self.tool_choice or "auto"
            ),
            "tools": [tool.shown() for tool in tools],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "truncation": self.truncation or "disabled",
            "user": self.user,
        }


def check_include(include: Sequence[str] | None) -> None:
    for i, value in enumerate(include or ()):
        check_choice(f"include[{i}]", value, (LOG_PROBS,))


def own_name(param: str) -> str:
    """Our name of a field that a chat request's error names."""
    if param.startswith("messages"):
        return "input"  # positions differ: what the model said in one go is one message
    for chat_field, field in CHAT_FIELDS.items():
        if param == chat_field or param.startswith((f"{chat_field}.", f"{chat_field}[")):
            return field + param[len(chat_field) :].replace(".function", "")
    return param


def _given(struct: msgspec.Struct) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(struct)
    return {name: value for name, value in fields.items() if value is not None}
