"""The anthropic SDK against the whole stack: the default model, and one that plays scenarios."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from build_engines.artefacts.artefact import Artefact
from tests.e2e.stack import MODEL, Stack
from tests.fakes.scripted import write_scripted_model
from triton_models.scripted.script import Scenario

ACTOR = "thinking-actor"
CALL = (
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>'
)
# As Qwen3's: tools, tool results, a switch for thinking.
CHAT_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n# Tools: ' }}{{ tools | tojson }}{{ ' in <tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>' + call.function.name }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""
THOUGHT = "<think>\nA hard one.\n</think>\n\n"
SCENARIOS = [
    Scenario(name="default", text="I do not know.<|im_end|>"),
    Scenario(name="count", match="count", text="one two three four five six<|im_end|>"),
    Scenario(name="thought", match="think hard", text=f"{THOUGHT}Forty-two.<|im_end|>"),
    Scenario(
        name="thought enough",
        match=["think hard", "</think>"],
        text="Forty-two.<|im_end|>",
        guided_text='{"city": "Paris"}<|im_end|>',
    ),
    Scenario(name="endless", match="think for ever", text="<think>\n" + "on and " * 700),
    Scenario(name="ended", match=["think for ever", "</think>"], text="At last.<|im_end|>"),
    Scenario(name="call", match="the weather in Paris?", text=CALL, step_delay_ms=5),
    Scenario(name="answer", match="<|im_start|>tool\nsunny", text="It is sunny.<|im_end|>"),
    Scenario(name="busy", match="overload", text="", error="Exceeds maximum queue size"),
    Scenario(name="broken", match="break at once", text="", error="CUDA error"),
    Scenario(
        name="breaking",
        match="break later",
        text="a b c d e",
        step_delay_ms=20,  # tokens that arrive together with an error are dropped
        error="CUDA error",
        error_after=3,
    ),
]


@pytest.fixture(scope="module")
def actor(stack: Stack, home: Path, artefact: Artefact) -> str:
    write_scripted_model(home, ACTOR, SCENARIOS, CHAT_TEMPLATE, tokenizer_from=artefact)
    loaded = httpx.post(f"{stack.url}/api/v1/models/{ACTOR}/load", timeout=60)
    assert loaded.status_code == 200, loaded.text
    return ACTOR


@pytest.fixture(scope="module")
def found(
    stack: Stack,
    actor: str,
    run_client: Callable[..., Any],
    client_python: Callable[[str], str],
) -> Any:
    """What the SDK saw."""
    return run_client(
        "anthropic/client.py", stack.url, MODEL, actor, python=client_python("anthropic")
    )


def test_answers_are_the_same_by_every_way_to_ask(found: Any) -> None:
    plain, streamed, asynchronous = found["plain"], found["streamed"], found["asynchronous"]
    (block,) = plain["content"]
    assert block["text"]
    assert "".join(streamed["texts"]) == block["text"] == asynchronous["text"]
    assert streamed["final"]["content"][0]["text"] == block["text"]
    assert streamed["final"]["stop_reason"] == plain["stop_reason"]
    assert len(streamed["texts"]) > 2
    assert streamed["kinds"][0] == "message_start"
    assert streamed["kinds"][-1] == "message_stop"
    assert plain["model"] == MODEL
    assert plain["request_id"]


def test_tokens_are_counted_exactly(found: Any) -> None:
    usage = found["plain"]["usage"]
    num_prompt_tokens = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert found["num_tokens"] == found["asynchronous"]["num_tokens"] == num_prompt_tokens
    final = found["streamed"]["final"]["usage"]
    assert final["input_tokens"] + final["cache_read_input_tokens"] == num_prompt_tokens
    assert final["output_tokens"] == usage["output_tokens"] > 0


def test_models_are_listed(found: Any) -> None:
    assert {MODEL, ACTOR} <= set(found["models"])
    assert found["model"] == MODEL


@pytest.mark.parametrize("way", ["tools", "streamed_tools"])
def test_a_tool_call_goes_round(found: Any, way: str) -> None:
    call = found[way]["call"]
    assert call["stop_reason"] == "tool_use"
    (block,) = call["content"]
    assert (block["name"], block["input"]) == ("get_weather", {"city": "Paris"})
    assert (found[way]["stop_reason"], found[way]["text"]) == ("end_turn", "It is sunny.")


def test_a_tool_call_comes_in_pieces(found: Any) -> None:
    assert len([piece for piece in found["streamed_tools"]["pieces"] if piece]) > 2


def test_a_forced_call_fits_its_schema_with_any_model(found: Any) -> None:
    forced = found["forced"]
    (block,) = forced["content"]
    assert block["name"] == "get_weather"
    if forced["stop_reason"] == "tool_use":
        assert list(block["input"]) == ["city"]
    else:
        assert forced["stop_reason"] == "max_tokens"


def test_thoughts_are_blocks_of_their_own(found: Any) -> None:
    thinking = found["thinking"]
    for answer in (thinking["plain"], thinking["streamed"]):
        thought, text = answer["content"]
        assert (thought["type"], thought["thinking"]) == ("thinking", "A hard one.")
        assert thought["signature"]
        assert text["text"] == "Forty-two."
        assert answer["usage"]["output_tokens_details"]["thinking_tokens"] > 0
    assert {"thinking", "signature", "text"} <= set(thinking["kinds"])
    assert [block["type"] for block in thinking["without"]["content"]] == ["text"]
    assert thinking["again"] == "tool_use", "what was thought may be sent back"


def test_a_forced_call_may_come_behind_thoughts(found: Any) -> None:
    thought, call = found["thinking"]["forced"]["content"]
    assert thought["thinking"] == "A hard one."
    assert (call["name"], call["input"]) == ("get_weather", {"city": "Paris"})
    assert found["thinking"]["forced"]["stop_reason"] == "tool_use"


def test_thoughts_end_at_their_budget(found: Any) -> None:
    thought, text = found["thinking"]["bounded"]["content"]
    assert thought["thinking"].startswith("on and on")
    assert text["text"] == "At last."
    usage = found["thinking"]["bounded"]["usage"]
    assert 1024 <= usage["output_tokens_details"]["thinking_tokens"] < 1034
    assert found["thinking"]["bounded"]["stop_reason"] == "end_turn"


def test_the_stop_sequence_is_named(found: Any) -> None:
    message = found["stopped"]["message"]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "four")
    assert message["content"][0]["text"] == "one two three "
    assert found["stopped"]["cut"] == "max_tokens"


def test_output_fits_its_schema(found: Any) -> None:
    assert isinstance(found["parsed"]["city"], str)


def test_errors_are_the_sdks_own(found: Any) -> None:
    errors = found["errors"]
    assert errors.pop("chinese") == "模型 'no-such-model' 不存在"
    stream = errors.pop("in_stream")
    assert stream["type"] == "api_error"
    assert "CUDA error" in stream["message"]
    assert stream["text"] == "a b c"
    assert all(error.pop("has_request_id") for error in errors.values())
    messages = {name: error.pop("message") for name, error in errors.items()}
    assert "'temperature'" in messages["bad_request"]
    assert "'messages[0].content[0].type' is image" in messages["image"]
    assert {name: tuple(error.values()) for name, error in errors.items()} == {
        "bad_request": ("BadRequestError", 400, "invalid_request_error"),
        "image": ("BadRequestError", 400, "invalid_request_error"),
        "not_found": ("NotFoundError", 404, "not_found_error"),
        "too_large": ("ContentTooLargeError", 413, "request_too_large"),
        "overloaded": ("OverloadedError", 529, "overloaded_error"),
        "broken": ("InternalServerError", 500, "api_error"),
    }


def test_each_documented_field_works_or_is_refused_by_its_name(
    stack: Stack,
    actor: str,
    run_client: Callable[..., Any],
    client_python: Callable[[str], str],
) -> None:
    cases = run_client("anthropic/fields.py", stack.url, actor, python=client_python("anthropic"))
    silent = [case for case in cases if not names_the_field(*case)]
    assert silent == []
    works = {path for path, _, outcome in cases if outcome == "works"}
    assert works >= {
        "messages.0.content.0.input",
        "messages.0.content.0.is_error",
        "messages.0.content.0.thinking",
        "system.0.cache_control.ttl",
        "tools.0.strict",
        "tool_choice.disable_parallel_tool_use",
        "output_config.format.schema",
        "max_tokens",
        "metadata.user_id",
        "service_tier",
        "stop_sequences.0",
        "stream",
    }


def names_the_field(path: str, _value: Any, outcome: str) -> bool:
    """Whether it works, or the error names the field, what it stands in, or the type of that."""
    if outcome == "works":
        return True
    match = re.match(r"(?:Unknown field )?'([^']*)'", outcome)
    if match is None:
        return False
    # places in lists may differ: the program sends a tool result behind its call
    named = re.sub(r"\[\d+\]", "", match[1]).removesuffix(".type") + "."
    asked = re.sub(r"\.\d+", "", path) + "."
    return asked.startswith(named) or named.startswith(asked)
