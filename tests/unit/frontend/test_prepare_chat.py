"""Chat requests -> what the engine gets, and what reads its answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontend.catalog import Catalog
from frontend.errors import ContextLengthExceeded, InvalidParameter
from frontend.prepare import PreparedRequest, prepare_chat
from frontend.protocol.chat_request import ChatRequest
from frontend.protocol.parse import parse_body
from frontend.text.detokenizer import MarkupDecoder
from frontend.text.output_parser import ParsedText
from frontend.types import GuideType
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import FakeEngine
from tests.fakes.tokenizers import CHAT_TEMPLATE, byte_level_tokenizer

TOKENIZER = byte_level_tokenizer()
USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
NAMED = {"type": "function", "function": {"name": "f"}}
JSON_ANSWER: dict[str, Any] = {"response_format": {"type": "json_object"}}
OPEN = "<|im_start|>assistant\n"

# As Qwen3's: tools, thoughts and a switch for them.
QWEN3 = """\
{%- if tools %}{{ '<tools>' + tools[0].function.name + '</tools><tool_call>' }}{% endif -%}
{%- for message in messages -%}{{ message.role + ':' + message.content }}
{%- if message.tool_calls %}{{ message.tool_calls[0].function.arguments.city }}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif -%}{%- endif -%}"""
R1 = "{{ messages[0].content + '<|im_start|>assistant\\n<think>\\n' }}"
HARMONY = (
    "{% if tools %}{% endif %}<|start|>user<|message|>{{ messages[0].content }}<|end|>"
    "<|start|>assistant{# <|channel|> {{ reasoning_effort }} #}"
)
MISTRAL = "{% if tools %}{{ tools[0].function.name }}[TOOL_CALLS]{% endif %}[INST]"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    + CHAT_TEMPLATE
)
TEMPLATES = {
    "tiny": CHAT_TEMPLATE,
    "qwen3": QWEN3,
    "r1": R1,
    "gpt-oss": HARMONY,
    "mistral": MISTRAL,
    "no-system": NO_SYSTEM,
    "bare": None,
}


class Stack:
    """A model for each template."""

    def __init__(self, home: Path) -> None:
        self.catalog = Catalog(home, default_model="tiny")
        self.engine = FakeEngine()
        for name in TEMPLATES:
            self.engine.load(name)

    async def chat(self, model: str = "tiny", **fields: Any) -> PreparedRequest:
        body = {"model": model, "messages": [USER], **fields}
        request = parse_body(json.dumps(body).encode(), ChatRequest)
        return await prepare_chat(
            request,
            catalog=self.catalog,
            engine=self.engine,
            prompt_param="input",
            id_prefix="x-",
            allows_chat_template=model != "tiny",
        )

    async def refusal(self, model: str = "tiny", **fields: Any) -> tuple[str | None, str]:
        with pytest.raises(InvalidParameter) as caught:
            await self.chat(model, **fields)
        return caught.value.param, caught.value.key

    def without(self, model: str, tensor: str) -> None:
        loaded = self.engine.models[model]
        self.engine.models[model] = replace(loaded, inputs=loaded.inputs - {tensor})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("chat-home")
    for name, template in TEMPLATES.items():
        publish_model(home, name, chat_template=template)
    return home


@pytest.fixture
def stack(home: Path) -> Stack:
    return Stack(home)


def read(prepared: PreparedRequest, text: str) -> ParsedText:
    assert prepared.new_parser is not None
    parser = prepared.new_parser()
    first, last = parser.push(text), parser.flush()
    return ParsedText(
        first.content + last.content,
        first.reasoning + last.reasoning,
        first.tool_calls + last.tool_calls,
    )


async def test_a_plain_chat_has_no_parser_and_no_guide(stack: Stack) -> None:
    prepared = await stack.chat()
    assert prepared.new_parser is None
    assert prepared.late_guide is None
    assert prepared.decoder is prepared.tokenizer
    assert prepared.generation.request_id.startswith("x-")
    assert prepared.prompt_text == f"<|im_start|>user\nhi<|im_end|>\n{OPEN}"
    assert TOKENIZER.encode(prepared.prompt_text).ids == prepared.generation.prompt_token_ids


async def test_the_fingerprint_is_the_artefacts(stack: Stack) -> None:
    fingerprints = {(await stack.chat(name)).fingerprint for name in ("tiny", "qwen3", "tiny")}
    assert len(fingerprints) == 2


async def test_the_extras_reach_the_request(stack: Stack) -> None:
    prepared = await stack.chat(
        n=2, logprobs=True, top_logprobs=5, stop_token_ids=[7], bad_words=["a"], priority=-3,
        cache_salt="s", max_completion_tokens=9, max_tokens=50,
    )  # fmt: skip
    generation, sampling = prepared.generation, prepared.generation.sampling
    assert (generation.num_sequences, generation.priority, generation.max_new_tokens) == (2, -3, 9)
    assert generation.cache_salt is not None
    assert generation.stop_token_ids == (7,)
    assert sampling.num_log_probs == 5
    assert sampling.bad_words == tuple(tuple(TOKENIZER.encode(word).ids) for word in ("a", " a"))
    assert (await stack.chat(logprobs=True)).generation.sampling.num_log_probs == 0
    assert (await stack.chat(ignore_eos=True, stop_token_ids=[7])).generation.stop_token_ids == (7,)


async def test_what_does_not_fit_is_told_with_the_surfaces_own_field(stack: Stack) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        await stack.chat(messages=[{"role": "user", "content": "x" * 5000}])
    assert caught.value.param == "input"
    assert await stack.refusal("bare") == ("input", "no_chat_template")
    for broken in ("{{ raise_exception('no') }}", r"{{ '\ud800' }}"):
        refusal = await stack.refusal("qwen3", chat_template=broken)
        assert refusal == ("input", "chat_template_failed")


async def test_a_template_of_the_requests_own_needs_a_setting(stack: Stack) -> None:
    own = {"chat_template": "{{ messages[0].content }}?"}
    assert (await stack.chat("bare", **own)).prompt_text == "hi?"
    assert await stack.refusal("tiny", **own) == ("chat_template", "not_allowed")


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"add_generation_prompt": False}, "<|im_start|>user\nhi<|im_end|>\n"),
        ({"continue_final_message": True}, "<|im_start|>user\nhi"),
    ],
)
async def test_how_the_prompt_ends(stack: Stack, fields: dict[str, Any], prompt: str) -> None:
    assert (await stack.chat(**fields)).prompt_text == prompt


async def test_a_token_beyond_the_vocabulary_is_told(stack: Stack) -> None:
    assert await stack.refusal(stop_token_ids=[1, 1000]) == ("stop_token_ids[1]", "out_of_range")


async def test_thinking_is_switched_by_either_field(stack: Stack) -> None:
    thoughtless = "<think>\n\n</think>\n\n"
    assert not (await stack.chat("qwen3")).prompt_text.endswith(thoughtless)
    for fields in (
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ):
        assert (await stack.chat("qwen3", **fields)).prompt_text.endswith(thoughtless)
    assert await stack.refusal("r1", reasoning_effort="low") == (
        "reasoning_effort",
        "not_in_template",
    )
    assert await stack.refusal("tiny", verbosity="low") == ("verbosity", "not_in_template")


# Tools.


async def test_a_template_that_knows_tools_gets_them(stack: Stack) -> None:
    prepared = await stack.chat("qwen3", tools=[TOOL])
    assert prepared.prompt_text.startswith("<tools>f</tools>")
    call = '<think>a</think><tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    parsed = read(prepared, call)
    assert (parsed.reasoning, parsed.content) == ("a", "")
    assert [delta.name for delta in parsed.tool_calls if delta.name] == ["f"]
    function = {"name": "f", "arguments": '{"city":"Rome"}'}
    history = {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}
    assert "assistant:Rome" in (await stack.chat("qwen3", messages=[USER, history])).prompt_text


async def test_a_template_that_knows_none_is_told_in_words(stack: Stack) -> None:
    prepared = await stack.chat(tools=[TOOL])
    assert prepared.prompt_text.startswith("<|im_start|>system\n# Tools\n")
    assert '"name": "f"' in prepared.prompt_text
    assert read(prepared, '<tool_call>{"name": "f", "arguments": {}}</tool_call>').tool_calls
    result = {"role": "tool", "tool_call_id": "1", "content": "sunny"}
    shown = (await stack.chat(messages=[USER, result])).prompt_text
    assert "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>" in shown


async def test_where_system_messages_are_refused_the_user_says_it(stack: Stack) -> None:
    prompt = (await stack.chat("no-system", tools=[TOOL])).prompt_text
    assert prompt.startswith("<|im_start|>user\n# Tools\n")
    assert prompt.endswith(f"\n\nhi<|im_end|>\n{OPEN}")
    system = {"role": "system", "content": "x"}
    for fields in ({}, {"tools": [TOOL]}):
        refusal = await stack.refusal("no-system", messages=[system, USER], **fields)
        assert refusal == ("input", "chat_template_failed")


async def test_with_choice_none_tools_are_neither_shown_nor_read(stack: Stack) -> None:
    prepared = await stack.chat(tools=[TOOL], tool_choice="none")
    assert (prepared.prompt_text, prepared.new_parser) == ((await stack.chat()).prompt_text, None)


async def test_special_tokens_are_kept_for_a_parser_that_reads_them(stack: Stack) -> None:
    assert isinstance((await stack.chat("mistral", tools=[TOOL])).decoder, MarkupDecoder)
    assert not isinstance((await stack.chat("mistral")).decoder, MarkupDecoder)


async def test_a_format_that_wraps_all_text_is_read_without_tools(stack: Stack) -> None:
    prepared = await stack.chat("gpt-oss")
    assert isinstance(prepared.decoder, MarkupDecoder)
    text = "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Hi"
    assert read(prepared, text) == ParsedText("Hi", "Hm")


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("required", '[{"name":"f","parameters":{"city":"Rome"}}]'),
        (NAMED, '{"city":"Rome"}'),
    ],
)
async def test_a_forced_call_is_guided_and_read(stack: Stack, choice: object, text: str) -> None:
    prepared = await stack.chat(tools=[TOOL], tool_choice=choice)
    guide = prepared.generation.sampling.guide
    assert guide is not None
    assert guide.type is GuideType.JSON_SCHEMA
    calls = read(prepared, text).tool_calls
    assert calls[0].name == "f"
    assert "".join(call.arguments for call in calls) == '{"city":"Rome"}'


async def test_forced_calls_have_the_models_own_ids(stack: Stack) -> None:
    for model, length in (("mistral", 9), ("tiny", 29)):
        prepared = await stack.chat(model, tools=[TOOL], tool_choice=NAMED)
        assert len(str(read(prepared, "{}").tool_calls[0].id)) == length


# Guides.


@pytest.mark.parametrize("fields", [JSON_ANSWER, {"guided_regex": "a+"}])
async def test_without_thoughts_and_tools_a_guide_holds_from_the_first_token(
    stack: Stack, fields: dict[str, Any]
) -> None:
    prepared = await stack.chat(**fields)
    assert prepared.generation.sampling.guide is not None
    assert (prepared.new_parser, prepared.late_guide) == (None, None)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("tiny", {"tools": [TOOL], **JSON_ANSWER}),
        ("qwen3", JSON_ANSWER),
        ("r1", JSON_ANSWER),
        ("gpt-oss", JSON_ANSWER),
        ("qwen3", {"tools": [TOOL], "tool_choice": "required"}),
    ],
)
async def test_beside_tools_or_thoughts_a_guide_holds_from_the_answer_on(
    stack: Stack, model: str, fields: dict[str, Any]
) -> None:
    prepared = await stack.chat(model, **fields)
    assert prepared.generation.sampling.guide is None
    assert prepared.new_parser is not None
    assert prepared.late_guide is not None
    assert (prepared.late_guide.new_parser is None) is ("response_format" in fields)


async def test_a_call_that_is_forced_is_not_read_out_of_the_thoughts(stack: Stack) -> None:
    prepared = await stack.chat("qwen3", tools=[TOOL], tool_choice="required")
    native = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert read(prepared, f"<think>a</think>{native}") == ParsedText(native, "a")


@pytest.mark.parametrize(
    ("model", "ending"),
    [
        ("qwen3", f"{OPEN}<think>\n\n</think>\n\n"),
        ("r1", "<think>\n\n</think>\n\n"),
        ("gpt-oss", "<|start|>assistant<|channel|>final<|message|>"),
    ],
)
async def test_several_guided_answers_come_without_thoughts(
    stack: Stack, model: str, ending: str
) -> None:
    prepared = await stack.chat(model, n=2, **JSON_ANSWER)
    assert prepared.prompt_text.endswith(ending)
    assert prepared.generation.sampling.guide is not None
    assert (prepared.new_parser, prepared.late_guide) == (None, None)


async def test_thoughts_that_are_switched_off_need_no_late_guide(stack: Stack) -> None:
    prepared = await stack.chat("qwen3", reasoning_effort="none", **JSON_ANSWER)
    assert prepared.generation.sampling.guide is not None
    assert prepared.late_guide is None


def schema(value: object) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": value}}
    }


def tool_of(parameters: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


BAD_TOOL = {"name": "f", "parameters": {"type": "objct"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (schema({"type": "objct"}), "response_format"),
        (schema({"type": "array", "uniqueItems": True}), "response_format"),
        (schema({"$ref": "#/$defs/none"}), "response_format"),
        (schema({"type": "string", "pattern": "(?=a)b"}), "response_format"),
        ({"guided_json": {"not": {}}}, "guided_json"),
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"guided_grammar": "root ::= missing"}, "guided_grammar"),
        ({"guided_grammar": ""}, "guided_grammar"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        ({"tools": [tool_of({"type": "objct"})], "tool_choice": "required"}, "tools"),
        ({"functions": [BAD_TOOL], "function_call": {"name": "f"}}, "functions"),
    ],
)
async def test_a_guide_that_cannot_be_followed_is_refused_before_the_engine_sees_it(
    stack: Stack, fields: dict[str, Any], param: str
) -> None:
    assert await stack.refusal(**fields) == (param, "invalid_guide")


@pytest.mark.parametrize("definitions", [None, [], "x"])
async def test_definitions_that_are_none_forbid_no_call(stack: Stack, definitions: object) -> None:
    tool = tool_of({**SCHEMA, "$defs": definitions})
    prepared = await stack.chat(tools=[tool], tool_choice="required")
    assert prepared.generation.sampling.guide is not None


async def test_a_guide_beyond_all_measure_is_refused(stack: Stack) -> None:
    assert await stack.refusal(guided_regex="a" * 300_000) == ("guided_regex", "too_long")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (JSON_ANSWER, "response_format"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"functions": [BAD_TOOL], "function_call": {"name": "f"}}, "function_call"),
    ],
)
async def test_an_engine_that_follows_no_guides_is_told_by_the_field(
    stack: Stack, fields: dict[str, Any], param: str
) -> None:
    stack.without("tiny", "guided_decoding_guide")
    assert await stack.refusal(**fields) == (param, "unsupported")


async def test_several_answers_that_may_be_calls_cannot_be_guided(stack: Stack) -> None:
    assert await stack.refusal(n=2, tools=[TOOL], **JSON_ANSWER) == ("n", "conflict")
