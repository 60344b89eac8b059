"""/v1/responses over a real socket, with a fake engine and the real store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from frontend.errors import EngineUnavailable, GenerationFailed, ServerOverloaded
from frontend.protocol.answers import responses
from frontend.settings import Settings
from frontend.types import GenerationRequest
from tests.fakes.artefacts import publish_model
from tests.fakes.engine import Ending, FakeEngine, FakeRepository, Script, Step, one_token_a_step
from tests.fakes.server import RawClient, ServerThread, wait_until
from tests.fakes.tokenizers import CHAT_TEMPLATE
from tests.integration.responses.asking import (
    SLOW,
    TOKENIZER,
    parse_named_events,
    prompt_of,
    sdk_of,
    turns,
)

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": None}


def test_a_plain_answer(client: RawClient, engine: FakeEngine) -> None:
    body = {"model": "tiny", "input": "hi", "temperature": 0.5, "max_output_tokens": 50}
    client.send("POST", "/v1/responses", body)
    answer = client.receive()
    assert answer.status == 200
    found = answer.json
    assert found["object"] == "response"
    assert found["id"].startswith("resp_")
    assert (found["status"], found["model"]) == ("completed", "tiny")
    (message,) = found["output"]
    assert message["content"] == [
        {"type": "output_text", "text": "你好", "annotations": [], "logprobs": []}
    ]
    assert found["usage"]["output_tokens"] == 6
    assert found["usage"]["input_tokens"] == len(engine.streams[0].request.prompt_token_ids)
    assert prompt_of(engine) == turns("hi")
    request = engine.streams[0].request
    assert (request.max_new_tokens, request.sampling.temperature) == (50, 0.5)


def test_a_streamed_answer(client: RawClient) -> None:
    client.send("POST", "/v1/responses", {"input": "hi", "stream": True})
    answer = client.receive()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = parse_named_events(answer.body)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    names = [event["type"] for event in events]
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(names[4:-4]) == {"response.output_text.delta"}
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.get("delta", "") for event in events) == "你好"
    assert events[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_output_tokens": 1, "instructions": "Be brief.", "metadata": {"k": "v"}},
        {"background": True, "user": "u", "truncation": "auto", "reasoning": {"summary": "auto"}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "look"}},
        {"text": {"format": {"type": "text"}, "verbosity": None}, "top_logprobs": 0},
    ],
)
def test_answers_are_what_the_description_says(
    client: RawClient, engine: FakeEngine, fields: dict[str, Any]
) -> None:
    loaded = engine.models["tiny"]
    engine.models["tiny"] = replace(loaded, inputs=loaded.inputs | {"guided_decoding_guide"})
    client.send("POST", "/v1/responses", {"input": "hi", **fields})
    found = client.receive().json
    msgspec.convert(found, responses.Response)
    path = f"/v1/responses/{found['id']}"
    client.send("GET", path)
    msgspec.convert(client.receive().json, responses.Response)
    client.send("GET", f"{path}/input_items?limit=5&order=asc")
    msgspec.convert(client.receive().json, responses.ResponseItems)
    client.send("POST", "/v1/responses/input_tokens", {"input": "hi", **fields})
    msgspec.convert(client.receive().json, responses.ResponseInputTokens)
    client.send("DELETE", path)
    msgspec.convert(client.receive().json, responses.DeletedResponse)


def test_an_answer_that_is_cut_off_is_incomplete(sdk: openai.OpenAI) -> None:
    found = sdk.responses.create(model="tiny", input="hi", max_output_tokens=3)
    assert found.status == "incomplete"
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.output_text == "你"
    assert sdk.responses.retrieve(found.id) == found


def test_what_is_stored_can_be_read_and_deleted(sdk: openai.OpenAI) -> None:
    found = sdk.responses.create(model="tiny", input="hi", metadata={"k": "v"})
    assert sdk.responses.retrieve(found.id) == found
    sdk.responses.delete(found.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(found.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.delete(found.id)


def test_delete_answers_as_openai_does(client: RawClient, sdk: openai.OpenAI) -> None:
    found = sdk.responses.create(model="tiny", input="hi")
    client.send("DELETE", f"/v1/responses/{found.id}")
    assert client.receive().json == {"id": found.id, "object": "response", "deleted": True}


def test_what_is_not_to_be_stored_is_not(sdk: openai.OpenAI) -> None:
    found = sdk.responses.create(model="tiny", input="hi", store=False)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(found.id)
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.responses.create(model="tiny", input="more", previous_response_id=found.id)
    assert refusal.value.code == "previous_response_not_found"
    assert refusal.value.param == "previous_response_id"


def test_a_conversation_goes_on_without_the_earlier_instructions(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    first = sdk.responses.create(model="tiny", input="one", instructions="Be brief.")
    assert prompt_of(engine).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    second = sdk.responses.create(model="tiny", input="two", previous_response_id=first.id)
    assert prompt_of(engine) == turns("one", "你好", "two")
    assert second.previous_response_id == first.id
    with sdk.responses.stream(
        model="tiny", input="three", previous_response_id=second.id, instructions="Be kind."
    ) as stream:
        assert stream.get_final_response().output_text == "你好"
    kind = "<|im_start|>system\nBe kind.<|im_end|>\n"
    assert prompt_of(engine) == kind + turns("one", "你好", "two", "你好", "three")


def test_a_conversation_with_a_hole_is_refused(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model="tiny", input="one")
    second = sdk.responses.create(model="tiny", input="two", previous_response_id=first.id)
    sdk.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError, match=first.id):
        sdk.responses.create(model="tiny", input="three", previous_response_id=second.id)


def test_input_items_are_all_that_the_response_was_made_from(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model="tiny", input="one")
    second = sdk.responses.create(model="tiny", input="two", previous_response_id=first.id)
    page = sdk.responses.input_items.list(second.id, order="asc", limit=2)
    assert page.has_more
    items: list[Any] = list(page)  # the SDK asks for the next page by itself
    assert [item.content[0].text for item in items] == ["one", "你好", "two"]
    newest: list[Any] = list(sdk.responses.input_items.list(second.id))
    assert [item.id for item in newest] == [item.id for item in reversed(items)]
    with pytest.raises(openai.NotFoundError):
        sdk.responses.input_items.list("resp_nobody")


def test_items_can_be_named_by_their_ids(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    first = sdk.responses.create(model="tiny", input="one")
    sdk.responses.create(
        model="tiny",
        input=[
            {"role": "user", "content": "What was it?"},
            {"type": "item_reference", "id": str(first.output[0].id)},
            {"role": "user", "content": "Again!"},
        ],
    )
    assert prompt_of(engine) == turns("What was it?", "你好", "Again!")
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.responses.create(model="tiny", input=[{"type": "item_reference", "id": "msg_x"}])
    assert refusal.value.param == "input[0].id"


def test_input_tokens_are_counted_without_generating(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    counted = sdk.responses.input_tokens.count(model="tiny", input="hi").input_tokens
    assert engine.streams == []
    usage = sdk.responses.create(model="tiny", input="hi").usage
    assert usage is not None
    assert usage.input_tokens == counted


def test_truncation_drops_the_oldest_turns(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    engine.load("tiny", max_seq_len=200)
    long: Any = [
        {"role": role, "content": f"{role} {i} " + "x" * 20}
        for i in range(5)
        for role in ("user", "assistant")
    ]
    long.append({"role": "user", "content": "last"})
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.responses.create(model="tiny", input=long)
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "input")
    sdk.responses.create(model="tiny", input=long, truncation="auto", instructions="Be brief.")
    prompt = prompt_of(engine)
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert prompt.endswith("user\nlast<|im_end|>\n<|im_start|>assistant\n")
    assert "assistant 4" in prompt
    assert engine.streams[-1].request.max_new_tokens >= 50, "an answer has some room"
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model="tiny", input="y" * 300, truncation="auto")


def test_what_fits_is_not_truncated(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    given: Any = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    sdk.responses.create(model="tiny", input=given, truncation="auto")
    assert "one" in prompt_of(engine)


@pytest.mark.parametrize("value", ["1" * 30, '{"a":' * 300 + "1" + "}" * 300])
@pytest.mark.parametrize("fields", ["", ', "stream": true', ', "background": true'])
def test_what_an_answer_could_not_repeat_is_refused(
    client: RawClient, value: str, fields: str
) -> None:
    tool = f'{{"type": "function", "name": "look", "parameters": {{"maximum": {value}}}}}'
    part = f'{{"type": "output_text", "text": "a", "annotations": [{value}]}}'
    message = f'{{"role": "assistant", "content": [{part}]}}'
    for name, body in (
        ("tools[0].parameters", f'{{"input": "hi", "tools": [{tool}]{fields}}}'),
        ("input", f'{{"input": [{message}, {{"role": "user", "content": "hi"}}]{fields}}}'),
    ):
        client.send("POST", "/v1/responses", body.encode())
        answer = client.receive()
        assert (answer.status, answer.json["error"]["param"]) == (400, name)


def test_errors_of_the_prompt_name_our_field(sdk: openai.OpenAI, engine: FakeEngine) -> None:
    engine.load("bare")
    with pytest.raises(openai.BadRequestError) as refusal:
        sdk.responses.create(model="bare", input="hi")
    assert refusal.value.param == "input"


def test_a_failure_before_the_first_token_keeps_its_status(
    client: RawClient, engine: FakeEngine
) -> None:
    engine.script = Script(steps=[Step(error=ServerOverloaded())])
    for stream in (False, True):
        client.send("POST", "/v1/responses", {"input": "hi", "stream": stream})
        answer = client.receive()
        assert (answer.status, answer.json["error"]["code"]) == (503, "overloaded")


def test_a_failure_in_mid_stream_is_a_failed_response(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    engine.script = Script(
        steps=[
            Step(token_ids=TOKENIZER.encode("ab").ids, is_alone=True),
            Step(error=GenerationFailed(reason="out of memory")),
        ]
    )
    events: list[Any] = list(sdk.responses.create(model="tiny", input="hi", stream=True))
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error.code == "server_error"
    assert "out of memory" in last.response.error.message
    assert sdk.responses.retrieve(last.response.id).status == "failed"


def test_a_failure_after_a_long_silence_is_an_error_event(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    engine.script = Script(steps=[Step(after_s=0.3, error=EngineUnavailable())])
    settings = replace(tiny_settings, keep_alive_interval_s=0.1)
    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        events: list[Any] = list(sdk.responses.create(model="tiny", input="hi", stream=True))
    assert [(event.type, event.code) for event in events] == [("error", "engine_unavailable")]


def test_a_client_that_leaves_ends_the_work(server: ServerThread, engine: FakeEngine) -> None:
    engine.script = SLOW
    with RawClient(server.address) as client:
        client.send("POST", "/v1/responses", {"input": "hi", "stream": True})
        client.receive(has_body=False)
    wait_until(lambda: engine.streams[0].ending is Ending.CANCELLED)


def test_responses_are_kept_as_long_as_the_setting_says(
    tiny_settings: Settings, engine: FakeEngine, repository: FakeRepository
) -> None:
    settings = replace(tiny_settings, response_retention_days=1 / 86_400)
    with ServerThread(settings, engine, repository) as server, sdk_of(server) as sdk:
        found = sdk.responses.create(model="tiny", input="hi")

        def is_gone() -> bool:
            try:
                sdk.responses.retrieve(found.id)
            except openai.NotFoundError:
                return True
            return False

        wait_until(is_gone)


def test_answers_are_in_the_clients_language(client: RawClient) -> None:
    client.send("GET", "/v1/responses/resp_x", headers={"Accept-Language": "zh-CN"})
    answer = client.receive()
    assert answer.status == 404
    assert "不存在" in answer.json["error"]["message"]


def test_a_tool_is_told_to_the_model_and_its_output_is_taken(
    sdk: openai.OpenAI, engine: FakeEngine
) -> None:
    tool: Any = TOOL
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'

    def script(request: GenerationRequest) -> Script:
        is_first = len(engine.streams) == 1
        return Script(steps=one_token_a_step(TOKENIZER.encode(call if is_first else "Blue.").ids))

    engine.script = script
    found = sdk.responses.create(
        model="tiny", input="Look!", tools=[tool], tool_choice="auto", parallel_tool_calls=False
    )
    (item,) = found.output
    assert item.type == "function_call"
    assert (item.name, item.arguments) == ("look", '{"at": "sky"}')
    assert '"look"' in prompt_of(engine)
    answer = sdk.responses.create(
        model="tiny",
        previous_response_id=found.id,
        input=[{"type": "function_call_output", "call_id": item.call_id, "output": "blue"}],
        tools=[tool],
    )
    assert answer.output_text == "Blue."
    with pytest.raises(openai.BadRequestError, match="call_x"):
        sdk.responses.create(
            model="tiny",
            input=[{"type": "function_call_output", "call_id": "call_x", "output": "blue"}],
        )


@pytest.fixture
def thinker(tmp_path: Path, tiny_settings: Settings, engine: FakeEngine) -> Iterator[openai.OpenAI]:
    """A client of a server whose only model thinks before it answers."""
    thinks = CHAT_TEMPLATE.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}")
    assert thinks != CHAT_TEMPLATE
    publish_model(tmp_path, "thinker", chat_template=thinks)
    engine.load("thinker")
    words = TOKENIZER.encode("Hm.</think>Yes.").ids
    engine.script = Script(steps=one_token_a_step(words, every_s=0.001))
    settings = replace(tiny_settings, home=tmp_path, model="thinker")
    with ServerThread(settings, engine, FakeRepository(engine)) as server, sdk_of(server) as client:
        yield client


def test_thoughts_are_items_of_their_own(thinker: openai.OpenAI) -> None:
    found = thinker.responses.create(model="thinker", input="Well?")
    reasoning, message = found.output
    assert reasoning.type == "reasoning"
    assert [part.text for part in reasoning.content or ()] == ["Hm."]
    assert reasoning.summary == []
    assert message.type == "message"
    assert found.output_text == "Yes."
    assert found.usage is not None
    assert 0 < found.usage.output_tokens_details.reasoning_tokens < found.usage.output_tokens
    events: list[Any] = list(thinker.responses.create(model="thinker", input="Well?", stream=True))
    thoughts = [event.delta for event in events if event.type == "response.reasoning_text.delta"]
    assert "".join(thoughts) == "Hm."


def test_thoughts_are_the_summary_where_one_is_asked_for(thinker: openai.OpenAI) -> None:
    found = thinker.responses.create(model="thinker", input="Well?", reasoning={"summary": "auto"})
    reasoning: Any = found.output[0]
    assert [part.text for part in reasoning.summary] == ["Hm."]
    assert reasoning.content == []


def test_thoughts_can_be_sent_back(thinker: openai.OpenAI) -> None:
    found = thinker.responses.create(model="thinker", input="Well?", store=False)
    history: list[Any] = [{"role": "user", "content": "Well?"}, *found.output]
    again = thinker.responses.create(
        model="thinker", input=[*history, {"role": "user", "content": "Really?"}], store=False
    )
    assert again.output_text == "Yes."
