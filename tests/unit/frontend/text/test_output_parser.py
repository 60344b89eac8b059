from __future__ import annotations

from collections.abc import Iterable

import pytest

from frontend.text.output_parser import OutputParser
from frontend.text.reasoning import answer_opening, end_reasoning, may_reason, reasoning_parser
from frontend.text.tool_parsers.registry import tool_parser
from tests.unit.frontend.text.tool_parsers.harness import every_cut

TOOLS = {"f": {"type": "object"}}
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def new_parser(*, max_calls: int | None = None) -> OutputParser:
    reasoning = reasoning_parser("qwen3", "<think>\n")
    return OutputParser(reasoning, tool_parser("hermes", TOOLS), max_calls=max_calls)


def read(parser: OutputParser, pieces: Iterable[str]) -> tuple[str, str, list[str]]:
    """Reasoning, content, and the calls' names and arguments."""
    parts = []
    for piece in pieces:
        if not parser.is_over:
            parts.append(parser.push(piece))
    if not parser.is_over:
        parts.append(parser.flush())
    calls: list[str] = []
    for delta in (delta for part in parts for delta in part.tool_calls):
        if delta.name is not None:
            calls.append(delta.name)
        calls[delta.index] += delta.arguments
    return "".join(p.reasoning for p in parts), "".join(p.content for p in parts), calls


def test_thoughts_then_words_then_a_call_however_it_is_cut() -> None:
    text = f"so</think>Ok.{CALL}"
    for pieces in every_cut(text):
        parser = new_parser()
        assert read(parser, pieces) == ("so", "Ok.", ["f{}"])
        assert parser.has_calls
        assert not parser.is_reasoning


def test_where_one_more_call_begins_than_there_may_be_the_answer_is_over() -> None:
    text = f"</think>{CALL}\n{CALL}\nmore"
    for pieces in (list(text), [text], [text[:40], text[40:]]):
        parser = new_parser(max_calls=1)
        reasoning, content, calls = read(parser, pieces)
        assert (reasoning, calls, parser.is_over) == ("", ["f{}"], True)
        assert "tool_call" not in content


def test_as_many_calls_as_there_may_be_are_not_over() -> None:
    parser = new_parser(max_calls=2)
    assert read(parser, [f"</think>{CALL}\n{CALL}"])[2] == ["f{}", "f{}"]
    assert not parser.is_over


def test_either_parser_may_be_missing() -> None:
    assert read(OutputParser(None, None), [CALL]) == ("", CALL, [])
    thinking = OutputParser(reasoning_parser("qwen3", "<think>\n"), None)
    assert read(thinking, ["a</think>b"]) == ("a", "b", [])
    assert read(OutputParser(None, tool_parser("hermes", TOOLS)), [CALL]) == ("", "", ["f{}"])


@pytest.mark.parametrize(
    ("tools", "reasoning", "needs"),
    [("hermes", None, False), ("mistral", None, True), ("hermes", "gpt_oss", True)],
)
def test_special_tokens_are_wanted_where_one_parser_reads_them(
    tools: str, reasoning: str | None, needs: bool
) -> None:
    thinks = reasoning_parser(reasoning, "") if reasoning else None
    assert OutputParser(thinks, tool_parser(tools)).needs_special_tokens is needs


HARMONY = "<|start|>user<|message|>Hi<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("name", "prompt", "may", "ending"),
    [
        ("qwen3", "assistant\n<think>\n", True, "\n</think>\n\n"),
        ("qwen3", "assistant\n", True, ""),
        ("qwen3", "assistant\n<think>\n\n</think>\n\n", False, ""),
        ("gpt_oss", HARMONY, True, "<|channel|>final<|message|>"),
        ("gpt_oss", "<|start|>user<|message|>Hi<|end|>", True, ""),
    ],
)
def test_a_prompt_can_be_made_to_leave_out_the_thoughts(
    name: str, prompt: str, may: bool, ending: str
) -> None:
    assert may_reason(name, prompt) is may
    assert end_reasoning(name, prompt) == ending
    parser = reasoning_parser(name, prompt + ending)
    if ending:
        assert not parser.is_reasoning


@pytest.mark.parametrize(
    ("name", "behind_thoughts", "first"),
    [
        ("deepseek_r1", "\n\n", ""),
        (
            "gpt_oss",
            "<|start|>assistant<|channel|>final<|message|>",
            "<|channel|>final<|message|>",
        ),
    ],
)
def test_what_opens_an_answer(name: str, behind_thoughts: str, first: str) -> None:
    assert answer_opening(name, has_thoughts=True) == behind_thoughts
    assert answer_opening(name, has_thoughts=False) == first
