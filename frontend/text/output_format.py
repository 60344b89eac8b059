"""How a model marks its thoughts and its tool calls, and what reads them: names of parsers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from frontend.text import tool_prompt
from frontend.text.reasoning import detect_reasoning
from frontend.text.tool_parsers.registry import TOOL_PARSERS, detect
from frontend.text.tool_prompt import ToolPrompt

_TOOLS_VARIABLE = re.compile(r"\btools\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """A model's way to write.

    `tool_prompt` is set where the chat template cannot tell the model about tools in a way that
    `tool_parser` reads back: then messages tell it.
    """

    tool_parser: str  # of TOOL_PARSERS
    reasoning_parser: str | None  # of REASONING_PARSERS; None: the model does not reason
    tool_prompt: ToolPrompt | None

    @property
    def wraps_text(self) -> bool:
        """Whether answers without calls need the tool parser, too."""
        return TOOL_PARSERS[self.tool_parser].wraps_text


@lru_cache(maxsize=128)
def output_format(
    chat_template: str, *, tool_parser: str | None = None, reasoning_parser: str | None = None
) -> OutputFormat:
    """
    Args:
        chat_template: its text says which formats are meant.
        tool_parser, reasoning_parser: names that the model's artefact gives; they win.
    """
    found = tool_parser or detect(chat_template)
    takes_tools = found is not None and _TOOLS_VARIABLE.search(chat_template) is not None
    if found is None or not (takes_tools or TOOL_PARSERS[found].wraps_text):
        found = found if found in tool_prompt.PROMPTS else tool_prompt.DEFAULT
    return OutputFormat(
        tool_parser=found,
        reasoning_parser=reasoning_parser or detect_reasoning(chat_template),
        tool_prompt=None if takes_tools else tool_prompt.PROMPTS.get(found, tool_prompt.HERMES),
    )
