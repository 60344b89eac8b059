from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.text.reasoning import (
    REASONING_PARSERS,
    ReasoningParser,
    detect_reasoning,
    has_thinking_switch,
    reasoning_at_start,
    reasoning_parser,
)
from tests.unit.frontend.text.tool_parsers.harness import cut, every_cut


def parse(make: Callable[[], ReasoningParser], pieces: Iterable[str]) -> tuple[str, str]:
    parser = make()
    parts = [parser.push(piece) for piece in pieces] + [parser.flush()]
    return "".join(part.reasoning for part in parts), "".join(part.content for part in parts)


ON, OFF, UNSAID = "<think>\n", "<think>\n\n</think>\n\n", "<|assistant|>"
HARMONY = "<|start|>user<|message|>Hi<|end|><|start|>assistant"
CALL = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>"
CASES = [
    # name, end of the prompt, output, reasoning, content
    ("deepseek_r1", ON, "\nHmm, 你好\n\nso\n</think>\n\nYes.\n", "Hmm, 你好\n\nso", "Yes.\n"),
    ("deepseek_r1", ON, "<think>\nHmm</think>Yes", "Hmm", "Yes"),
    ("deepseek_r1", ON, "  Hmm </think> Yes", "  Hmm ", " Yes"),
    ("deepseek_r1", UNSAID, "<think>\n\n</think>\n\nYes", "", "Yes"),
    ("deepseek_r1", ON, "Hmm <｜tool▁calls▁begin｜>x", "Hmm ", "<｜tool▁calls▁begin｜>x"),
    ("deepseek_r1", ON, "a <tool_call> b</think>c", "a <tool_call> b", "c"),
    ("qwen3", UNSAID, "\n<think>\nHmm\n</think>\n\nYes </think>", "Hmm", "Yes </think>"),
    ("qwen3", UNSAID, " No thought, <think> is a tag", "", " No thought, <think> is a tag"),
    ("qwen3", UNSAID, "<thin", "", "<thin"),
    ("qwen3", OFF, "<think> is a tag", "", "<think> is a tag"),
    ("qwen3", ON, "never ended </thin", "never ended </thin", ""),
    ("qwen3", ON, "Hmm\n<tool_call>\n{}</tool_call>", "Hmm", "<tool_call>\n{}</tool_call>"),
    ("glm45", UNSAID, "\n<think>Hmm</think>\nYes", "Hmm", "Yes"),
    ("glm45", "<|assistant|>\n<think></think>", "\nYes", "", "\nYes"),
    (
        "gpt_oss",
        HARMONY,
        "<|channel|>analysis<|message|>Hmm<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>",
        "Hmm",
        "<|start|>assistant<|channel|>final<|message|>Yes<|return|>",
    ),
    (
        "gpt_oss",
        HARMONY,
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b"
        f"<|start|>assistant{CALL}",
        "a\nb",
        f"<|start|>assistant{CALL}",
    ),
    ("gpt_oss", HARMONY, CALL, "", CALL),
    ("gpt_oss", HARMONY, "<|channel|>analysis thought<|end|>", "thought", ""),
    ("gpt_oss", HARMONY, "<|channel|>final text<|end|>", "", "<|channel|>final text<|end|>"),
    ("gpt_oss", HARMONY + "<|channel|>final<|message|>", "Yes<|return|>", "", "Yes<|return|>"),
    (
        "gpt_oss",
        HARMONY + "<|channel|>analysis<|message|>",
        "Hm<|end|><|start|>assistant<|message|>a<|start|>assistant<|message|>b",
        "Hm",
        "<|start|>assistant<|message|>a<|start|>assistant<|message|>b",
    ),
]


@pytest.mark.parametrize(("name", "prompt", "output", "reasoning", "content"), CASES)
def test_every_cut_gives_the_same_reasoning_and_content(
    name: str, prompt: str, output: str, reasoning: str, content: str
) -> None:
    for pieces in every_cut(output):
        assert parse(lambda: reasoning_parser(name, prompt), pieces) == (reasoning, content), pieces


@settings(derandomize=True, max_examples=150)
@given(data=st.data())
def test_long_texts_do_not_depend_on_the_cuts(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(REASONING_PARSERS)))
    prompt = data.draw(st.sampled_from([ON, OFF, UNSAID, HARMONY]))
    parts = ["<think>", "</think>", "<tool_call>", "\n\n", " some words < ", *(c[2] for c in CASES)]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=8)))
    pieces = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    assert parse(lambda: reasoning_parser(name, prompt), pieces) == parse(
        lambda: reasoning_parser(name, prompt), list(text)
    )


@pytest.mark.parametrize(
    ("prompt", "at_start"),
    [
        ("<｜Assistant｜><think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<｜Assistant｜></think>", False),
        ("What does <think> mean?<|assistant|>", None),
        ("<think>" + "x" * 200, None),
        ("", None),
    ],
)
def test_only_the_end_of_the_prompt_says_how_the_answer_begins(
    prompt: str, at_start: bool | None
) -> None:
    assert reasoning_at_start(prompt) is at_start


def test_reasoning_is_shown_at_once_and_the_state_is_known() -> None:
    parser = reasoning_parser("qwen3", ON)
    assert parser.is_reasoning
    assert parser.push("Hmm <") == ("Hmm ", "")
    assert parser.push("b>\n") == ("<b>", "")
    assert parser.push("</think>\n\nYes") == ("", "Yes")
    assert not parser.is_reasoning


def test_harmony_knows_its_state() -> None:
    parser = reasoning_parser("gpt_oss", HARMONY)
    assert not parser.is_reasoning
    parser.push("<|channel|>analysis<|message|>Hm")
    assert parser.is_reasoning
    parser.push("<|end|><|start|>assistant<|channel|>final<|message|>")
    assert not parser.is_reasoning


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ('<|start|>assistant<|channel|>analysis<|message|>" }}', "gpt_oss"),
        ("{{- '<think>\\n\\n</think>\\n\\n' }}...<tool_call>", "qwen3"),
        ("[gMASK]<sop>...<arg_key>...<tool_call>...<think></think>", "glm45"),
        ("{% if '</think>' in content %}", "deepseek_r1"),
        ("{{ '<|im_start|>' + message['role'] }}", None),
    ],
)
def test_a_template_shows_the_format(template: str, name: str | None) -> None:
    assert detect_reasoning(template) == name


@pytest.mark.parametrize("size", [1, 300_000])
@pytest.mark.parametrize("text", ["word < \n", "\n", "<|end|>"])
def test_time_is_linear_in_the_text(text: str, size: int) -> None:
    output = text * (100_000 // len(text))
    for name in ("qwen3", "gpt_oss"):
        parser = reasoning_parser(name, ON)
        start = time.process_time()
        for index in range(0, len(output), size):
            parser.push(output[index : index + size])
        parser.flush()
        assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("template", "has_switch"),
    [
        ("{%- if enable_thinking is defined and enable_thinking is false %}x{% endif %}", True),
        ("{% if not thinking is defined %}{% set thinking = false %}{% endif %}", True),
        ("{{ '<think>' if thinking else '' }}", True),
        ("{% if message.thinking %}{{ message['thinking'] }}{{ '<thinking>' }}{% endif %}", False),
        ("enable_thinking is a word of the text", False),
        ("{{ '<think>' }}", False),
        ("", False),
    ],
)
def test_a_switch_is_a_variable_that_the_template_reads(template: str, has_switch: bool) -> None:
    assert has_thinking_switch(template) is has_switch
