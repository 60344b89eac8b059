"""Compares our reading of harmony with OpenAI's own package, on whole well-formed answers.

The package checks the sha256 of its vocabulary, so that the one written here is the real one.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import bpe_openai
import openai_harmony
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontend.text.reasoning import HarmonyReasoningParser
from frontend.text.tool_parsers.harmony import HarmonyToolParser
from tests.unit.frontend.text.tool_parsers.harness import Answer, counted_ids, cut

NUM_TOKENS = 199_998
HEADERS = [
    "<|channel|>analysis",
    "<|channel|>final",
    "<|channel|>commentary",
    "<|channel|>commentary to=functions.f <|constrain|>json",
    "<|channel|>commentary to=functions.f<|constrain|>json",
    "<|channel|>commentary to=functions.get.it json",
    " to=functions.f<|channel|>commentary json",
    " to=functions.f<|channel|>analysis <|constrain|>json",
]


@pytest.fixture(scope="module")
def encoding(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("vocabulary")
    vocabulary = bpe_openai.get_encoding("o200k_base")
    lines = [
        base64.b64encode(vocabulary.decode_single_token_bytes(i)) + b" %d\n" % i
        for i in range(NUM_TOKENS)
    ]
    (folder / "o200k_base.tiktoken").write_bytes(b"".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_ENCODINGS_BASE", str(folder))
        return openai_harmony.load_harmony_encoding("HarmonyGptOss")


def by_the_package(encoding: Any, output: str) -> tuple[str, str, list[tuple[str, str]]]:
    token_ids = encoding.encode(output, allowed_special="all")
    messages = encoding.parse_messages_from_completion_tokens(
        token_ids, openai_harmony.Role.ASSISTANT
    )
    reasoning: list[str] = []
    texts: list[str] = []
    calls: list[tuple[str, str]] = []
    for message in messages:
        content = message.content[0].text
        if message.recipient:
            calls.append((message.recipient.removeprefix("functions."), content))
        else:
            (reasoning if message.channel == "analysis" else texts).append(content)
    return "\n".join(reasoning), "\n".join(texts), calls


def by_our_parsers(pieces: list[str]) -> tuple[str, str, list[tuple[str, str]]]:
    reasoning_parser, tool_parser = (
        HarmonyReasoningParser(None),
        HarmonyToolParser(None, counted_ids()),
    )
    reasoning, answer = "", Answer()
    for piece in pieces:
        thought, content = reasoning_parser.push(piece)
        reasoning += thought
        answer.add(tool_parser.push(content))
    thought, content = reasoning_parser.flush()
    answer.add(tool_parser.push(content))
    answer.add(tool_parser.flush())
    return reasoning + thought, answer.text, answer.calls


@settings(
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_our_parsers_find_what_the_package_finds(encoding: Any, data: st.DataObject) -> None:
    headers = data.draw(st.lists(st.sampled_from(HEADERS), min_size=1, max_size=5))
    messages = []
    for header in headers:
        is_call = "to=" in header
        contents = ['{"x": "<a>\\n"}', "{}"] if is_call else ["Hello, 你好!", "a\nb <|x", "👍🏽"]
        content = data.draw(st.sampled_from(contents))
        messages.append(f"{header}<|message|>{content}<|{'call' if is_call else 'end'}|>")
    output = "<|start|>assistant".join(messages)
    pieces = cut(output, data.draw(st.lists(st.integers(0, len(output)), max_size=20)))
    assert by_our_parsers(pieces) == by_the_package(encoding, output)
