from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.text.tool_parsers.base import GeneratorToolParser
from frontend.text.tool_parsers.registry import TOOL_PARSERS, tool_parser
from tests.unit.frontend.text.tool_parsers.cases import CASES, TOOLS, Case
from tests.unit.frontend.text.tool_parsers.harness import Answer, cut, every_cut, parse


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parser}: {case.output[:40]}")
def test_every_cut_gives_the_same_text_and_calls(case: Case) -> None:
    expected = Answer(case.text, case.calls)
    for pieces in every_cut(case.output):
        assert parse(case.make, pieces) == expected, pieces


@settings(derandomize=True, max_examples=100)
@given(data=st.data())
def test_long_transcripts_do_not_depend_on_the_cuts(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TOOL_PARSERS)))
    outputs = [case.output for case in CASES if case.parser == name]
    text = "".join(data.draw(st.lists(st.sampled_from(outputs), min_size=2, max_size=6)))
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=30))
    make = CASES[[case.parser for case in CASES].index(name)].make
    assert parse(make, cut(text, places)) == parse(make, list(text))


@settings(derandomize=True, max_examples=100)
@given(arguments=st.dictionaries(st.text(max_size=5), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
), max_size=3), ascii_only=st.booleans())  # fmt: skip
def test_any_json_object_is_passed_through_as_it_is(
    arguments: dict[str, object], ascii_only: bool
) -> None:
    text = json.dumps(arguments, ensure_ascii=ascii_only)
    output = f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>'
    case = Case("hermes", output, "")
    assert parse(case.make, output).calls == [("f", text)]


def test_arguments_are_streamed_before_the_call_ends() -> None:
    parser = tool_parser("hermes", TOOLS)
    (first,) = parser.push('<tool_call>{"name": "get_weather", "arguments": {"ci').calls
    assert (first.name, first.arguments) == ("get_weather", '{"ci')
    (second,) = parser.push('ty": "S').calls
    assert (second.id, second.name, second.arguments) == (None, None, 'ty": "S')


def test_string_values_of_glm45_are_streamed() -> None:
    parser = tool_parser("glm45", TOOLS)
    parser.push("<tool_call>f<arg_key>x</arg_key><arg_value>")
    assert [call.arguments for call in parser.push('say "a').calls] == ['say \\"a']


def test_text_is_shown_at_once() -> None:
    parser = tool_parser("hermes", TOOLS)
    assert parser.push("Hello <").text == "Hello"
    assert parser.push("b> ").text == " <b>"
    assert parser.flush().text == " "


def test_without_known_tools_any_function_may_be_called() -> None:
    parser = tool_parser("hermes")
    (call,) = parser.push('<tool_call>{"name": "any.thing", "arguments": {}}').calls
    assert call.name == "any.thing"
    assert not parser.push('<tool_call>{"name": "\\ud800", "arguments": {}}').calls
    # Without arguments it may as well be an answer in JSON.
    assert not tool_parser("llama3_json").push('{"name": "Bob"}').calls


@pytest.mark.parametrize(("name", "length"), [("hermes", 29), ("mistral", 9)])
def test_ids_are_random_and_of_the_formats_length(name: str, length: int) -> None:
    output = '[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]'
    calls = tool_parser(name).push(TOOL_PARSERS[name].starts[0] + output).calls
    ids = [call.id for call in calls]
    assert len(set(ids)) == 2
    assert all(i is not None and len(i) == length for i in ids)
    assert all(i.startswith("call_") for i in ids if i and length == 29)


def test_a_marker_that_begins_nothing_is_text() -> None:
    class MarkerOnly(GeneratorToolParser):
        name = "marker_only"
        starts = ("<x>",)

    for pieces in every_cut("a <x> b"):
        assert parse(lambda make_id: MarkerOnly(None, make_id), pieces) == Answer("a <x> b")


def test_a_parser_is_finished_after_flush() -> None:
    parser = tool_parser("hermes")
    parser.flush()
    assert parser.push("").text == ""


LONG = 100_000
LONG_OUTPUTS = {
    "text": ("hermes", "word < " * (LONG // 7)),
    "arguments": (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"x": "' + "\\n{" * (LONG // 3) + '"}}</tool_call>',
    ),
    "no calls": ("hermes", '<tool_call>{"a' * (LONG // 14)),
    "early arguments": (
        "hermes",
        '<tool_call>{"arguments": {"any": ' + "[" * LONG + "1" + "]" * LONG + '}, "name": "f"}',
    ),
    "python": ("llama3_pythonic", "[f(x='" + "a" * LONG + "')]"),
    "values": (
        "glm45",
        "<tool_call>f<arg_key>any</arg_key><arg_value>" + "a" * LONG + "</arg_value>",
    ),
    "spaces": ("harmony", "<|channel|>final<|message|>a" + " " * LONG),
}


@pytest.mark.parametrize("kind", LONG_OUTPUTS)
@pytest.mark.parametrize("size", [1, LONG * 3])
def test_time_is_linear_in_the_text(kind: str, size: int) -> None:
    # 100 kB, in single characters too: quadratic work would take minutes.
    name, output = LONG_OUTPUTS[kind]
    parser = tool_parser(name, TOOLS)
    start = time.process_time()
    for index in range(0, len(output), size):
        parser.push(output[index : index + size])
    parser.flush()
    assert time.process_time() - start < 5
