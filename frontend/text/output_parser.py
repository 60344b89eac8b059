"""What a model writes -> what it thinks, what it answers, which tools it calls."""

from __future__ import annotations

from dataclasses import dataclass

from frontend.text.reasoning import ReasoningParser
from frontend.text.tool_parsers.base import ToolParser
from frontend.types import ToolCallDelta


@dataclass(frozen=True, slots=True)
class ParsedText:
    """What became certain with one push."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class OutputParser:
    """The reasoning parser, then the tool-call parser; either may be missing."""

    def __init__(
        self,
        reasoning: ReasoningParser | None,
        tools: ToolParser | None,
        *,
        max_calls: int | None = None,
    ) -> None:
        """
        Args:
            max_calls: the answer is over where one more call begins; None: any number.
        """
        self._reasoning = reasoning
        self._tools = tools
        self._max_calls = max_calls
        self.has_calls = False
        self.is_over = False  # nothing more will be given out

    @property
    def needs_special_tokens(self) -> bool:
        """Whether the text that is pushed must have the special tokens in it."""
        parsers = (self._reasoning, self._tools)
        return any(parser is not None and parser.needs_special_tokens for parser in parsers)

    @property
    def is_reasoning(self) -> bool:
        """Whether the next token would be one of the reasoning's."""
        return self._reasoning is not None and self._reasoning.is_reasoning

    def push(self, text: str) -> ParsedText:
        reasoning, content = self._reasoning.push(text) if self._reasoning else ("", text)
        if self._tools is None:
            return ParsedText(content, reasoning)
        output = self._tools.push(content)
        return self._limited(ParsedText(output.text, reasoning, output.calls))

    def flush(self) -> ParsedText:
        """Give out what is held back: the text has ended."""
        reasoning, content = self._reasoning.flush() if self._reasoning else ("", "")
        if self._tools is None:
            return ParsedText(content, reasoning)
        pushed, flushed = self._tools.push(content), self._tools.flush()
        calls = pushed.calls + flushed.calls
        return self._limited(ParsedText(pushed.text + flushed.text, reasoning, calls))

    def _limited(self, parsed: ParsedText) -> ParsedText:
        if not parsed.tool_calls:
            return parsed
        self.has_calls = True
        if self._max_calls is None:
            return parsed
        calls = tuple(call for call in parsed.tool_calls if call.index < self._max_calls)
        self.is_over = len(calls) < len(parsed.tool_calls)
        return ParsedText(parsed.content, parsed.reasoning, calls)
