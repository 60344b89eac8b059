"""Separates what a model thinks from what it answers, as its text arrives.

Knows nothing about tool calls but the markers that end a thought which the model forgot to end.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

from frontend.text.tool_parsers import deepseek, harmony
from frontend.text.tool_parsers.scanner import Reading, Scanner

THINK, THINK_END = "<think>", "</think>"
THINK_CLOSING = f"\n{THINK_END}\n\n"  # of thoughts that the model has not ended itself
# Variables that chat templates read; not a message's key, a text or an attribute of that name.
_SWITCH = re.compile(r"(?<![\w.'\"<])(?:enable_thinking|thinking)(?![\w'\">])")


class ReasonedText(NamedTuple):
    """What one push gave."""

    reasoning: str
    content: str


class ReasoningParser(Protocol):
    """Text in, reasoning and content out, however the text is cut."""

    needs_special_tokens: ClassVar[bool]

    @property
    def is_reasoning(self) -> bool:
        """Whether the next text would be reasoning."""
        ...

    def push(self, text: str) -> ReasonedText: ...

    def flush(self) -> ReasonedText:
        """Give out what is held back: the text has ended."""
        ...


def reasoning_at_start(prompt: str) -> bool | None:
    """Whether the prompt leaves the model within a `<think>` block; None: it does not say.

    Read off the very end: users write these tags, too.
    """
    tail = prompt[-100:].rstrip()
    if tail.endswith(THINK_END):
        return False
    return True if tail.endswith(THINK) else None


class _GeneratorReasoningParser(ABC):
    needs_special_tokens: ClassVar[bool] = False

    def __init__(self) -> None:
        self._in = Scanner()
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._newlines = ""  # that end the reasoning so far
        self._is_reasoning = False
        self._reading = self._read()

    @property
    def is_reasoning(self) -> bool:
        return self._is_reasoning

    def push(self, text: str) -> ReasonedText:
        self._in.feed(text)
        return self._take()

    def flush(self) -> ReasonedText:
        self._in.end()
        return self._take()

    @abstractmethod
    def _read(self) -> Reading[None]:
        """Read the whole text."""

    def _take(self) -> ReasonedText:
        next(self._reading, None)
        taken = ReasonedText("".join(self._reasoning), "".join(self._content))
        self._reasoning.clear()
        self._content.clear()
        return taken

    def _show_reasoning(self, text: str) -> None:
        """Hold back line ends: those that end the reasoning are the template's."""
        visible = text.rstrip("\n")
        if visible:
            self._reasoning += [self._newlines, visible]
            self._newlines = ""
        self._newlines += text[len(visible) :]


class ThinkReasoningParser(_GeneratorReasoningParser):
    """`<think>...</think>` before the answer.

    Line ends next to the tags belong to the template (Qwen3's and GLM-4.5's strip them when they
    read an answer back). The block may only begin the text; where the prompt has begun it, a model
    that writes `<think>` once more is forgiven. If `</think>` never comes, all is reasoning.

    Source: the chat templates of DeepSeek-R1, Qwen3 and GLM-4.5; TensorRT-LLM's
    llmapi/reasoning_parser.py for the ends that the model forgets.
    """

    def __init__(self, at_start: bool | None, implicit_ends: tuple[str, ...] = ()) -> None:
        """
        Args:
            at_start: what `reasoning_at_start` says of the prompt.
            implicit_ends: markers that no thought contains; they end it and are content.
        """
        super().__init__()
        self._at_start = at_start
        self._implicit_ends = implicit_ends
        self._is_reasoning = at_start is True

    def _read(self) -> Reading[None]:
        if self._at_start is not False:
            yield from self._read_tag()
        if self._is_reasoning:
            yield from self._in.newlines()
            end = yield from self._in.until((THINK_END, *self._implicit_ends), self._show_reasoning)
            self._is_reasoning = not end
            if end == THINK_END:
                yield from self._in.newlines()
            else:
                self._content.append(end)
        yield from self._in.until((), self._content.append)

    def _read_tag(self) -> Reading[None]:
        self._in.mark()
        yield from self._in.spaces()
        if (yield from self._in.take(THINK)):
            self._is_reasoning = True
            self._in.forget()
        else:
            self._in.rewind()


class HarmonyReasoningParser(_GeneratorReasoningParser):
    """gpt-oss: the messages of channel `analysis`, separated by a line end.

    All other messages pass as they are, markup included, for `HarmonyToolParser`, which must run
    behind this parser whether there are tools or not.

    Source: openai/harmony, docs/format.md.
    """

    needs_special_tokens = True

    def __init__(self, at_start: bool | None) -> None:
        """
        Args:
            at_start: whether the prompt has begun an `analysis` message.
        """
        super().__init__()
        self._is_reasoning = at_start is True
        self._has_reasoning = False

    def _read(self) -> Reading[None]:
        header = None
        if not self._is_reasoning:
            header = yield from harmony.read_first_header(self._in)
        start = ""  # `<|start|>`, but for the first message
        while True:
            if header:
                self._is_reasoning = header.is_reasoning
            if self._is_reasoning:
                end = yield from self._read_analysis(header)
            else:
                end = yield from self._pass_message(start, header)
            if end != harmony.START:
                end = yield from self._in.until((harmony.START,), self._content.append)
            if not end:
                return
            start = harmony.START
            header = yield from harmony.read_header(self._in)

    def _read_analysis(self, header: harmony.HarmonyHeader | None) -> Reading[str]:
        if self._has_reasoning:
            self._reasoning.append("\n")
        self._has_reasoning = True
        if header and header.end != harmony.MESSAGE:
            self._reasoning.append(header.stray_text)
            return header.end
        return (yield from harmony.read_content(self._in, self._reasoning.append))

    def _pass_message(self, start: str, header: harmony.HarmonyHeader | None) -> Reading[str]:
        self._content.append(start)
        if header:
            self._content += [header.text, header.end]
        if header and header.end != harmony.MESSAGE:
            return header.end
        end = yield from harmony.read_content(self._in, self._content.append)
        if end != harmony.START:
            self._content.append(end)
        return end


def _think_parser(*implicit_ends: str) -> Callable[[str], ReasoningParser]:
    return lambda prompt: ThinkReasoningParser(reasoning_at_start(prompt), implicit_ends)


def _harmony_parser(prompt: str) -> ReasoningParser:
    header = prompt.rpartition(harmony.START)[2]
    is_open = header.endswith(harmony.MESSAGE)
    return HarmonyReasoningParser(harmony.parse_header(header).is_reasoning if is_open else None)


# Name -> what makes a parser for the answer to a rendered prompt.
REASONING_PARSERS: dict[str, Callable[[str], ReasoningParser]] = {
    "deepseek_r1": _think_parser(deepseek.CALLS_BEGIN),
    "qwen3": _think_parser("<tool_call>"),
    "glm45": _think_parser("<tool_call>"),
    "gpt_oss": _harmony_parser,
}
# Those of models that think between <think> and </think>.
THINK_PARSERS = REASONING_PARSERS.keys() - {"gpt_oss"}


def reasoning_parser(name: str, prompt: str) -> ReasoningParser:
    """
    Args:
        prompt: as rendered; its end says whether the model begins by thinking.

    Raises:
        KeyError: there is no parser of this name.
    """
    return REASONING_PARSERS[name](prompt)


def may_reason(name: str, prompt: str) -> bool:
    """Whether an answer to the prompt may begin with thoughts."""
    return name == "gpt_oss" or reasoning_at_start(prompt) is not False


def thought_end(name: str) -> str:
    """What ends thoughts that the model has not ended itself."""
    return harmony.ENDS[0] if name == "gpt_oss" else f"\n{THINK_END}"


def answer_opening(name: str, *, has_thoughts: bool) -> str:
    """What the model writes between its thoughts (or the prompt) and its answer."""
    if name == "gpt_oss":
        start = f"{harmony.START}assistant" if has_thoughts else ""
        return f"{start}{harmony.CHANNEL}final{harmony.MESSAGE}"
    return "\n\n" if has_thoughts else ""


def end_reasoning(name: str, prompt: str) -> str:
    """What to put behind a prompt so that the answer comes without thoughts; "" where it does."""
    if name == "gpt_oss":
        is_open = prompt.endswith(f"{harmony.START}assistant")
        return f"{harmony.CHANNEL}final{harmony.MESSAGE}" if is_open else ""
    return THINK_CLOSING if reasoning_at_start(prompt) else ""


def detect_reasoning(chat_template: str) -> str | None:
    """Name of the parser for what models of this template write; None if they do not reason."""
    if harmony.START in chat_template and harmony.CHANNEL in chat_template:
        return "gpt_oss"
    if THINK_END not in chat_template and THINK not in chat_template:
        return None
    if "<arg_key>" in chat_template:
        return "glm45"
    return "qwen3" if "<tool_call>" in chat_template else "deepseek_r1"


def has_thinking_switch(chat_template: str) -> bool:
    """Whether a variable turns the thinking on and off.

    It is `enable_thinking` for Qwen3 and GLM-4.5, `thinking` for DeepSeek-V3.1 and Granite.
    """
    code = "".join(re.findall(r"{[%{].*?[%}]}", chat_template, re.DOTALL))
    return _SWITCH.search(code) is not None
