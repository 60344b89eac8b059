"""The openai SDK's helpers: parsed answers, stream events, tools, log-probs, several choices."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

import openai
from pydantic import BaseModel

MODEL = "smollm2-135m-instruct"
WEATHER = "What is the weather in Paris?"


class City(BaseModel):
    name: Literal["Paris", "London"]
    is_capital: bool


class GetWeather(BaseModel):
    """Tell the weather of a city."""

    city: str


TOOL = openai.pydantic_function_tool(GetWeather, name="get_weather")


def ask(text: str, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 64, **options}


def parsed(client: openai.OpenAI) -> dict[str, Any]:
    answer = client.chat.completions.parse(**ask("The capital of France?", response_format=City))
    city = answer.choices[0].message.parsed
    try:
        client.chat.completions.parse(**ask("A city?", response_format=City, max_tokens=1))
    except openai.LengthFinishReasonError as exc:
        cut_off = exc.completion.choices[0].finish_reason
    return {"city": type(city).__name__, "cut_off": cut_off}


def streamed(client: openai.OpenAI) -> dict[str, Any]:
    wanted = ask(
        "The capital of France?",
        response_format=City,
        logprobs=True,
        stream_options={"include_usage": True},
    )
    with client.chat.completions.stream(**wanted) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    message = final.choices[0].message
    deltas = [event.delta for event in events if event.type == "content.delta"]
    log_probs = [
        token.token
        for event in events
        if event.type == "logprobs.content.delta"
        for token in event.content
    ]
    return {
        "events": sorted({event.type for event in events}),
        "is_whole": "".join(deltas) == "".join(log_probs) == message.content,
        "city": type(message.parsed).__name__,
        "finish_reason": final.choices[0].finish_reason,
        "num_tokens": [len(log_probs), final.usage.completion_tokens],
    }


def forced_call(client: openai.OpenAI) -> dict[str, Any]:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.parse(**ask(WEATHER, tools=[TOOL], tool_choice=choice))
    (call,) = answer.choices[0].message.tool_calls
    return {
        "content": answer.choices[0].message.content,
        "arguments": type(call.function.parsed_arguments).__name__,
        "finish_reason": answer.choices[0].finish_reason,
    }


async def agent(base_url: str, model: str) -> dict[str, Any]:
    """A call, streamed; its result; the answer to that."""
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any-key") as client:
        wanted = ask(WEATHER, model=model, tools=[TOOL])
        async with client.chat.completions.stream(**wanted) as stream:
            events = [event async for event in stream]
            called = (await stream.get_final_completion()).choices[0]
        (call,) = called.message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        wanted["messages"] += [called.message, result]
        answer = await client.chat.completions.create(**wanted)
    pieces = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
    (done,) = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    return {
        "name": done.name,
        "city": call.function.parsed_arguments.city,
        "is_whole": "".join(e.arguments_delta for e in pieces) == done.arguments,
        "num_pieces": len(pieces),
        "finish_reasons": [called.finish_reason, answer.choices[0].finish_reason],
        "text": answer.choices[0].message.content,
    }


def log_probs(client: openai.OpenAI) -> dict[str, Any]:
    wanted = ask("What is the capital of France?", logprobs=True, top_logprobs=3, max_tokens=8)
    answer = client.chat.completions.create(**wanted)
    choice = answer.choices[0]
    tokens = choice.logprobs.content
    return {
        "is_whole": b"".join(bytes(t.bytes) for t in tokens) == choice.message.content.encode(),
        "num_tokens": [len(tokens), answer.usage.completion_tokens],
        "num_top": sorted({len(t.top_logprobs) for t in tokens}),
        "is_greedy": all(t.logprob == t.top_logprobs[0].logprob <= 0 for t in tokens),
    }


def choices(client: openai.OpenAI) -> dict[str, Any]:
    wanted = ask("Tell me a story.", n=2, seed=7, temperature=1, max_tokens=16)
    plain = client.chat.completions.create(**wanted)
    texts = ["", ""]
    for chunk in client.chat.completions.create(**wanted, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    return {"plain": [c.message.content for c in plain.choices], "streamed": texts}


def broken(client: openai.OpenAI, model: str) -> dict[str, Any]:
    """A stream whose engine fails in the middle."""
    texts = []
    try:
        wanted = ask("Please break off.", model=model, stream=True)
        for chunk in client.chat.completions.create(**wanted):
            texts.append(chunk.choices[0].delta.content or "")
    except openai.APIError as exc:
        return {"text": "".join(texts), "error": type(exc).__name__, "type": exc.type}
    return {}


def errors(client: openai.OpenAI) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    schema = {"name": "x", "schema": {"type": "no-such-type"}}
    bad: dict[str, dict[str, Any]] = {
        "image": {"messages": [{"role": "user", "content": [image]}]},
        "schema": {"response_format": {"type": "json_schema", "json_schema": schema}},
        "tool_choice": {"tool_choice": "required"},
        "top_logprobs": {"top_logprobs": 2},
        "unknown": {"extra_body": {"no_such_field": 1}},
    }
    found = {}
    for name, options in bad.items():
        try:
            client.chat.completions.create(**ask("Hello", **options))
        except openai.BadRequestError as exc:
            found[name] = exc.param
    return found


def main() -> None:
    base_url, scripted_model = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key="any-key", max_retries=0)
    found = {
        "parsed": parsed(client),
        "streamed": streamed(client),
        "forced_call": forced_call(client),
        "agent": asyncio.run(agent(base_url, scripted_model)),
        "log_probs": log_probs(client),
        "choices": choices(client),
        "broken": broken(client, scripted_model),
        "errors": errors(client),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
