"""What /v1/chat/completions takes: every documented field works or is refused by its name.

Source: OpenAI's API description 2.3.0, CreateChatCompletionRequest; vLLM's extra parameters.
"""

from __future__ import annotations

from typing import Annotated, Any

from frontend.errors import InvalidParameter
from frontend.protocol.chat_messages import (
    ChatMessage,
    check_message,
    template_message,
    text_length,
    text_of,
)
from frontend.protocol.extras import ExtraFields, StreamOptions
from frontend.protocol.limits import Refused, at_least, between, entries, one_of
from frontend.protocol.sampling import MAX_INT32
from frontend.protocol.structured import ResponseFormat, only_guide, schema_guide
from frontend.protocol.tools import (
    MAX_TOOLS,
    TOOL_CHOICES,
    FunctionDefinition,
    NamedFunction,
    Tool,
    ToolChoice,
    ToolUse,
    function_use,
    tool_use,
)
from frontend.types import Guide

MAX_TOP_LOG_PROBS = 20
SERVICE_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")  # we have one
# What the template is given by other fields, or by nobody.
TEMPLATE_ARGUMENTS = frozenset(
    {
        "messages",
        "tools",
        "chat_template",
        "conversations",
        "add_generation_prompt",
        "continue_final_message",
        "return_assistant_tokens_mask",
        "self",
    }
)
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class ChatRequest(ExtraFields, kw_only=True, forbid_unknown_fields=True):
    """`None` is a field that was not given."""

    messages: Annotated[list[ChatMessage], at_least(1)]
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, between(1, MAX_INT32)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, between(0, MAX_TOP_LOG_PROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], entries(0, MAX_TOOLS)] | None = None
    tool_choice: Annotated[str, one_of(*TOOL_CHOICES)] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionDefinition], entries(0, MAX_TOOLS)] | None = None
    function_call: Annotated[str, one_of("none", "auto")] | NamedFunction | None = None
    reasoning_effort: Annotated[str, one_of(*REASONING_EFFORTS)] | None = None
    verbosity: Annotated[str, one_of("low", "medium", "high")] | None = None
    modalities: list[Annotated[str, one_of("text")]] | None = None
    audio: Refused = None
    moderation: Refused = None
    prediction: Refused = None
    prompt_cache_options: Refused = None
    prompt_cache_retention: Refused = None
    web_search_options: Refused = None
    # For the caller's own records; they change nothing here.
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Annotated[str, one_of(*SERVICE_TIERS)] | None = None
    store: bool | None = None
    # How the prompt is made.
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    echo: bool | None = None

    def check(self) -> None:
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise InvalidParameter("top_logprobs", "only_with", other="logprobs")
        if self.stream_options is not None and not self.stream:
            raise InvalidParameter("stream_options", "only_with_stream")
        if self.store:
            raise InvalidParameter("store", "not_supported")
        self._check_prompt()

    def _check_prompt(self) -> None:
        for i, message in enumerate(self.messages):
            check_message(f"messages[{i}]", message)
        for name in self.chat_template_kwargs or ():
            if name in TEMPLATE_ARGUMENTS:
                raise InvalidParameter(f"chat_template_kwargs.{name}", "not_supported")
        if self.continue_final_message and self.add_generation_prompt:
            raise InvalidParameter(
                "continue_final_message", "conflict", other="add_generation_prompt"
            )

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_log_probs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def is_legacy_function(self) -> bool:
        """Whether the answer has `function_call` in place of `tool_calls`."""
        return bool(self.functions or self.function_call)

    def tool_use(self) -> ToolUse:
        """
        Raises:
            InvalidParameter: names the field.
        """
        if self.is_legacy_function:
            if self.tools or self.tool_choice:
                raise InvalidParameter("functions", "conflict", other="tools")
            return function_use(self.functions, self.function_call)
        return tool_use(self.tools, self.tool_choice, parallel=self.parallel_tool_calls)

    def guided(self, use: ToolUse) -> tuple[str, Guide] | None:
        """What the whole answer must match, and the field that says so.

        A call that `tool_choice` forces goes before `response_format`: there is no other answer.

        Raises:
            InvalidParameter: names the field.
        """
        guides = self.extra_guides()
        response = self.response_format.guide() if self.response_format else None
        if (forced := use.forced_schema()) is not None:
            guides.insert(0, (use.choice_param, schema_guide(forced)))
        elif response is not None:
            guides.insert(0, ("response_format", response))
        return only_guide(guides)

    def num_chars(self) -> int:
        """About how long the prompt is."""
        num_chars = sum(text_length(message) for message in self.messages)
        tools = [*(self.functions or ()), *(tool.function for tool in self.tools or ())]
        return num_chars + sum(len(repr(tool.parameters)) for tool in tools)

    @property
    def begins_answer(self) -> bool:
        """Whether the prompt ends with the beginning of the assistant's turn."""
        if self.add_generation_prompt is not None:
            return self.add_generation_prompt
        return not self.continue_final_message

    def echoed_text(self) -> str:
        """With `echo`, the last message's text if it is the assistant's: the answer begins so."""
        last = self.messages[-1]
        return text_of(last.content) if self.echo and last.role == "assistant" else ""

    def template_messages(self) -> list[dict[str, Any]]:
        """The messages as chat templates take them: text content, `developer` as `system`."""
        return [template_message(message) for message in self.messages]

    def template_variables(self, template: str, *, reasons: bool) -> dict[str, Any]:
        """What the template gets besides messages and tools.

        Args:
            template: its text tells which variables it reads.
            reasons: whether the model thinks before it answers.

        Raises:
            InvalidParameter: the template cannot follow a field.
        """
        variables: dict[str, Any] = {}
        if self.verbosity is not None:
            if "verbosity" not in template:
                raise InvalidParameter("verbosity", "not_in_template")
            variables["verbosity"] = self.verbosity
        if self.reasoning_effort is not None:
            variables |= _effort(self.reasoning_effort, template, reasons=reasons)
        return {**variables, **(self.chat_template_kwargs or {})}


def _effort(effort: str, template: str, *, reasons: bool) -> dict[str, Any]:
    if "reasoning_effort" in template:
        return {"reasoning_effort": effort}
    if "enable_thinking" in template:  # a switch, without degrees
        return {"enable_thinking": effort != "none"}
    if effort == "none" and not reasons:
        return {}
    raise InvalidParameter("reasoning_effort", "not_in_template")
