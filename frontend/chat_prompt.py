"""A chat request in a model's own way: the prompt's text, and what reads the answer to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.tools import ToolUse
from frontend.text.output_format import OutputFormat
from frontend.text.output_parser import OutputParser
from frontend.text.reasoning import (
    answer_opening,
    end_reasoning,
    may_reason,
    reasoning_parser,
    thought_end,
)
from frontend.text.tokenizer import ChatTemplateError, TextTokenizer
from frontend.text.tool_parsers.forced import NamedToolParser, RequiredToolParser
from frontend.text.tool_parsers.registry import TOOL_PARSERS, tool_parser
from frontend.text.tool_prompt import as_user_words, tell_tools
from frontend.types import Guide

NewParser = Callable[[], OutputParser]


@dataclass(frozen=True, slots=True, kw_only=True)
class LateGuide:
    """What an answer must match that begins behind thoughts, or that may be a call instead."""

    guide: Guide
    new_parser: NewParser | None  # of the guided answer
    end_of_thoughts_ids: list[int]  # for thoughts that the model has not ended itself
    opening_ids: list[int]  # between the thoughts and the answer
    first_opening_ids: list[int]  # before an answer without thoughts


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the answer to a prompt is guided and read."""

    guide: Guide | None = None  # from the first token on
    new_parser: NewParser | None = None  # None: the answer is plain text
    late_guide: LateGuide | None = None


class ChatPrompt:
    """One request's prompt, for one model.

    A guide leaves no room for thoughts and calls where it holds from the first token on. So a
    single answer is guided late, where its answer begins; the thoughts of several are left out.
    """

    def __init__(
        self,
        body: ChatRequest,
        use: ToolUse,
        tokenizer: TextTokenizer,
        style: OutputFormat,
        *,
        guide: Guide | None,
    ) -> None:
        self._body, self._use = body, use
        self._tokenizer, self._style = tokenizer, style
        self._guide = guide
        self._is_single = body.n in (None, 1)

    def render(self) -> str:
        """The text of the prompt, special tokens included.

        Raises:
            ChatTemplateError: the template does not take the messages.
            InvalidParameter: the template cannot follow a field.
        """
        body, style = self._body, self._style
        template = body.chat_template or self._tokenizer.chat_template
        variables = body.template_variables(template, reasons=style.reasoning_parser is not None)
        is_thoughtless = self._guide is not None and not self._is_single
        if is_thoughtless and style.reasoning_parser is not None:
            variables.setdefault("enable_thinking", False)
        prompt = self._render(variables)
        if is_thoughtless and style.reasoning_parser is not None and body.begins_answer:
            prompt += end_reasoning(style.reasoning_parser, prompt)
        return prompt

    def _render(self, variables: dict[str, object]) -> str:
        messages, tools = self._body.template_messages(), self._use.template_tools()
        tool_prompt = self._style.tool_prompt
        if tool_prompt is None:
            return self._apply(messages, tools, variables)
        told = tell_tools(tool_prompt, messages, tools)
        try:
            return self._apply(told, None, variables)
        except ChatTemplateError:
            # Some templates have no system messages. If the client's own is refused, that stands.
            if messages[0]["role"] == "system" or told[0]["role"] != "system":
                raise
        return self._apply(as_user_words(told), None, variables)

    def _apply(
        self,
        messages: list[dict[str, object]],
        tools: list[dict[str, object]] | None,
        variables: dict[str, object],
    ) -> str:
        return self._tokenizer.render_chat(
            messages,
            tools=tools,
            chat_template=self._body.chat_template,
            add_generation_prompt=self._body.begins_answer,
            continue_final_message=bool(self._body.continue_final_message),
            **variables,
        )

    def reading(self, prompt: str) -> Reading:
        """How the answer to the rendered prompt is read."""
        guide = self._guide
        if guide is None:
            return Reading(new_parser=self._free_parser(prompt))
        thinks = self._style.reasoning_parser
        is_open = thinks is not None and may_reason(thinks, prompt)
        if not self._is_single or not (is_open or self._use.choice == "auto"):
            return Reading(guide=guide, new_parser=self._forced_parser())
        late_guide = LateGuide(
            guide=guide,
            new_parser=self._forced_parser(),
            end_of_thoughts_ids=self._encode(thought_end(thinks) if thinks else ""),
            opening_ids=self._opening_ids(has_thoughts=True),
            first_opening_ids=self._opening_ids(has_thoughts=False),
        )
        return Reading(new_parser=self._free_parser(prompt), late_guide=late_guide)

    def _opening_ids(self, *, has_thoughts: bool) -> list[int]:
        name = self._style.reasoning_parser
        return self._encode(answer_opening(name, has_thoughts=has_thoughts) if name else "")

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _forced_parser(self) -> NewParser | None:
        """For what a guide forces: a call, or (None) text."""
        use = self._use
        make_id = TOOL_PARSERS[self._style.tool_parser].random_id
        if use.choice == "required":
            return lambda: OutputParser(None, RequiredToolParser(use.schemas(), make_id))
        if use.choice == "named":
            return lambda: OutputParser(None, NamedToolParser(str(use.name), make_id))
        return None

    def _free_parser(self, prompt: str) -> NewParser | None:
        """For what the model writes as it likes; None where it can be nothing but text."""
        style, use = self._style, self._use
        # A call that is forced is guided, too: none is read out of what comes before it.
        tools = use.schemas() if use.choice == "auto" else {}
        thinks = style.reasoning_parser
        reads_tools = bool(tools) or style.wraps_text
        if thinks is None and not reads_tools:
            return None
        max_calls = None if use.parallel else 1

        def new_parser() -> OutputParser:
            return OutputParser(
                reasoning_parser(thinks, prompt) if thinks else None,
                tool_parser(style.tool_parser, tools) if reads_tools else None,
                max_calls=max_calls,
            )

        return new_parser
