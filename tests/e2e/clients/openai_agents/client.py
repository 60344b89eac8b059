"""openai-agents over /v1/responses: a tool, a stream, a session on the server, a typed answer."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, BadRequestError
from pydantic import BaseModel

MODEL = "smollm2-135m-instruct"
QUESTION = "What is the weather in Paris?"
SETTINGS = ModelSettings(temperature=0, max_tokens=64)


class City(BaseModel):
    name: Literal["Paris", "London"]
    is_capital: bool


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def results(items: list[Any]) -> list[str]:
    return [item.output for item in items if item.type == "tool_call_output_item"]


async def in_one_go(agent: Agent[None]) -> dict[str, Any]:
    done = await Runner.run(agent, QUESTION)
    return {
        "text": done.final_output,
        "results": results(done.new_items),
        "num_requests": done.context_wrapper.usage.requests,
    }


async def streamed(agent: Agent[None]) -> dict[str, Any]:
    running = Runner.run_streamed(agent, QUESTION)
    pieces, steps = [], []
    async for event in running.stream_events():
        if event.type == "raw_response_event":
            if event.data.type == "response.output_text.delta":
                pieces.append(event.data.delta)
        elif event.type == "run_item_stream_event":
            steps.append(event.name)
    return {"text": "".join(pieces), "is_whole": running.final_output == "".join(pieces),
            "steps": steps}  # fmt: skip


async def on_the_server(agent: Agent[None]) -> dict[str, Any]:
    """The server keeps the conversation; each turn sends what is new."""
    first = await Runner.run(agent, QUESTION, auto_previous_response_id=True)
    second = await Runner.run(agent, "Thank you", previous_response_id=first.last_response_id)
    return {"text": first.final_output, "goes_on": second.last_response_id is not None}


async def refused(model: OpenAIResponsesModel) -> str | None:
    agent = Agent(name="bold", model=model, model_settings=ModelSettings(top_p=2.0))
    try:
        await Runner.run(agent, "Hello")
    except BadRequestError as exc:
        return exc.param
    return None


async def find(base_url: str, scripted_model: str) -> dict[str, Any]:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=base_url, api_key="any-key", max_retries=0)
    scripted = OpenAIResponsesModel(scripted_model, openai_client=client)
    real = OpenAIResponsesModel(MODEL, openai_client=client)
    agent = Agent(
        name="weather", instructions="Be brief.", model=scripted, tools=[get_weather],
        model_settings=SETTINGS,
    )  # fmt: skip
    typed = Agent(name="typed", model=real, output_type=City, model_settings=SETTINGS)
    return {
        "in_one_go": await in_one_go(agent),
        "streamed": await streamed(agent),
        "on_the_server": await on_the_server(agent),
        "typed": type((await Runner.run(typed, "Name a capital.")).final_output).__name__,
        "refused": await refused(real),
    }


def main() -> None:
    sys.stdout.write(json.dumps(asyncio.run(find(*sys.argv[1:]))))


if __name__ == "__main__":
    main()
