"""pydantic-ai: agents with a tool, with structured output, and streamed."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

SETTINGS: dict[str, Any] = {"temperature": 0, "max_tokens": 64}


class City(BaseModel):
    name: Literal["Paris", "London"]
    is_capital: bool


class Weather(BaseModel):
    city: str
    is_sunny: bool


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


async def structured(model: OpenAIChatModel) -> dict[str, str]:
    """Both ways to ask for a City: a schema for the answer, and a tool that must be called."""
    found = {}
    for output in (NativeOutput(City), ToolOutput(City)):
        agent = Agent(model, output_type=output, model_settings=SETTINGS, retries=0)
        answer = await agent.run("What is the capital of France?")
        found[type(output).__name__] = type(answer.output).__name__
    return found


async def streamed(model: OpenAIChatModel) -> dict[str, Any]:
    agent = Agent(model, model_settings=SETTINGS)
    async with agent.run_stream("What is the capital of France?") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    plain = await agent.run("What is the capital of France?")
    return {
        "is_whole": "".join(pieces) == plain.output,
        "num_pieces": len(pieces),
        "num_output_tokens": [stream.usage.output_tokens, plain.usage.output_tokens],
    }


async def thoughts(model: OpenAIChatModel) -> list[list[str]]:
    """The kinds and texts of the answer's parts, plain and streamed."""
    agent = Agent(model, model_settings=SETTINGS)
    plain = await agent.run("What is the capital of France?")
    async with agent.run_stream("What is the capital of France?") as stream:
        await stream.get_output()
        answers = [plain.all_messages()[-1], stream.all_messages()[-1]]
    return [
        [f"{part.part_kind}: {part.content}" for part in answer.parts]
        for answer in answers
        if isinstance(answer, ModelResponse)
    ]


async def refused(model: OpenAIChatModel) -> dict[str, Any]:
    try:
        await Agent(model, model_settings={"top_p": 2.0}).run("Hello")
    except ModelHTTPError as exc:
        return {"status": exc.status_code, "param": exc.body["param"]}
    return {}


async def find(base_url: str, scripted_model: str, thinking_model: str) -> dict[str, Any]:
    provider = OpenAICompatibleProvider("inflight", base_url=base_url, api_key="any-key")
    model = OpenAIChatModel("smollm2-135m-instruct", provider=provider)
    scripted = OpenAIChatModel(scripted_model, provider=provider)
    talker = Agent(scripted, tools=[get_weather])
    reporter = Agent(scripted, tools=[get_weather], output_type=Weather)
    report = await reporter.run("What is the weather in Oslo?")
    talk = await talker.run("What is the weather in Paris?")
    return {
        "structured": await structured(model),
        "streamed": await streamed(model),
        "agent": {"text": talk.output, "num_requests": talk.usage.requests},
        "report": report.output.model_dump(),
        "thoughts": await thoughts(OpenAIChatModel(thinking_model, provider=provider)),
        "refused": await refused(model),
    }


def main() -> None:
    sys.stdout.write(json.dumps(asyncio.run(find(*sys.argv[1:]))))


if __name__ == "__main__":
    main()
