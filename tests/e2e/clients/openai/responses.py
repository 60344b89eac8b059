"""The openai SDK's Responses API: answers, events, conversations, tools, background work."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Literal

import openai
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

MODEL = "smollm2-135m-instruct"
QUESTION = "What is the capital of France?"
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Tell the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class City(BaseModel):
    name: Literal["Paris", "London"]
    is_capital: bool


def streamed(client: openai.OpenAI) -> dict[str, Any]:
    pieces, numbers = [], []
    with client.responses.stream(
        model=MODEL, input=QUESTION, temperature=0, max_output_tokens=24
    ) as stream:
        for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
                assert event.snapshot == "".join(pieces)
        last = event.type
    return {
        "text": "".join(pieces),
        "num_pieces": len(pieces),
        "is_numbered": numbers == list(range(len(numbers))),
        "last": last,
    }


async def asynchronous(base_url: str) -> str:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any-key") as client:
        answer = await client.responses.create(
            model=MODEL, input=QUESTION, temperature=0, max_output_tokens=24
        )
        return answer.output_text


def parsed(client: openai.OpenAI) -> dict[str, Any]:
    options: Any = {"model": MODEL, "input": QUESTION, "text_format": City, "temperature": 0}
    plain = client.responses.parse(**options)
    with client.responses.stream(**options) as stream:
        in_stream = stream.get_final_response()
    return {
        "plain": type(plain.output_parsed).__name__,
        "is_same": in_stream.output_parsed == plain.output_parsed,
    }


def log_probs(client: openai.OpenAI) -> dict[str, Any]:
    answer = client.responses.create(
        model=MODEL,
        input=QUESTION,
        temperature=0,
        max_output_tokens=8,
        top_logprobs=3,
        include=["message.output_text.logprobs"],
    )
    message: Any = answer.output[0]
    tokens = message.content[0].logprobs
    return {
        "num_tokens": [len(tokens), answer.usage.output_tokens if answer.usage else 0],
        "num_top": sorted({len(token.top_logprobs) for token in tokens}),
        "is_whole": "".join(token.token for token in tokens) == answer.output_text,
    }


def conversation(client: openai.OpenAI, model: str) -> dict[str, Any]:
    """A tool's call, its result by `previous_response_id`, and what the server has of it."""
    question = "What is the weather in Paris?"
    first = client.responses.create(model=model, input=question, tools=[TOOL])
    call: Any = first.output[0]
    second = client.responses.create(
        model=model,
        tools=[TOOL],
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
    )
    items = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    is_kept = client.responses.retrieve(second.id) == second
    client.responses.delete(second.id)
    try:
        client.responses.retrieve(second.id)
    except openai.NotFoundError:
        is_deleted = True
    else:
        is_deleted = False
    return {
        "call": [call.type, call.name, json.loads(call.arguments)],
        "text": second.output_text,
        "items": [item.type for item in items],
        "is_kept": is_kept,
        "is_deleted": is_deleted,
    }


def stateless(client: openai.OpenAI, model: str) -> dict[str, Any]:
    """The same with nothing stored: the client sends back the output as it came in the stream."""
    history: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    with client.responses.stream(model=model, input=history, tools=[TOOL], store=False) as stream:
        pieces = [
            event.delta
            for event in stream
            if event.type == "response.function_call_arguments.delta"
        ]
        answer = stream.get_final_response()
    call: Any = answer.output[0]
    history += answer.output
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    last = client.responses.create(model=model, input=history, tools=[TOOL], store=False)
    return {"is_whole": "".join(pieces) == call.arguments, "text": last.output_text}


def in_background(client: openai.OpenAI, model: str) -> dict[str, Any]:
    answer = client.responses.create(model=model, input="Hello", background=True)
    first_status = answer.status
    while answer.status in ("queued", "in_progress"):
        time.sleep(0.02)
        answer = client.responses.retrieve(answer.id)
    whole: list[Any] = list(
        client.responses.create(model=model, input="Hello", background=True, stream=True)
    )
    rest: list[Any] = list(
        client.responses.retrieve(whole[0].response.id, stream=True, starting_after=3)
    )
    slow = client.responses.create(model=model, input="Count slowly", background=True)
    return {
        "statuses": [first_status, answer.status],
        "text": answer.output_text,
        "is_resumed": rest == whole[4:],
        "cancelled": client.responses.cancel(slow.id).status,
    }


def refused(client: openai.OpenAI) -> dict[str, Any]:
    found: dict[str, Any] = {}
    cases: dict[str, Any] = {
        "temperature": {"temperature": 3},
        "tool": {"tools": [{"type": "web_search"}]},
        "prompt": {"prompt": {"id": "pmpt_1"}},
        "previous": {"previous_response_id": "resp_nobody"},
        "schema": {
            "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "no"}}}
        },
    }
    for name, fields in cases.items():
        try:
            client.responses.create(model=MODEL, input=QUESTION, **fields)
        except openai.BadRequestError as exc:
            found[name] = exc.param
    return found


def main() -> None:
    base_url, scripted_model = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key="any-key", max_retries=0)
    plain = client.responses.create(
        model=MODEL, input=QUESTION, temperature=0, max_output_tokens=24
    )
    found = {
        "text": plain.output_text,
        "num_tokens": plain.usage.output_tokens if plain.usage else None,
        "streamed": streamed(client),
        "async_text": asyncio.run(asynchronous(base_url)),
        "parsed": parsed(client),
        "log_probs": log_probs(client),
        "conversation": conversation(client, scripted_model),
        "stateless": stateless(client, scripted_model),
        "background": in_background(client, scripted_model),
        "refused": refused(client),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
