"""A chat request in a model's own way: the prompt's text, and what reads the answer to it."""

from __future__ import annotations

from collections.abc import Callable

from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.tools import ToolUse
from frontend.text.output_format import OutputFormat
from frontend.text.output_parser import OutputParser
from frontend.text.reasoning import end_reasoning, reasoning_parser
from frontend.text.tokenizer import ChatTemplateError, TextTokenizer
from frontend.text.tool_parsers.forced import NamedToolParser, RequiredToolParser
from frontend.text.tool_parsers.registry import TOOL_PARSERS, tool_parser
from frontend.text.tool_prompt import as_user_words, tell_tools

NewParser = Callable[[], OutputParser]


def render_prompt(
    body: ChatRequest,
    use: ToolUse,
    tokenizer: TextTokenizer,
    style: OutputFormat,
    *,
    is_guided: bool,
) -> str:
    """The text of the prompt, special tokens included.

    Args:
        is_guided: the answer must match a guide from its first token on, so that there is no room
            for thoughts: the prompt ends them.

    Raises:
        ChatTemplateError: the template does not take the messages.
        InvalidParameter: the template cannot follow a field.
    """
    template = body.chat_template or tokenizer.chat_template
    variables = body.template_variables(template, reasons=style.reasoning_parser is not None)
    if is_guided and style.reasoning_parser is not None:
        variables.setdefault("enable_thinking", False)
    messages, tools = body.template_messages(), use.template_tools()

    def render(shown: list[dict[str, object]]) -> str:
        return tokenizer.render_chat(
            shown,
            tools=tools if style.tool_prompt is None else None,
            chat_template=body.chat_template,
            add_generation_prompt=body.begins_answer,
            continue_final_message=bool(body.continue_final_message),
            **variables,
        )

    if style.tool_prompt is None:
        prompt = render(messages)
    else:
        told = tell_tools(style.tool_prompt, messages, tools)
        try:
            prompt = render(told)
        except ChatTemplateError:
            # Some templates have no system messages. If the client's own is refused, that stands.
            if messages[0]["role"] == "system" or told[0]["role"] != "system":
                raise
            prompt = render(as_user_words(told))
    if is_guided and style.reasoning_parser is not None and body.begins_answer:
        prompt += end_reasoning(style.reasoning_parser, prompt)
    return prompt


def parser_for(
    use: ToolUse, style: OutputFormat, prompt: str, *, is_guided: bool
) -> NewParser | None:
    """What makes a parser for each answer to the prompt; None where answers are plain text."""
    make_id = TOOL_PARSERS[style.tool_parser].random_id
    if use.choice == "required":
        return lambda: OutputParser(None, RequiredToolParser(use.schemas(), make_id))
    if use.choice == "named":
        return lambda: OutputParser(None, NamedToolParser(str(use.name), make_id))
    if is_guided:
        return None
    thinks, tools = style.reasoning_parser, use.callable_schemas()
    reads_tools = bool(tools) or style.wraps_text
    if thinks is None and not reads_tools:
        return None

    def new_parser() -> OutputParser:
        return OutputParser(
            reasoning_parser(thinks, prompt) if thinks else None,
            tool_parser(style.tool_parser, tools) if reads_tools else None,
            max_calls=None if use.parallel else 1,
        )

    return new_parser
