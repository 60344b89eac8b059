"""What /v1/messages and its count_tokens take: each field works or is refused by its name.

Source: the `anthropic` SDK 2.12.0, MessageCreateParams and MessageCountTokensParams; the sampling
fields, which it does not name any more, from Anthropic's API reference.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from frontend.errors import InvalidParameter
from frontend.protocol.anthropic_blocks import (
    Block,
    CacheControl,
    Message,
    chat_messages,
    check_messages,
    check_system,
)
from frontend.protocol.anthropic_tools import AnthropicTool, AnthropicToolChoice
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.limits import Refused, at_least, between, check_limits, entries, one_of
from frontend.protocol.parse import check_range
from frontend.protocol.sampling import MAX_INT32, StopString
from frontend.protocol.structured import JsonSchemaFormat, ResponseFormat
from frontend.protocol.tools import MAX_TOOLS
from frontend.text.reasoning import THINK_PARSERS, has_thinking_switch

MAX_STOP_SEQUENCES = 64
MIN_THINKING_TOKENS = 1024  # Anthropic's limit
EFFORTS = ("low", "medium", "high", "xhigh", "max")


class TranslatedRequest(ChatRequest, kw_only=True, forbid_unknown_fields=True):
    """A request for chat completions, but for OpenAI's limits."""

    stop: Annotated[list[StopString], entries(0, MAX_STOP_SEQUENCES)] | None = None


class Thinking(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: Annotated[str, one_of("enabled", "disabled", "adaptive")]
    budget_tokens: int | None = None
    display: str | None = None

    def check(self, max_tokens: int | None) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self, "thinking.")
        if self.display not in (None, "summarized"):
            raise InvalidParameter("thinking.display", "not_supported")
        if self.type != "enabled":
            if self.budget_tokens is not None:
                raise InvalidParameter("thinking.budget_tokens", "only_with", other="enabled")
            return
        if self.budget_tokens is None:
            raise InvalidParameter("thinking.budget_tokens", "missing")
        limit = MAX_INT32 if max_tokens is None else max_tokens - 1
        check_range("thinking.budget_tokens", self.budget_tokens, MIN_THINKING_TOKENS, limit)


class OutputFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: Annotated[str, one_of("json_schema")]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    effort: Annotated[str, one_of(*EFFORTS)] | None = None
    format: OutputFormat | None = None

    def check(self) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self, "output_config.")
        if self.format is not None:
            check_limits(self.format, "output_config.format.")


class ContextEdit(msgspec.Struct, kw_only=True):
    type: str
    keep: Any = None


class ContextManagement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Of Anthropic's beta, which Claude Code sends; nothing is edited here."""

    edits: list[ContextEdit] | None = None

    def check(self) -> None:
        """
        Raises:
            InvalidParameter: names the edit that would change something.
        """
        for i, edit in enumerate(self.edits or ()):
            path = f"context_management.edits[{i}]"
            if edit.type != "clear_thinking_20251015":
                raise InvalidParameter(f"{path}.type", "not_supported")
            if edit.keep not in ("all", {"type": "all"}):
                raise InvalidParameter(f"{path}.keep", "not_supported")


class Metadata(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """For the caller's own records."""

    user_id: str | None = None


class PromptRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What makes the prompt, and with it /v1/messages/count_tokens."""

    model: str
    messages: Annotated[list[Message], at_least(1)]
    system: str | list[Block] | None = None
    tools: Annotated[list[AnthropicTool], entries(0, MAX_TOOLS)] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    context_management: ContextManagement | None = None
    speed: str | None = None
    user_profile_id: Refused = None
    workspace_id: Refused = None

    def check(self, *, max_tokens: int | None = None) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self)
        check_system(self.system)
        check_messages(self.messages)
        for i, tool in enumerate(self.tools or ()):
            tool.check(f"tools[{i}]")
        if self.tool_choice is not None:
            self.tool_choice.check(self.tools or ())
        if self.thinking is not None:
            self.thinking.check(max_tokens)
        if self.output_config is not None:
            self.output_config.check()
        if self.context_management is not None:
            self.context_management.check()
        if self.speed not in (None, "standard"):
            raise InvalidParameter("speed", "not_supported")

    def chat_request(self) -> ChatRequest:
        """The same as a request for chat completions.

        Raises:
            InvalidParameter: names the field.
        """
        self.check()
        return self._chat_request()

    def check_model(self, chat_template: str, *, reasoning_parser: str | None) -> None:
        """Refuse what the model of this template cannot do.

        Args:
            reasoning_parser: the name of what reads its thoughts; None: it does not think.

        Raises:
            InvalidParameter: names the field.
        """
        thinks = reasoning_parser is not None
        wanted = self.thinking.type if self.thinking else None
        if wanted == "enabled" and not thinks:
            raise InvalidParameter("thinking.type", "model_does_not_think")
        if wanted == "enabled" and reasoning_parser not in THINK_PARSERS:
            raise InvalidParameter("thinking.budget_tokens", "not_in_template")
        if wanted == "disabled" and thinks and not has_thinking_switch(chat_template):
            raise InvalidParameter("thinking.type", "model_always_thinks")
        effort = self.output_config.effort if self.output_config else None
        if effort is not None and "reasoning_effort" not in chat_template:
            raise InvalidParameter("output_config.effort", "not_in_template")

    def _chat_request(self) -> ChatRequest:
        choice = self.tool_choice
        output = self.output_config or OutputConfig()
        is_continued = self.messages[-1].role == "assistant"
        return TranslatedRequest(
            model=self.model,
            messages=chat_messages(self.system, self.messages),
            continue_final_message=is_continued,
            add_generation_prompt=not is_continued,
            tools=[tool.chat_tool() for tool in self.tools] if self.tools else None,
            tool_choice=choice.chat_choice() if choice else None,
            parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
            reasoning_effort="xhigh" if output.effort == "max" else output.effort,
            response_format=_response_format(output.format),
            chat_template_kwargs=self._template_variables(),
        )

    def _template_variables(self) -> dict[str, Any]:
        """Thinking is what one opts into; the names are those of the templates' switches."""
        is_thinking = self.thinking is not None and self.thinking.type != "disabled"
        return {"enable_thinking": is_thinking, "thinking": is_thinking}


class CountTokensRequest(PromptRequest, kw_only=True, forbid_unknown_fields=True):
    """What /v1/messages/count_tokens takes."""


class MessagesRequest(PromptRequest, kw_only=True, forbid_unknown_fields=True):
    """What /v1/messages takes; `None` is a field that was not given."""

    max_tokens: Annotated[int, between(1, MAX_INT32)]
    stop_sequences: Annotated[list[StopString], entries(0, MAX_STOP_SEQUENCES)] | None = None
    temperature: Annotated[float, between(0, 1)] | None = None
    top_p: Annotated[float, between(0, 1)] | None = None
    top_k: Annotated[int, between(0, MAX_INT32)] | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
    # There is one tier.
    service_tier: Annotated[str, one_of("auto", "standard_only")] | None = None
    container: Refused = None
    diagnostics: Refused = None
    inference_geo: Refused = None

    @property
    def thinking_budget(self) -> int | None:
        """The most tokens that thoughts may have; None: any number."""
        return self.thinking.budget_tokens if self.thinking else None

    def check(self, *, max_tokens: int | None = None) -> None:
        super().check(max_tokens=self.max_tokens)

    def _chat_request(self) -> ChatRequest:
        return msgspec.structs.replace(
            super()._chat_request(),
            max_completion_tokens=self.max_tokens,
            stop=self.stop_sequences,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stream=self.stream,
        )


def _response_format(output: OutputFormat | None) -> ResponseFormat | None:
    if output is None:
        return None
    schema = JsonSchemaFormat(name="output", schema=output.schema)
    return ResponseFormat(type="json_schema", json_schema=schema)
