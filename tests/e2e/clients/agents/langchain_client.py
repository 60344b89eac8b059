"""LangChain's ChatOpenAI and OpenAI, with the names of their settings that API.md promises."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Literal

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

MODEL = "smollm2-135m-instruct"
QUESTION = "What is the capital of France?"


class City(BaseModel):
    name: Literal["Paris", "London"]
    is_capital: bool


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def agent(model: ChatOpenAI) -> dict[str, Any]:
    """A call, streamed; its result; the answer to that."""
    with_tools = model.bind_tools([get_weather])
    messages: list[Any] = [HumanMessage("What is the weather in Paris?")]
    chunks = list(with_tools.stream(messages))
    called = sum(chunks[1:], start=chunks[0])
    results = [get_weather.invoke(call) for call in called.tool_calls]
    answer = with_tools.invoke([*messages, called, *results])
    return {
        "results": [r.content for r in results if isinstance(r, ToolMessage)],
        "finish_reason": called.response_metadata["finish_reason"],
        "text": answer.content,
    }


def structured(model: ChatOpenAI, method: str) -> dict[str, Any]:
    asking = model.with_structured_output(City, method=method, include_raw=True)
    answer = asking.invoke(QUESTION)
    return {"type": type(answer["parsed"]).__name__, "error": str(answer["parsing_error"])}


def completed(model: OpenAI) -> dict[str, Any]:
    """By OpenAI, which sends bare texts, several in one request."""
    prompts = ["The capital of France is", "One, two, three,"]
    result = model.generate(prompts)
    return {
        "texts": [generations[0].text for generations in result.generations],
        "usage": (result.llm_output or {})["token_usage"],
        "streamed": ["".join(model.stream(prompt)) for prompt in prompts],
    }


def refused(model: ChatOpenAI) -> str | None:
    try:
        model.invoke(QUESTION, top_p=2)
    except openai.BadRequestError as exc:
        return exc.param
    return None


def main() -> None:
    base_url, scripted_model = sys.argv[1:]
    settings: dict[str, Any] = {
        "openai_api_base": base_url,
        "openai_api_key": "any-key",
        "temperature": 0,
        "max_tokens": 48,
    }
    model = ChatOpenAI(model_name=MODEL, **settings)
    short = {**settings, "max_tokens": 12}
    plain = model.invoke(QUESTION)
    chunks = list(model.stream(QUESTION, stream_usage=True))
    found = {
        "plain": {
            "text": plain.content,
            "finish_reason": plain.response_metadata["finish_reason"],
            "usage": plain.response_metadata["token_usage"],
        },
        "stream": {
            "text": "".join(str(chunk.content) for chunk in chunks),
            "num_events": len(chunks),
            "usage": [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata],
        },
        "usage": plain.usage_metadata,
        "batch": [answer.content for answer in model.batch([QUESTION, QUESTION])],
        "async_text": asyncio.run(model.ainvoke(QUESTION)).content,
        "structured": {m: structured(model, m) for m in ("json_schema", "function_calling")},
        "agent": agent(ChatOpenAI(model_name=scripted_model, **settings)),
        "completed": completed(OpenAI(model_name=MODEL, **short)),
        "refused": refused(model),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
