"""The anthropic SDK: plain, streamed and asynchronous answers, tools, thinking, errors.

Arguments: the base URL, the default model, a scripted model.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import anthropic
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

QUESTION: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class City(BaseModel):
    city: str


def plain(client: anthropic.Anthropic, model: str) -> dict[str, Any]:
    message = client.messages.create(
        model=model, max_tokens=24, messages=QUESTION, extra_body={"temperature": 0}
    )
    return {**message.model_dump(), "request_id": message._request_id}


def streamed(client: anthropic.Anthropic, model: str) -> dict[str, Any]:
    """By the stream helper and by raw events."""
    arguments: dict[str, Any] = {
        "model": model,
        "max_tokens": 24,
        "messages": QUESTION,
        "extra_body": {"temperature": 0},
    }
    with client.messages.stream(**arguments) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    with client.messages.create(**arguments, stream=True) as events:
        kinds = [event.type for event in events]
    return {"texts": texts, "final": final.model_dump(), "kinds": kinds}


async def asynchronous(base_url: str, model: str) -> dict[str, Any]:
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key="any-key") as client:
        count = await client.messages.count_tokens(model=model, messages=QUESTION)
        async with client.messages.stream(
            model=model, max_tokens=24, messages=QUESTION, extra_body={"temperature": 0}
        ) as stream:
            texts = [text async for text in stream.text_stream]
    return {"text": "".join(texts), "num_tokens": count.input_tokens}


def tool_round_trip(client: anthropic.Anthropic, model: str, *, stream: bool) -> dict[str, Any]:
    """Call, result, answer; what came goes back as it is."""
    messages: list[MessageParam] = [{"role": "user", "content": "the weather in Paris?"}]
    arguments: dict[str, Any] = {"model": model, "max_tokens": 200, "tools": [WEATHER]}
    if stream:
        pieces = []
        with client.messages.stream(**arguments, messages=messages) as events:
            pieces = [event.partial_json for event in events if event.type == "input_json"]
            call = events.get_final_message()
    else:
        pieces = []
        call = client.messages.create(**arguments, messages=messages)
    (use,) = [block for block in call.content if block.type == "tool_use"]
    messages += [
        {"role": "assistant", "content": call.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}],
        },
    ]
    answer = client.messages.create(**arguments, messages=messages)
    return {
        "call": call.model_dump(),
        "pieces": pieces,
        "stop_reason": answer.stop_reason,
        "text": answer.content[0].text,
    }


def forced(client: anthropic.Anthropic, model: str) -> dict[str, Any]:
    """A call that must be made, by whatever model."""
    message = client.messages.create(
        model=model,
        max_tokens=60,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    return message.model_dump()


def thinking(client: anthropic.Anthropic, model: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": model,
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": "think hard"}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    with client.messages.stream(**arguments) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    again = client.messages.create(
        **{
            **arguments,
            "messages": [
                *arguments["messages"],
                {"role": "assistant", "content": final.content},
                {"role": "user", "content": "the weather in Paris?"},
            ],
        },
        tools=[WEATHER],
    )
    endless: list[MessageParam] = [{"role": "user", "content": "think for ever"}]
    return {
        "plain": client.messages.create(**arguments).model_dump(),
        "forced": client.messages.create(
            **arguments, tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"}
        ).model_dump(),
        "bounded": client.messages.create(**{**arguments, "messages": endless}).model_dump(),
        "streamed": final.model_dump(),
        "kinds": kinds,
        "without": client.messages.create(
            **{**arguments, "thinking": {"type": "disabled"}}
        ).model_dump(),
        "again": again.stop_reason,
    }


def stopped(client: anthropic.Anthropic, model: str) -> dict[str, Any]:
    message = client.messages.create(
        model=model,
        max_tokens=50,
        messages=[{"role": "user", "content": "count"}],
        stop_sequences=["nine", "four", "eight", "seven", "six", "five"],
    )
    cut = client.messages.create(
        model=model, max_tokens=2, messages=[{"role": "user", "content": "count"}]
    )
    return {"message": message.model_dump(), "cut": cut.stop_reason}


def parsed(client: anthropic.Anthropic, model: str) -> dict[str, Any]:
    """The default model, bound to a schema."""
    message = client.messages.parse(
        model=model, max_tokens=60, messages=QUESTION, output_format=City
    )
    return {"city": message.parsed_output.city if message.parsed_output else None}


def errors(client: anthropic.Anthropic, model: str, actor: str) -> dict[str, Any]:
    def failure(model: str = model, content: Any = "hi", **arguments: Any) -> dict[str, Any]:
        arguments = {"max_tokens": 8, **arguments}
        try:
            client.messages.create(
                model=model, messages=[{"role": "user", "content": content}], **arguments
            )
        except anthropic.APIStatusError as exc:
            return {
                "class": type(exc).__name__,
                "status": exc.status_code,
                "type": exc.type,
                "message": exc.api_message,
                "has_request_id": bool(exc.request_id),
            }
        raise AssertionError("it was not refused")

    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    return {
        "bad_request": failure(extra_body={"temperature": 3}),
        "image": failure(content=[image]),
        "not_found": failure(model="no-such-model"),
        "too_large": failure(content="x" * 40_000_000),
        "overloaded": failure(model=actor, content="overload"),
        "broken": failure(model=actor, content="break at once"),
        "in_stream": mid_stream_error(client, actor),
        "chinese": failure(model="no-such-model", extra_headers={"Accept-Language": "zh-CN"})[
            "message"
        ],
    }


def mid_stream_error(client: anthropic.Anthropic, actor: str) -> dict[str, Any]:
    texts = []
    try:
        with client.messages.stream(
            model=actor, max_tokens=50, messages=[{"role": "user", "content": "break later"}]
        ) as stream:
            texts.extend(stream.text_stream)
    except anthropic.APIStatusError as exc:
        return {"text": "".join(texts), "type": exc.type, "message": exc.api_message}
    raise AssertionError("the stream ended as if it were complete")


def main(base_url: str, model: str, actor: str) -> dict[str, Any]:
    with anthropic.Anthropic(base_url=base_url, api_key="any-key", max_retries=0) as client:
        return {
            "plain": plain(client, model),
            "streamed": streamed(client, model),
            "asynchronous": asyncio.run(asynchronous(base_url, model)),
            "num_tokens": client.messages.count_tokens(model=model, messages=QUESTION).input_tokens,
            "models": [one.id for one in client.models.list()],
            "model": client.models.retrieve(model).id,
            "tools": tool_round_trip(client, actor, stream=False),
            "streamed_tools": tool_round_trip(client, actor, stream=True),
            "forced": forced(client, model),
            "thinking": thinking(client, actor),
            "stopped": stopped(client, actor),
            "parsed": parsed(client, model),
            "errors": errors(client, model, actor),
        }


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
