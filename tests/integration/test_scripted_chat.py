"""Tool calls, thoughts and guides of several formats, through the whole stack with a real Triton.

The scripted engine says what a model of the format would say; the SDK puts the pieces together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from build_engines.artefacts.artefact import Artefact
from frontend.settings import Settings
from frontend.triton.server import LOOPBACK, EmbeddedTriton, Ports
from tests.fakes.scripted import write_scripted_model
from tests.fakes.server import ServerThread
from tests.integration.counter import free_ports
from triton_models.scripted.script import Scenario

ARGUMENTS = {"city": "Paris", "days": 3, "units": ["°C", "\"'}"]}
JSON_ARGUMENTS = json.dumps(ARGUMENTS, ensure_ascii=False)
FORCED = '{"city": "Rome"}'
MESSAGES = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@dataclass(frozen=True, kw_only=True)
class Format:
    """How models of one kind write a call, and their thoughts before it."""

    name: str
    template: str
    call: str
    thoughts: str = ""
    between: str = "\n"  # two calls
    answer: str = "I cannot."  # what a guide is to make better


FORMATS = [
    Format(
        name="words",  # the template knows no tools
        template=MESSAGES,
        call=f'<tool_call>\n{{"name": "get_weather", "arguments": {JSON_ARGUMENTS}}}\n</tool_call>',
    ),
    Format(
        name="qwen3",
        template=MESSAGES + "{% if tools %}<tool_call>{% endif %}{# <think> </think> #}",
        call=f'<tool_call>\n{{"name": "get_weather", "arguments": {JSON_ARGUMENTS}}}\n</tool_call>',
        thoughts="<think>\nThe user asks. 你好\n</think>\n\n",
    ),
    Format(
        name="llama3",
        template=MESSAGES + '<|start_header_id|>{% if tools %}"parameters": {% endif %}',
        call=f'{{"name": "get_weather", "parameters": {JSON_ARGUMENTS}}}',
    ),
    Format(
        name="mistral",
        template=MESSAGES + "{% if tools %}[TOOL_CALLS]{% endif %}",
        call=f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {JSON_ARGUMENTS}}}]',
    ),
    Format(
        name="deepseek",
        template=MESSAGES + "{% if tools %}<｜tool▁calls▁begin｜>{% endif %}<think>\n{{ '' }}",
        call="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{JSON_ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        thoughts="The user asks. 你好\n</think>\n\n",
    ),
    Format(
        name="glm45",
        template=MESSAGES + "{% if tools %}<arg_key>{% endif %}{# <think> </think> #}",
        call="<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n"
        f"<arg_key>units</arg_key>\n<arg_value>{json.dumps(ARGUMENTS['units'])}</arg_value>\n"
        "</tool_call>",
        thoughts="<think>The user asks. 你好</think>\n",
    ),
    Format(
        name="gemma3",
        template=MESSAGES + "<start_of_turn>",
        call=f"```tool_code\nget_weather(city='Paris', days=3, units={ARGUMENTS['units']!r})\n```",
    ),
    Format(
        name="gpt-oss",
        template=MESSAGES + "{% if tools %}{% endif %}{# <|channel|> #}<|start|>assistant",
        thoughts="<|channel|>analysis<|message|>The user asks. 你好<|end|><|start|>assistant",
        call="<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        f"{JSON_ARGUMENTS}<|call|>",
        between="<|start|>assistant",
        answer="<|channel|>final<|message|>I cannot.",
    ),
]
THINKING = [one for one in FORMATS if one.thoughts]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "units": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
        },
    }
]


def scenarios_of(one: Format) -> list[Scenario]:
    return [
        Scenario(
            name="answer", text=one.thoughts + one.answer, guided_text=FORCED, step_delay_ms=4
        ),
        Scenario(
            name="call",
            match="sunny?",
            text=one.thoughts + one.call,
            guided_text=FORCED,
            step_delay_ms=4,  # so that the pieces are not joined on their way
        ),
        Scenario(
            name="calls", match="twice", text=one.thoughts + one.call + one.between + one.call
        ),
        Scenario(
            name="forced",
            match="forced",
            text=one.thoughts + one.answer,
            guided_text=f'[{{"name": "get_weather", "parameters": {FORCED}}}]',
        ),
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact) -> Iterator[ServerThread]:
    home: Path = tmp_path_factory.mktemp("scripted-chat")
    for one in FORMATS:
        write_scripted_model(
            home, one.name, scenarios_of(one), one.template, tokenizer_from=artefact
        )
    (home / "repository").mkdir()
    ports: Ports = free_ports()
    settings = Settings(home=home, model="words", triton_url=f"{LOOPBACK}:{ports.grpc}")
    with EmbeddedTriton(home, ports), ServerThread(settings, None, None) as server:
        for one in FORMATS:
            answer = httpx.post(f"{server.url}/api/v1/models/{one.name}/load", timeout=60)
            assert answer.status_code == 200, answer.text
        yield server


@pytest.fixture
def client(server: ServerThread) -> Iterator[Any]:  # its unions of types are not the matter here
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


@dataclass
class Folded:
    """A stream, put together."""

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        self.names: list[str] = []
        self.arguments: list[list[str]] = []


def fold(stream: Any) -> Folded:
    folded = Folded()
    for chunk in stream:
        (choice,) = chunk.choices
        delta = choice.delta
        folded.content += delta.content or ""
        folded.reasoning += getattr(delta, "reasoning_content", "")
        for call in delta.tool_calls or ():
            if call.function.name:
                folded.names.append(call.function.name)
                folded.arguments.append([])
            folded.arguments[call.index].append(call.function.arguments)
        folded.finish_reason = choice.finish_reason or folded.finish_reason
    return folded


def thoughts_of(one: Format) -> str:
    return "The user asks. 你好" if one.thoughts else ""


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_a_call_in_pieces_is_the_call(client: Any, one: Format) -> None:
    request: Any = {"model": one.name, "messages": user("sunny?"), "tools": TOOLS}
    plain: Any = client.chat.completions.create(**request).choices[0]
    folded = fold(client.chat.completions.create(**request, stream=True))
    (call,) = plain.message.tool_calls
    assert isinstance(call.function.name, str)
    assert (folded.names, call.function.name) == (["get_weather"], "get_weather")
    (pieces,) = folded.arguments
    assert json.loads("".join(pieces)) == json.loads(call.function.arguments) == ARGUMENTS
    assert (folded.content, plain.message.content) == ("", None)
    assert (folded.finish_reason, plain.finish_reason) == ("tool_calls", "tool_calls")
    assert folded.reasoning == thoughts_of(one)
    assert getattr(plain.message, "reasoning_content", "") == thoughts_of(one)


@pytest.mark.parametrize("name", ["words", "mistral", "deepseek", "gpt-oss"])
def test_arguments_come_as_they_are_written(client: Any, name: str) -> None:
    stream = client.chat.completions.create(
        model=name, messages=user("sunny?"), tools=TOOLS, stream=True
    )
    assert len(fold(stream).arguments[0]) > 1


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
@pytest.mark.parametrize("stream", [True, False])
def test_no_more_calls_than_were_allowed(client: Any, one: Format, stream: bool) -> None:
    request: Any = {"model": one.name, "messages": user("twice"), "tools": TOOLS}
    for parallel, count in ((True, 2), (False, 1)):
        answer = client.chat.completions.create(
            **request, parallel_tool_calls=parallel, stream=stream
        )
        if stream:
            folded = fold(answer)
            found, reason = len(folded.names), folded.finish_reason
        else:
            choice = answer.choices[0]
            found, reason = len(choice.message.tool_calls), choice.finish_reason
        if one.name != "gemma3":  # a code block behind another one is text
            assert found == count
        assert reason == "tool_calls"


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_forced_calls_are_guided(client: Any, one: Format) -> None:
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    for choice, text in (("required", "forced"), (named, "x")):
        answer = client.chat.completions.create(
            model=one.name, messages=user(text), tools=TOOLS, tool_choice=choice
        ).choices[0]
        (call,) = answer.message.tool_calls
        assert call.function.arguments == FORCED
        assert answer.finish_reason == "tool_calls"
        assert getattr(answer.message, "reasoning_content", "") == thoughts_of(one)


@pytest.mark.parametrize("one", THINKING, ids=lambda one: one.name)
def test_thoughts_come_before_the_answer(client: Any, one: Format) -> None:
    stream = client.chat.completions.create(
        model=one.name,
        messages=user("x"),
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    folded = fold(chunks)
    assert (folded.reasoning, folded.content) == (thoughts_of(one), "I cannot.")
    assert folded.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens_details is not None
    num_reasoning_tokens = last.usage.completion_tokens_details.reasoning_tokens or 0
    assert 3 < num_reasoning_tokens < last.usage.completion_tokens
    kinds = [bool(chunk.choices[0].delta.content) for chunk in chunks]
    assert kinds.index(True) > 3, "no answer before the thoughts"


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_a_schema_beside_tools_holds_for_the_answer_and_not_for_calls(
    client: Any, one: Format
) -> None:
    request: Any = {
        "model": one.name,
        "tools": TOOLS,
        "response_format": {"type": "json_object"},
    }
    answer = client.chat.completions.create(**request, messages=user("x")).choices[0]
    assert (answer.message.content, answer.finish_reason) == (FORCED, "stop")
    assert getattr(answer.message, "reasoning_content", "") == thoughts_of(one)
    call = client.chat.completions.create(**request, messages=user("sunny?")).choices[0]
    assert call.finish_reason == "tool_calls"


def test_a_grammar_that_makes_no_sense_is_the_clients_mistake(
    client: Any,
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="words", messages=user("x"), extra_body={"guided_grammar": "start: )("}
        )
    assert caught.value.param == "guided_grammar"
